//! Whether the far end of a stream answers what the near end sends.
//!
//! Invariants: a stream counts at most once as not answered, and once as answered, which may be later; and a near end
//! that only sends, as clients of syslog do, and ends without waiting, was not left without an answer.

use super::{Broken, broken::Side};
use std::{
    sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    time::Duration,
};
use tokio::time::Instant;

/// From the last bytes to the end of a near end that has waited for an answer. One that only sends ends at once.
const WAITED: Duration = Duration::from_secs(1);
/// From the last bytes until a stream that does not end counts as not answered: longer than most clients wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// A stream may still be answered for the first time.
const OPEN: u8 = 0;
/// It was counted as not answered.
const MISSED: u8 = 1;
const ANSWERED: u8 = 2;

/// Counts streams by their first answer.
#[derive(Debug, Default)]
pub struct AnswerCounters {
    /// The far end has sent a byte.
    pub answered: AtomicU64,
    /// The near end sent bytes and waited in vain: until it ended, or for 30 s.
    pub silent: AtomicU64,
    /// The far end ended the stream instead of an answer.
    pub ended: AtomicU64,
}

/// What the two ends of one stream have sent so far.
#[derive(Debug)]
pub struct Exchange<'a> {
    counters: &'a AnswerCounters,
    began: Instant,
    /// One more than the milliseconds from the start to the last bytes of the near end; 0: it has sent none.
    asked: AtomicU64,
    near_has_ended: AtomicBool,
    stage: AtomicU8,
}

impl<'a> Exchange<'a> {
    pub fn new(counters: &'a AnswerCounters) -> Self {
        Self {
            counters,
            began: Instant::now(),
            asked: AtomicU64::new(0),
            near_has_ended: AtomicBool::new(false),
            stage: AtomicU8::new(OPEN),
        }
    }

    /// The near end has sent bytes.
    pub fn asked(&self) {
        if self.stage.load(Relaxed) != ANSWERED {
            let after = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
            self.asked.store(after + 1, Relaxed);
        }
    }

    /// The far end has sent bytes.
    pub(super) fn answered(&self) {
        if self.stage.load(Relaxed) != ANSWERED {
            self.stage.store(ANSWERED, Relaxed);
            self.counters.answered.fetch_add(1, Relaxed);
        }
    }

    /// The near end sends no more.
    pub(super) fn near_ended(&self) {
        self.near_has_ended.store(true, Relaxed);
        if self.last_asked().is_some_and(|at| at.elapsed() >= WAITED) {
            self.missed(&self.counters.silent);
        }
    }

    /// The far end sends no more.
    pub(super) fn far_ended(&self) {
        if self.near_has_ended.load(Relaxed) {
            self.near_ended();
        } else if self.last_asked().is_some() {
            self.missed(&self.counters.ended);
        }
    }

    /// The stream has broken.
    pub fn broke(&self, broken: &Broken) {
        match broken {
            Broken::Reset => self.far_ended(),
            Broken::Tcp(_) | Broken::Idle(_) | Broken::Unanswered(Side::Connection) => self.near_ended(),
            // Nothing that the far end did.
            Broken::Carrier(_) | Broken::Unanswered(Side::Carrier) | Broken::Finished | Broken::Aborted => {}
        }
    }

    /// Counts the stream if its answer is overdue. Returns when it will be, if nothing is sent until then.
    pub(super) fn look(&self) -> Option<Instant> {
        let due = self.last_asked().filter(|_| self.stage.load(Relaxed) == OPEN)? + PATIENCE;
        if due > Instant::now() {
            return Some(due);
        }
        self.missed(&self.counters.silent);
        None
    }

    fn last_asked(&self) -> Option<Instant> {
        let after = self.asked.load(Relaxed).checked_sub(1)?;
        Some(self.began + Duration::from_millis(after))
    }

    fn missed(&self, counter: &AtomicU64) {
        if self.stage.load(Relaxed) == OPEN {
            self.stage.store(MISSED, Relaxed);
            counter.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use tokio::time::advance;

    const SOON: Duration = Duration::from_millis(10);

    /// How many streams were answered, waited in vain, and were ended.
    fn counted(counters: &AnswerCounters) -> [u64; 3] {
        [&counters.answered, &counters.silent, &counters.ended].map(|counter| counter.load(Relaxed))
    }

    async fn counts(script: impl AsyncFnOnce(&Exchange<'_>)) -> [u64; 3] {
        let counters = AnswerCounters::default();
        script(&Exchange::new(&counters)).await;
        counted(&counters)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_waits_in_vain_is_told_from_one_that_only_sends() {
        let waits = async |e: &Exchange<'_>| {
            e.asked();
            advance(WAITED).await;
            e.near_ended();
            e.far_ended();
        };
        assert_eq!(counts(waits).await, [0, 1, 0], "once");
        let sends = async |e: &Exchange<'_>| {
            for _ in 0..100 {
                e.asked();
                advance(PATIENCE / 2).await;
            }
            e.asked();
            e.near_ended();
            e.far_ended();
        };
        assert_eq!(counts(sends).await, [0; 3]);
        let says_nothing = async |e: &Exchange<'_>| {
            advance(10 * PATIENCE).await;
            assert_eq!(e.look(), None);
            e.near_ended();
            e.far_ended();
        };
        assert_eq!(counts(says_nothing).await, [0; 3], "a check of a load balancer");
        // It ends its sending side at once, as HTTP/1.0 clients may, and then waits.
        let half_closed = async |e: &Exchange<'_>| {
            e.asked();
            e.near_ended();
            advance(WAITED).await;
            e.broke(&Broken::Tcp(ErrorKind::ConnectionReset.into()));
        };
        assert_eq!(counts(half_closed).await, [0, 1, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_ends_instead_of_an_answer_is_counted_and_a_lost_agent_is_not() {
        for ends in [|e: &Exchange<'_>| e.far_ended(), |e: &Exchange<'_>| e.broke(&Broken::Reset)] {
            let ended = async |e: &Exchange<'_>| {
                e.asked();
                advance(SOON).await;
                ends(e);
                e.near_ended();
            };
            assert_eq!(counts(ended).await, [0, 0, 1]);
        }
        let cut = async |e: &Exchange<'_>| {
            e.asked();
            advance(2 * WAITED).await;
            e.broke(&Broken::Aborted);
            e.broke(&Broken::Finished);
        };
        assert_eq!(counts(cut).await, [0; 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_stays_open_is_counted_when_its_answer_is_overdue_and_may_be_answered_late() {
        let late = async |e: &Exchange<'_>| {
            advance(PATIENCE).await;
            e.asked();
            advance(PATIENCE - SOON).await;
            assert_eq!((e.look(), counted(e.counters)), (Some(Instant::now() + SOON), [0; 3]));
            advance(SOON).await;
            assert_eq!((e.look(), counted(e.counters)), (None, [0, 1, 0]));
            e.answered();
            e.answered();
            e.asked();
            advance(WAITED).await;
            e.far_ended();
        };
        assert_eq!(counts(late).await, [1, 1, 0]);
    }
}
