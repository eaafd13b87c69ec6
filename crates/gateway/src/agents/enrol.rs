//! Certificates for agents: the gateway carries the question to the server and the answer back.

use super::Agents;
use std::time::Duration;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::debug;
use wicketgate_link::{EnrolRequest, FromGateway, RenewRequest};
use wicketgate_model::AgentId;
use wicketgate_transport::{
    control::{Control, ControlError, EnrolAnswer, EnrolAsk, ToAgent},
    tls::TlsStream,
};

/// For an agent to say what it has come for.
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// For the server to answer; an agent that gets no answer asks again.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

impl Agents {
    pub(super) async fn enrol(&self, stream: TlsStream) {
        tokio::select! {
            () = self.0.drain.cancelled() => {}
            end = self.enrol_one(Control::of_agent(stream)) => if let Err(error) = end {
                debug!(error = ?error, "an enrolment's connection broke");
            },
        }
    }

    async fn enrol_one(&self, mut control: Control<TlsStream>) -> Result<(), ControlError> {
        let ask: EnrolAsk =
            timeout(ASK_WITHIN, control.receive()).await.map_err(|_| ControlError::Stuck)??;
        let request = EnrolRequest {
            enrollment: ask.enrollment,
            secret: ask.secret,
            public_key: ask.public_key,
            name: plain(&ask.name),
        };
        let answer = match self.ask(|reply| FromGateway::Enrol(request, reply)).await {
            Some(Ok(grant)) => EnrolAnswer::Enrolled {
                agent: grant.agent,
                environment: grant.environment,
                frontdoor: grant.frontdoor,
                z_id: grant.z_id,
                certificate: grant.certificate,
                ca_certificate: grant.ca_certificate,
            },
            Some(Err(refusal)) => EnrolAnswer::Refused { refusal },
            None => EnrolAnswer::Unavailable,
        };
        control.send(&answer).await?;
        control.close().await;
        Ok(())
    }

    /// Asks the server in a task of its own, since the control connection goes on meanwhile.
    pub(super) fn renew(&self, agent: AgentId, public_key: Vec<u8>, answer: mpsc::Sender<ToAgent>) {
        let request = RenewRequest { agent, public_key };
        let agents = self.clone();
        self.0.tasks.spawn(async move {
            let message = match agents.ask(|reply| FromGateway::Renew(request, reply)).await {
                Some(Ok(certificate)) => ToAgent::Renewed { certificate },
                Some(Err(refusal)) => ToAgent::RenewRefused { refusal: Some(refusal) },
                None => ToAgent::RenewRefused { refusal: None },
            };
            // The connection may have ended meanwhile; the agent asks again on the next one.
            let _ = answer.try_send(message);
        });
    }

    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> FromGateway) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.0.link.send(question(reply)).await.ok()?;
            answer.await.ok()
        };
        timeout(ANSWER_WITHIN, asked).await.ok().flatten()
    }
}

/// A text of an agent's, short and without control characters: it stands in logs and answers.
pub(super) fn plain(text: &str) -> String {
    /// Longer than any host name (RFC 1035 §2.3.4).
    const LONGEST: usize = 255;
    text.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}
