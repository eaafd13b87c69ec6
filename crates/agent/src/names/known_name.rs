//! What is known of one name: its newest answer, and which of its addresses work.
//!
//! Invariant: an answer is used after a failed lookup only while no name server has answered since, and for a day at most.

use super::system_resolver::NoAddress;
use std::{
    mem,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// How long an answer is used while no name server answers (RFC 8767 §5 suggests one to three days).
const STALE_FOR: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Default)]
pub(super) struct KnownName {
    is_looked_up: bool,
    /// The last lookup was not answered promptly.
    hangs: bool,
    /// Counts answers and failures.
    answers: u64,
    newest: Option<(Instant, Vec<SocketAddr>)>,
    /// The failure of the last lookup.
    failure: Option<NoAddress>,
    preferred: Option<SocketAddr>,
    avoided: Option<SocketAddr>,
}

impl KnownName {
    /// Whether the caller starts a lookup: none is running.
    pub(super) fn start(&mut self) -> bool {
        !mem::replace(&mut self.is_looked_up, true)
    }

    pub(super) fn is_looked_up(&self) -> bool {
        self.is_looked_up
    }

    pub(super) fn hangs(&self) -> bool {
        self.hangs
    }

    pub(super) fn answers(&self) -> u64 {
        self.answers
    }

    /// The running lookup is not answered promptly.
    pub(super) fn hang(&mut self) {
        self.hangs = true;
    }

    pub(super) fn answered(&mut self, addresses: Vec<SocketAddr>, now: Instant) {
        self.newest = Some((now, addresses));
        self.failure = None;
        self.answers += 1;
    }

    pub(super) fn ended(&mut self, result: Result<Vec<SocketAddr>, NoAddress>, hangs: bool, now: Instant) {
        self.is_looked_up = false;
        // The agent's own shortage shows nothing of the name's servers.
        if !matches!(result, Err(NoAddress::Shortage(_))) {
            self.hangs = hangs;
        }
        match result {
            Ok(addresses) => self.answered(addresses, now),
            Err(failure) => {
                if failure == NoAddress::NotFound {
                    self.newest = None;
                }
                self.failure = Some(failure);
                self.answers += 1;
            }
        }
    }

    /// The result for a caller who came after `answers` answers. `None`: it waits for the running lookup.
    pub(super) fn result_after(
        &self,
        answers: u64,
        now: Instant,
    ) -> Option<Result<Vec<SocketAddr>, NoAddress>> {
        let usable = self.newest.as_ref().filter(|(at, _)| now.duration_since(*at) < STALE_FOR);
        if self.answers == answers && !(self.hangs && usable.is_some()) {
            return None;
        }
        Some(match (usable, self.failure) {
            (Some((_, addresses)), _) => Ok(self.in_order(addresses.clone())),
            (None, failure) => Err(failure.unwrap_or(NoAddress::NoAnswer)),
        })
    }

    fn in_order(&self, mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
        // Stable: others remain in the resolver's order (RFC 6724).
        addresses.sort_by_key(|address| match Some(*address) {
            first if first == self.preferred => 0,
            last if last == self.avoided => 2,
            _ => 1,
        });
        addresses
    }

    /// Returns `false`: no waiter needs to know.
    pub(super) fn prefer(&mut self, address: SocketAddr) -> bool {
        self.preferred = Some(address);
        self.avoided.take_if(|avoided| *avoided == address);
        false
    }

    /// Like [`Self::prefer`].
    pub(super) fn avoid(&mut self, address: SocketAddr) -> bool {
        self.avoided = Some(address);
        self.preferred.take_if(|preferred| *preferred == address);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shortage::Shortage;

    #[test]
    fn a_shortage_of_the_agent_does_not_make_a_name_prompt_that_hangs() {
        let mut name = KnownName::default();
        let mut lookup = |result, hangs| {
            name.start();
            name.ended(result, hangs, Instant::now());
            name.hangs()
        };
        assert!(lookup(Err(NoAddress::NoAnswer), true));
        assert!(lookup(Err(Shortage::Threads.into()), false));
        assert!(!lookup(Err(NoAddress::NotFound), false));
    }
}
