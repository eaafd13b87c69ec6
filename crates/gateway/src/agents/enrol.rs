//! Certificates for agents: the gateway forwards requests to the server and its answers back.

use super::Agents;
use std::{net::IpAddr, time::Duration};
use tokio::{sync::mpsc, time::timeout};
use tracing::debug;
use wicketgate_link::{CertificateAnswer, FromGateway, Pending, RenewRequest, RequestId};
use wicketgate_model::{AgentId, EnrolGrant, EnrolRequest, plain};
use wicketgate_transport::control::{Control, ControlError, EnrolAnswer, ToAgent};

/// For the request of an agent.
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// For the answer of the server; an agent without an answer tries again.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

impl Agents {
    pub(super) async fn enrol(&self, control: Control, source: IpAddr) {
        let end = self.0.drain.run_until_cancelled(self.enrol_one(control, source)).await;
        if let Some(Err(error)) = end {
            debug!(error = ?error, "an enrolment's connection broke");
        }
    }

    async fn enrol_one(&self, mut control: Control, source: IpAddr) -> Result<(), ControlError> {
        let mut ask: EnrolRequest =
            timeout(ASK_WITHIN, control.receive()).await.map_err(|_| ControlError::Stuck)??;
        ask.name = from_agent(&ask.name);
        let question = |request| FromGateway::Enrol { request, ask, source: Some(source.to_canonical()) };
        let answer = match self.ask(&self.0.requests.enrol, question).await {
            CertificateAnswer::Granted(grant) => EnrolAnswer::Enrolled(grant),
            CertificateAnswer::Refused(refusal) => EnrolAnswer::Refused { refusal },
            CertificateAnswer::Unavailable => EnrolAnswer::Unavailable,
        };
        control.send(&answer).await?;
        control.close().await;
        Ok(())
    }

    /// Asks the server in a separate task, so that the control connection is served meanwhile.
    pub(super) fn renew(&self, agent: AgentId, public_key: Vec<u8>, answer: mpsc::Sender<ToAgent>) {
        let (ask, agents) = (RenewRequest { agent, public_key }, self.clone());
        self.0.tasks.spawn(async move {
            let question = |request| FromGateway::Renew { request, ask };
            let message = match agents.ask(&agents.0.requests.renew, question).await {
                CertificateAnswer::Granted(certificate) => ToAgent::Renewed { certificate },
                CertificateAnswer::Refused(refusal) => ToAgent::RenewRefused { refusal: Some(refusal) },
                CertificateAnswer::Unavailable => ToAgent::RenewRefused { refusal: None },
            };
            // The connection may have ended; the agent tries again on the next one.
            let _ = answer.try_send(message);
        });
    }

    /// The server's answer to [`FromGateway::Enrol`].
    pub fn enrolled(&self, request: RequestId, answer: CertificateAnswer<EnrolGrant>) {
        self.0.requests.enrol.answer(request, answer);
    }

    /// The server's answer to [`FromGateway::Renew`].
    pub fn renewed(&self, request: RequestId, answer: CertificateAnswer<Vec<u8>>) {
        self.0.requests.renew.answer(request, answer);
    }

    async fn ask<T>(
        &self,
        pending: &Pending<CertificateAnswer<T>>,
        question: impl FnOnce(RequestId) -> FromGateway,
    ) -> CertificateAnswer<T> {
        let Some(call) = pending.call() else { return CertificateAnswer::Unavailable };
        let answer = timeout(ANSWER_WITHIN, async {
            self.0.link.send(question(call.id())).await.ok()?;
            call.answer(ANSWER_WITHIN).await
        });
        answer.await.ok().flatten().unwrap_or(CertificateAnswer::Unavailable)
    }
}

/// Text from an agent, for logs and answers.
pub(super) fn from_agent(text: &str) -> String {
    /// Longer than any host name (RFC 1035 §2.3.4).
    const LONGEST: usize = 255;
    plain(text, LONGEST)
}
