//! A running agent.

use crate::{
    assignments::Assignments, health::TargetHealths, report_outbox::ReportOutbox, route::Route, state::State,
    status::Status,
};
use std::sync::{Arc, atomic::AtomicBool};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use wicketgate_transport::{abort::Abort, tls::AgentTls};

/// State shared by the parts of a running agent.
pub(crate) struct Agent {
    pub(crate) route: Route,
    pub(crate) name: String,
    /// Until the first connection.
    pub(crate) takes_over: AtomicBool,
    pub(crate) tls: AgentTls,
    pub(crate) state: Arc<State>,
    pub(crate) assignments: Assignments,
    pub(crate) health: TargetHealths,
    /// Limits concurrent probes.
    pub(crate) probes: Semaphore,
    pub(crate) status: Arc<Status>,
    pub(crate) report: ReportOutbox,
    pub(crate) streams: TaskTracker,
    /// Cuts all running streams once what they have read is delivered.
    pub(crate) finish: Abort,
    /// Resets all running streams.
    pub(crate) abort: Abort,
}
