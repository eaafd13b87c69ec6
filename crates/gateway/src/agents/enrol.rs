//! Certificates for agents: the gateway forwards requests to the server and its answers back.

use super::{Agents, allowance::RenewalTurn, roster::Session};
use jiff::Timestamp;
use std::{net::IpAddr, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tracing::debug;
use wicketgate_link::{CertificateAnswer, FromGateway, Pending, RenewRequest, RequestId};
use wicketgate_model::{EnrolGrant, EnrolRequest, plain};
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

    /// Asks the server in a separate task, so that the control connection is served meanwhile; or tells the agent again what it was told
    /// lately.
    pub(super) fn renew(&self, session: &Session, public_key: Vec<u8>, answer: mpsc::Sender<ToAgent>) {
        let now = || (Instant::now(), Timestamp::now());
        let place = match session.allowance.renew(&public_key, now()) {
            RenewalTurn::Ask(place) => place,
            RenewalTurn::Told(earlier) => return drop(answer.try_send(renewed(earlier))),
        };
        let ask = RenewRequest { agent: session.agent, public_key: public_key.clone() };
        let agents = self.clone();
        self.0.tasks.spawn(async move {
            let question = |request| FromGateway::Renew { request, ask };
            let told = agents.ask(&agents.0.requests.renew, question).await;
            place.answered(public_key, told.clone(), now());
            // The connection may have ended; the agent tries again on the next one.
            let _ = answer.try_send(renewed(told));
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

/// As the agent is told it.
fn renewed(answer: CertificateAnswer<Vec<u8>>) -> ToAgent {
    match answer {
        CertificateAnswer::Granted(certificate) => ToAgent::Renewed { certificate },
        CertificateAnswer::Refused(refusal) => ToAgent::RenewRefused { refusal: Some(refusal) },
        CertificateAnswer::Unavailable => ToAgent::RenewRefused { refusal: None },
    }
}

/// Text from an agent, for logs and answers. It is bounded in bytes, of which a character has up to four: it may be kept for each share.
pub(super) fn from_agent(text: &str) -> String {
    /// Longer than any host name (RFC 1035 §2.3.4).
    const LONGEST: usize = 255;
    let mut text = plain(text, LONGEST);
    text.truncate(text.floor_char_boundary(LONGEST));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_an_agent_is_bounded_in_bytes_and_cut_between_characters() {
        assert_eq!(from_agent(&"\u{1f6aa}".repeat(300)), "\u{1f6aa}".repeat(63));
        assert_eq!(from_agent(&"x".repeat(300)).len(), 255);
        assert_eq!(from_agent("no \u{202e}etuor"), "no etuor");
    }

    #[test]
    fn what_is_removed_from_an_agents_words_is_what_no_terminal_would_be_shown() {
        for c in '\0'..=char::MAX {
            let is_shown = wicketgate_system::terminal::printable(&c.to_string()) == c.to_string();
            assert!(c == '\u{fffd}' || plain(&c.to_string(), 1).is_empty() != is_shown, "{c:?}");
        }
    }
}
