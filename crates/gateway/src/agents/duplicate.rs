//! Two running agents with one identity: a state directory was copied, with a virtual machine for example.
//!
//! Invariant: an agent is replaced by one with the same identity only if it does not answer, is stopping, or the operator
//! wants it. A process has one control connection, and opens the next one after its end: an answer over the older one
//! shows that there are two.

use super::{Agents, roster::Session};
use std::time::Duration;
use tokio::time::timeout;
use tracing::warn;
use wicketgate_link::ConnectedAgent;
use wicketgate_transport::control::{Control, ToAgent};

/// For an answer of the older agent. One that is gone delays its successor by this, if its host could not end the
/// connection.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

impl Agents {
    /// Whether another agent with this identity is running. If so, the newer one is refused.
    pub(super) async fn is_duplicate(&self, newer: &ConnectedAgent) -> Option<ConnectedAgent> {
        let (session, older) = self.with(|roster| roster.holder(newer.agent))?;
        if !answers(&session).await {
            return None;
        }
        if self.with(|roster| roster.duplicated(&session, newer, std::time::Instant::now())) {
            warn!(
                agent.id = %newer.agent, connected = %older.address, connected_name = older.name,
                refused = %newer.address, refused_name = newer.name,
                "two agents have the same identity: a state directory was copied; the newer one is refused"
            );
        }
        Some(older)
    }
}

/// Asks the agent of the control connection for a sign of life.
async fn answers(session: &Session) -> bool {
    let mut answers = session.answers.subscribe();
    answers.mark_unchanged();
    session.asked.notify_one();
    let answer = session.end.run_until_cancelled(answers.changed());
    matches!(timeout(ANSWER_WITHIN, answer).await, Ok(Some(Ok(()))))
}

/// Tells the newer agent why it is refused, if it understands it.
pub(super) async fn refuse(mut control: Control, understands: bool, older: ConnectedAgent) {
    if understands {
        let _ = control.send(&ToAgent::Duplicate { address: older.address, name: older.name }).await;
    }
    control.close().await;
}
