//! Ports and addresses at a tunnel's two ends.

use crate::{
    Invalid,
    declare::{bounded, serde_as_text, transparent},
};
use ipnet::Ipv4Net;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

bounded!(
    /// The port on a tunnel's load balancer that a share listens on.
    IngressPort(u16),
    1..=65_535
);
transparent! {
    /// The public address of a remote site's IPsec device. The gateway tells peers apart by it.
    PeerAddress(Ipv4Addr);
    /// The remote site's network behind the tunnel: its traffic selector. `/8` to `/32`, host bits zero.
    PeerCidr(Ipv4Net);
}
serde_as_text!(PeerAddress, PeerCidr);

impl FromStr for PeerAddress {
    type Err = Invalid;

    fn from_str(s: &str) -> Result<Self, Invalid> {
        let ip: Ipv4Addr = s.parse().map_err(|_| {
            Invalid::new(if s.parse::<std::net::Ipv6Addr>().is_ok() {
                "must be an IPv4 address: IPv6 tunnels are not supported yet"
            } else {
                "must be an IPv4 address"
            })
        })?;
        // 0/8 is "this network", and what is above 223 multicast or reserved (RFC 6890).
        let host = (1..=223).contains(&ip.octets()[0]) && !ip.is_loopback() && !ip.is_link_local();
        if host {
            Ok(Self(ip))
        } else {
            Err(Invalid::new("must be the unicast address of the remote device"))
        }
    }
}

impl PeerCidr {
    pub fn contains(self, ip: Ipv4Addr) -> bool {
        self.0.contains(&ip)
    }

    pub(crate) fn overlaps(self, net: Ipv4Net) -> bool {
        self.0.contains(&net) || net.contains(&self.0)
    }
}

impl FromStr for PeerCidr {
    type Err = Invalid;

    fn from_str(s: &str) -> Result<Self, Invalid> {
        let net: Ipv4Net = s.parse().map_err(|_| {
            Invalid::new(if s.parse::<ipnet::Ipv6Net>().is_ok() {
                "must be an IPv4 network: IPv6 inside a tunnel is not supported yet"
            } else {
                "must be an IPv4 network in CIDR notation, like 172.31.0.0/16"
            })
        })?;
        if net.trunc() != net {
            return Err(Invalid::new(format!("must have no host bits set: {} is the network", net.trunc())));
        }
        if net.prefix_len() < 8 {
            return Err(Invalid::new("must have a prefix of /8 to /32"));
        }
        let overlaps =
            |reserved: [u8; 4], prefix| Ipv4Net::new_assert(reserved.into(), prefix).contains(&net.network());
        if overlaps([0, 0, 0, 0], 8)
            || overlaps([127, 0, 0, 0], 8)
            || overlaps([169, 254, 0, 0], 16)
            || net.contains(&Ipv4Addr::new(169, 254, 0, 0))
            || overlaps([224, 0, 0, 0], 3)
        {
            return Err(Invalid::new(
                "must be a unicast network: not 0/8, loopback, link-local, multicast or reserved",
            ));
        }
        Ok(Self(net))
    }
}

/// What limits for each source count as one: with IPv6 the first 64 bits, since the owner chooses the rest (RFC 4291 §2.5.4). An
/// IPv4-mapped address counts as the IPv4 address.
pub fn one_client(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_network_panics(s in "[0-9./:a-f]{0,40}") {
            let _ = (s.parse::<PeerCidr>(), s.parse::<PeerAddress>());
        }
    }

    #[test]
    fn ports_are_limited() {
        assert!(IngressPort::try_from(0).is_err() && IngressPort::try_from(65_536).is_err());
        assert!(IngressPort::try_from(-1).is_err());
        assert_eq!(IngressPort::try_from(65_535).map(IngressPort::get), Ok(65_535));
    }

    #[test]
    fn the_error_for_host_bits_names_the_correct_network() {
        let err = "10.1.2.3/16".parse::<PeerCidr>().unwrap_err();
        assert!(err.0.contains("10.1.0.0/16"), "{err}");
        for bad in
            ["0.0.0.0/0", "127.0.0.0/8", "169.254.0.0/16", "168.0.0.0/7", "224.0.0.0/8", "fd00::/8", "x"]
        {
            assert!(bad.parse::<PeerCidr>().is_err(), "{bad}");
        }
    }
}
