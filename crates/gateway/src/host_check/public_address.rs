//! Whether sites can reach the gateway at its public address, as far as the host's own addresses tell.

use std::net::Ipv4Addr;

use super::finding::HostFinding;
use crate::{
    GroundError,
    ground::{is_own, probe},
};

const CHECK: &str = "public-address";

/// Judges what `--public-address` says, or the address that a gateway would find itself. A typing error looks like the address of
/// a 1:1 NAT, so both are told.
pub fn public_address(given: Option<Ipv4Addr>) -> HostFinding {
    judge(given, given.is_some_and(is_own), probe::default_source())
}

fn judge(given: Option<Ipv4Addr>, has: bool, source: Option<Ipv4Addr>) -> HostFinding {
    match (given, source) {
        (Some(given), _) if has => HostFinding::pass(CHECK, format!("{given} is an address of this host")),
        (Some(given), Some(source)) => HostFinding::warn(
            CHECK,
            format!(
                "{given} is no address of this host: this is right only if a 1:1 NAT in front of it translates {given} to {source}. \
                 Otherwise set public-address to {source}, or to another address of this host"
            ),
        ),
        (Some(given), None) => HostFinding::fail(
            CHECK,
            format!(
                "{given} is no address of this host, and without a default route there is no NAT in front of it either: set \
                 public-address to an address of this host (`ip -4 address` shows them), or add the route"
            ),
        ),
        (None, Some(source)) => HostFinding::pass(CHECK, format!("{source}, unless --public-address is set")),
        (None, None) => HostFinding::warn(CHECK, GroundError::NoPublicAddress.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::HostVerdict, *};

    #[test]
    fn an_address_of_another_host_is_told_with_one_of_this_host() {
        let (given, source) = (Ipv4Addr::new(198, 51, 100, 2), Ipv4Addr::new(10, 0, 0, 5));
        let finding = judge(Some(given), false, Some(source));
        assert_eq!(finding.verdict, HostVerdict::Warn);
        assert!(
            finding.message.contains("1:1 NAT") && finding.message.ends_with("another address of this host")
        );
        assert_eq!(judge(Some(given), false, None).verdict, HostVerdict::Fail);
        assert_eq!(judge(Some(given), true, None).verdict, HostVerdict::Pass);
        assert_eq!(judge(None, false, Some(source)).verdict, HostVerdict::Pass);
    }
}
