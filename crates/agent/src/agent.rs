//! A running agent.

use crate::{
    assignments::Assignments, claims::Claims, health::TargetHealths, known_gateways::KnownGateways,
    removals::Removals, report_outbox::ReportOutbox, route::Route, state::State, status::Status,
};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use wicketgate_transport::{abort::Abort, tls::AgentTls};

/// State shared by the parts of a running agent.
pub(crate) struct Agent {
    /// To the gateway of `--server`.
    pub(crate) route: Arc<Route>,
    pub(crate) name: String,
    /// Other running agents with the same identity are replaced.
    pub(crate) takes_over: bool,
    pub(crate) tls: AgentTls,
    pub(crate) state: Arc<State>,
    pub(crate) gateways: KnownGateways,
    pub(crate) claims: Claims,
    pub(crate) removals: Removals,
    pub(crate) assignments: Assignments,
    pub(crate) health: TargetHealths,
    /// Limits concurrent probes.
    pub(crate) probes: Semaphore,
    pub(crate) status: Arc<Status>,
    pub(crate) report: ReportOutbox,
    /// Those of all gateways.
    pub(crate) streams: TaskTracker,
    /// Cuts all running streams once what they have read is delivered.
    pub(crate) finish: Abort,
    /// Resets all running streams.
    pub(crate) abort: Abort,
}
