//! The IPsec engines behind one type: what makes a tunnel's IKE and ESP.
//!
//! An engine compares what should be with what is: [`Backend::ensure`] may be called at any time and again, and adopts what
//! an earlier run of the same instance left. Dropping a [`Backend`] leaves every tunnel as it is. What is no engine's own
//! (namespaces, guard, links, adoption) is in `ground`, so that another engine needs a variant here and its own IKE only.

mod config;
mod off;
mod strongswan;

use std::{io, net::Ipv4Addr, sync::Arc};

use wicketgate_model::{EspMode, Problem, TunnelDesired, TunnelId};

pub use crate::ground::{GroundError, TunnelHandle};
pub use config::{IpsecConfig, IpsecError, IpsecMode};
use off::Off;
use strongswan::Strongswan;

/// A back end.
#[derive(Debug)]
pub enum Backend {
    Strongswan(Box<Strongswan>),
    Off(Off),
}

impl Backend {
    /// Whether this process has the rights and this machine the programs that a mode needs. Changes nothing.
    ///
    /// # Errors
    /// See [`IpsecError`].
    pub fn preflight(mode: IpsecMode) -> Result<(), IpsecError> {
        if mode == IpsecMode::Off { Ok(()) } else { strongswan::preflight() }
    }

    /// Looks at what the machine can do, and takes possession of the state directory.
    ///
    /// # Errors
    /// One clear line each, see [`IpsecError`].
    pub async fn start(config: IpsecConfig) -> Result<Self, IpsecError> {
        if config.mode == IpsecMode::Off {
            return Ok(Self::Off(Off::default()));
        }
        Ok(Self::Strongswan(Box::new(Strongswan::start(config).await?)))
    }

    pub fn esp(&self) -> EspMode {
        match self {
            Self::Strongswan(strongswan) => strongswan.esp(),
            Self::Off(_) => EspMode::Off,
        }
    }

    /// What peers dial; `None` without IPsec.
    pub fn public_address(&self) -> Option<Ipv4Addr> {
        match self {
            Self::Strongswan(strongswan) => Some(strongswan.public_address()),
            Self::Off(_) => None,
        }
    }

    /// Warns of what the machine is not well set up for, for a run that serves tunnels.
    pub(crate) fn advise(&self) {
        if let Self::Strongswan(strongswan) = self {
            strongswan.advise();
        }
    }

    /// The tunnels that are on this machine and that nobody has asked for since the start.
    ///
    /// # Errors
    /// The state directory can't be read.
    pub async fn left_over(&self) -> io::Result<Vec<TunnelId>> {
        match self {
            Self::Strongswan(strongswan) => strongswan.left_over().await,
            Self::Off(_) => Ok(Vec::new()),
        }
    }

    /// The tunnel as an earlier run left it, if it stands: listeners may be bound in it at once. [`Backend::ensure`] is still
    /// to be asked for it, and answers with the same.
    pub fn found(&self, tunnel: &TunnelDesired) -> Option<Arc<TunnelHandle>> {
        match self {
            Self::Strongswan(strongswan) => strongswan.found(tunnel),
            Self::Off(_) => None,
        }
    }

    /// Brings a tunnel to what it should be, from whatever is there. The same tunnel comes back for as long as what
    /// is bound in it stays valid.
    ///
    /// # Errors
    /// What to tell whoever made the tunnel. Worth another try.
    pub async fn ensure(&self, tunnel: &TunnelDesired) -> Result<Arc<TunnelHandle>, Problem> {
        match self {
            Self::Strongswan(strongswan) => strongswan.ensure(tunnel).await,
            Self::Off(off) => Ok(off.ensure(tunnel)),
        }
    }

    /// Leaves nothing of a tunnel. One that is not there is removed already.
    ///
    /// # Errors
    /// Something is left. Worth another try.
    pub async fn remove(&self, tunnel: TunnelId) -> io::Result<()> {
        match self {
            Self::Strongswan(strongswan) => strongswan.remove(tunnel).await,
            Self::Off(off) => {
                off.remove(tunnel);
                Ok(())
            }
        }
    }

    /// For the end of a run: what is there lives on, and is counted. Where nothing is, the gateway's own rules go.
    ///
    /// # Errors
    /// As [`Backend::purge`].
    pub async fn rest(&self) -> io::Result<usize> {
        match self {
            Self::Strongswan(strongswan) => strongswan.rest().await,
            Self::Off(_) => Ok(0),
        }
    }

    /// Removes every tunnel and the gateway's own rules. A host that forwarded no packets before does not any more,
    /// unless another gateway on it needs it to.
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
