//! Removed agents, whose certificates are still valid: each is told that it was removed, so that it does not try for ever.

use super::Agents;
use std::time::Duration;
use tokio::time::timeout;
use tracing::debug;
use wicketgate_model::AgentId;
use wicketgate_transport::control::{Control, FromAgent, ToAgent};

/// For the hello of a removed agent: it sends one at once. Shorter than for others, since nothing follows.
const HELLO_WITHIN: Duration = Duration::from_secs(1);

impl Agents {
    pub(super) fn is_barred(&self, agent: AgentId) -> bool {
        self.with(|roster| roster.barred.contains(&agent))
    }

    /// Ends a new connection of a removed agent.
    pub(super) async fn turn_away(&self, agent: AgentId, mut control: Control) {
        debug!(agent.id = %agent, "rejected a barred agent");
        let hello = timeout(HELLO_WITHIN, control.receive()).await;
        let learns_removal =
            matches!(hello, Ok(Ok(FromAgent::Hello { learns_removal: true, .. } | FromAgent::Check)));
        tell(control, learns_removal).await;
    }
}

/// Tells the agent that it was removed, if it understands it, and ends the connection.
pub(super) async fn tell(mut control: Control, understands: bool) {
    if understands {
        let _ = control.send(&ToAgent::Removed).await;
    }
    control.close().await;
}
