//! Who sends IKE to the gateway and is no tunnel's peer: often a site whose address is another one than was said, or has changed.
//!
//! The steering rules count these packets and drop them without an answer. Sources may be forged: the table and the log are
//! bounded.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};
use wicketgate_model::{TunnelId, UnknownPeer};
use wicketgate_system::Mutex;

use super::nft::SetElement;

/// Addresses that are logged in a period of this length.
const LOGGED: usize = 10;
const LOGGED_WITHIN: SignedDuration = SignedDuration::from_mins(10);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct UnknownPeers(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    known: BTreeMap<(Ipv4Addr, u16), UnknownPeer>,
    /// The peers of disabled tunnels, whose packets are dropped, too.
    disabled: BTreeMap<TunnelId, Ipv4Addr>,
    /// Which SPIs of ESP come from them now.
    sources: BTreeMap<u32, Ipv4Addr>,
    /// Those that were logged since a time, or left out of the log.
    logged: BTreeSet<Ipv4Addr>,
    logged_since: Timestamp,
}

impl UnknownPeers {
    /// Takes the counted packets. Returns whether anything changed.
    pub(super) fn look(&self, counted: Vec<SetElement<Ipv4Addr, u16>>, now: Timestamp) -> bool {
        let mut table = self.0.lock();
        let before = std::mem::take(&mut table.known);
        for SetElement { key, packets } in counted {
            let (address, port) = key;
            if table.disabled.values().any(|peer| *peer == address) {
                continue;
            }
            let first = UnknownPeer { address, port, packets, first_seen_at: now, last_seen_at: now };
            let peer = match before.get(&key) {
                Some(before) if before.packets == packets => before.clone(),
                Some(before) => UnknownPeer { first_seen_at: before.first_seen_at, ..first },
                None => {
                    table.log(address, now);
                    first
                }
            };
            table.known.insert(key, peer);
        }
        table.known != before
    }

    /// The tunnel is disabled, and this is its peer; `None`: it is not disabled.
    pub(crate) fn set_disabled(&self, tunnel: TunnelId, peer: Option<Ipv4Addr>) {
        let disabled = &mut self.0.lock().disabled;
        match peer {
            Some(peer) => drop(disabled.insert(tunnel, peer)),
            None => drop(disabled.remove(&tunnel)),
        }
    }

    /// Takes the SPIs of the last seconds.
    pub(super) fn take_spis(&self, spis: Vec<SetElement<Ipv4Addr, u32>>) {
        // 0 marks IKE (RFC 3948 §2.2).
        let sources =
            spis.into_iter().map(|SetElement { key, .. }| (key.1, key.0)).filter(|(spi, _)| *spi != 0);
        self.0.lock().sources = sources.collect();
    }

    /// Whether some send to the port of ESP.
    pub(super) fn have_esp(&self) -> bool {
        self.0.lock().known.keys().any(|(_, port)| *port == 4500)
    }

    pub(crate) fn all(&self) -> Vec<UnknownPeer> {
        self.0.lock().known.values().cloned().collect()
    }

    /// From where ESP with one of these SPIs arrives, if it is no peer's address.
    pub(crate) fn source_of(&self, spis: &[u32]) -> Option<Ipv4Addr> {
        let table = self.0.lock();
        spis.iter().find_map(|spi| table.sources.get(spi).copied())
    }
}

impl Table {
    fn log(&mut self, address: Ipv4Addr, now: Timestamp) {
        if now.duration_since(self.logged_since) >= LOGGED_WITHIN {
            (self.logged, self.logged_since) = (BTreeSet::new(), now);
        }
        if self.logged.len() > LOGGED || !self.logged.insert(address) {
            return;
        }
        if self.logged.len() > LOGGED {
            warn!(
                "IKE from further addresses that are no tunnel's peerPublicIp: GET /frontdoor/v2/unknown-peers lists them"
            );
        } else {
            info!("IKE from {address}, which is no tunnel's peerPublicIp");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn element<B>(host: u8, field: B, packets: u64) -> SetElement<Ipv4Addr, B> {
        SetElement { key: (Ipv4Addr::new(192, 0, 2, host), field), packets }
    }

    #[test]
    fn packets_are_counted_with_their_times() {
        let peers = UnknownPeers::default();
        assert!(!peers.look(vec![], at(0)));
        assert!(peers.look(vec![element(77, 500, 1)], at(1)));
        assert!(!peers.look(vec![element(77, 500, 1)], at(2)) && !peers.have_esp());
        assert!(peers.look(vec![element(77, 500, 3), element(78, 4500, 1)], at(3)) && peers.have_esp());
        let seen: Vec<_> = peers.all().iter().map(|p| (p.packets, p.first_seen_at, p.last_seen_at)).collect();
        assert_eq!(seen, [(3, at(1), at(3)), (1, at(3), at(3))]);
        assert!(peers.look(vec![], at(4)) && peers.all().is_empty());
        // The peer of a disabled tunnel is known.
        let tunnel = TunnelId::new(uuid::Uuid::nil());
        peers.set_disabled(tunnel, Some(Ipv4Addr::new(192, 0, 2, 77)));
        assert!(!peers.look(vec![element(77, 500, 4)], at(5)));
        peers.set_disabled(tunnel, None);
        assert!(peers.look(vec![element(77, 500, 4)], at(6)));
    }

    #[test]
    fn esp_is_found_by_its_spi() {
        let peers = UnknownPeers::default();
        peers.take_spis(vec![element(77, 0, 1), element(78, 0xc1, 1)]);
        assert_eq!(peers.source_of(&[0xc0, 0xc1]), Some(Ipv4Addr::new(192, 0, 2, 78)));
        assert_eq!(peers.source_of(&[0xc0, 0]), None);
    }

    #[test]
    fn the_log_is_bounded() {
        let mut table = Table::default();
        for host in 0..200 {
            table.log(Ipv4Addr::new(192, 0, 2, host), at(1_000_000));
        }
        assert_eq!(table.logged.len(), LOGGED + 1);
        table.log(Ipv4Addr::new(192, 0, 2, 1), at(1_000_000 + 600));
        assert_eq!(table.logged.len(), 1);
    }
}
