//! Waiting for an answer of charon. A daemon that hangs carries nothing: it is reported, and replaced. One that is late because
//! its host has no processor for it goes on.

use std::{
    mem,
    pin::pin,
    time::{Duration, Instant},
};

use tokio::time::timeout;
use tracing::warn;
use wicketgate_model::{Problem, Reason};
use wicketgate_vici::Error;

use super::{Task, process_time::ProcessTime};

/// How long charon may be silent before its process is looked at, and how often it is looked at then. On a busy machine it
/// answers in some ten milliseconds.
const LOOKED_AT_AFTER: Duration = Duration::from_millis(1500);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long it may be silent, without waiting for a processor, before the daemon is replaced; and in any case.
const HUNG_AFTER: Duration = Duration::from_secs(5);
const REPLACED_AFTER: Duration = Duration::from_secs(60);

/// What is known of a silent daemon.
struct Silence {
    begin: Instant,
    last: Option<ProcessTime>,
    /// How long it did not wait for a processor.
    hung: Duration,
}

impl Silence {
    /// Looks at the process. Whether it hangs, as far as is known.
    fn look(&mut self, now: Option<ProcessTime>) -> bool {
        if let (Some(now), Some(before)) = (now, self.last) {
            self.hung += now.idle_since(&before);
        }
        self.last = now;
        !self.hung.is_zero() || now.is_some_and(|now| now.is_stopped())
    }

    fn is_over(&self) -> bool {
        self.hung >= HUNG_AFTER - LOOKED_AT_AFTER || self.begin.elapsed() >= REPLACED_AFTER
    }
}

impl Task {
    /// Waits for an answer of charon. If it hangs, the tunnel is reported as failed until the answer arrives.
    ///
    /// # Errors
    /// [`Error::Timeout`]: it hangs, and it is this daemon's turn to be replaced.
    pub(super) async fn answered<T>(
        &mut self,
        pid: i32,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let mut silence = Silence { begin: Instant::now(), last: None, hung: Duration::ZERO };
        let mut answer = pin!(answer);
        let mut within = LOOKED_AT_AFTER;
        let dir = self.home.dir.display().to_string();
        let answer = loop {
            match timeout(within, &mut answer).await {
                Ok(answer) => break answer,
                Err(_) if silence.is_over() => break self.turn_or(&mut answer).await,
                Err(_) => {}
            }
            let is_first = silence.last.is_none();
            let is_hung = silence.look(ProcessTime::read(pid).ok());
            if is_hung && !mem::replace(&mut self.is_suspected, true) {
                warn!(dir, "IKE daemon does not answer");
                let message = "the gateway's IKE daemon does not answer, and is replaced within seconds";
                self.report.set_problem(Some(Problem::new(Reason::TunnelFailed, message)));
            } else if is_first && !is_hung {
                warn!(dir, "IKE daemon is late: it hangs, or the host has no processor for it");
            }
            within = LOOK_EVERY;
        };
        if answer.is_ok() && mem::take(&mut self.is_suspected) {
            self.report.set_problem(None);
        }
        answer
    }
}
