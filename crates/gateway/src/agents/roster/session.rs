//! A control connection, as the roster knows it.

use crate::agents::{allowance::Allowance, carrier_pool::CarrierPool};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use wicketgate_model::AgentId;

/// See the module.
pub(in crate::agents) struct Session {
    pub(in crate::agents) agent: AgentId,
    /// As the agent reports it.
    pub(in crate::agents) name: String,
    pub(in crate::agents) number: u64,
    /// Cancelled when the connection must end: the agent was removed, or has a newer one.
    pub(in crate::agents) end: CancellationToken,
    pub(in crate::agents) outbox_filled: Notify,
    /// A task waits for a sign of life.
    pub(in crate::agents) asked: Notify,
    /// Counts answers to it.
    pub(in crate::agents) answers: watch::Sender<u64>,
    /// The agent does not answer.
    pub(in crate::agents) is_silent: watch::Sender<bool>,
    /// Closed by the control connection's task when it ends.
    pub(in crate::agents) carriers: CarrierPool,
    pub(in crate::agents) allowance: Allowance,
}
