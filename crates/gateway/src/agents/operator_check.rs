//! An operator's check with an agent's identity: is told what the agent would be, and does not count as an agent.

use super::Agents;
use jiff::Timestamp;
use tracing::debug;
use wicketgate_transport::{
    control::{Control, ControlError, ToAgent},
    identity::AgentIdentity,
};

impl Agents {
    pub(super) async fn answer_check(&self, identity: AgentIdentity, mut control: Control) {
        debug!(agent.id = %identity.agent, "an agent's operator checks");
        match self.tell_assignments(identity, &mut control).await {
            Ok(()) => control.close().await,
            Err(error) => debug!(agent.id = %identity.agent, %error, "a check was not answered to its end"),
        }
    }

    async fn tell_assignments(
        &self,
        identity: AgentIdentity,
        control: &mut Control,
    ) -> Result<(), ControlError> {
        let time = Some(Timestamp::now().as_second());
        let (takes_reports, takes_acks) = (false, false);
        control.send(&ToAgent::Welcome { assigns_duties: true, time, takes_reports, takes_acks }).await?;
        let mut last = None;
        loop {
            let (batch, newest) = self.with(|roster| roster.assigned_after(identity.environment, last));
            if batch.is_empty() {
                return Ok(());
            }
            control.send(&ToAgent::Assign { assignments: batch }).await?;
            last = newest;
        }
    }
}
