//! Rows that change again and again by an agent's word.
//!
//! Each change is written, told as an event, and logged if it is one of the status. Invariants: nothing gets worse late, so that the first
//! `ERROR` is shown at once, and so is the first `DEPLOYED`; of a row that flaps, what an agent says is wrong stays for [`HELD`] at least.

use jiff::{SignedDuration, Timestamp};

use super::{Standing, Status};
use crate::Reason;

/// Changes after which a row flaps, if they came within [`WINDOW`].
const CHANGES: usize = 3;
const WINDOW: SignedDuration = SignedDuration::from_secs(60);
/// How long the last word of an agent about a row that flaps is shown. What the row serves is served meanwhile.
const HELD: SignedDuration = SignedDuration::from_secs(10);

/// In place of a time.
const NEVER: i64 = i64::MIN;

/// When a row last changed by an agent's word, the oldest time first, in milliseconds: there may be very many rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flapping([i64; CHANGES]);

impl Default for Flapping {
    fn default() -> Self {
        Self([NEVER; CHANGES])
    }
}

impl Flapping {
    /// The row's standing was `before`, and is `after` from now on.
    pub fn changed(&mut self, before: &Standing, after: &Standing, now: Timestamp) {
        let is_word = is_word_of_agent(before) || is_word_of_agent(after);
        let is_between = |status| matches!(status, Status::Deployed | Status::Error);
        let is_other = before.status != after.status || problem(before) != problem(after);
        if is_word && is_other && is_between(before.status) && is_between(after.status) {
            self.0.rotate_left(1);
            self.0[CHANGES - 1] = now.as_millisecond();
        }
    }

    /// Whether the row keeps its current standing, although [`next`](super::next) has decided another one.
    pub fn holds(&self, current: &Standing, decided: &Standing, now: Timestamp) -> bool {
        let may_wait = match (current.status, decided.status) {
            (Status::Error, Status::Deployed) => true,
            // News of anything else, as that the agent is gone, are shown at once.
            (Status::Error, Status::Error) | (Status::Deployed, Status::Deployed) => {
                decided.detail.is_none() || is_word_of_agent(decided)
            }
            _ => false,
        };
        let [first, .., last] = self.0;
        let flaps = first != NEVER && i128::from(last.saturating_sub(first)) < WINDOW.as_millis();
        // A clock that was set back makes nothing last for longer.
        let since_last = i128::from(now.as_millisecond().saturating_sub(last));
        is_word_of_agent(current) && may_wait && flaps && (0..HELD.as_millis()).contains(&since_last)
    }
}

fn problem(standing: &Standing) -> Option<&crate::Problem> {
    standing.detail.as_ref().map(|detail| &detail.problem)
}

/// Whether it is shown because an agent has said so. That an agent is gone, or does not answer, the gateway has seen itself.
fn is_word_of_agent(standing: &Standing) -> bool {
    problem(standing).is_some_and(|problem| {
        matches!(
            problem.reason,
            Reason::AgentRefused | Reason::AgentPending | Reason::AgentExhausted | Reason::TargetUnreachable
        )
    })
}
