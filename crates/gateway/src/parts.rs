//! The parts of a gateway that its tunnels' tasks and their connections share.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wicketgate_transport::abort::Abort;

use crate::{
    agents::Agents, counters::Counters, ipsec::Backend, observations::Observations,
    traffic_room::TrafficRoom, traffic_spool::TrafficSpool,
};

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct GatewayParts {
    pub(crate) backend: Arc<Backend>,
    pub(crate) agents: Agents,
    pub(crate) observations: Arc<Observations>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) spool: Arc<TrafficSpool>,
    pub(crate) room: Arc<TrafficRoom>,
    /// One permit for each tunnel that the gateway may hold, of `max_tunnels`.
    pub(crate) tunnel_permits: Arc<Semaphore>,
    pub(crate) max_tunnels: usize,
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the gateway stops: tasks end, tunnels stay.
    pub(crate) stop: CancellationToken,
    /// Connections run here; they outlive the tunnel's own task.
    pub(crate) connections: TaskTracker,
    /// Ends all connections.
    pub(crate) abort: Abort,
}
