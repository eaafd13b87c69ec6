//! The agent's report of itself, until a gateway has taken it.

use tokio::sync::Notify;
use wicketgate_model::AgentReport;
use wicketgate_system::Mutex;
use wicketgate_transport::control::{Control, ControlError, FromAgent};

#[derive(Default)]
pub(crate) struct ReportOutbox {
    unsent: Mutex<Option<Box<AgentReport>>>,
    /// There is one to send; for the connection's task.
    pub(crate) filled: Notify,
    /// A gateway has welcomed the agent.
    pub(crate) greeted: Notify,
    /// How many seconds the clock was ahead of the gateway's then, 0 if that does not matter; `None`: it was not told.
    pub(crate) seconds_ahead: Mutex<Option<i64>>,
}

impl ReportOutbox {
    /// Replaces one that was not sent.
    pub(crate) fn put(&self, report: AgentReport) {
        *self.unsent.lock() = Some(Box::new(report));
        self.filled.notify_one();
    }

    /// A gateway has welcomed the agent: a report that an earlier one has not taken is for this one.
    pub(crate) fn connected(&self) {
        self.greeted.notify_one();
        if self.unsent.lock().is_some() {
            self.filled.notify_one();
        }
    }

    /// Sends the report. One that cannot be sent is kept for the next connection.
    pub(crate) async fn send(&self, control: &mut Control) -> Result<(), ControlError> {
        let Some(report) = self.unsent.lock().take() else { return Ok(()) };
        let sent = control.send(&FromAgent::Report { report: report.clone() }).await;
        if sent.is_err() {
            self.unsent.lock().get_or_insert(report);
        }
        sent
    }
}
