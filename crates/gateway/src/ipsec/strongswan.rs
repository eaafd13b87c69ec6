//! Tunnels with strongSwan: one charon in each tunnel's namespace, driven over VICI.

mod charon;
mod conf;
mod confinement;
mod connection_view;
mod daemon;
mod fault;
mod initiation;
mod installation;
mod peer_fault;
mod stray_watch;
mod suite;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    sync::{Mutex, Semaphore},
    time::{Instant, timeout},
};
use tracing::{debug, warn};
use wicketgate_link::{IkeLogLine, TunnelCheck};
use wicketgate_model::{EspMode, Problem, Reason, ResetMode, ResetScope, TunnelDesired, TunnelId};

use super::{config::IpsecConfig, ike_log::IkeLog};
use crate::ground::{
    Ground, GroundError, InnerPackets, Namespace, NetworkError, RunningTunnel, StateDir, TunnelHandle, probe,
};
use charon::CharonHome;
use conf::CharonConfig;
use confinement::Confinement;
use daemon::Daemon;
#[cfg(any(test, fuzzing))]
pub use fault::fuzz::charon_fault;
pub(super) use installation::preflight;
pub(crate) use installation::{EspSupport, esp_support};

/// The receive buffer that charon's UDP socket should have with ESP in userland: a burst as long as a TCP window.
const RECEIVE_BUFFER: u64 = 4 << 20;

/// Tunnels that are started at a time, and daemons that are replaced. Each takes a tenth of a second of processor time, and a charon has to answer within
/// seconds: hundreds at once would all be late.
const STARTED_AT_ONCE: usize = 4;

/// For a check's look at a tunnel: it may have to wait for a step of the tunnel's own task.
const INSPECTED_WITHIN: Duration = Duration::from_secs(3);
/// For its look at the host's firewall. Without it, what was last seen holds.
const HOST_SEEN_WITHIN: Duration = Duration::from_secs(1);

/// The TUN device of strongSwan's kernel-libipsec.
const TUN: &str = "ipsec0";

/// See the module.
#[derive(Debug)]
pub struct Strongswan {
    pub(super) ground: Ground,
    pub(super) esp: EspMode,
    confinement: Confinement,
    tunnels: Mutex<BTreeMap<TunnelId, TunnelEntry>>,
    starts: Semaphore,
    /// Of daemons that ended or hang.
    replacements: Arc<Semaphore>,
}

#[derive(Debug, Clone, Default)]
struct TunnelEntry {
    /// Locked while the tunnel is worked on, so that tunnels do not wait for each other.
    tunnel: Arc<Mutex<Option<CharonTunnel>>>,
    /// The tunnel's, to be asked meanwhile.
    daemon: Arc<wicketgate_system::Mutex<Weak<Daemon>>>,
    log: Arc<IkeLog>,
}

/// A tunnel of this run, and the task that runs its charon.
#[derive(Debug)]
struct CharonTunnel {
    running: RunningTunnel,
    daemon: Arc<Daemon>,
    /// What the tunnel was last brought to, or is being brought to.
    desired: TunnelDesired,
}

/// The default receive buffer of sockets, if ESP in userland needs a larger one, and what to do.
pub(crate) fn small_receive_buffer() -> Option<(u64, String)> {
    let bytes = probe::receive_buffer().filter(|bytes| *bytes < RECEIVE_BUFFER)?;
    let advice = format!(
        "net.core.rmem_default is small for ESP in userland: bursts are dropped, and IKE with them; set it to \
         {RECEIVE_BUFFER} with sysctl (running tunnels use it after `wicketgate down`)"
    );
    Some((bytes, advice))
}

impl Strongswan {
    pub(super) async fn start(config: IpsecConfig) -> Result<Self, GroundError> {
        preflight()?;
        let IpsecConfig { mode, state_dir, public_address } = config;
        let state = StateDir::take(state_dir)?;
        let instance = state.instance().map_err(|e| state.error(e))?;
        let esp = installation::esp(mode, instance).await?;
        let packets = match esp {
            EspMode::Userland => InnerPackets::Device(TUN),
            EspMode::Kernel | EspMode::Off => InnerPackets::SecurityPath,
        };
        let confinement = Confinement::find(esp, instance, &state.path);
        let this = Self {
            confinement,
            ground: Ground::start(state, instance, public_address, packets).await?,
            esp,
            tunnels: Mutex::default(),
            starts: Semaphore::new(STARTED_AT_ONCE),
            replacements: Arc::new(Semaphore::new(STARTED_AT_ONCE)),
        };
        for slot in this.ground.unrecorded()? {
            this.clear(slot).await?;
        }
        Ok(this)
    }

    /// charon has no setting for the buffers of its sockets, in which IKE waits behind all of the tunnel's ESP.
    pub(super) fn advise(&self) {
        if self.esp == EspMode::Userland
            && let Some((bytes, advice)) = small_receive_buffer()
        {
            warn!(bytes, "{advice}");
        }
    }

    pub(super) async fn left_over(&self) -> io::Result<Vec<TunnelId>> {
        let tunnels = self.tunnels.lock().await;
        let found = self.ground.state.records()?.into_iter().map(|record| record.id);
        Ok(found.filter(|id| !tunnels.contains_key(id)).collect())
    }

    pub(super) async fn ensure(&self, desired: &TunnelDesired) -> Result<Arc<TunnelHandle>, Problem> {
        let entry = self.tunnels.lock().await.entry(desired.id).or_default().clone();
        let mut tunnel = entry.tunnel.lock().await;
        // The semaphore is never closed.
        let _turn = if tunnel.is_none() { self.starts.acquire().await.ok() } else { None };
        let started = Instant::now();
        let result = self.bring_up(&mut tunnel, &entry, desired).await;
        debug!(tunnel.id = %desired.id, elapsed_ms = started.elapsed().as_millis(), ok = result.is_ok(), "tunnel was checked");
        result.map_err(|message| Problem::new(Reason::TunnelFailed, message))
    }

    pub(super) async fn inspect(self: &Arc<Self>, id: TunnelId) -> TunnelCheck {
        let Some(entry) = self.tunnels.lock().await.get(&id).cloned() else { return TunnelCheck::default() };
        let Some(daemon) = entry.daemon.lock().upgrade() else { return TunnelCheck::default() };
        let looked = async {
            match timeout(HOST_SEEN_WITHIN, self.ground.look_at_host()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "a check could not look at the host's firewall"),
                Err(_) => debug!("a check did not wait for the look at the host's firewall"),
            }
            Ok(())
        };
        let steps = async { tokio::try_join!(daemon.ask(), looked, self.restore(entry.tunnel)) };
        let failed = |message| Some(Problem::new(Reason::TunnelFailed, message));
        match steps.await {
            Err(message) => TunnelCheck { problem: failed(message), connection: None },
            Ok((.., None)) => TunnelCheck::default(),
            Ok((.., Some((handle, restored)))) => {
                let restored = (!restored.is_empty()).then(|| restored.join(", "));
                let changed = restored.and_then(|restored| {
                    failed(format!(
                        "another program had changed the gateway's network: {restored}; the gateway has just restored it"
                    ))
                });
                let connection = Some(handle.connection().borrow().clone());
                TunnelCheck { problem: changed.or_else(|| handle.obstacle()), connection }
            }
        }
    }

    pub(super) async fn reset(
        &self,
        id: TunnelId,
        scope: ResetScope,
        mode: ResetMode,
    ) -> Result<String, String> {
        let daemon = self.tunnels.lock().await.get(&id).and_then(|entry| entry.daemon.lock().upgrade());
        match daemon {
            Some(daemon) => daemon.reset(scope, mode).await,
            None => Err("the tunnel is not set up at the gateway: see its statusDetail".to_owned()),
        }
    }

    pub(super) async fn ike_log(&self, id: TunnelId, after: u64) -> Vec<IkeLogLine> {
        self.tunnels.lock().await.get(&id).map(|entry| entry.log.after(after)).unwrap_or_default()
    }

    /// Restores what another program has changed, and returns what that was. In a task of its own, which has the tunnel for
    /// itself: it ends what it began, also if it takes longer than a check waits.
    async fn restore(
        self: &Arc<Self>,
        tunnel: Arc<Mutex<Option<CharonTunnel>>>,
    ) -> Result<Option<(Arc<TunnelHandle>, Vec<String>)>, String> {
        let compared = async {
            let (this, mut tunnel) = (Arc::clone(self), tunnel.lock_owned().await);
            let compared = tokio::spawn(async move {
                let Some(tunnel) = tunnel.as_mut() else { return Ok(None) };
                let restored = this.ground.compare(&mut tunnel.running, &tunnel.desired).await?;
                Ok(Some((Arc::clone(&tunnel.running.handle), restored)))
            });
            compared.await.map_err(|error| error.to_string())?
        };
        timeout(INSPECTED_WITHIN, compared).await.unwrap_or_else(|_| {
            Err(format!(
                "the gateway's kernel has not answered for {INSPECTED_WITHIN:?}, or a change takes longer"
            ))
        })
    }

    pub(super) async fn remove(&self, id: TunnelId) -> io::Result<()> {
        let entry = self.tunnels.lock().await.entry(id).or_default().clone();
        let mut entry = entry.tunnel.lock().await;
        if let Some(tunnel) = &*entry {
            tunnel.daemon.stop().await.map_err(io::Error::other)?;
        }
        *entry = None;
        for record in self.ground.state.records()?.into_iter().filter(|record| record.id == id) {
            self.clear(record.slot).await.map_err(io::Error::other)?;
        }
        self.ground.forget_adopted(id);
        self.tunnels.lock().await.remove(&id);
        Ok(())
    }

    pub(super) async fn rest(&self) -> io::Result<usize> {
        let tunnels = self.ground.state.records()?.len();
        if tunnels == 0 {
            self.purge().await?;
        }
        Ok(tunnels)
    }

    pub(super) async fn purge(&self) -> io::Result<()> {
        let running: Vec<_> = self.tunnels.lock().await.keys().copied().collect();
        let left = self.ground.state.records()?.into_iter().map(|record| record.id);
        for id in left.chain(running) {
            self.remove(id).await?;
        }
        self.ground.purge().await
    }

    /// The steps of [`Strongswan::ensure`]. An error is a sentence for `statusDetail`.
    async fn bring_up(
        &self,
        tunnel: &mut Option<CharonTunnel>,
        entry: &TunnelEntry,
        desired: &TunnelDesired,
    ) -> Result<Arc<TunnelHandle>, String> {
        let current = tunnel;
        if let Some(tunnel) = current.as_ref().filter(|t| t.running.slot != desired.slot) {
            tunnel.daemon.stop().await?;
            self.clear(tunnel.running.slot).await?;
            *current = None;
        }
        let slot = self.ground.claim(desired).await?;
        if let Some(tunnel) = current.take_if(|t| !t.running.namespace.is_same(&slot.namespace)) {
            // The namespace's name was removed: its processes and sockets can no longer be reached.
            tunnel.daemon.stop().await?;
        }
        let tunnel = match current {
            Some(tunnel) => {
                // An earlier removal gave up waiting for it. What is bound stays as it is.
                if tunnel.daemon.has_ended() {
                    tunnel.daemon = self.daemon(desired.slot, &tunnel.running, entry);
                }
                // Before any of it is applied: a check in between restores this.
                tunnel.desired.clone_from(desired);
                tunnel
            }
            // charon starts while the links are made: it finds the addresses by itself.
            none => {
                let running = self.ground.tunnel(desired, &slot).await?;
                let daemon = self.daemon(desired.slot, &running, entry);
                none.insert(CharonTunnel { running, daemon, desired: desired.clone() })
            }
        };
        *entry.daemon.lock() = Arc::downgrade(&tunnel.daemon);
        self.ground.keep(&mut tunnel.running, &slot, desired).await?;
        let inside = self.ground.inside(desired.slot);
        let config = CharonConfig::new(desired, self.esp, self.ground.public_address, inside);
        tunnel.daemon.configure(config).await?;
        self.ground.steer(desired).await?;
        self.ground.forget_adopted(desired.id);
        Ok(Arc::clone(&tunnel.running.handle))
    }

    fn daemon(&self, slot: u16, running: &RunningTunnel, entry: &TunnelEntry) -> Arc<Daemon> {
        let home = self.home(slot, running.namespace.clone());
        let peers = (Arc::clone(&self.ground.known_peers), Arc::clone(&self.ground.unknown_peers));
        let report = (Arc::clone(&running.handle), Arc::clone(&entry.log));
        Arc::new(Daemon::start(home, report, Arc::clone(&self.replacements), peers))
    }

    /// Ends the charon of a slot, and removes everything of the slot.
    async fn clear(&self, slot: u16) -> Result<(), NetworkError> {
        match self.ground.namespace(slot)? {
            Some(namespace) => self.home(slot, namespace).stop().await?,
            // The name is gone, or was made in another mount namespace. The namespace goes with its last process.
            None => charon::end(&self.ground.state.of_slot(slot), None).await?,
        }
        self.ground.clear(slot).await
    }

    fn home(&self, slot: u16, namespace: Namespace) -> CharonHome {
        CharonHome {
            dir: self.ground.state.of_slot(slot),
            namespace,
            conf: conf::file(self.esp),
            packets: self.ground.packets,
            cell: self.confinement.of_slot(slot),
        }
    }
}
