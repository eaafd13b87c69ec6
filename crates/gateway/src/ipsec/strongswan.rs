//! Tunnels with strongSwan: each a namespace with a charon of its own, and a place in the steering rules.
//!
//! What belongs to a tunnel is named after the instance and the tunnel's slot, and its directory is made first and
//! removed last: whatever happens in between, the next run finds all that is left by the directories.

mod adopted;
mod charon;
mod conf;
mod connection_view;
mod daemon;
mod fault;
mod initiation;
mod path_mtu;
mod running_tunnel;
mod state_dir;
mod suite;

use std::{collections::BTreeMap, io, net::Ipv4Addr, sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, Semaphore},
    time::Instant,
};
use tracing::{debug, info, warn};
use wicketgate_model::{Problem, Reason, TunnelDesired, TunnelId};

use super::{IpsecConfig, IpsecError, Place, Tunnel, TunnelReporter, home_netns, probe};
use crate::netns::{
    Namespace, NetnsError,
    guard::EspPath,
    link::{self, LinkAddresses},
    namespace_monitor::NamespaceMonitor,
    steering::{Steering, SteeringConfig},
};
use adopted::AdoptedTunnels;
use charon::CharonHome;
use conf::CharonConfig;
use daemon::Daemon;
use running_tunnel::RunningTunnel;
use state_dir::{StateDir, TunnelRecord};

/// A slot's last tunnel is being removed while the next one is wished for.
const SLOT_WAIT: Duration = Duration::from_secs(5);
const SLOT_POLL: Duration = Duration::from_millis(20);

/// What a daemon's UDP socket should hold where ESP is in userland: a burst of a TCP window's length on a fast line.
const RECEIVE_BUFFER: u64 = 4 << 20;

/// Tunnels that are brought up at a time for the first time in a run. Each takes a tenth of a second of a processor, and
/// a daemon has some seconds to start: hundreds at once would all be late.
const STARTED_AT_ONCE: usize = 4;

/// See the module.
#[derive(Debug)]
pub struct Strongswan {
    state: StateDir,
    instance: u16,
    esp: EspPath,
    public_address: Ipv4Addr,
    steering: Steering,
    /// An entry is locked while its tunnel is worked on, so that tunnels don't wait for each other.
    tunnels: Mutex<BTreeMap<TunnelId, Arc<Mutex<Option<RunningTunnel>>>>>,
    starts: Semaphore,
    found: AdoptedTunnels,
}

impl Strongswan {
    pub(super) async fn start(config: IpsecConfig) -> Result<Self, IpsecError> {
        probe::preflight()?;
        let IpsecConfig { mode, state_dir, public_address } = config;
        let state = StateDir::take(state_dir)?;
        let instance = state.instance().map_err(|e| state.error(e))?;
        let esp = probe::esp(mode, &format!("{instance:04x}")).await?;

        let default_source = probe::default_source();
        let public_address = public_address.or(default_source).ok_or(IpsecError::NoPublicAddress)?;
        let is_local = link::is_own(public_address);
        if !is_local && default_source.is_some() {
            warn!(%public_address, "no address of this host: taken for one that a NAT in front of it translates; sites are told to dial it");
        }
        // Behind a 1:1 NAT packets come to the host's own address, and leave from it.
        let send_from = match default_source {
            _ if is_local => public_address,
            Some(source) => source,
            None => {
                let has = link::own_addresses().await?.into_iter().collect();
                return Err(IpsecError::NotAnAddress { given: public_address, has });
            }
        };
        home_netns::settle(state.path())?;
        let steering = SteeringConfig {
            instance: format!("{instance:04x}"),
            arrive_at: [public_address, send_from].into(),
            send_from,
            raw_esp: esp == EspPath::Kernel,
            was_no_router: state.was_no_router().await?,
        };
        let records = state.records().map_err(|e| state.error(e))?;
        let peers =
            records.iter().map(|r| (r.peer_address, LinkAddresses::of(instance, r.slot).inside)).collect();
        let steering = Steering::start(steering, peers).await?;
        let this = Self {
            state,
            instance,
            esp,
            public_address,
            steering,
            tunnels: Mutex::default(),
            starts: Semaphore::new(STARTED_AT_ONCE),
            found: AdoptedTunnels::default(),
        };
        this.clear_unrecorded().await?;
        Ok(this)
    }

    pub(super) fn esp(&self) -> EspPath {
        self.esp
    }

    /// charon has no setting for its sockets' queues, in which IKE waits behind all of the tunnel's ESP.
    pub(super) fn advise(&self) {
        if self.esp == EspPath::Userland
            && let Some(bytes) = probe::receive_buffer().filter(|bytes| *bytes < RECEIVE_BUFFER)
        {
            warn!(
                bytes,
                "net.core.rmem_default is small for ESP in userland, where bursts are dropped, and IKE with them: set it \
                 to {RECEIVE_BUFFER} with sysctl; tunnels that stand take it over after `wicketgate down`"
            );
        }
    }

    pub(super) fn public_address(&self) -> Ipv4Addr {
        self.public_address
    }

    pub(super) async fn left_over(&self) -> io::Result<Vec<TunnelId>> {
        let tunnels = self.tunnels.lock().await;
        let found = self.state.records()?.into_iter().map(|r| r.id);
        Ok(found.filter(|id| !tunnels.contains_key(id)).collect())
    }

    pub(super) fn found(&self, desired: &TunnelDesired) -> Option<Arc<Tunnel>> {
        let record = self.state.record(desired.slot).filter(|record| *record == TunnelRecord::of(desired))?;
        let namespace = Namespace::open(&self.namespace(record.slot)).ok()??;
        self.found.stand(record.id, namespace, desired.load_balancer_ip)
    }

    pub(super) async fn ensure(&self, desired: &TunnelDesired) -> Result<Arc<Tunnel>, Problem> {
        let entry = Arc::clone(self.tunnels.lock().await.entry(desired.id).or_default());
        let mut entry = entry.lock().await;
        // Nobody closes it.
        let _turn = if entry.is_none() { self.starts.acquire().await.ok() } else { None };
        let started = Instant::now();
        let result = self.bring_up(&mut entry, desired).await;
        debug!(tunnel.id = %desired.id, elapsed_ms = started.elapsed().as_millis(), ok = result.is_ok(), "tunnel was brought up");
        result.map_err(|message| Problem::new(Reason::TunnelFailed, message))
    }

    pub(super) async fn remove(&self, id: TunnelId) -> io::Result<()> {
        let entry = Arc::clone(self.tunnels.lock().await.entry(id).or_default());
        let mut entry = entry.lock().await;
        if let Some(running) = &*entry {
            running.daemon.stop().await.map_err(io::Error::other)?;
        }
        *entry = None;
        for record in self.state.records()?.into_iter().filter(|r| r.id == id) {
            self.clear(record.slot).await.map_err(io::Error::other)?;
        }
        self.found.forget(id);
        self.tunnels.lock().await.remove(&id);
        Ok(())
    }

    pub(super) async fn rest(&self) -> io::Result<usize> {
        let tunnels = self.state.records()?.len();
        if tunnels == 0 {
            self.purge().await?;
        }
        Ok(tunnels)
    }

    pub(super) async fn purge(&self) -> io::Result<()> {
        let running: Vec<_> = self.tunnels.lock().await.keys().copied().collect();
        let left = self.state.records()?.into_iter().map(|r| r.id);
        for id in left.chain(running) {
            self.remove(id).await?;
        }
        let is_as_it_was = self.steering.purge().await.map_err(io::Error::other)?;
        home_netns::leave(self.state.path())?;
        if is_as_it_was {
            self.state.forget_forwarding()?;
        }
        Ok(())
    }

    /// The steps of [`Strongswan::ensure`]. An error is a sentence for whoever made the tunnel.
    async fn bring_up(
        &self,
        entry: &mut Option<RunningTunnel>,
        desired: &TunnelDesired,
    ) -> Result<Arc<Tunnel>, String> {
        if let Some(running) = entry.as_ref().filter(|s| s.slot != desired.slot) {
            running.daemon.stop().await?;
            self.clear(running.slot).await.map_err(|e| e.to_string())?;
            *entry = None;
        }
        let slot = desired.slot;
        let is_guarded = self.claim(desired).await?;
        let namespace = Namespace::ensure(&self.namespace(slot)).await.map_err(|e| e.to_string())?;
        if entry.as_ref().is_some_and(|s| !s.namespace.is_same(&namespace)) {
            // Somebody removed the namespace's name; its processes and sockets are out of anybody's reach.
            if let Some(running) = entry.take() {
                running.daemon.stop().await?;
            }
        }
        let running = match entry {
            Some(running) => {
                // It was told to stop by somebody who did not wait for it. What is bound stays as it is.
                if running.daemon.has_ended() {
                    running.daemon =
                        Daemon::start(self.home(slot, namespace.clone()), Arc::clone(&running.report));
                }
                running
            }
            // charon starts while the links are made: it finds the addresses by itself.
            none => none.insert(self.running(desired, &namespace).await.map_err(|e| e.to_string())?),
        };
        let addresses = LinkAddresses::of(self.instance, slot);
        let peer = desired.peer_address.get();
        let load_balancer = desired.load_balancer_ip;
        // The guard first: nothing reaches the namespace before it.
        running.keep_guard(desired, self.esp).await.map_err(|e| e.to_string())?;
        if !is_guarded {
            self.state.write(&TunnelRecord::of(desired))?;
        }
        running.keep_link(&self.link(slot), addresses, load_balancer).await.map_err(|e| e.to_string())?;
        if let Some(bears) = running.look_at_path(peer).map_err(|e| e.to_string())? {
            info!(tunnel.id = %desired.id, bears, "the path to the peer bears other packets than before");
            running.keep_guard(desired, self.esp).await.map_err(|e| e.to_string())?;
        }
        if running.tunnel.load_balancer() != desired.load_balancer_ip {
            running.tunnel = running.report.tunnel(Place::Namespace(namespace), desired.load_balancer_ip);
        }
        running
            .daemon
            .configure(CharonConfig::new(desired, self.esp, self.public_address, addresses.inside))
            .await?;
        self.steering.steer(peer, addresses.inside).await.map_err(|e| e.to_string())?;
        self.found.forget(desired.id);
        Ok(Arc::clone(&running.tunnel))
    }

    async fn running(
        &self,
        desired: &TunnelDesired,
        namespace: &Namespace,
    ) -> Result<RunningTunnel, NetnsError> {
        let home = self.home(desired.slot, namespace.clone());
        // It may fail; what was found is taken once, and listeners are bound by it.
        let monitor = NamespaceMonitor::set_up(namespace).await?;
        let found = self.found.take(desired.id, namespace, desired.load_balancer_ip);
        let (report, tunnel) = found.unwrap_or_else(|| {
            let report = Arc::new(TunnelReporter::new(jiff::Timestamp::now()));
            let tunnel = report.tunnel(Place::Namespace(namespace.clone()), desired.load_balancer_ip);
            (report, tunnel)
        });
        Ok(RunningTunnel::start(desired.slot, home, monitor, report, tunnel))
    }

    /// Writes down whose the slot is, before there is anything of it. Answers whether the guard is known to be the tunnel's.
    async fn claim(&self, desired: &TunnelDesired) -> Result<bool, String> {
        let deadline = Instant::now() + SLOT_WAIT;
        let before = loop {
            let record = self.state.record(desired.slot);
            match &record {
                Some(other) if other.id != desired.id && Instant::now() < deadline => {
                    tokio::time::sleep(SLOT_POLL).await;
                }
                Some(other) if other.id != desired.id => {
                    return Err(format!(
                        "slot {} still belongs to {}: waiting for its removal",
                        other.slot, other.id
                    ));
                }
                _ => break record,
            }
        };
        let record = TunnelRecord::of(desired);
        let is_guarded = before.as_ref() == Some(&record);
        let record = TunnelRecord { guarded: None, ..record };
        if !is_guarded && before.as_ref() != Some(&record) {
            self.state.write(&record)?;
        }
        Ok(is_guarded)
    }

    /// Leaves nothing of a slot.
    async fn clear(&self, slot: u16) -> Result<(), NetnsError> {
        let name = self.namespace(slot);
        match Namespace::open(&name)? {
            Some(namespace) => self.home(slot, namespace).stop().await?,
            // Its name is gone, or was made in mounts that are somebody else's. It goes with its last process.
            None => charon::end(&self.state.of_slot(slot), None).await?,
        }
        self.steering.release(LinkAddresses::of(self.instance, slot).inside).await?;
        link::remove(&self.link(slot)).await?;
        Namespace::remove(&name).await?;
        self.state.clear(slot).map_err(NetnsError::io("remove a tunnel's directory"))?;
        info!(slot, "nothing is left of a tunnel");
        Ok(())
    }

    /// Directories without a record: a start or a removal that was cut short. Nobody can ask for them by an id.
    async fn clear_unrecorded(&self) -> Result<(), NetnsError> {
        let listing = NetnsError::io("list the state directory");
        for slot in self.state.slots().map_err(listing)? {
            if self.state.record(slot).is_none() {
                self.clear(slot).await?;
            }
        }
        Ok(())
    }

    fn home(&self, slot: u16, namespace: Namespace) -> CharonHome {
        CharonHome { dir: self.state.of_slot(slot), namespace, conf: conf::file(self.esp) }
    }

    fn namespace(&self, slot: u16) -> String {
        format!("wicketgate-{:04x}-{slot}", self.instance)
    }

    /// At most 12 of the 15 bytes that a link's name may have.
    fn link(&self, slot: u16) -> String {
        format!("wg{:04x}-{slot}", self.instance)
    }
}
