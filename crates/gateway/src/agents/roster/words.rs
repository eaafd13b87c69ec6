//! The words of one agent: equal ones are kept once, and of different ones no more than a bound.

use std::sync::Arc;
use wicketgate_model::{Problem, Reason};

/// Different texts of an agent: more than an honest one has targets that fail at a time. Each has some hundreds of bytes, since
/// what comes from an agent is cut to 255, so that all of them take no more than about 128 KiB.
pub(super) const MOST: usize = 256;

/// See the module. A text takes room until the last share that it is about has another.
#[derive(Default)]
pub(super) struct Words(Vec<Arc<Problem>>);

impl Words {
    /// The problem, or one in general words of the same reason if there are too many.
    pub(super) fn keep(&mut self, problem: Problem) -> Arc<Problem> {
        if let Some(known) = self.known(&problem) {
            return known;
        }
        if self.0.len() >= MOST {
            self.0.retain(|known| Arc::strong_count(known) > 1);
        }
        if self.0.len() < MOST {
            return self.add(problem);
        }
        // Beyond the bound, there is one for each reason.
        let problem = in_general(problem.reason);
        self.known(&problem).unwrap_or_else(|| self.add(problem))
    }

    fn known(&self, problem: &Problem) -> Option<Arc<Problem>> {
        self.0.iter().find(|known| ***known == *problem).cloned()
    }

    fn add(&mut self, problem: Problem) -> Arc<Problem> {
        let problem = Arc::new(problem);
        self.0.push(Arc::clone(&problem));
        problem
    }
}

fn in_general(reason: Reason) -> Problem {
    let message = format!(
        "the agent gives more than {MOST} different reasons at a time: its log has the one of this share"
    );
    Problem::new(reason, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_words_are_kept_once_and_many_different_ones_become_one() {
        let mut words = Words::default();
        let refused = |n: usize| Problem::new(Reason::AgentRefused, format!("no {n}"));
        let one = words.keep(refused(1));
        assert!(Arc::ptr_eq(&one, &words.keep(refused(1))) && *one == refused(1));
        // An agent that finds other words for each of 4,000 shares.
        let kept: Vec<_> = (0..4_000).map(|n| words.keep(refused(n))).collect();
        assert_eq!(words.0.len(), MOST + 1);
        assert!(Arc::ptr_eq(&kept[3_998], &kept[3_999]) && kept[3_999].message.contains("its log"));
        let unreachable = words.keep(Problem::new(Reason::TargetUnreachable, "no route"));
        assert_eq!((unreachable.reason, words.0.len()), (Reason::TargetUnreachable, MOST + 2));
        // Those that are about no share any more leave room for others.
        drop((kept, unreachable));
        assert_eq!(words.keep(refused(5_000)).message, "no 5000");
        assert_eq!(words.0.len(), 2, "with the first one");
    }
}
