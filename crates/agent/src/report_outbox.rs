//! The agent's last report of itself. Each gateway that welcomes the agent is sent it: whether it has reached the server, the agent
//! does not learn, and the server drops one that it has.

use crate::clock::ClockComparison;
use tokio::sync::Notify;
use wicketgate_model::AgentReport;
use wicketgate_system::Mutex;
use wicketgate_transport::control::{Control, ControlError, FromAgent};

#[derive(Default)]
pub(crate) struct ReportOutbox {
    last: Mutex<Option<Box<AgentReport>>>,
    /// It is to be sent; for the connection's task.
    pub(crate) filled: Notify,
    /// A gateway has welcomed the agent.
    pub(crate) greeted: Notify,
    /// Of that moment; `None`: the gateway did not tell its time.
    pub(crate) clock: Mutex<Option<ClockComparison>>,
}

impl ReportOutbox {
    pub(crate) fn put(&self, report: AgentReport) {
        *self.last.lock() = Some(Box::new(report));
        self.filled.notify_one();
    }

    /// A gateway has welcomed the agent.
    pub(crate) fn connected(&self) {
        self.greeted.notify_one();
        self.filled.notify_one();
    }

    pub(crate) async fn send(&self, control: &mut Control) -> Result<(), ControlError> {
        let Some(report) = self.last.lock().clone() else { return Ok(()) };
        control.send(&FromAgent::Report { report }).await
    }
}
