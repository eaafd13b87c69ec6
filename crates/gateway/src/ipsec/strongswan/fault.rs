//! Why a peer cannot connect, derived from charon's log. Pure: log lines in, a [`PeerFault`] out.
//!
//! charon handles one IKE message at a time. It logs the message (`parsed …`), its findings, and the answer
//! (`generating …`), whose notify payload reports the failure. The findings give the cause. But several threads send the
//! lines to the gateway, and one that is interrupted is overtaken by others: lines arrive in any order. So what is known of
//! an IKE SA is collected, and explained again with each line that arrives. Text that comes from the peer is quoted
//! without control characters and up to a limit.

mod findings;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod identity;
mod list;
mod log_line;
mod passage;
mod proposals;
mod selectors;
#[cfg(test)]
mod tests;

use jiff::{SignedDuration, Timestamp};
use wicketgate_model::ConnectionFault;

use super::{conf::Ends, peer_fault::PeerFault};
use findings::{Finding, Findings};

pub(super) use log_line::LogLine;
use passage::NO_ANSWER;
pub(super) use passage::Passages;

/// The notifies of a failure, as charon abbreviates them in its log, and as RFC 7296 §3.10.1 names them.
const FAILURES: [(&str, &str); 6] = [
    ("AUTH_FAILED", "AUTHENTICATION_FAILED"),
    ("NO_PROP", "NO_PROPOSAL_CHOSEN"),
    ("TS_UNACCEPT", "TS_UNACCEPTABLE"),
    ("INVAL_SYN", "INVALID_SYNTAX"),
    ("INT_ADDR_FAIL", "INTERNAL_ADDRESS_FAILURE"),
    ("US_CRIT_PAYLOAD", "UNSUPPORTED_CRITICAL_PAYLOAD"),
];

/// How far apart the lines about one failure arrive at most. An interrupted thread goes on within milliseconds, on a busy machine
/// within seconds.
const RELATED: SignedDuration = SignedDuration::from_secs(5);

/// IKE SAs that are remembered. A peer negotiates one or two at a time.
const REMEMBERED: usize = 16;

/// What is known of the failures of each IKE SA, the latest one last.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<(Option<u64>, Attempt)>);

/// What is known of one exchange of an IKE SA.
#[derive(Debug, Default)]
struct Attempt {
    findings: Findings,
    failure: Option<Failure>,
    reported: Option<PeerFault>,
    /// When the last line arrived.
    at: Timestamp,
}

/// A line that reports a failure.
#[derive(Debug)]
struct Failure {
    line: String,
    /// The name in RFC 7296.
    notify: &'static str,
}

impl Faults {
    /// Processes a log line. Returns a fault if the line reports a failure, or if it explains one that was reported. `ends` is
    /// what the peer should ask for.
    pub(super) fn log(
        &mut self,
        line: LogLine<'_>,
        ends: Option<&Ends>,
        now: Timestamp,
    ) -> Option<PeerFault> {
        let text = line.text;
        if text.starts_with("giving up after ") && text.contains("retransmit") {
            self.0.retain(|(sa, _)| *sa != line.ike_sa);
            return Some(PeerFault::new(ConnectionFault::PeerDoesNotAnswer, NO_ANSWER));
        }
        if text.starts_with("ignoring IKE_SA_INIT, hitting IKE_SA limit") {
            let cause =
                "the peer opens more IKE SAs than it may have at a time, and leaves the earlier ones open";
            let cure = "have the site's device end an IKE SA before it opens another one";
            return Some(PeerFault::with_cure(ConnectionFault::NegotiationFailed, cause, cure));
        }
        let notify = failure(text);
        let finding = Finding::read(text).filter(|_| notify.is_none());
        if notify.is_none() && finding.is_none() {
            return None;
        }
        let attempt = self.attempt(line.ike_sa, now);
        let is_another = finding.as_ref().is_none_or(|finding| !attempt.findings.lacks(finding));
        if is_another && attempt.is_explained(ends) {
            *attempt = Attempt::default();
        }
        if let Some(notify) = notify {
            attempt.failure = Some(Failure { line: text.to_owned(), notify });
            attempt.reported = None;
        }
        if let Some(finding) = finding {
            attempt.findings.take(finding);
        }
        attempt.at = now;
        let fault = attempt.fault(ends)?;
        if attempt.reported.as_ref() == Some(&fault) {
            return None;
        }
        attempt.reported = Some(fault.clone());
        Some(fault)
    }

    /// What is known of an IKE SA, if it is recent.
    fn attempt(&mut self, sa: Option<u64>, now: Timestamp) -> &mut Attempt {
        let at = self.0.iter().position(|(id, _)| *id == sa);
        let known = at.map(|at| self.0.remove(at).1);
        let known = known.filter(|attempt| now.duration_since(attempt.at) <= RELATED);
        if self.0.len() >= REMEMBERED {
            self.0.remove(0);
        }
        let last = self.0.len();
        self.0.push((sa, known.unwrap_or_default()));
        &mut self.0[last].1
    }
}

impl Attempt {
    /// Whether a failure was reported with its cause.
    fn is_explained(&self, ends: Option<&Ends>) -> bool {
        self.failure.is_some() && self.cause(ends).is_some()
    }

    fn fault(&self, ends: Option<&Ends>) -> Option<PeerFault> {
        if let Some(installation) = self.findings.installation() {
            // The notify that follows blames the peer's selectors or proposals, and in a rekey by the gateway there is none.
            return Some(installation);
        }
        let Failure { line, notify } = self.failure.as_ref()?;
        Some(self.cause(ends).unwrap_or_else(|| from_notify(line, notify, ends)))
    }

    fn cause(&self, ends: Option<&Ends>) -> Option<PeerFault> {
        let failure = self.failure.as_ref();
        let is_proposal = failure.is_some_and(|failure| failure.notify == "NO_PROPOSAL_CHOSEN");
        let is_later_child = failure.is_some_and(|failure| failure.line.contains(" CREATE_CHILD_SA "));
        let offered = || self.findings.offered(is_later_child).filter(|_| is_proposal);
        self.findings.cause(ends).or_else(offered)
    }
}

/// Whether the peer rejects the gateway's authentication: it has another of the tunnel's keys. It reports this after its
/// own authentication (RFC 7296 §2.21.2), or in its response if the gateway initiated.
pub(super) fn peer_refuses(line: &str) -> bool {
    (line.starts_with("parsed INFORMATIONAL request") || line.starts_with("parsed IKE_AUTH response"))
        && failure(line) == Some("AUTHENTICATION_FAILED")
}

/// The failure in a received or sent message: `generating IKE_AUTH response 1 [ N(AUTH_FAILED) ]`.
fn failure(line: &str) -> Option<&'static str> {
    if !(line.starts_with("parsed ") || line.starts_with("generating ")) {
        return None;
    }
    let notifies = line.split_once('[')?.1.split_whitespace();
    notifies
        .filter_map(|word| word.strip_prefix("N(")?.strip_suffix(')'))
        .find_map(|name| FAILURES.iter().find(|(short, _)| *short == name).map(|(_, long)| *long))
}

/// The fault for a notify without findings, for example if it is the peer that refuses.
fn from_notify(line: &str, notify: &str, ends: Option<&Ends>) -> PeerFault {
    let is_received = line.starts_with("parsed ");
    let (reason, cause) = match notify {
        "AUTHENTICATION_FAILED" if is_received => {
            let id = ends.map(|e| format!(", {}", e.gateway_id)).unwrap_or_default();
            let cause = format!("the peer rejects the gateway's key or its identity{id}");
            (ConnectionFault::PeerRefusedGateway, cause)
        }
        "NO_PROPOSAL_CHOSEN" if is_received => return proposals::refused(line),
        "TS_UNACCEPTABLE" if is_received => (
            ConnectionFault::TrafficSelectorsDiffer,
            "the peer rejects the tunnel's traffic selectors".to_owned(),
        ),
        _ => (ConnectionFault::NegotiationFailed, format!("IKE failed with {notify}")),
    };
    PeerFault::new(reason, cause)
}
