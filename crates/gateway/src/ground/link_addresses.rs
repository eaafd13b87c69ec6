//! The addresses of the link between the gateway's own namespace and a tunnel's.

use std::net::Ipv4Addr;

/// Link-local /30 networks from 169.254.4.0 upward, without the one where clouds serve metadata.
const FIRST: u32 = 0xa9fe_0400;
const METADATA: u32 = 0xa9fe_a900;
const NETWORKS: u32 = (252 - 1) * 64;

/// The addresses of one tunnel's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkAddresses {
    pub(crate) outside: Ipv4Addr,
    pub(crate) inside: Ipv4Addr,
}

impl LinkAddresses {
    /// Derived from the tunnel's slot, and shifted by the instance so that two gateways on one host differ.
    pub(crate) fn of(instance: u16, slot: u16) -> Self {
        let n = (u32::from(instance) + u32::from(slot)) % NETWORKS;
        let low = FIRST + n * 4;
        let network = if low < METADATA { low } else { low + 256 };
        Self { outside: Ipv4Addr::from(network + 1), inside: Ipv4Addr::from(network + 2) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn links_are_link_local_and_never_the_metadata_service(instance: u16, slot in 0u16..16_000) {
            let LinkAddresses { outside, inside } = LinkAddresses::of(instance, slot);
            for ip in [outside, inside] {
                prop_assert!(ip.is_link_local() && ip.octets()[2] != 169 && ip.octets()[2] >= 4, "{ip}");
            }
            prop_assert_eq!(u32::from(outside) & !3, u32::from(inside) & !3);
        }

        #[test]
        fn no_two_slots_share_a_link(instance: u16, a in 0u16..16_000, b in 0u16..16_000) {
            prop_assert_eq!(a == b, LinkAddresses::of(instance, a) == LinkAddresses::of(instance, b));
        }
    }

    #[test]
    fn the_first_link_has_the_first_network() {
        assert_eq!(LinkAddresses::of(0, 0).inside, Ipv4Addr::new(169, 254, 4, 2));
    }
}
