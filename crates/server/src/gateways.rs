//! The gateways that are linked to this server: one view, one link and one reconciler each.
//!
//! `wicketgate up` has one gateway. Code outside of this folder finds the gateway of a tunnel or a share through
//! [`Gateways`] by location, and does not depend on the number of gateways.

mod backlog;
mod certificate_desk;
pub(crate) mod link;
mod peer_state;
mod recent_connections;
pub(crate) mod reconciler;
mod rpc;
mod view;

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use futures_util::future;
use wicketgate_link::{AgentShares, IkeLogLine, ShareCheck};
use wicketgate_model::{
    AgentId, Detail, EspMode, GatewayId, LocationId, Problem, Reason, ResetMode, ResetScope, ShareId,
    TunnelId,
};
use wicketgate_store::ShareRow;

pub(crate) use backlog::ReportKind;
pub(crate) use peer_state::PeerState;
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

/// All gateways of this server, by id. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gateways(Arc<BTreeMap<GatewayId, LinkedGateway>>);

impl FromIterator<(GatewayId, LinkedGateway)> for Gateways {
    fn from_iter<T: IntoIterator<Item = (GatewayId, LinkedGateway)>>(gateways: T) -> Self {
        Self(Arc::new(gateways.into_iter().collect()))
    }
}

impl Gateways {
    pub(crate) fn all(&self) -> impl Iterator<Item = &LinkedGateway> {
        self.0.values()
    }

    /// Wakes the reconcilers: after every accepted write.
    pub(crate) fn wake(&self) {
        self.all().for_each(|gateway| gateway.view.wake());
    }

    /// The sites that have gateways, in alphabetical order.
    pub(crate) fn locations(&self) -> Vec<&LocationId> {
        let mut locations: Vec<_> = self.all().map(|gateway| &gateway.location).collect();
        locations.sort_unstable();
        locations.dedup();
        locations
    }

    /// The gateway of a location.
    pub(crate) fn at(&self, location: &LocationId) -> Option<&LinkedGateway> {
        self.all().find(|gateway| gateway.location == *location)
    }

    /// Where ESP is done at a location; `None` until its gateway has reported it.
    pub(crate) fn esp_at(&self, location: &LocationId) -> Option<EspMode> {
        self.at(location)?.view.lock().esp()
    }

    /// What remote sites dial at a location; `None` without IPsec.
    pub(crate) fn public_address_at(&self, location: &LocationId) -> Option<Ipv4Addr> {
        self.at(location)?.view.lock().public_address()
    }

    /// The network namespace of the tunnel in this slot of a location; `None` without IPsec.
    pub(crate) fn namespace_at(&self, location: &LocationId, slot: u16) -> Option<String> {
        let view = self.at(location)?.view.lock();
        view.namespaces().map(|names| format!("{names}-{slot}"))
    }

    /// Why the share cannot be reached from the site now; `None` if it can, or if that is not known.
    pub(crate) fn peer_problem(&self, share: &ShareRow) -> Option<Detail> {
        let (view, tunnel) = (self.at(&share.location)?.view.lock(), share.spec.tunnel);
        let problem = PeerState::of(&view, tunnel)?.problem(&share.tunnel_name)?;
        let connection = &view.observed.tunnels.get(&tunnel)?.connection;
        Some(Detail { problem, since: connection.passes_since() })
    }

    /// The tunnels whose shares have such a problem.
    pub(crate) fn lost_peers(&self) -> Vec<TunnelId> {
        let lost = |view: &GatewayView| {
            let all = view.observed.tunnels.keys().copied();
            all.filter(|id| PeerState::of(view, *id).is_some_and(|peer| !peer.passes)).collect::<Vec<_>>()
        };
        self.all().flat_map(|gateway| lost(&gateway.view.lock())).collect()
    }

    /// How many connections the share's problem is about.
    pub(crate) fn not_served(
        &self,
        location: &LocationId,
        share: ShareId,
        problem: Reason,
    ) -> Option<NotServed> {
        self.at(location)?.view.lock().recent.not_served(share, problem)
    }

    /// The share's target does not answer clients: what is told of it, and how many connections it is about.
    pub(crate) fn unanswered(&self, location: &LocationId, share: ShareId) -> Option<(Problem, u64)> {
        const UNANSWERED: Reason = Reason::ConnectionsUnanswered;
        let view = self.at(location)?.view.lock();
        let problem = view.recent.problem(share).filter(|problem| problem.reason == UNANSWERED)?;
        Some((problem, view.recent.not_served(share, UNANSWERED)?.count))
    }

    /// Inspects a share's path at the gateway of its location. `None`: no gateway answers, or too many checks run.
    pub(crate) async fn check(
        &self,
        location: &LocationId,
        share: ShareId,
        organization: &str,
    ) -> Result<Option<ShareCheck>, TooManyChecks> {
        let Some(gateway) = self.at(location) else { return Ok(None) };
        let seen = gateway.rpc.check(share, organization).await?;
        if seen.as_ref().is_some_and(|seen| seen.dialled.is_ok()) {
            gateway.view.reached(share);
        }
        Ok(seen)
    }

    /// Resets the share's open connections, all or those of one client, and returns how many; `None`: no gateway answers.
    pub(crate) async fn close_connections(
        &self,
        location: &LocationId,
        share: ShareId,
        source: Option<Ipv4Addr>,
    ) -> Option<u64> {
        self.at(location)?.rpc.close_connections(share, source).await
    }

    /// Resets the tunnel's SAs, and returns what was seen, or why it failed; `None`: no gateway answers.
    pub(crate) async fn reset(
        &self,
        location: &LocationId,
        tunnel: TunnelId,
        scope: ResetScope,
        mode: ResetMode,
    ) -> Option<Result<String, String>> {
        self.at(location)?.rpc.reset(tunnel, scope, mode).await
    }

    /// The first lines of the tunnel's IKE log with a number above `after`; `None`: no gateway answers.
    pub(crate) async fn ike_log(
        &self,
        location: &LocationId,
        tunnel: TunnelId,
        after: u64,
    ) -> Option<Vec<IkeLogLine>> {
        self.at(location)?.rpc.ike_log(tunnel, after).await
    }

    /// The shares of these agents as their gateways report them; agents without a connection are left out.
    pub(crate) async fn agent_shares(&self, agents: &[AgentId]) -> Vec<AgentShares> {
        if agents.is_empty() {
            return Vec::new();
        }
        let answers = self.all().map(|gateway| gateway.rpc.agent_shares(agents.to_vec()));
        future::join_all(answers).await.concat()
    }
}
