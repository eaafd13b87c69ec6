//! Two devices with one tunnel's identity, behind one NAT, and ESP that belongs to no SA beside one that is up. Pure: time is an
//! argument.
//!
//! A device that connects ends the connection of another with its identity (INITIAL_CONTACT, RFC 7296 §2.4). The other one notices
//! late: until then it sends ESP to an SA that is gone, and then it connects again. The NAT gives each a port of its own.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};
use wicketgate_model::ConnectionFault;

use crate::ipsec::{stray_esp::StrayPacket, strongswan::peer_fault::PeerFault};

/// Connections that are remembered: two turns of two devices.
const REMEMBERED: usize = 4;

/// For how long devices that took turns are reported. One that notices the loss by dead peer detection is back after a minute or
/// two.
const TURNS_WITHIN: SignedDuration = SignedDuration::from_mins(10);

/// The gateway's last SPIs that are remembered: several rekeys of several CHILD SAs.
const SPIS: usize = 64;

/// The port of IKE without a NAT: ESP has no port then.
const IKE: u16 = 500;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Twins {
    /// The ports of the devices that have connected, the last one at the end, and when.
    connected: VecDeque<(u16, Timestamp)>,
    /// The SPIs that the gateway has chosen, the last one at the end. Who is not on the path does not know them.
    spis: VecDeque<u32>,
    /// The last ESP to an SA that has ended.
    stray: Option<(u32, u16)>,
}

impl Twins {
    /// The peer has connected from this port.
    pub(super) fn connected(&mut self, port: u16, now: Timestamp) {
        self.connected.push_back((port, now));
        if self.connected.len() > REMEMBERED {
            self.connected.pop_front();
        }
    }

    /// These are the gateway's SPIs now.
    pub(super) fn chosen(&mut self, spis: &[u32]) {
        for spi in spis {
            if !self.spis.contains(spi) {
                self.spis.push_back(*spi);
            }
        }
        self.spis.drain(..self.spis.len().saturating_sub(SPIS));
    }

    /// A CHILD SA was installed: ESP of the one before it may be under way.
    pub(super) fn renewed(&mut self) {
        self.stray = None;
    }

    /// Two devices have taken turns lately.
    pub(super) fn turns(&self, now: Timestamp) -> Option<PeerFault> {
        let ports: Vec<_> = self.connected.iter().map(|(port, _)| *port).collect();
        let [a, b, c, d] = ports[..] else { return None };
        let is_recent = self.connected.front().is_some_and(|(_, at)| now.duration_since(*at) < TURNS_WITHIN);
        (is_recent && a == c && b == d && a != b).then(|| {
            let cause = format!(
                "two devices connect with this tunnel's identity, from the ports {} and {}, and each ends the other's \
                 connection",
                a.min(b),
                a.max(b)
            );
            PeerFault::new(ConnectionFault::PeerDuplicated, cause)
        })
    }

    /// A packet of ESP belongs to no SA, while one is up with the device at `port`. It counts if the gateway has chosen its SPI, so
    /// that it is not forged, and when it comes again, some seconds later.
    pub(super) fn stray(&mut self, packet: StrayPacket, port: Option<u16>) -> Option<PeerFault> {
        let StrayPacket { spi, from } = packet;
        if !self.spis.contains(&spi) {
            return None;
        }
        if self.stray.replace((spi, from.port())) != Some((spi, from.port())) {
            return None;
        }
        match port {
            Some(port) if port != from.port() && port != IKE => {
                let cause = format!(
                    "two devices use this tunnel's identity: the one at port {port} has replaced the connection of another at \
                     port {}, which goes on sending",
                    from.port()
                );
                Some(PeerFault::new(ConnectionFault::PeerDuplicated, cause))
            }
            _ => {
                let cause = format!(
                    "the device sends ESP with the SPI {spi:08x}, whose SA has ended, beside the CHILD SA that is up: \
                     what it sends there is lost"
                );
                Some(PeerFault::new(ConnectionFault::ChildSaUnknown, cause))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn devices_that_take_turns_are_told_from_one_that_reconnects() {
        let turns = |ports: &[u16], now: i64| {
            let mut twins = Twins::default();
            for (second, port) in (0..).zip(ports) {
                twins.connected(*port, at(second * 60));
            }
            twins.turns(at(now)).is_some()
        };
        assert!(turns(&[1, 2, 1, 2], 180) && turns(&[3, 1, 2, 1, 2], 240));
        assert!(!turns(&[1, 2, 1, 2], 600), "it was long ago");
        for ports in [&[1, 1, 1, 1][..], &[1, 2, 3, 4], &[1, 2, 1], &[1, 2, 2, 1], &[1, 2, 1, 3]] {
            assert!(!turns(ports, 180), "{ports:?}");
        }
    }

    #[test]
    fn stray_esp_counts_when_it_comes_again() {
        let packet = |spi, port| StrayPacket { spi, from: format!("203.0.113.2:{port}").parse().unwrap() };
        let mut twins = Twins::default();
        twins.chosen(&[7, 8]);
        let mut reason = |packet, port| twins.stray(packet, port).map(|fault| fault.reason);
        assert_eq!(reason(packet(7, 4500), Some(4500)), None);
        assert_eq!(reason(packet(8, 4500), Some(4500)), None);
        assert_eq!(reason(packet(8, 4500), Some(4500)), Some(ConnectionFault::ChildSaUnknown));
        assert_eq!(reason(packet(8, 20_001), Some(20_002)), None);
        assert_eq!(reason(packet(8, 20_001), Some(20_002)), Some(ConnectionFault::PeerDuplicated));
        assert_eq!(reason(packet(8, 4500), Some(500)), None);
        assert_eq!(reason(packet(8, 4500), Some(500)), Some(ConnectionFault::ChildSaUnknown));
        // A forged packet has an SPI that the gateway has not chosen.
        assert_eq!([(); 3].map(|()| reason(packet(9, 20_001), Some(20_002))), [None, None, None]);
        twins.renewed();
        assert_eq!(twins.stray(packet(8, 4500), Some(500)), None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut twins = Twins::default();
        (0..1000).for_each(|spi| twins.chosen(&[spi, spi + 1]));
        assert!(twins.spis.len() == SPIS && twins.spis.back() == Some(&1000));
    }
}
