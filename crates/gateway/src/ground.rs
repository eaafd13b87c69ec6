//! What every IPsec engine stands on: namespaces, firewall guard, steering, links, path MTU, state directory, adoption.
//!
//! Netlink and nftables are used here and nowhere else, and nothing here knows which engine runs in a namespace. What
//! belongs to a tunnel is named after the instance and the tunnel's slot. Invariant: a tunnel's directory is made first and
//! removed last, so that after any interruption the next run finds all remains by the directories.

mod conntrack;
mod default_route;
mod error;
mod guard;
mod home_netns;
mod host_addresses;
mod host_firewall;
mod inner_packets;
mod known_peers;
mod link;
mod link_addresses;
mod namespace;
mod namespace_monitor;
mod nfnetlink;
mod nft;
mod path_mtu;
mod path_probe;
pub(crate) mod probe;
pub(crate) mod return_route;
mod rtnetlink_handle;
mod ruleset;
mod running_tunnel;
mod state_dir;
mod steering;
mod sysctl;
mod tool;
mod tunnel_handle;
mod unknown_peers;
mod unserved;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{info, warn};
use wicketgate_model::{ConnectionState, TunnelDesired, TunnelId};
use wicketgate_system::{Mutex, directory_lock::DirectoryLock};

pub use error::GroundError;
pub(crate) use error::NetworkError;
pub(crate) use host_addresses::is_own;
pub(crate) use host_firewall::drops_by_default;
use host_firewall::{HostFirewall, LINKS};
pub(crate) use inner_packets::InnerPackets;
pub(crate) use known_peers::KnownPeers;
use link_addresses::LinkAddresses;
pub(crate) use namespace::Namespace;
use namespace_monitor::NamespaceMonitor;
pub(crate) use path_probe::LatestClient;
pub(crate) use running_tunnel::RunningTunnel;
pub(crate) use state_dir::{StateDir, TunnelRecord};
use steering::{Steering, SteeringConfig};
pub(crate) use tunnel_handle::BACKLOG;
pub use tunnel_handle::TunnelHandle;
pub(crate) use unknown_peers::UnknownPeers;
pub(crate) use unserved::{MOST as MOST_UNSERVED, Unserved};
#[cfg(any(test, fuzzing))]
pub use {host_firewall::nft_counters, nft::fuzz::nft_set, ruleset::fuzz::netlink};

/// How long a new tunnel waits for its slot while the previous tunnel is being removed from it.
const SLOT_WAIT: Duration = Duration::from_secs(5);
const SLOT_POLL: Duration = Duration::from_millis(20);

/// See the module.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) state: StateDir,
    instance: u16,
    /// What peers dial.
    pub(crate) public_address: Ipv4Addr,
    pub(crate) packets: InnerPackets,
    _reserved: Vec<DirectoryLock>,
    steering: Steering,
    firewall: HostFirewall,
    pub(crate) known_peers: Arc<KnownPeers>,
    pub(crate) unknown_peers: Arc<UnknownPeers>,
    /// Tunnels of an earlier run. Their listeners are bound before everything about them was compared: with hundreds of
    /// tunnels that takes seconds, in which clients need not be refused.
    ///
    /// Invariant: an adopted tunnel has its namespace and the load balancer's address, and with them the guard that was
    /// applied before either, for the currently desired network of the site.
    adopted: Mutex<BTreeMap<TunnelId, Arc<TunnelHandle>>>,
}

/// A slot that is recorded as a tunnel's, with its namespace.
#[derive(Debug)]
pub(crate) struct ClaimedSlot {
    pub(crate) namespace: Namespace,
    /// The guard in the namespace is known to be this tunnel's.
    is_guarded: bool,
}

impl Ground {
    /// Finds the addresses, and replaces the steering rules of an earlier run.
    ///
    /// # Errors
    /// See [`GroundError`].
    pub(crate) async fn start(
        state: StateDir,
        instance: u16,
        public_address: Option<Ipv4Addr>,
        packets: InnerPackets,
    ) -> Result<Self, GroundError> {
        let default_source = probe::default_source();
        let public_address = public_address.or(default_source).ok_or(GroundError::NoPublicAddress)?;
        let is_local = host_addresses::is_own(public_address);
        if !is_local && default_source.is_some() {
            warn!(%public_address, "the public address is not on this host: assuming a NAT that translates it");
        }
        // Behind a 1:1 NAT, packets arrive at the host's own address and leave from it.
        let send_from = match default_source {
            _ if is_local => public_address,
            Some(source) => source,
            None => {
                let has = host_addresses::own_addresses().await?;
                return Err(GroundError::NotAnAddress { given: public_address, has });
            }
        };
        state.keep_instance(instance).map_err(|e| state.error(e))?;
        let arrive_at = BTreeSet::from([public_address, send_from]);
        let table = format!("{}{instance:04x}", nft::TABLES);
        let reserved = host_addresses::reserve(&arrive_at, &table).await?;
        home_netns::settle(&state.path)?;
        let steering = SteeringConfig {
            instance: format!("{instance:04x}"),
            arrive_at,
            send_from,
            raw_esp: packets == InnerPackets::SecurityPath,
            was_no_router: state.was_no_router().await?,
        };
        let records = state.records().map_err(|e| state.error(e))?;
        let inside = |record: &TunnelRecord| LinkAddresses::of(instance, record.slot).inside;
        let peers = records.iter().map(|record| (record.peer_address, inside(record))).collect();
        let steering = Steering::start(steering, peers).await?;
        let firewall = HostFirewall::new(table, links(instance));
        let known_peers = Arc::new(KnownPeers::load(state.known_peers()));
        Ok(Self {
            state,
            instance,
            public_address,
            packets,
            _reserved: reserved,
            steering,
            firewall,
            known_peers,
            unknown_peers: Arc::default(),
            adopted: Mutex::default(),
        })
    }

    /// The engine's own address in the namespace of a slot.
    pub(crate) fn inside(&self, slot: u16) -> Ipv4Addr {
        self.addresses(slot).inside
    }

    /// Slots with a directory and no record: a start or a removal was interrupted. No id leads to them.
    pub(crate) fn unrecorded(&self) -> Result<Vec<u16>, NetworkError> {
        let slots = self.state.slots().map_err(NetworkError::io("list the state directory"))?;
        Ok(slots.into_iter().filter(|slot| self.state.record(*slot).is_none()).collect())
    }

    /// The tunnel as an earlier run left it, if it is complete and unchanged.
    pub(crate) fn adopt(&self, desired: &TunnelDesired) -> Option<Arc<TunnelHandle>> {
        let record = self.state.record(desired.slot).filter(|r| *r == TunnelRecord::of(desired))?;
        let namespace = self.namespace(record.slot).ok()??;
        let tunnel = Arc::new(TunnelHandle::new(Some(namespace), desired.load_balancer_ip));
        // Its address may be missing.
        tunnel.bind(0).ok()?;
        self.adopted.lock().insert(record.id, Arc::clone(&tunnel));
        Some(tunnel)
    }

    /// Releases an adopted tunnel that its engine took over, or that is gone. It would keep its namespace alive.
    pub(crate) fn forget_adopted(&self, id: TunnelId) {
        self.adopted.lock().remove(&id);
    }

    /// Records the tunnel as the slot's, and makes its namespace.
    ///
    /// # Errors
    /// A sentence for `statusDetail`: another tunnel still has the slot, or the host refused a step.
    pub(crate) async fn claim(&self, desired: &TunnelDesired) -> Result<ClaimedSlot, String> {
        let peer = desired.peer_address;
        if self.steering.is_own(peer.get()) {
            return Err(format!(
                "peerPublicIp {peer} is the gateway's own: give the address of the site's device"
            ));
        }
        let deadline = Instant::now() + SLOT_WAIT;
        let before = loop {
            let record = self.state.record(desired.slot);
            match record.as_ref().filter(|other| other.id != desired.id) {
                None => break record,
                Some(_) if Instant::now() < deadline => tokio::time::sleep(SLOT_POLL).await,
                Some(TunnelRecord { slot, id, .. }) => {
                    // The tunnel may be another customer's: the sentence is for this one's.
                    info!(tunnel.id = %desired.id, slot, holder = %id, "a tunnel waits for the removal of another");
                    return Err(
                        "the gateway is still removing an earlier tunnel; this one is set up after that"
                            .to_owned(),
                    );
                }
            }
        };
        let record = TunnelRecord::of(desired);
        let is_guarded = before.as_ref() == Some(&record);
        let record = TunnelRecord { guarded: None, ..record };
        if !is_guarded && before.as_ref() != Some(&record) {
            self.state.write(&record)?;
        }
        let namespace = Namespace::ensure(&self.namespace_name(desired.slot)).await?;
        Ok(ClaimedSlot { namespace, is_guarded })
    }

    /// The running tunnel in a claimed slot, which may be empty. Its engine may be started before [`Ground::keep`]. An
    /// adopted tunnel keeps its listeners.
    pub(crate) async fn tunnel(
        &self,
        desired: &TunnelDesired,
        slot: &ClaimedSlot,
    ) -> Result<RunningTunnel, NetworkError> {
        // Before the adopted tunnel is taken, which is possible once: this may fail.
        let monitor = NamespaceMonitor::set_up(&slot.namespace).await?;
        let load_balancer = desired.load_balancer_ip;
        let adopted = self.adopted.lock().remove(&desired.id);
        let adopted = adopted.filter(|t| t.is_in(&slot.namespace) && t.load_balancer() == load_balancer);
        let new = || Arc::new(TunnelHandle::new(Some(slot.namespace.clone()), load_balancer));
        let handle = adopted.unwrap_or_else(new);
        Ok(RunningTunnel::new(desired.slot, handle, slot.namespace.clone(), monitor))
    }

    /// Brings guard, link and path MTU of a tunnel to what they should be.
    ///
    /// # Errors
    /// A sentence for `statusDetail`.
    pub(crate) async fn keep(
        &self,
        tunnel: &mut RunningTunnel,
        slot: &ClaimedSlot,
        desired: &TunnelDesired,
    ) -> Result<(), String> {
        tunnel.look_at_unserved();
        // The guard first: nothing reaches the namespace before it.
        tunnel.keep_guard(desired, self.packets).await?;
        if !slot.is_guarded {
            self.state.write(&TunnelRecord::of(desired))?;
        }
        self.keep_rest(tunnel, desired).await.map(drop)?;
        self.firewall.watch_tunnel(self.inside(desired.slot), &tunnel.handle);
        Ok(())
    }

    /// Compares a running tunnel with its desired state now, and restores what another program has changed. Returns what
    /// that was.
    ///
    /// # Errors
    /// A sentence for `statusDetail`.
    pub(crate) async fn compare(
        &self,
        tunnel: &mut RunningTunnel,
        desired: &TunnelDesired,
    ) -> Result<Vec<String>, String> {
        let named = self.namespace(desired.slot)?;
        if !named.is_some_and(|named| named.is_same(&tunnel.namespace)) {
            return Err(format!("the namespace {} was removed", self.namespace_name(desired.slot)));
        }
        tunnel.distrust();
        tunnel.look_at_unserved();
        tunnel.keep_guard(desired, self.packets).await?;
        let mut restored = self.keep_rest(tunnel, desired).await?;
        if self.steer(desired).await? {
            restored.push("the gateway's own packet rules, which steer the peer, were removed".to_owned());
        }
        Ok(restored)
    }

    async fn keep_rest(
        &self,
        tunnel: &mut RunningTunnel,
        desired: &TunnelDesired,
    ) -> Result<Vec<String>, String> {
        let (link, addresses) = (self.link_name(desired.slot), self.addresses(desired.slot));
        tunnel.keep_link(&link, addresses, desired.load_balancer_ip, self.packets).await?;
        let is_up = tunnel.handle.connection().borrow().state == ConnectionState::Up;
        if let Some(mtu) = tunnel.look_at_path(desired, is_up).await? {
            info!(tunnel.id = %desired.id, mtu, "path MTU to the peer changed");
            // A probe takes up to two seconds.
            tunnel.look_at_unserved();
            tunnel.keep_guard(desired, self.packets).await?;
        }
        if tunnel.handle.load_balancer() != desired.load_balancer_ip {
            // Listeners at the old address are deaf.
            tunnel.handle = Arc::new(tunnel.handle.moved_to(desired.load_balancer_ip));
        }
        tunnel.report_path();
        let restored = tunnel.take_restored();
        for what in &restored {
            warn!(tunnel.id = %desired.id, what, "another program has changed a tunnel's network: restored");
        }
        Ok(restored)
    }

    /// Steers the peer's packets to its tunnel. Returns whether the rules had been removed and are restored.
    pub(crate) async fn steer(&self, desired: &TunnelDesired) -> Result<bool, NetworkError> {
        self.steering.steer(Some(desired.peer_address.get()), self.inside(desired.slot)).await
    }

    /// Looks for ever whether the host's own firewall drops what is steered, see [`TunnelHandle::obstacle`].
    pub(crate) async fn watch_host(&self) {
        self.firewall.watch().await;
    }

    /// Looks now.
    pub(crate) async fn look_at_host(&self) -> Result<(), NetworkError> {
        self.firewall.look().await
    }

    /// Looks who sends IKE and is no peer. Returns whether that has changed.
    ///
    /// # Errors
    /// The packet rules cannot be read; they may have been removed.
    pub(crate) async fn look_at_unknown_peers(&self) -> Result<bool, NetworkError> {
        let is_changed = self.unknown_peers.look(self.steering.unknown().await?, Timestamp::now());
        let has_esp = self.unknown_peers.have_esp();
        self.unknown_peers.take_spis(if has_esp { self.steering.unknown_spis().await? } else { Vec::new() });
        Ok(is_changed)
    }

    /// The namespace of a slot, if it is there.
    pub(crate) fn namespace(&self, slot: u16) -> Result<Option<Namespace>, NetworkError> {
        Namespace::open(&self.namespace_name(slot))
    }

    /// Removes everything of a slot whose engine has ended.
    pub(crate) async fn clear(&self, slot: u16) -> Result<(), NetworkError> {
        self.firewall.forget_tunnel(self.inside(slot));
        self.steering.steer(None, self.inside(slot)).await?;
        link::remove(&self.link_name(slot)).await?;
        Namespace::remove(&self.namespace_name(slot)).await?;
        self.state.clear(slot).map_err(NetworkError::io("remove a tunnel's directory"))?;
        info!(namespace = self.namespace_name(slot), "the tunnel's namespace and rules are removed");
        Ok(())
    }

    /// Removes the gateway's own rules, when no tunnel is left. A host that did not forward packets before stops forwarding,
    /// unless another gateway on it needs it.
    pub(crate) async fn purge(&self) -> io::Result<()> {
        let is_restored = self.steering.purge().await.map_err(io::Error::other)?;
        home_netns::leave(&self.state.path)?;
        if is_restored { self.state.forget_forwarding() } else { Ok(()) }
    }

    fn addresses(&self, slot: u16) -> LinkAddresses {
        LinkAddresses::of(self.instance, slot)
    }

    /// The beginning of the names of tunnels' namespaces; their slots follow.
    pub(crate) fn namespaces(&self) -> String {
        format!("wicketgate-{:04x}", self.instance)
    }

    fn namespace_name(&self, slot: u16) -> String {
        format!("{}-{slot}", self.namespaces())
    }

    /// At most 12 of the 15 bytes that a link's name may have.
    fn link_name(&self, slot: u16) -> String {
        format!("{}{slot}", links(self.instance))
    }
}

/// The beginning of the names of tunnels' links.
fn links(instance: u16) -> String {
    format!("{LINKS}{instance:04x}-")
}
