//! Addresses of load balancers: what sites connect to.

use crate::{
    Invalid, PeerCidr,
    declare::{serde_as_text, transparent},
};
use ipnet::Ipv4Net;
use std::{fmt, net::Ipv4Addr, str::FromStr};

transparent! {
    /// A network that load balancers' addresses come from: `/8` to `/30`, unicast, host bits zero.
    LoadBalancerPool(Ipv4Net);
    /// The address at the gateway's end of a tunnel.
    LoadBalancerIp(Ipv4Addr);
}
serde_as_text!(LoadBalancerPool, LoadBalancerIp);

impl FromStr for LoadBalancerPool {
    type Err = Invalid;

    fn from_str(s: &str) -> Result<Self, Invalid> {
        // The rules of a site's network, and room for addresses.
        let _: PeerCidr = s.parse()?;
        let net: Ipv4Net = s.parse().map_err(|_| Invalid::new("must be an IPv4 network"))?;
        if net.prefix_len() > 30 {
            return Err(Invalid::new("must have a prefix of /8 to /30"));
        }
        Ok(Self(net))
    }
}

impl FromStr for LoadBalancerIp {
    type Err = Invalid;

    fn from_str(s: &str) -> Result<Self, Invalid> {
        s.parse().map(Self).map_err(|_| Invalid::new("must be an IPv4 address"))
    }
}

/// Where load balancers' addresses come from. A tunnel's slot is an offset into a pool; the pool is the first one
/// that the remote site's own network does not touch, so that the address is never one of the site's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadBalancerPools {
    pools: Vec<LoadBalancerPool>,
    chosen: Option<LoadBalancerIp>,
}

impl LoadBalancerPools {
    /// Slots that tunnels have: `0..SLOTS`.
    pub const SLOTS: u16 = 16_000;

    /// For tunnels over IPsec. RFC 6598's shared space first: customers seldom number their own networks from it.
    /// No `/8` network covers two of them.
    pub fn ipsec() -> Self {
        Self::from(vec![
            LoadBalancerPool(Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 16)),
            LoadBalancerPool(Ipv4Net::new_assert(Ipv4Addr::new(10, 255, 0, 0), 16)),
        ])
    }

    /// For `--ipsec off`: loopback addresses.
    pub fn loopback() -> Self {
        Self::from(vec![LoadBalancerPool(Ipv4Net::new_assert(Ipv4Addr::new(127, 64, 0, 0), 16))])
    }

    /// These pools, for a tunnel whose address the caller has chosen.
    pub fn choosing(&self, chosen: Option<LoadBalancerIp>) -> Self {
        Self { chosen, ..self.clone() }
    }

    pub fn chosen(&self) -> Option<Ipv4Addr> {
        self.chosen.map(LoadBalancerIp::get)
    }

    /// Whether it is an address for a load balancer: in a pool, and neither its first address nor its last.
    pub fn contains(&self, ip: LoadBalancerIp) -> bool {
        let is_in = |pool: &LoadBalancerPool| {
            let net = pool.0;
            net.contains(&ip.0) && ip.0 != net.network() && ip.0 != net.broadcast()
        };
        self.pools.iter().any(is_in)
    }

    /// The load balancer's address of the tunnel in `slot`, if no other tunnel has it; `None` if every pool touches the
    /// site's network, or the slot is out of range.
    pub fn address(&self, slot: u16, peer: PeerCidr) -> Option<Ipv4Addr> {
        self.addresses(slot, peer).next()
    }

    /// All addresses that the tunnel in `slot` can have, in order of preference.
    pub fn addresses(&self, slot: u16, peer: PeerCidr) -> impl Iterator<Item = Ipv4Addr> {
        let pools = self.pools.iter().map(|pool| pool.0).filter(move |net| !peer.overlaps(*net));
        let pools = pools.filter(move |_| slot < Self::SLOTS);
        pools.flat_map(move |net| {
            let (first, last) = (u32::from(net.network()) + 1, u32::from(net.broadcast()) - 1);
            let preferred = first + u32::from(slot) % (last - first + 1);
            (preferred..=last).chain(first..preferred).map(Ipv4Addr::from)
        })
    }
}

impl From<Vec<LoadBalancerPool>> for LoadBalancerPools {
    fn from(pools: Vec<LoadBalancerPool>) -> Self {
        Self { pools, chosen: None }
    }
}

/// The networks.
impl fmt::Display for LoadBalancerPools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pools: Vec<_> = self.pools.iter().map(ToString::to_string).collect();
        f.write_str(&pools.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_load_balancer_is_never_an_address_of_the_site(ip: u32, prefix in 8u8..=32, slot in 0..LoadBalancerPools::SLOTS) {
            let net = Ipv4Net::new_assert(ip.into(), prefix).trunc();
            if let Ok(peer) = net.to_string().parse::<PeerCidr>() {
                let lb = LoadBalancerPools::ipsec().address(slot, peer);
                prop_assert!(lb.is_some_and(|ip| !peer.contains(ip)), "{peer} {lb:?}");
            }
        }
    }

    #[test]
    fn a_small_pool_has_each_of_its_addresses_once() {
        let pools = LoadBalancerPools::from(vec!["192.168.77.0/29".parse().unwrap()]);
        let peer = "10.0.0.0/8".parse().unwrap();
        let addresses: Vec<_> = pools.addresses(8, peer).map(|ip| ip.octets()[3]).collect();
        assert_eq!(addresses, [3, 4, 5, 6, 1, 2]);
        for (ip, is_in) in [("192.168.77.0", false), ("192.168.77.6", true), ("192.168.77.7", false)] {
            assert_eq!(pools.contains(ip.parse().unwrap()), is_in, "{ip}");
        }
        assert_eq!(pools.address(0, "192.168.0.0/16".parse().unwrap()), None);
        for bad in ["192.168.77.0/31", "192.168.77.1/24", "0.0.0.0/8", "224.0.0.0/8", "fd00::/64"] {
            assert!(bad.parse::<LoadBalancerPool>().is_err(), "{bad}");
        }
    }
}
