//! The IPsec engines behind one type: what makes a tunnel's IKE and ESP.
//!
//! An engine compares what should be with what is: [`Backend::ensure`] may be called at any time and again, and adopts what
//! an earlier run of the same instance left. Dropping a [`Backend`] leaves every tunnel as it is. What is no engine's own
//! (namespaces, guard, links, adoption) is in `ground`, so that another engine needs a variant here and its own IKE only.

mod config;
mod ike_log;
mod off;
mod outside_selectors;
mod stray_esp;
pub(crate) mod strongswan;

use std::{io, net::Ipv4Addr, sync::Arc};

use tracing::debug;
use wicketgate_link::{IkeLogLine, TunnelCheck};
use wicketgate_model::{EspMode, Problem, ResetMode, ResetScope, TunnelDesired, TunnelId, UnknownPeer};

pub use crate::ground::{GroundError, TunnelHandle};
pub use config::{IpsecConfig, IpsecMode};
use off::Off;
pub(crate) use outside_selectors::OutsideSelectors;
use strongswan::Strongswan;
#[cfg(any(test, fuzzing))]
pub use {ike_log::fuzz::ike_log_line, stray_esp::fuzz::esp_packet, strongswan::charon_fault};

/// A back end.
#[derive(Debug)]
pub enum Backend {
    Strongswan(Arc<Strongswan>),
    Off(Off),
}

impl Backend {
    /// Whether this process has the rights and this machine the programs that a mode needs. Changes nothing.
    ///
    /// # Errors
    /// See [`GroundError`].
    pub fn preflight(mode: IpsecMode) -> Result<(), GroundError> {
        if mode == IpsecMode::Off { Ok(()) } else { strongswan::preflight() }
    }

    /// Checks what the machine can do, and locks the state directory.
    ///
    /// # Errors
    /// One clear line each, see [`GroundError`].
    pub async fn start(config: IpsecConfig) -> Result<Self, GroundError> {
        if config.mode == IpsecMode::Off {
            return Ok(Self::Off(Off::default()));
        }
        Ok(Self::Strongswan(Arc::new(Strongswan::start(config).await?)))
    }

    pub fn esp(&self) -> EspMode {
        match self {
            Self::Strongswan(strongswan) => strongswan.esp,
            Self::Off(_) => EspMode::Off,
        }
    }

    /// What peers dial; `None` without IPsec.
    pub(crate) fn namespaces(&self) -> Option<String> {
        match self {
            Self::Strongswan(strongswan) => Some(strongswan.ground.namespaces()),
            Self::Off(_) => None,
        }
    }

    pub fn public_address(&self) -> Option<Ipv4Addr> {
        match self {
            Self::Strongswan(strongswan) => Some(strongswan.ground.public_address),
            Self::Off(_) => None,
        }
    }

    /// Looks who sends IKE and is no tunnel's peer. Returns all of them if that has changed.
    pub(crate) async fn unknown_peers(&self) -> Option<Vec<UnknownPeer>> {
        let Self::Strongswan(strongswan) = self else { return None };
        let ground = &strongswan.ground;
        match ground.look_at_unknown_peers().await {
            Ok(is_changed) => is_changed.then(|| ground.unknown_peers.all()),
            Err(error) => {
                // Removed rules are restored, and reported, elsewhere.
                debug!(%error, "cannot look for IKE of unknown peers");
                None
            }
        }
    }

    /// Warns about settings of the machine that limit a run with tunnels.
    pub(crate) fn advise(&self) {
        if let Self::Strongswan(strongswan) = self {
            strongswan.advise();
        }
    }

    /// The tunnels on this machine that were not asked for since the start.
    ///
    /// # Errors
    /// The state directory can't be read.
    pub async fn left_over(&self) -> io::Result<Vec<TunnelId>> {
        match self {
            Self::Strongswan(strongswan) => strongswan.left_over().await,
            Self::Off(_) => Ok(Vec::new()),
        }
    }

    /// The tunnel as an earlier run left it, if it is complete: listeners may be bound in it at once.
    /// [`Backend::ensure`] must still be called, and returns the same tunnel.
    pub fn found(&self, tunnel: &TunnelDesired) -> Option<Arc<TunnelHandle>> {
        match self {
            Self::Strongswan(strongswan) => strongswan.ground.adopt(tunnel),
            Self::Off(_) => None,
        }
    }

    /// Brings a tunnel to the desired state, from any state. Returns the same tunnel for as long as listeners bound in
    /// it stay valid.
    ///
    /// # Errors
    /// The problem for `statusDetail`. Worth a retry.
    pub async fn ensure(&self, tunnel: &TunnelDesired) -> Result<Arc<TunnelHandle>, Problem> {
        match self {
            Self::Strongswan(strongswan) => strongswan.ensure(tunnel).await,
            Self::Off(off) => Ok(off.ensure(tunnel)),
        }
    }

    /// The tunnel is disabled, and its peer's packets are those of no unknown one; `None`: it is not disabled.
    pub(crate) fn set_disabled(&self, tunnel: TunnelId, peer: Option<Ipv4Addr>) {
        if let Self::Strongswan(strongswan) = self {
            strongswan.ground.unknown_peers.set_disabled(tunnel, peer);
        }
    }

    /// Looks for ever whether the host lets tunnels' packets pass, and reports it with each tunnel.
    pub(crate) async fn watch_host(&self) {
        match self {
            Self::Strongswan(strongswan) => strongswan.ground.watch_host().await,
            Self::Off(_) => {}
        }
    }

    /// Compares the tunnel with the desired state of the last [`Backend::ensure`] now and asks its engine, within 3 s; an engine
    /// that does not answer is told after a second. Restores what another program has changed. Returns the connection, as far
    /// as the engine answers, and what a client could not pass until now.
    pub(crate) async fn inspect(&self, tunnel: TunnelId) -> TunnelCheck {
        match self {
            Self::Strongswan(strongswan) => strongswan.inspect(tunnel).await,
            Self::Off(_) => TunnelCheck::default(),
        }
    }

    /// Rekeys or restarts the tunnel's SAs, and waits for what is seen of that, 50 s at most.
    ///
    /// # Errors
    /// Why it failed, as a sentence for the execution.
    pub(crate) async fn reset(
        &self,
        tunnel: TunnelId,
        scope: ResetScope,
        mode: ResetMode,
    ) -> Result<String, String> {
        match self {
            Self::Strongswan(strongswan) => strongswan.reset(tunnel, scope, mode).await,
            Self::Off(_) => Err("the gateway runs without IPsec".to_owned()),
        }
    }

    /// The first lines of the tunnel's IKE log with a number above `after`.
    pub(crate) async fn ike_log(&self, tunnel: TunnelId, after: u64) -> Vec<IkeLogLine> {
        match self {
            Self::Strongswan(strongswan) => strongswan.ike_log(tunnel, after).await,
            Self::Off(_) => Vec::new(),
        }
    }

    /// Removes everything of a tunnel. A missing tunnel counts as removed.
    ///
    /// # Errors
    /// Something is left. Worth a retry.
    pub async fn remove(&self, tunnel: TunnelId) -> io::Result<()> {
        match self {
            Self::Strongswan(strongswan) => strongswan.remove(tunnel).await,
            Self::Off(off) => {
                off.remove(tunnel);
                Ok(())
            }
        }
    }

    /// For the end of a run: keeps the tunnels and returns their number. Without any, removes the gateway's own rules.
    ///
    /// # Errors
    /// As [`Backend::purge`].
    pub async fn rest(&self) -> io::Result<usize> {
        match self {
            Self::Strongswan(strongswan) => strongswan.rest().await,
            Self::Off(_) => Ok(0),
        }
    }

    /// Removes every tunnel and the gateway's own rules. A host that did not forward packets before stops forwarding,
    /// unless another gateway on it needs it.
    ///
    /// # Errors
    /// Something is left.
    pub async fn purge(&self) -> io::Result<()> {
        match self {
            Self::Strongswan(strongswan) => strongswan.purge().await,
            Self::Off(_) => Ok(()),
        }
    }
}
