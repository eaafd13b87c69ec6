//! The agent's last report of itself. Each gateway that welcomes the agent is sent it: whether it has reached the server, the agent
//! does not learn, and the server drops one that it has.

use crate::clock::ClockComparison;
use std::sync::Arc;
use tokio::sync::{Notify, watch};
use wicketgate_model::AgentReport;
use wicketgate_system::Mutex;

#[derive(Default)]
pub(crate) struct ReportOutbox {
    last: watch::Sender<Option<Arc<AgentReport>>>,
    /// A gateway has welcomed the agent.
    pub(crate) greeted: Notify,
    /// Of that moment; `None`: the gateway did not tell its time.
    pub(crate) clock: Mutex<Option<ClockComparison>>,
}

impl ReportOutbox {
    pub(crate) fn put(&self, report: AgentReport) {
        self.last.send_replace(Some(Arc::new(report)));
    }

    /// A gateway has welcomed the agent. Returns what it is to be sent: the last report, and each later one.
    pub(crate) fn connected(&self) -> watch::Receiver<Option<Arc<AgentReport>>> {
        self.greeted.notify_one();
        let mut reports = self.last.subscribe();
        reports.mark_changed();
        reports
    }
}
