//! Shares that agents' reports have changed, before the server is told.
//!
//! Each report makes the server look at its shares, and may write rows. Invariants: a change is told at once, unless the share was told
//! within [`SHARE_EVERY`] or any within [`ANY_EVERY`]; then it is told when that is over, and the state at that time counts.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    time::Duration,
};

use tokio::time::Instant;
use wicketgate_model::ShareId;

/// Between two reports of a share because of its agents: far less than anybody waits who watches it.
const SHARE_EVERY: Duration = Duration::from_millis(250);
/// Between two reports because of agents: what many shares have in common comes in one.
const ANY_EVERY: Duration = Duration::from_millis(10);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct PacedShares {
    waiting: BTreeSet<ShareId>,
    /// Those that were told lately, and when. A share is in one of them.
    told: VecDeque<(Instant, Vec<ShareId>)>,
    lately: HashSet<ShareId>,
}

impl PacedShares {
    /// These have changed.
    pub(crate) fn add(&mut self, changed: BTreeSet<ShareId>) {
        self.waiting.extend(changed);
    }

    /// Those to tell now.
    pub(crate) fn take(&mut self, now: Instant) -> BTreeSet<ShareId> {
        while let Some((at, shares)) = self.told.front()
            && *at + SHARE_EVERY <= now
        {
            for share in shares {
                self.lately.remove(share);
            }
            self.told.pop_front();
        }
        if self.told.back().is_some_and(|(at, _)| *at + ANY_EVERY > now) {
            return BTreeSet::new();
        }
        let due: BTreeSet<_> = self.waiting.extract_if(.., |share| !self.lately.contains(share)).collect();
        if !due.is_empty() {
            self.lately.extend(&due);
            self.told.push_back((now, due.iter().copied().collect()));
        }
        due
    }

    /// When one that waits is due; `None`: none waits.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        if self.waiting.is_empty() {
            return None;
        }
        let Some((last, _)) = self.told.back() else { return Some(Instant::now()) };
        let any = *last + ANY_EVERY;
        if self.waiting.iter().any(|share| !self.lately.contains(share)) {
            return Some(any);
        }
        let waits = |shares: &[ShareId]| shares.iter().any(|share| self.waiting.contains(share));
        let first = self.told.iter().find(|(_, shares)| waits(shares)).map(|(at, _)| *at + SHARE_EVERY);
        Some(first.unwrap_or(any).max(any))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use std::collections::HashMap;
    use uuid::Uuid;

    fn share(n: u8) -> ShareId {
        ShareId::new(Uuid::from_u128(n.into()))
    }

    #[test]
    fn the_first_change_is_told_at_once_and_the_next_ones_together() {
        let (mut paced, begin) = (PacedShares::default(), Instant::now());
        let mut at = |millis, changed: &[u8]| {
            let now = begin + Duration::from_millis(millis);
            paced.add(changed.iter().map(|n| share(*n)).collect());
            let due: Vec<_> = paced.take(now).into_iter().collect();
            (due, paced.due_at().map(|at| (at - begin).as_millis()))
        };
        assert_eq!(at(0, &[1]), (vec![share(1)], None));
        assert_eq!(at(5, &[2]), (vec![], Some(10)));
        assert_eq!(at(10, &[3]), (vec![share(2), share(3)], None));
        assert_eq!(at(20, &[1, 2]), (vec![], Some(250)));
        assert_eq!(at(240, &[1, 4]), (vec![share(4)], Some(250)));
        assert_eq!(at(250, &[]), (vec![share(1)], Some(260)));
        assert_eq!(at(260, &[]), (vec![share(2)], None));
    }

    proptest! {
        /// No share is told twice within its time, and each change is told in the end.
        #[test]
        fn every_change_is_told_and_no_share_too_often(changes in vec((0u8..5, 0u64..100), 1..60)) {
            let (mut paced, mut now) = (PacedShares::default(), Instant::now());
            let (mut told, mut open): (HashMap<ShareId, Instant>, BTreeSet<ShareId>) = Default::default();
            let mut take = |paced: &mut PacedShares, open: &mut BTreeSet<ShareId>, now| {
                for share in paced.take(now) {
                    if let Some(before) = told.insert(share, now) { assert!(now - before >= SHARE_EVERY); }
                    open.remove(&share);
                }
            };
            for (n, millis) in changes {
                now += Duration::from_millis(millis);
                paced.add([share(n)].into());
                open.insert(share(n));
                take(&mut paced, &mut open, now);
            }
            while let Some(due) = paced.due_at() {
                now = now.max(due);
                let before = open.len();
                take(&mut paced, &mut open, now);
                prop_assert!(open.len() < before, "who waits until it is due finds something");
            }
            prop_assert!(open.is_empty());
        }
    }
}
