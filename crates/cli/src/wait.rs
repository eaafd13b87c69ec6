//! Waits until a write has taken effect, and shows meanwhile what it waits for.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};
use wicketgate_client::Method;
use wicketgate_system::program::StopSignals;

use crate::{
    context::Session,
    failed::Failed,
    kind::{Kind, SHARE},
    path_view::hop_of,
    say::say,
    session::text,
    table::cell,
};

/// Between two looks: a share is deployed within a fraction of a second.
const LOOK: Duration = Duration::from_millis(200);
/// Why a resource is not served, if that needs someone to act: no wait helps.
const LASTING: &[&str] = &["AgentOffline", "AgentRefused", "GatewayFull", "PeerAddressTaken", "PortInUse"];
/// For a check of a path, which takes as long as a dial of its target.
const CHECK: Duration = Duration::from_secs(10);
/// How long such a fault must last: an agent that restarts is back sooner, and another one may take what the first refuses.
const GRACE: Duration = Duration::from_secs(5);
const MARKS: [char; 4] = ['⠋', '⠙', '⠸', '⠴'];

/// How long a command waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Without it, the command ends as soon as the server has taken the write.
    pub(crate) waits: bool,
    pub(crate) timeout: Duration,
}

/// A line on standard error that is replaced while something lasts. Nothing is shown without a terminal.
#[derive(Debug)]
pub(crate) struct LiveLine {
    is_shown: bool,
    mark: usize,
}

impl LiveLine {
    pub(crate) fn new() -> Self {
        Self { is_shown: io::stderr().is_terminal(), mark: 0 }
    }

    pub(crate) fn show(&mut self, words: &str) {
        if self.is_shown {
            self.mark = (self.mark + 1) % MARKS.len();
            let width =
                terminal_size::terminal_size_of(io::stderr()).map_or(80, |(width, _)| usize::from(width.0));
            let words: String = words.chars().take(width.saturating_sub(3)).collect();
            // A lost line of progress is no failure.
            let _ = write!(io::stderr(), "\r\x1b[K{} {words}", MARKS[self.mark]);
        }
    }
}

impl Drop for LiveLine {
    fn drop(&mut self) {
        if self.is_shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl Session {
    /// What comes of `work`, unless the user interrupts it, with Ctrl-C as a rule. An interruption waits while `work` holds
    /// `whole`; one between two waits ends the second.
    pub(crate) async fn unless_interrupted<T>(
        &self,
        whole: &Mutex<()>,
        work: impl Future<Output = Result<T, Failed>>,
    ) -> Result<T, Failed> {
        let interrupted = async {
            // A wait within another one leaves the signals to it.
            let mut signals = self.signals.lock().await;
            let signals = match &mut *signals {
                Some(signals) => signals,
                first => match StopSignals::new(false) {
                    Ok(new) => first.insert(new),
                    Err(error) => return Failed::other(format!("{error:#}")),
                },
            };
            signals.next().await;
            if whole.try_lock().is_err() {
                say("interrupted: the present step is completed first");
                drop(whole.lock().await);
            }
            Failed::Interrupted("interrupted: what the server has accepted goes on there".to_owned())
        };
        tokio::select! {
            // Before the work goes on to another step.
            biased;
            failed = interrupted => Err(failed),
            result = work => result,
        }
    }

    /// Waits until the resource at `path` has settled, and returns it. One that is deleted is `None` once it is gone.
    pub(crate) async fn settled(
        &self,
        kind: &Kind,
        path: &str,
        patience: Patience,
    ) -> Result<Option<Value>, Failed> {
        self.unless_interrupted(&Mutex::new(()), self.looked_at(kind, path, patience)).await
    }

    /// The failure of a wait, with what a check of the share advises.
    async fn with_cure(&self, kind: &Kind, (path, reason): (&str, &str), words: String) -> Failed {
        let failed = Failed::other(words);
        if kind.name != SHARE.name {
            return failed;
        }
        let (check, body) = (format!("{path}/check"), json!({}));
        // A check that fails has no advice, and is not what failed.
        let Ok(Ok(check)) = timeout(CHECK, self.client.write(Method::POST, &check, Some(&body), None)).await
        else {
            return failed;
        };
        let mut advised = check["hops"].as_array().cloned().unwrap_or_default();
        advised.retain(|hop| !text(hop, "advice").is_empty());
        // Another hop may fail, too.
        let of_reason = advised.iter().find(|hop| text(hop, "reason") == reason);
        match of_reason.or(advised.first()).map(|hop| text(hop, "advice")) {
            Some(advice) => failed.with(&format!("What to do: {advice}.")),
            None => failed,
        }
    }

    async fn looked_at(&self, kind: &Kind, path: &str, patience: Patience) -> Result<Option<Value>, Failed> {
        let begin = Instant::now();
        let (mut line, mut fault) = (LiveLine::new(), Fault::default());
        loop {
            // A server that does not answer uses up the time as well.
            let left = patience.timeout.saturating_sub(begin.elapsed()).max(LOOK);
            let resource = match timeout(left, self.client.get(path, &[])).await {
                Ok(Ok(resource)) => resource,
                Ok(Err(failure)) if failure.is_not_found() => return Ok(None),
                Ok(Err(failure)) => return Err(failure.into()),
                Err(_) => {
                    return Err(Failed::Pending(format!(
                        "{} has not answered within {} s of --timeout: what was asked for may go on there",
                        self.client.base(),
                        patience.timeout.as_secs()
                    )));
                }
            };
            let (name, status) = (text(&resource, kind.label), text(&resource, "status"));
            let why = [&resource["statusDetail"]["message"], &resource["message"]].map(cell).concat();
            let reason = text(&resource["statusDetail"], "reason");
            match status {
                "NEW" if fault.lasts(reason, Instant::now()) => {
                    let words = format!("{} {name} is not served ({reason}): {why}", kind.name);
                    return Err(self.with_cure(kind, (path, reason), words).await);
                }
                "NEW" | "DELETING" | "RUNNING" => {}
                "DELETED" => return Ok(None),
                "ERROR" => {
                    let words = format!("{} {name} is ERROR ({reason}): {why}", kind.name);
                    return Err(self.with_cure(kind, (path, reason), words).await);
                }
                "FAILED" => return Err(Failed::other(format!("{} {name} has failed: {why}", kind.name))),
                _ => return Ok(Some(resource)),
            }
            let passed = begin.elapsed();
            if passed >= patience.timeout {
                return Err(Failed::Pending(format!(
                    "{} {name} is still {status} after {} s: {why}\nSee how it goes on with: wicketgate {} get {name}",
                    kind.name,
                    passed.as_secs(),
                    kind.name
                )));
            }
            let hop = hop_of(reason).map(|hop| format!(", waiting for the {hop}")).unwrap_or_default();
            line.show(&format!("{name}: {status}{hop}, {} s: {why}", passed.as_secs()));
            sleep(LOOK).await;
        }
    }
}

/// A fault that is seen at each look.
#[derive(Debug, Default)]
struct Fault {
    reason: String,
    since: Option<Instant>,
}

impl Fault {
    /// Whether the reason is one for which no wait helps, and has been the same for [`GRACE`].
    fn lasts(&mut self, reason: &str, now: Instant) -> bool {
        if !LASTING.contains(&reason) {
            self.since = None;
        } else if self.reason != reason || self.since.is_none() {
            *self = Self { reason: reason.to_owned(), since: Some(now) };
        }
        self.since.is_some_and(|since| now.duration_since(since) >= GRACE)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::ready, process::Command};

    use tokio::signal::unix::{SignalKind, signal};
    use wicketgate_client::ApiClient;

    use super::*;

    #[test]
    fn each_lasting_fault_is_a_reason_of_the_api() {
        for reason in LASTING {
            assert!(hop_of(reason).is_some(), "{reason}");
        }
    }

    #[test]
    fn a_fault_for_which_no_wait_helps_ends_it_after_a_moment() {
        let (mut fault, mut now) = (Fault::default(), Instant::now());
        let mut lasts = |reason: &str| {
            now += GRACE / 2;
            fault.lasts(reason, now)
        };
        // Another agent comes, and then another fault.
        let seen = ["AgentRefused", "AgentRefused", "AgentPending", "AgentRefused", "PortInUse", "PortInUse"];
        assert_eq!(seen.map(&mut lasts), [false; 6]);
        assert!(lasts("PortInUse"));
    }

    #[tokio::test]
    async fn a_signal_between_two_waits_ends_the_second() {
        let client = ApiClient::new("https://gw.example".parse().unwrap(), None, None).unwrap();
        let (session, whole) = (Session::new(client, None), Mutex::new(()));
        session.unless_interrupted(&whole, ready(Ok(()))).await.unwrap();
        let mut between = signal(SignalKind::hangup()).unwrap();
        let id = std::process::id().to_string();
        assert!(Command::new("kill").args(["-HUP", &id]).status().unwrap().success());
        between.recv().await;
        let second = sleep(Duration::from_secs(20));
        let ended = session
            .unless_interrupted(&whole, async {
                second.await;
                Ok(())
            })
            .await;
        assert!(matches!(ended, Err(Failed::Interrupted(_))), "{ended:?}");
    }
}
