//! The packet filter in a tunnel's namespace: it answers one peer, and nothing in clear.
//!
//! The uplink accepts only IKE and ESP of the peer. The tunnel accepts only TCP and echo messages from the site's
//! network to the load balancer. Nothing is forwarded. The output mirrors this, so an answer whose SA is gone is
//! dropped and never sent in clear.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::json;

use super::{NetworkError, inner_packets::InnerPackets, link::UPLINK, nft, unserved};

/// The largest TCP segment inside the tunnel: 1,400 bytes inside leave room for ESP in UDP on a path of 1,500.
const MAX_SEGMENT: u32 = 1360;

/// The largest overhead of ESP, with AES-CBC and HMAC-SHA-512: outer IP header, UDP, ESP header, IV and tag. The
/// payload is a multiple of a block and ends with a trailer.
const AROUND: u32 = 20 + 8 + 8 + 16 + 32;
const BLOCK: u32 = 16;
const TRAILER: u32 = 2;

/// Of IP and TCP, without options.
const HEADERS: u32 = 20 + 20;

/// The smallest path MTU that is believed: forged ICMP must not shrink segments to headers. Larger packets are
/// fragmented.
const NARROWEST: u32 = 1000;

/// The largest TCP segment for an outer path MTU.
fn max_segment(path: u32) -> u32 {
    let encrypted = (path.max(NARROWEST) - AROUND) / BLOCK * BLOCK;
    (encrypted - TRAILER - HEADERS).min(MAX_SEGMENT)
}

/// The largest packet of TCP for an outer path MTU.
pub(super) fn largest_inner(path: u32) -> u32 {
    max_segment(path) + HEADERS
}

/// The table, which replaces an existing one. `path` is the MTU of the path to the peer.
pub(crate) fn rules(
    packets: InnerPackets,
    peer: Ipv4Addr,
    site: Ipv4Net,
    load_balancer: Ipv4Addr,
    path: u32,
) -> Result<String, NetworkError> {
    let tun = match packets {
        InnerPackets::Device(tun) => Some(tun),
        InnerPackets::SecurityPath => None,
    };
    let values = json!({
        "uplink": UPLINK,
        "tun": tun,
        "peer": peer,
        "site": site,
        "load_balancer": load_balancer,
        "max_segment": max_segment(path),
        "unserved": unserved::SET,
        "most_unserved": unserved::MOST,
        "outside_set": unserved::OUTSIDE,
        "most_outside": unserved::MOST_OUTSIDE,
    });
    nft::render(include_str!("guard.nft"), &values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };

    #[test]
    fn segments_fit_the_path_mtu() {
        assert_eq!([1500, 1501, 9000].map(max_segment), [1360; 3]);
        assert_eq!([1480, 1400, 1000, 999, 68].map(max_segment), [1350, 1270, 870, 870, 870]);
        assert_eq!([1500, 1280].map(largest_inner), [1400, 1182]);
    }

    #[test]
    fn nft_accepts_both_rule_sets() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: nft checks rules for root only");
            return;
        }
        for packets in [InnerPackets::SecurityPath, InnerPackets::Device("ipsec0")] {
            let rules = rules(
                packets,
                Ipv4Addr::new(203, 0, 113, 1),
                Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 16),
                Ipv4Addr::new(100, 64, 0, 1),
                1500,
            )
            .unwrap();
            let mut nft = Command::new("nft").args(["-c", "-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
            nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
            assert!(nft.wait().unwrap().success(), "{rules}");
        }
    }
}
