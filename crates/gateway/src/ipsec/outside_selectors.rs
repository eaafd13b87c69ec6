//! Packets that come through the tunnel and are outside of its traffic selectors: they are dropped, and their senders see no answer.
//! Pure: time is an argument.

use std::{collections::BTreeSet, mem, net::Ipv4Addr};

use jiff::{SignedDuration, Timestamp};
use wicketgate_model::{ChildSa, ConnectionDoubt, ConnectionWarning, TrafficSelectors};

use crate::ground::Unserved;

/// How long they are told after the last one: an operator has time to look.
const TOLD: SignedDuration = SignedDuration::from_mins(10);

/// Senders that are told, and addresses that they use.
const NAMED: usize = 4;

/// What charon's log says of each one that it drops.
const DROPPED: &str = "discarding inbound IP packet ";

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct OutsideSelectors {
    from: BTreeSet<Ipv4Addr>,
    to: BTreeSet<Ipv4Addr>,
    /// Whether there were others.
    are_more: bool,
    /// The times of the first and of the last one.
    seen: Option<(Timestamp, Timestamp)>,
    /// What the guard's counters had together.
    counted: u64,
}

impl OutsideSelectors {
    /// Processes a line of charon's log. Returns whether it says something new.
    pub(crate) fn log(&mut self, line: &str, now: Timestamp) -> bool {
        dropped(line).is_some_and(|(from, to)| self.saw(from, to, now))
    }

    /// Takes the counters of what the guard dropped.
    pub(crate) fn counted(&mut self, dropped: &[Unserved], to: Ipv4Addr, now: Timestamp) {
        let counted = dropped.iter().map(|one| one.packets).sum();
        // They lose what is ten minutes old, and begin again when the rules are replaced.
        if counted > mem::replace(&mut self.counted, counted) {
            for one in dropped {
                self.saw(one.client, to, now);
            }
        }
    }

    /// Records a packet. Returns whether something is new.
    fn saw(&mut self, from: Ipv4Addr, to: Ipv4Addr, now: Timestamp) -> bool {
        self.end(now);
        let is_first = self.seen.is_none();
        self.seen = Some((self.seen.map_or(now, |(first, _)| first), now));
        let mut is_new = |all: &mut BTreeSet<Ipv4Addr>, one| {
            let has_room = all.len() < NAMED;
            let is_new = !all.contains(&one) && (has_room || !self.are_more);
            self.are_more |= !all.contains(&one) && !has_room;
            if has_room {
                all.insert(one);
            }
            is_new
        };
        is_new(&mut self.from, from) | is_new(&mut self.to, to) | is_first
    }

    /// Forgets what is too long ago to be told.
    fn end(&mut self, now: Timestamp) {
        if self.seen.is_some_and(|(_, last)| now.duration_since(last) >= TOLD) {
            *self = Self { counted: self.counted, ..Self::default() };
        }
    }

    /// The warning of a tunnel with these CHILD SAs, if there are any.
    pub(crate) fn warning(&mut self, child_sas: &[ChildSa], now: Timestamp) -> Option<ConnectionWarning> {
        self.end(now);
        let (since, _) = self.seen.filter(|_| !child_sas.is_empty())?;
        let more = if self.are_more { " and others" } else { "" };
        let taken: Vec<_> = child_sas.iter().map(|child| takes(&child.selectors)).collect();
        let message = format!(
            "packets from {} to {}{more} came through the tunnel and were dropped, since it takes packets {} only: exempt traffic to \
             loadBalancerIp from address translation on the device, or set peerCidr to the network of these hosts",
            list(&self.from),
            list(&self.to),
            taken.join(" and ")
        );
        Some(ConnectionWarning::new(ConnectionDoubt::PacketsOutsideSelectors, message, since))
    }
}

fn takes(selectors: &TrafficSelectors) -> String {
    format!("from {} to {}", selectors.peer.join(", "), selectors.gateway.join(", "))
}

fn list(addresses: &BTreeSet<Ipv4Addr>) -> String {
    addresses.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(", ")
}

/// Source and destination of `10.1.0.10[40001] == 100.64.0.1[9000] [6] due to policy`; ICMP has no ports.
fn dropped(line: &str) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let (from, to) = line.strip_prefix(DROPPED)?.split_once(" == ")?;
    let address = |end: &str| end.split(['[', ' ']).next()?.parse().ok();
    Some((address(from)?, address(to)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use wicketgate_model::InnerProtocol;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn child() -> ChildSa {
        let selectors =
            TrafficSelectors { gateway: vec!["100.64.0.1/32".into()], peer: vec!["10.0.0.0/16".into()] };
        let (algorithms, since) = (String::new(), at(0));
        ChildSa { selectors, algorithms, since, rekey_at: None, rekeys: 0, bytes_in: 0, bytes_out: 0 }
    }

    #[test]
    fn a_line_of_the_daemon_is_read() {
        let (from, to) = (Ipv4Addr::new(10, 1, 0, 10), Ipv4Addr::new(100, 64, 0, 1));
        for line in ["10.1.0.10[40001] == 100.64.0.1[9000] [6]", "10.1.0.10 == 100.64.0.1 [1]"] {
            assert_eq!(dropped(&format!("{DROPPED}{line} due to policy")), Some((from, to)));
        }
        assert_eq!(dropped("received packet: from 10.1.0.10[500] to 100.64.0.1[500] (304 bytes)"), None);
    }

    #[test]
    fn a_few_senders_are_told_for_ten_minutes_after_the_last_packet() {
        let mut outside = OutsideSelectors::default();
        let to = Ipv4Addr::new(100, 64, 0, 1);
        assert_eq!(outside.warning(&[child()], at(0)), None);
        for (second, last_byte, is_new) in [
            (0, 1, true),
            (1, 1, false),
            (2, 2, true),
            (3, 3, true),
            (4, 4, true),
            (5, 5, true),
            (6, 6, false),
        ] {
            let from = Ipv4Addr::new(10, 1, 0, last_byte);
            assert_eq!(outside.saw(from, to, at(second)), is_new, "{second}");
        }
        let warning = outside.warning(&[child()], at(605)).unwrap();
        assert_eq!(warning.since, at(0));
        assert_eq!(outside.warning(&[], at(605)), None, "no packet comes through a tunnel that is down");
        let begin = "packets from 10.1.0.1, 10.1.0.2, 10.1.0.3, 10.1.0.4 to 100.64.0.1 and others came";
        assert!(warning.message.starts_with(begin), "{}", warning.message);
        let takes = "since it takes packets from 10.0.0.0/16 to 100.64.0.1/32 only";
        assert!(warning.message.contains(takes), "{}", warning.message);
        assert_eq!(outside.warning(&[child()], at(606)), None);
        assert!(outside.saw(Ipv4Addr::new(10, 1, 0, 1), to, at(607)), "it begins again");
    }

    #[test]
    fn counters_that_do_not_grow_tell_nothing_new() {
        let mut outside = OutsideSelectors::default();
        let (client, to) = (Ipv4Addr::new(10, 1, 0, 10), Ipv4Addr::new(100, 64, 0, 1));
        let mut is_told = |second, packets: &[u64]| {
            let counter = |&packets| Unserved { client, protocol: InnerProtocol::Tcp, port: 9000, packets };
            outside.counted(&packets.iter().map(counter).collect::<Vec<_>>(), to, at(second));
            outside.warning(&[child()], at(second)).is_some()
        };
        assert!(!is_told(0, &[]));
        assert!(is_told(4, &[1, 2]));
        assert!(is_told(603, &[1, 2]));
        assert!(!is_told(604, &[1, 2]));
        assert!(!is_told(608, &[2]));
        assert!(is_told(612, &[3]));
    }

    proptest! {
        #[test]
        fn no_input_panics(text: String) {
            dropped(&text);
            dropped(&format!("{DROPPED}{text}"));
        }
    }
}
