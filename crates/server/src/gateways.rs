//! The gateways: one view, one link and one reconciler each for those that are linked to this server.
//!
//! `wicketgate up` has one gateway; at a server, gateways link and leave while it runs. Code outside of this folder finds the gateway of a tunnel or a share through
//! [`Gateways`], by the id that its row has, and does not depend on the number of gateways.

mod asking;
mod backlog;
mod certificate_desk;
pub(crate) mod directory;
pub(crate) mod environment_lists;
pub(crate) mod link;
pub(crate) mod link_table;
mod peer_state;
mod peers;
mod recent_connections;
pub(crate) mod reconciler;
mod rpc;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{Arc, OnceLock},
};

use wicketgate_model::{Detail, EspMode, GatewayId, LocationId, Problem, Reason, ShareId, TunnelId};
use wicketgate_store::{GatewayFacts, ShareRow};
use wicketgate_system::Latest;

pub(crate) use backlog::ReportKind;
pub use directory::GatewayDirectory;
pub(crate) use peer_state::PeerState;
pub(crate) use peers::{PeerQuestion, Peers, Strangers};
pub(crate) use recent_connections::NotServed;
pub use rpc::GatewayRpc;
pub(crate) use rpc::TooManyChecks;
pub use view::SharedView;
pub(crate) use view::{GatewayView, retry_until_written};

/// One gateway, for the API and the metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LinkedGateway {
    pub location: LocationId,
    pub view: Arc<SharedView>,
    pub rpc: GatewayRpc,
}

impl LinkedGateway {
    /// One that stops does not.
    fn answers(&self) -> bool {
        !self.view.lock().is_draining
    }
}

/// All gateways: those that are linked to this server, and what the database knows of each. Cheap to clone.
///
/// What a gateway has told of itself is known of its link first, and else of the database, so also before it has linked.
#[derive(Debug, Clone, Default)]
pub struct Gateways {
    linked: Arc<Latest<BTreeMap<GatewayId, LinkedGateway>>>,
    directory: GatewayDirectory,
    /// The way to the gateways that are linked to other servers; empty without other servers.
    peers: Arc<OnceLock<Peers>>,
}

impl FromIterator<(GatewayId, LinkedGateway)> for Gateways {
    fn from_iter<T: IntoIterator<Item = (GatewayId, LinkedGateway)>>(linked: T) -> Self {
        Self {
            linked: Arc::new(Latest::new(linked.into_iter().collect())),
            directory: GatewayDirectory::default(),
            peers: Arc::default(),
        }
    }
}

impl Gateways {
    /// With what the database knows of them, and of others.
    pub fn in_directory(self, directory: GatewayDirectory) -> Self {
        Self { directory, ..self }
    }

    /// From now on, requests about gateways that are linked to other servers are passed to these.
    pub(crate) fn with_others(&self, peers: Peers) {
        let _ = self.peers.set(peers);
    }

    /// Those that are linked to this server, by their ids.
    pub(crate) fn linked_now(&self) -> Arc<BTreeMap<GatewayId, LinkedGateway>> {
        self.linked.get()
    }

    /// A link begins: it takes the place of the one before.
    pub(crate) fn link(&self, id: GatewayId, gateway: LinkedGateway) {
        self.linked.change(|linked| {
            let mut linked = linked.clone();
            linked.insert(id, gateway);
            linked
        });
    }

    /// The link with this view has ended.
    fn unlink(&self, id: GatewayId, view: &Arc<SharedView>) {
        self.linked.change(|linked| {
            let mut linked = linked.clone();
            if linked.get(&id).is_some_and(|gateway| Arc::ptr_eq(&gateway.view, view)) {
                linked.remove(&id);
            }
            linked
        });
    }

    /// Whether there is more than one gateway, here or elsewhere.
    pub(crate) fn are_several(&self) -> bool {
        let (directory, linked) = (self.directory.get(), self.linked_now());
        let elsewhere = linked.keys().filter(|id| !directory.contains_key(id)).count();
        directory.len() + elsewhere > 1
    }

    /// Wakes the reconcilers: after every accepted write.
    pub(crate) fn wake(&self) {
        self.linked_now().values().for_each(|gateway| gateway.view.wake());
    }

    /// The sites that have gateways, in alphabetical order.
    pub(crate) fn locations(&self) -> Vec<LocationId> {
        let directory = self.directory.get();
        let known = directory.values().filter_map(|row| row.location.clone());
        let linked = self.linked_now();
        let linked = linked.values().map(|gateway| gateway.location.clone());
        let mut locations: Vec<_> = linked.chain(known).collect();
        locations.sort_unstable();
        locations.dedup();
        locations
    }

    /// A gateway that is linked to this server.
    pub(crate) fn linked(&self, gateway: Option<GatewayId>) -> Option<LinkedGateway> {
        self.linked_now().get(&gateway?).cloned()
    }

    /// A gateway that is linked to this server and answers: one that stops does not.
    fn answering(&self, gateway: Option<GatewayId>) -> Option<LinkedGateway> {
        self.linked(gateway).filter(LinkedGateway::answers)
    }

    /// What a gateway has told of itself.
    fn facts(&self, gateway: GatewayId) -> Option<GatewayFacts> {
        let told = self.linked(Some(gateway)).and_then(|linked| linked.view.lock().facts());
        told.or_else(|| Some(self.directory.get().get(&gateway)?.facts.clone()))
    }

    /// The gateways of a location.
    fn at(&self, location: &LocationId) -> BTreeSet<GatewayId> {
        let linked = self.linked_now();
        let linked = linked.iter().filter(|(_, gateway)| gateway.location == *location);
        let directory = self.directory.get();
        let known = directory.values().filter(|row| row.location.as_ref() == Some(location));
        linked.map(|(id, _)| *id).chain(known.map(|row| row.id)).collect()
    }

    /// How many tunnels the gateways of a location have room for; `None` if that is not known of one of them.
    pub(crate) fn max_tunnels_at(&self, location: &LocationId) -> Option<u32> {
        let most = |id| self.facts(id)?.max_tunnels;
        self.at(location).into_iter().map(most).try_fold(0_u32, |sum, most| Some(sum.saturating_add(most?)))
    }

    /// What remote sites dial at a location.
    pub(crate) fn public_addresses_at(&self, location: &LocationId) -> Vec<Ipv4Addr> {
        self.at(location).into_iter().filter_map(|id| self.public_address_of(Some(id))).collect()
    }

    /// The gateways that remote sites dial at one of these addresses.
    pub(crate) fn with_address(&self, is_wanted: impl Fn(Ipv4Addr) -> bool) -> Vec<GatewayId> {
        let all: BTreeSet<_> =
            self.linked_now().keys().copied().chain(self.directory.get().keys().copied()).collect();
        let is_found = |id: &GatewayId| self.public_address_of(Some(*id)).is_some_and(&is_wanted);
        all.into_iter().filter(is_found).collect()
    }

    /// The URL that agents dial: of a gateway that is linked here and has told one, or else of another.
    pub(crate) fn agent_url(&self) -> Option<String> {
        let linked: Vec<_> = self.linked_now().keys().copied().collect();
        let known: Vec<_> = self.directory.get().keys().copied().collect();
        linked.into_iter().chain(known).find_map(|id| self.facts(id)?.agent_url)
    }

    /// Where ESP is done at a gateway; `None` until it has reported it.
    pub(crate) fn esp_of(&self, gateway: Option<GatewayId>) -> Option<EspMode> {
        self.facts(gateway?)?.esp
    }

    /// What remote sites dial at a gateway; `None` without IPsec.
    pub(crate) fn public_address_of(&self, gateway: Option<GatewayId>) -> Option<Ipv4Addr> {
        self.facts(gateway?)?.public_address
    }

    /// The network namespace of the tunnel in this slot of a gateway's location; `None` without IPsec.
    pub(crate) fn namespace_of(&self, gateway: Option<GatewayId>, slot: u16) -> Option<String> {
        self.facts(gateway?)?.namespaces.map(|names| format!("{names}-{slot}"))
    }

    /// Why the share cannot be reached from the site now; `None` if it can, or if that is not known.
    pub(crate) fn peer_problem(&self, share: &ShareRow) -> Option<Detail> {
        let (gateway, tunnel) = (self.linked(share.gateway)?, share.spec.tunnel);
        if self.are_several() && self.may_pass_elsewhere(share) {
            return None;
        }
        let view = gateway.view.lock();
        let problem = PeerState::of(&view, tunnel)?.problem(&share.tunnel_name)?;
        let connection = &view.observed.tunnels.get(&tunnel)?.connection;
        Some(Detail { problem, since: connection.passes_since() })
    }

    /// Whether the share's site may be connected to another gateway than the first one of its tunnel.
    fn may_pass_elsewhere(&self, share: &ShareRow) -> bool {
        let linked = self.linked_now();
        // What another server's gateway sees is not known here.
        self.at(&share.location).into_iter().filter(|id| Some(*id) != share.gateway).any(|id| {
            linked.get(&id).is_none_or(|gateway| {
                PeerState::of(&gateway.view.lock(), share.spec.tunnel).is_some_and(|peer| peer.passes)
            })
        })
    }

    /// The tunnels whose shares have such a problem.
    pub(crate) fn lost_peers(&self) -> Vec<TunnelId> {
        let (mut lost, mut passing) = (BTreeSet::new(), BTreeSet::new());
        for gateway in self.linked_now().values() {
            let view = gateway.view.lock();
            for id in view.observed.tunnels.keys() {
                match PeerState::of(&view, *id) {
                    Some(peer) if peer.passes => drop(passing.insert(*id)),
                    Some(_) => drop(lost.insert(*id)),
                    None => {}
                }
            }
        }
        // One that another gateway serves, too.
        lost.difference(&passing).copied().collect()
    }

    /// How many connections the share's problem is about.
    pub(crate) fn not_served(
        &self,
        gateway: Option<GatewayId>,
        share: ShareId,
        problem: Reason,
    ) -> Option<NotServed> {
        self.linked(gateway)?.view.lock().recent.not_served(share, problem)
    }

    /// The share's target does not answer clients: what is told of it, and how many connections it is about.
    pub(crate) fn unanswered(&self, gateway: Option<GatewayId>, share: ShareId) -> Option<(Problem, u64)> {
        const UNANSWERED: Reason = Reason::ConnectionsUnanswered;
        let gateway = self.linked(gateway)?;
        let view = gateway.view.lock();
        let problem = view.recent.problem(share).filter(|problem| problem.reason == UNANSWERED)?;
        Some((problem, view.recent.not_served(share, UNANSWERED)?.count))
    }
}
