//! A server on this host without TLS. While it is down, a program of any user can listen at its address. So before a secret is
//! sent, the listener has to belong to root or to the secret's owner.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use wicketgate_system::sockets;

use crate::failure::Failure;

/// The loopback addresses that `base` stands for, if it is an address of this host without TLS.
pub(crate) fn addresses(base: &Url) -> Vec<SocketAddr> {
    let ips = match base.host_str().unwrap_or_default().trim_matches(['[', ']']) {
        _ if base.scheme() != "http" => Vec::new(),
        "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        host => host.parse::<IpAddr>().into_iter().filter(IpAddr::is_loopback).collect(),
    };
    let port = base.port_or_known_default().unwrap_or_default();
    ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
}

/// Checks who listens at `base`, if it is an address of this host without TLS. Listeners of root and of `owner` are accepted.
pub(crate) fn check(base: &Url, owner: u32) -> Result<(), Failure> {
    let addresses = addresses(base);
    if addresses.is_empty() {
        return Ok(());
    }
    let unreachable = |why: String| Failure::Unreachable { url: base.clone(), why, may_be_done: false };
    let all = sockets::listening();
    let all = all.map_err(|e| unreachable(format!("cannot see who listens there in /proc/net: {e}")))?;
    let mut is_served = false;
    for address in addresses {
        let mut there: Vec<_> = all.iter().filter(|socket| socket.takes(address)).collect();
        // The kernel prefers the narrower of two addresses.
        if there.iter().any(|socket| socket.address.is_ipv4() == address.is_ipv4()) {
            there.retain(|socket| socket.address.is_ipv4() == address.is_ipv4());
        }
        if let Some(stranger) = there.iter().find(|socket| socket.user != 0 && socket.user != owner) {
            return Err(Failure::Stranger { url: base.clone(), user: stranger.user });
        }
        is_served |= !there.is_empty();
    }
    match is_served {
        true => Ok(()),
        false => Err(unreachable("nothing listens there: run `systemctl start wicketgate`, or `wicketgate up` where the package is not installed".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_host_without_tls_are_checked() {
        let of = |base: &str| addresses(&base.parse().unwrap());
        let all = |all: &[&str]| all.iter().map(|one| one.parse().unwrap()).collect::<Vec<SocketAddr>>();
        assert_eq!(of("http://127.0.0.1:8480/path"), all(&["127.0.0.1:8480"]));
        assert_eq!(of("http://127.1.2.3"), all(&["127.1.2.3:80"]));
        assert_eq!(of("http://[::1]:1"), all(&["[::1]:1"]));
        assert_eq!(of("http://localhost:1"), all(&["127.0.0.1:1", "[::1]:1"]));
        for elsewhere in ["https://127.0.0.1:8480", "http://gw.example", "http://10.0.0.1:8480"] {
            assert_eq!(of(elsewhere), [], "{elsewhere}");
        }
    }
}
