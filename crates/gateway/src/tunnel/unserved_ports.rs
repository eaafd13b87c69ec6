//! Ports of the load balancer that hosts of the site use and that no share has. Pure: time is an argument.
//!
//! Invariant: a packet counts only if no share had the port when it came. What came to a share that was closed on purpose, or
//! could not be bound, is told by the share.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use jiff::{SignedDuration, Timestamp};
use wicketgate_model::{ConnectionDoubt, ConnectionWarning, InnerProtocol, UnservedPort};

use crate::ground::{MOST_UNSERVED, Unserved};

/// How long a port is told after its last packet, as for refused clients: an operator has time to look.
const TOLD: SignedDuration = SignedDuration::from_mins(10);

/// How long a port counts as its share's after the share has released it: packets are found up to four seconds after they came,
/// and later on a busy machine.
const RELEASED: SignedDuration = SignedDuration::from_secs(10);

/// Ports that a message names. All are in [`ConnectionWarning::ports`].
const NAMED: usize = 8;
/// Addresses that are told of each port.
const SOURCES: usize = 8;

/// Protocol, port and client.
type Key = (InnerProtocol, u16, Ipv4Addr);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct UnservedPorts {
    known: BTreeMap<Key, Attempts>,
    /// Ports that shares have released, and when.
    released: BTreeMap<u16, Timestamp>,
}

/// Of one host to one port.
#[derive(Debug)]
struct Attempts {
    /// The kernel's counter.
    packets: u64,
    /// Those that count; 0: a share has the port.
    count: u64,
    first: Timestamp,
    last: Timestamp,
}

impl UnservedPorts {
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Shares that had these ports are deleted, or have others.
    pub(super) fn released(&mut self, ports: Vec<u16>, now: Timestamp) {
        self.released.retain(|_, at| now.duration_since(*at) < RELEASED);
        self.released.extend(ports.into_iter().map(|port| (port, now)));
    }

    /// Takes the kernel's counters, and the ports of all shares.
    pub(super) fn take(&mut self, counted: Vec<Unserved>, shares: &BTreeSet<u16>, now: Timestamp) {
        let mut before = std::mem::take(&mut self.known);
        self.released(Vec::new(), now);
        for Unserved { client, protocol, port, packets } in counted {
            let key = (protocol, port, client);
            let new = || Attempts { packets: 0, count: 0, first: now, last: now };
            let mut seen = before.remove(&key).unwrap_or_else(new);
            // The counters begin again when the rules are replaced.
            let more = packets.checked_sub(seen.packets).unwrap_or(packets);
            seen.packets = packets;
            if is_served(key, shares) || self.is_former(key) {
                seen.count = 0;
            } else if more > 0 {
                seen.first = if seen.count == 0 { now } else { seen.first };
                (seen.count, seen.last) = (seen.count + more, now);
            }
            self.known.insert(key, seen);
        }
        // No longer counted, because the rules were replaced.
        let is_told = |seen: &Attempts| seen.count > 0 && now.duration_since(seen.last) < TOLD;
        for (key, seen) in before {
            if self.known.len() < MOST_UNSERVED && is_told(&seen) && !is_served(key, shares) {
                self.known.insert(key, Attempts { packets: 0, ..seen });
            }
        }
    }

    fn is_former(&self, (protocol, port, _): Key) -> bool {
        protocol == InnerProtocol::Tcp && self.released.contains_key(&port)
    }

    pub(super) fn warning(&self, shares: &BTreeSet<u16>) -> Option<ConnectionWarning> {
        let told = || self.known.iter().filter(|(_, seen)| seen.count > 0);
        let since = told().map(|(_, seen)| seen.first).min()?;
        let mut ports: Vec<UnservedPort> = Vec::new();
        for (&(protocol, port, client), seen) in told() {
            let is_same = |last: &&mut UnservedPort| (last.protocol, last.port) == (protocol, port);
            if let Some(last) = ports.last_mut().filter(is_same) {
                last.attempts += seen.count;
                last.last_at = last.last_at.max(seen.last);
                if last.sources.len() < SOURCES {
                    last.sources.push(client);
                }
            } else {
                let (attempts, last_at, sources) = (seen.count, seen.last, vec![client]);
                ports.push(UnservedPort { protocol, port, attempts, last_at, sources });
            }
        }
        let mut message = message(&ports, shares);
        if self.known.len() >= MOST_UNSERVED {
            message.push_str(". They are too many for all to be counted");
        }
        let warning = ConnectionWarning::new(ConnectionDoubt::PortWithoutShare, message, since);
        Some(ConnectionWarning { ports, ..warning })
    }
}

fn is_served((protocol, port, _): Key, shares: &BTreeSet<u16>) -> bool {
    protocol == InnerProtocol::Tcp && shares.contains(&port)
}

/// Without counts: it stays the same while the same ports are used.
fn message(ports: &[UnservedPort], shares: &BTreeSet<u16>) -> String {
    let of = |protocol| {
        list(&ports.iter().filter(|port| port.protocol == protocol).map(|port| port.port).collect())
    };
    let shares = match list(shares) {
        Some(shares) => format!("the shares of this tunnel have {shares}"),
        None => "this tunnel has no share".to_owned(),
    };
    let tcp = of(InnerProtocol::Tcp).map(|ports| {
        format!("hosts of the site connect to {ports}, where no share is: create a share, or correct the hosts; {shares}")
    });
    let udp = of(InnerProtocol::Udp).map(|ports| {
        format!("hosts of the site send UDP to {ports}, and shares have TCP only: correct the hosts")
    });
    tcp.into_iter().chain(udp).collect::<Vec<_>>().join(". ")
}

/// `port 5432`, `ports 80, 443`.
fn list(ports: &BTreeSet<u16>) -> Option<String> {
    let words: Vec<_> = ports.iter().take(NAMED).map(u16::to_string).collect();
    let more = if ports.len() > NAMED { " and others" } else { "" };
    match words.len() {
        0 => None,
        1 => Some(format!("port {}", words.concat())),
        _ => Some(format!("ports {}{more}", words.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use InnerProtocol::{Tcp, Udp};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn counted(protocol: InnerProtocol, port: u16, host: u8, packets: u64) -> Unserved {
        Unserved { client: Ipv4Addr::new(10, 0, 0, host), protocol, port, packets }
    }

    /// Protocol, port, attempts, last second, and number of addresses.
    fn told(ports: &UnservedPorts) -> Vec<(InnerProtocol, u16, u64, i64, usize)> {
        let warning = ports.warning(&BTreeSet::new());
        let ports = warning.into_iter().flat_map(|warning| warning.ports);
        ports.map(|p| (p.protocol, p.port, p.attempts, p.last_at.as_second(), p.sources.len())).collect()
    }

    #[test]
    fn attempts_are_counted_by_port_with_their_sources() {
        let (mut ports, shares) = (UnservedPorts::default(), BTreeSet::from([5432, 8080]));
        ports.take(vec![], &shares, at(0));
        assert_eq!(ports.warning(&shares), None);
        ports.take(vec![counted(Tcp, 8443, 7, 1), counted(Udp, 53, 7, 2)], &shares, at(4));
        ports.take(
            vec![counted(Tcp, 8443, 7, 1), counted(Tcp, 8443, 8, 3), counted(Udp, 53, 7, 2)],
            &shares,
            at(8),
        );
        assert_eq!(told(&ports), [(Tcp, 8443, 4, 8, 2), (Udp, 53, 2, 4, 1)]);
        let warning = ports.warning(&shares).unwrap();
        assert_eq!(warning.since, at(4));
        let message = "hosts of the site connect to port 8443, where no share is: create a share, or correct the hosts; the \
                       shares of this tunnel have ports 5432, 8080. hosts of the site send UDP to port 53, and shares have TCP \
                       only: correct the hosts";
        assert_eq!(warning.message, message);
        assert!(ports.warning(&BTreeSet::new()).unwrap().message.contains("; this tunnel has no share. "));
    }

    #[test]
    fn what_came_to_a_share_does_not_count_before_or_after() {
        let (mut ports, none) = (UnservedPorts::default(), BTreeSet::new());
        let shares = BTreeSet::from([8443]);
        ports.take(vec![counted(Tcp, 8443, 7, 5)], &none, at(4));
        assert_eq!(told(&ports), [(Tcp, 8443, 5, 4, 1)]);
        // A share is created; it is closed on purpose for a while.
        ports.take(vec![counted(Tcp, 8443, 7, 9)], &shares, at(8));
        assert_eq!(told(&ports), []);
        // It is deleted after two more, from two hosts, which are found later.
        ports.released(vec![8443], at(10));
        ports.take(vec![counted(Tcp, 8443, 7, 9)], &none, at(10));
        ports.take(vec![counted(Tcp, 8443, 7, 10), counted(Tcp, 8443, 8, 1)], &none, at(12));
        assert_eq!(told(&ports), []);
        ports.take(vec![counted(Tcp, 8443, 7, 11), counted(Tcp, 8443, 8, 1)], &none, at(20));
        assert_eq!(told(&ports), [(Tcp, 8443, 1, 20, 1)]);
        assert_eq!(ports.warning(&none).unwrap().since, at(20));
        // UDP is no share's.
        ports.take(vec![counted(Udp, 8443, 7, 1)], &shares, at(24));
        assert_eq!(told(&ports), [(Udp, 8443, 1, 24, 1)]);
    }

    #[test]
    fn new_rules_lose_no_attempt_and_old_ones_are_forgotten() {
        let (mut ports, none) = (UnservedPorts::default(), BTreeSet::new());
        ports.take(vec![counted(Tcp, 8443, 7, 5)], &none, at(0));
        ports.take(vec![], &none, at(4));
        ports.take(vec![counted(Tcp, 8443, 7, 2)], &none, at(8));
        assert_eq!(told(&ports), [(Tcp, 8443, 7, 8, 1)]);
        ports.take(vec![], &none, at(8 + 599));
        assert_eq!(told(&ports).len(), 1);
        ports.take(vec![], &none, at(8 + 600));
        assert_eq!(told(&ports), []);
    }

    #[test]
    fn a_scan_is_bounded() {
        let (mut ports, none) = (UnservedPorts::default(), BTreeSet::new());
        for round in 0..20 {
            let scan = (0..64).map(|n| counted(Tcp, 1000 + 64 * round + n, 7, 1));
            ports.take(scan.collect(), &none, at(round.into()));
        }
        assert_eq!(told(&ports).len(), MOST_UNSERVED);
        let message = ports.warning(&none).unwrap().message;
        assert!(message.len() < 300 && message.ends_with("too many for all to be counted"), "{message}");
    }
}
