//! The doorway of the agent port: connections that have not proved yet that they are of use.
//!
//! Invariant: neither one address nor one agent can fill it, so that whoever does has to come from many places.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use wicketgate_model::AgentId;

/// In the doorway at once: each holds a socket and a handshake's buffers.
const MOST: usize = 1024;
/// Of one address: some agents behind one translated address, each with its carriers.
const OF_ADDRESS: usize = 64;
/// Control connections of one agent that have not said hello: it has one, or a second while the first one dies.
const OF_AGENT: usize = 4;

#[derive(Clone, Default)]
pub(super) struct Doorway(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    all: usize,
    of: HashMap<Who, usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Who {
    Address(IpAddr),
    Agent(AgentId),
}

/// A place in the doorway, free again when it is dropped.
pub(super) struct Permit {
    doorway: Doorway,
    who: Who,
    agent: Option<AgentId>,
}

impl Doorway {
    /// A place for a connection from the address, if there is one.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Permit> {
        let who = Who::Address(network(address));
        let mut counts = self.counts();
        if counts.all >= MOST || !counts.add(who, OF_ADDRESS) {
            return None;
        }
        counts.all += 1;
        Some(Permit { doorway: self.clone(), who, agent: None })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn add(&mut self, who: Who, most: usize) -> bool {
        let count = self.of.entry(who).or_default();
        let room = *count < most;
        *count += usize::from(room);
        room
    }

    fn sub(&mut self, who: Who) {
        if let Some(count) = self.of.get_mut(&who) {
            *count -= 1;
            if *count == 0 {
                self.of.remove(&who);
            }
        }
    }
}

impl Permit {
    /// The connection has proved to be of the agent. Answers whether the agent has a place for it.
    pub(super) fn is_of(&mut self, agent: AgentId) -> bool {
        let room = self.agent.is_none() && self.doorway.counts().add(Who::Agent(agent), OF_AGENT);
        if room {
            self.agent = Some(agent);
        }
        room
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.doorway.counts();
        counts.all -= 1;
        counts.sub(self.who);
        if let Some(agent) = self.agent {
            counts.sub(Who::Agent(agent));
        }
    }
}

/// Whom an address belongs to: with IPv6 the first 64 bits of it, since the rest is its owner's choice (RFC 4291
/// §2.5.4).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn nobody_fills_the_doorway_alone() {
        let doorway = Doorway::default();
        let v4 = |n: u8| IpAddr::from([192, 0, 2, n]);
        let mut of_one: Vec<_> = std::iter::from_fn(|| doorway.enter(v4(1))).collect();
        assert_eq!(of_one.len(), OF_ADDRESS);
        assert!(doorway.enter("::ffff:192.0.2.1".parse().unwrap()).is_none(), "the same address");
        let of_another = doorway.enter(v4(2));
        assert!(of_another.is_some());
        of_one.pop();
        assert!(doorway.enter(v4(1)).is_some());

        let v6 = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, n, 0, 0, 1]);
        let of_network: Vec<_> = (0..100).filter_map(|n| doorway.enter(v6(n))).collect();
        assert_eq!(of_network.len(), OF_ADDRESS);
        drop((of_one, of_another, of_network));

        let all: Vec<_> = (0..=255)
            .flat_map(|n| std::iter::repeat_with(move || v4(n)).take(8))
            .map_while(|a| doorway.enter(a))
            .collect();
        assert_eq!(all.len(), MOST);
        drop(all);
        assert!(doorway.counts().of.is_empty(), "nothing is kept of those that have gone");
    }

    #[test]
    fn an_agent_has_few_places() {
        let (doorway, agent) = (Doorway::default(), AgentId::new(Uuid::nil()));
        let enter = || {
            let mut permit = doorway.enter(IpAddr::from([192, 0, 2, 1])).unwrap();
            permit.is_of(agent).then_some(permit)
        };
        let mut places: Vec<_> = std::iter::from_fn(enter).collect();
        assert_eq!(places.len(), OF_AGENT);
        places.pop();
        assert!(enter().is_some());
        drop(places);
        assert!(doorway.counts().of.is_empty() && doorway.counts().all == 0);
    }
}
