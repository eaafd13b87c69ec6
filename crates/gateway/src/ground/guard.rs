//! The packet filter in a tunnel's namespace: it answers one peer, and nothing in clear.
//!
//! The uplink accepts only IKE and ESP of the peer. The tunnel accepts only TCP and echo requests from the site's
//! network to the load balancer. Nothing is forwarded. The output mirrors this, so an answer whose SA is gone is
//! dropped and never sent in clear.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// How the guard recognises packets inside the tunnel, which depends on where the engine does ESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InnerPackets {
    /// They use the uplink and carry a security path: ESP in the kernel.
    SecurityPath,
    /// They use this TUN device of the engine.
    Device(&'static str),
}

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

/// The table, which replaces an existing one. `path` is the MTU of the path to the peer.
pub(crate) fn rules(
    packets: InnerPackets,
    peer: Ipv4Addr,
    site: Ipv4Net,
    load_balancer: Ipv4Addr,
    path: u32,
) -> String {
    let uplink = super::link::UPLINK;
    let (from_tunnel, to_tunnel, esp_in, esp_out) = match packets {
        InnerPackets::Device(tun) => {
            (format!("iifname \"{tun}\""), format!("oifname \"{tun}\""), String::new(), String::new())
        }
        InnerPackets::SecurityPath => (
            format!("iifname \"{uplink}\" meta ipsec exists"),
            format!("oifname \"{uplink}\" rt ipsec exists"),
            format!("    iifname \"{uplink}\" ip saddr {peer} ip protocol esp accept\n"),
            format!("    oifname \"{uplink}\" ip daddr {peer} ip protocol esp accept\n"),
        ),
    };
    let (inside, outside) = (
        format!("{from_tunnel} ip saddr {site} ip daddr {load_balancer}"),
        format!("{to_tunnel} ip saddr {load_balancer} ip daddr {site}"),
    );
    let clamp = format!("tcp flags syn tcp option maxseg size set {}", max_segment(path));
    // Of ICMP errors, path MTU discovery needs only this one; the kernel checks that it belongs to a socket.
    format!(
        r#"table inet wicketgate {{}}
delete table inet wicketgate
table inet wicketgate {{
  chain input {{
    type filter hook input priority filter; policy drop;
    {inside} {clamp}
    {inside} meta l4proto tcp accept
    {inside} icmp type echo-request accept
    {inside} icmp type destination-unreachable icmp code frag-needed accept
    iifname "{uplink}" ip saddr {peer} udp dport {{ 500, 4500 }} accept
{esp_in}    iifname "{uplink}" icmp type destination-unreachable icmp code frag-needed accept
  }}
  chain forward {{ type filter hook forward priority filter; policy drop; }}
  chain output {{
    type filter hook output priority filter; policy drop;
    {outside} {clamp}
    {outside} meta l4proto {{ tcp, icmp }} accept
    oifname "{uplink}" ip daddr {peer} udp sport {{ 500, 4500 }} accept
{esp_out}  }}
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };

    #[test]
    fn segments_fit_their_path() {
        assert_eq!([1500, 1501, 9000].map(max_segment), [1360; 3]);
        assert_eq!([1480, 1400, 1000, 999, 68].map(max_segment), [1350, 1270, 870, 870, 870]);
    }

    #[test]
    fn nft_understands_both_rule_sets() {
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
            );
            let mut nft = Command::new("nft").args(["-c", "-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
            nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
            assert!(nft.wait().unwrap().success(), "{rules}");
        }
    }
}
