//! What the agent has of one gateway: the way to it, and what depends on its connection.

use crate::{agent::Agent, claims::Claim, route::Route};
use std::sync::{Arc, atomic::AtomicBool};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wicketgate_model::GatewayId;
use wicketgate_system::Mutex;
use wicketgate_transport::tls::AgentTls;

/// See the module.
pub(crate) struct GatewayConnection {
    pub(crate) agent: Arc<Agent>,
    /// A number of its own, also in the agent's status.
    pub(crate) place: usize,
    pub(crate) route: Arc<Route>,
    /// Accepts no other gateway than that of the list.
    pub(crate) tls: AgentTls,
    /// Of the list; `None`: the address is that of `--server`.
    listed: Option<GatewayId>,
    /// The gateway that has answered last.
    met: Mutex<Option<GatewayId>>,
    /// Until the first connection.
    pub(crate) takes_over: AtomicBool,
    /// Its carriers and their streams.
    pub(crate) streams: TaskTracker,
    /// The agent stops, or the gateway is none of the environment's any more.
    pub(crate) stop: CancellationToken,
}

impl GatewayConnection {
    pub(crate) fn new(
        agent: &Arc<Agent>,
        place: usize,
        (route, tls): (Arc<Route>, AgentTls),
        listed: Option<GatewayId>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            agent: Arc::clone(agent),
            place,
            route,
            tls,
            listed,
            met: Mutex::default(),
            takes_over: agent.takes_over.into(),
            streams: TaskTracker::new(),
            stop,
        }
    }

    /// The gateway, as far as it is known.
    pub(crate) fn gateway(&self) -> Option<GatewayId> {
        self.listed.or(*self.met.lock())
    }

    /// This gateway has answered. `None`: another connection has it.
    pub(crate) fn meets(&self, gateway: GatewayId) -> Option<Claim<'_>> {
        let before = self.met.lock().replace(gateway).filter(|before| *before != gateway);
        if let Some(before) = before.filter(|before| !self.agent.gateways.lists(*before)) {
            self.forget(before);
        }
        self.agent.claims.claim(gateway, self.place)
    }

    /// What the gateway assigns is over, unless another connection has it.
    pub(crate) fn forget(&self, gateway: GatewayId) {
        if let Some(_claim) = self.agent.claims.claim(gateway, self.place) {
            self.forget_own(gateway);
        }
    }

    /// What the gateway of this connection assigns is over.
    pub(crate) fn forget_own(&self, gateway: GatewayId) {
        self.agent.assignments.clear(gateway);
        self.agent.health.forget(gateway);
    }
}
