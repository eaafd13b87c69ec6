//! Limits of the agent port for connections without an identity yet.
//!
//! Invariant: a new connection is always admitted; above a limit, the oldest one is closed for it. A handshake takes
//! milliseconds, so a good one is done long before stalled ones displace it.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};
use tokio_util::sync::CancellationToken;
use wicketgate_model::{AgentId, one_client};
use wicketgate_system::Mutex;

/// Concurrent handshakes, if there are descriptors for them: each holds a socket and buffers.
pub(super) const MOST: usize = 1024;
/// From one address: several agents behind NAT, each with its carriers.
const OF_ADDRESS: usize = 64;
/// Control connections of one agent without a hello: it has one, or a second while the first one dies.
const OF_AGENT: usize = 4;

#[derive(Clone)]
pub(super) struct HandshakeLimits {
    unproven: Arc<Mutex<Unproven>>,
    most: usize,
}

#[derive(Default)]
struct Unproven {
    /// Connections without an identity, the oldest first. So few that they are searched.
    handshakes: VecDeque<Handshake>,
    agents: HashMap<AgentId, usize>,
    last: u64,
}

struct Handshake {
    address: IpAddr,
    number: u64,
    lost: CancellationToken,
}

/// The admission of one connection, released when it is dropped.
pub(super) struct Permit {
    limits: HandshakeLimits,
    number: u64,
    agent: Option<AgentId>,
    /// Cancelled when the connection must close for a newer one.
    pub(super) lost: CancellationToken,
}

impl HandshakeLimits {
    /// `most` at one time.
    pub(super) fn new(most: usize) -> Self {
        Self { unproven: Arc::default(), most }
    }

    /// Admits a connection from the address.
    pub(super) fn enter(&self, address: IpAddr) -> Permit {
        let address = one_client(address);
        let lost = CancellationToken::new();
        let mut unproven = self.unproven.lock();
        if unproven.handshakes.iter().filter(|h| h.address == address).count() >= OF_ADDRESS {
            unproven.close_oldest(address);
        } else if unproven.handshakes.len() >= self.most {
            unproven.close_oldest_of_busiest();
        }
        unproven.last += 1;
        let number = unproven.last;
        unproven.handshakes.push_back(Handshake { address, number, lost: lost.clone() });
        drop(unproven);
        Permit { limits: self.clone(), number, agent: None, lost }
    }
}

impl Unproven {
    /// Closes the oldest connection of the addresses that have the most.
    fn close_oldest_of_busiest(&mut self) {
        let mut counts: HashMap<_, usize> = HashMap::new();
        self.handshakes.iter().for_each(|h| *counts.entry(h.address).or_default() += 1);
        let most = counts.values().max().copied();
        let oldest = self.handshakes.iter().find(|h| counts.get(&h.address).copied() == most);
        if let Some(address) = oldest.map(|h| h.address) {
            self.close_oldest(address);
        }
    }

    fn close_oldest(&mut self, address: IpAddr) {
        let oldest = self.handshakes.iter().position(|h| h.address == address);
        if let Some(oldest) = oldest.and_then(|at| self.handshakes.remove(at)) {
            oldest.lost.cancel();
        }
    }

    fn remove(&mut self, number: u64) {
        self.handshakes.retain(|h| h.number != number);
    }
}

impl Permit {
    /// The connection has authenticated as the agent and can no longer be displaced. Returns whether the agent is below
    /// its limit.
    pub(super) fn authenticated(&mut self, agent: AgentId) -> bool {
        let mut unproven = self.limits.unproven.lock();
        let count = unproven.agents.entry(agent).or_default();
        if self.agent.is_some() || *count >= OF_AGENT {
            return false;
        }
        *count += 1;
        self.agent = Some(agent);
        unproven.remove(self.number);
        true
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut unproven = self.limits.unproven.lock();
        let Some(agent) = self.agent else { return unproven.remove(self.number) };
        if let Some(count) = unproven.agents.get_mut(&agent) {
            *count -= 1;
            if *count == 0 {
                unproven.agents.remove(&agent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn v4(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    fn staying(permits: &[Permit]) -> usize {
        permits.iter().filter(|p| !p.lost.is_cancelled()).count()
    }

    #[test]
    fn above_the_limit_of_an_address_its_oldest_connection_is_closed() {
        let limits = HandshakeLimits::new(MOST);
        let elsewhere = limits.enter(v4(2));
        let of_one: Vec<_> = (0..=OF_ADDRESS).map(|_| limits.enter(v4(1))).collect();
        assert_eq!(staying(&of_one), OF_ADDRESS);
        assert!(of_one[0].lost.is_cancelled() && !elsewhere.lost.is_cancelled());
        let mapped = limits.enter("::ffff:192.0.2.1".parse().unwrap());
        assert!(
            of_one[1].lost.is_cancelled() && !mapped.lost.is_cancelled(),
            "a mapped address counts as the same address"
        );
        drop(mapped);
        drop(limits.enter(v4(1)));
        assert_eq!(staying(&of_one), OF_ADDRESS - 1, "it was below the limit");

        let v6 = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, n, 0, 0, 1]);
        let of_network: Vec<_> = (0..100).map(|n| limits.enter(v6(n))).collect();
        assert_eq!(staying(&of_network), OF_ADDRESS);
        drop((of_one, of_network, elsewhere));
        let unproven = limits.unproven.lock();
        assert!(unproven.handshakes.is_empty(), "closed connections leave entries");
    }

    #[test]
    fn above_the_limit_a_connection_of_the_busiest_address_is_closed() {
        let limits = HandshakeLimits::new(MOST);
        let all: Vec<_> = (0..MOST).map(|n| limits.enter(v4(u8::try_from(n / 32).unwrap()))).collect();
        assert_eq!(staying(&all), MOST);
        let more: Vec<_> = (0..20).map(|_| limits.enter(v4(200))).collect();
        assert_eq!((staying(&all), staying(&more)), (MOST - 20, 20));
        assert_eq!(limits.unproven.lock().handshakes.len(), MOST);
    }

    #[test]
    fn among_equally_busy_addresses_the_oldest_connection_is_closed() {
        let limits = HandshakeLimits::new(200);
        let mut all: Vec<_> = (0..200).map(|n| limits.enter(v4(n))).collect();
        for closed in 0..50 {
            all.push(limits.enter(v4(u8::try_from(200 + closed).unwrap())));
            let is_open: Vec<_> = all.iter().map(|p| !p.lost.is_cancelled()).collect();
            assert_eq!(is_open.iter().position(|open| *open), Some(closed + 1), "not the oldest");
            assert_eq!(staying(&all), 200);
        }
    }

    #[test]
    fn an_agent_has_few_connections_and_keeps_them() {
        let (limits, agent) = (HandshakeLimits::new(MOST), AgentId::new(Uuid::nil()));
        let enter = || {
            let mut permit = limits.enter(v4(1));
            permit.authenticated(agent).then_some(permit)
        };
        let mut places: Vec<_> = std::iter::from_fn(enter).collect();
        assert_eq!(places.len(), OF_AGENT);
        places.pop();
        places.extend(enter());
        assert_eq!(places.len(), OF_AGENT);
        let flood: Vec<_> = (0..2 * MOST).map(|_| limits.enter(v4(1))).collect();
        assert_eq!(staying(&places), OF_AGENT);
        drop((places, flood));
        let unproven = limits.unproven.lock();
        assert!(unproven.handshakes.is_empty() && unproven.agents.is_empty());
    }
}
