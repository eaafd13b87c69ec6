//! The last connections of one share on which clients sent bytes and the target sent none.
//!
//! Invariants: one answer on any connection ends what is told; a check or a probe does not, since a service that hangs takes
//! connections; and what is told keeps its kind.

use jiff::{SignedDuration, Timestamp};
use wicketgate_model::{TrafficDelta, Unanswered};

/// Fewer are no evidence: one client may have made a mistake.
pub(super) const FEWEST: usize = 3;
/// How long a failure remains if no client connects: longer than a repair and a look at it take, and short enough that a share
/// which is taken out of use for it comes back. Not every failure ends with a report: a burst may exhaust the carriers.
pub(super) const QUIET: SignedDuration = SignedDuration::from_mins(15);

/// What the target does instead of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instead {
    Waits,
    Ends,
}

impl Instead {
    /// What happened, and what to do. Whether it is a fault is known to the operator only: some clients expect no answer.
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Waits => {
                "on each of the last connections, clients sent bytes and the target sent none (silent): see that the service does \
                 not hang and is the one that the clients expect, with or without TLS. Clients that only send, as those of \
                 syslog, expect no answer"
            }
            Self::Ends => {
                "on each of the last connections, clients sent bytes and the target ended the connection without an answer \
                 (ended): see its log. It may expect TLS or another protocol, expect or not expect the PROXY protocol header \
                 (proxyProtocol), or refuse the agent's address"
            }
        }
    }
}

/// Connections without an answer since the last one that had one.
#[derive(Debug, Default)]
pub(super) struct UnansweredRun(Option<Run>);

#[derive(Debug)]
struct Run {
    counts: Unanswered,
    last: Timestamp,
    /// `None`: they are too few to be told.
    told: Option<Instead>,
}

impl UnansweredRun {
    /// Takes in a report. It has no order, so an answer in it may be the last of its connections.
    pub(super) fn take(&mut self, delta: &TrafficDelta, now: Timestamp) {
        let Unanswered { silent, ended } = delta.unanswered;
        if delta.answered > 0 {
            self.0 = None;
        } else if silent + ended > 0 {
            let new = || Run { counts: Unanswered::default(), last: now, told: None };
            let run = self.0.get_or_insert_with(new);
            run.last = now;
            run.counts.silent += silent;
            run.counts.ended += ended;
            if run.told.is_none() && run.counts.count() >= FEWEST as u64 {
                let ends = run.counts.ended > run.counts.silent;
                run.told = Some(if ends { Instead::Ends } else { Instead::Waits });
            }
        }
    }

    /// Forgets connections after a time in which none followed.
    pub(super) fn expire(&mut self, now: Timestamp) {
        self.0.take_if(|run| now.duration_since(run.last) >= QUIET);
    }

    pub(super) fn told(&self) -> Option<Instead> {
        self.0.as_ref()?.told
    }

    pub(super) fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, |run| run.counts.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;
    use wicketgate_model::{ShareId, TunnelId};

    /// What happens to a share.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Answered,
        Missed(Instead),
        /// Seconds.
        Pass(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            1 => Just(Step::Answered),
            4 => Just(Step::Missed(Instead::Waits)),
            3 => Just(Step::Missed(Instead::Ends)),
            3 => (0i64..300).prop_map(Step::Pass),
            1 => Just(Step::Pass(900)),
        ]
    }

    fn report(step: Step) -> TrafficDelta {
        let delta = TrafficDelta::new(ShareId::new(Uuid::nil()), TunnelId::new(Uuid::nil()));
        match step {
            Step::Answered => TrafficDelta { answered: 1, ..delta },
            Step::Missed(Instead::Waits) => {
                TrafficDelta { unanswered: Unanswered { silent: 1, ended: 0 }, ..delta }
            }
            Step::Missed(Instead::Ends) => {
                TrafficDelta { unanswered: Unanswered { silent: 0, ended: 1 }, ..delta }
            }
            Step::Pass(_) => delta,
        }
    }

    /// The rule as a sentence over the whole history: it is told if at least three connections followed the last answer and
    /// the last quarter of an hour without any, as what most of the first three met.
    fn expected(history: &[(i64, Step)], now: i64) -> (Option<Instead>, u64) {
        let mut run: Vec<(i64, Instead)> = Vec::new();
        for (at, step) in history {
            if run.last().is_some_and(|(last, _)| at - last >= 900) {
                run.clear();
            }
            match step {
                Step::Answered => run.clear(),
                Step::Missed(instead) => run.push((*at, *instead)),
                Step::Pass(_) => {}
            }
        }
        if run.last().is_some_and(|(last, _)| now - last >= 900) {
            run.clear();
        }
        let ends = run.iter().take(3).filter(|(_, instead)| *instead == Instead::Ends).count();
        let told = if ends >= 2 { Instead::Ends } else { Instead::Waits };
        ((run.len() >= 3).then_some(told), run.len() as u64)
    }

    proptest! {
        #[test]
        fn it_is_as_the_rule_says(steps in proptest::collection::vec(step(), 1..60)) {
            let (mut run, mut history, mut now) = (UnansweredRun::default(), Vec::new(), 0);
            let at = |second| Timestamp::from_second(second).unwrap();
            for step in steps {
                if let Step::Pass(seconds) = step {
                    now += seconds;
                    run.expire(at(now));
                }
                run.take(&report(step), at(now));
                history.push((now, step));
                prop_assert_eq!((run.told(), run.count()), expected(&history, now));
            }
        }
    }

    #[test]
    fn an_answer_in_the_same_report_counts() {
        let mut run = UnansweredRun::default();
        let many = TrafficDelta { unanswered: Unanswered { silent: 5, ended: 2 }, ..report(Step::Answered) };
        run.take(&many, Timestamp::UNIX_EPOCH);
        assert_eq!((run.told(), run.count()), (None, 0));
        run.take(&TrafficDelta { answered: 0, ..many }, Timestamp::UNIX_EPOCH);
        assert_eq!((run.told(), run.count()), (Some(Instead::Waits), 7));
    }
}
