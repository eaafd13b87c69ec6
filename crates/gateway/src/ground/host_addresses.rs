//! The IPv4 addresses of this process's own namespace, and which of them it serves.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use futures_util::TryStreamExt as _;
use wicketgate_system::{directory_lock::DirectoryLock, private_file::private_dir};

use super::{
    GroundError, NetworkError,
    nft::{self, TABLES},
    rtnetlink_handle::{handle, in_time, local, netlink},
};

/// The source address of packets to `ip` from this thread's namespace. Sends nothing.
pub(crate) fn source_towards(ip: Ipv4Addr) -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((ip, 9)).ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(address) => Some(*address.ip()),
        SocketAddr::V6(_) => None,
    }
}

/// Whether this thread's namespace has the address: packets to an own address have it as their source. Binding a socket
/// would prove nothing where `ip_nonlocal_bind` is set, as beside keepalived.
pub(crate) fn is_own(ip: Ipv4Addr) -> bool {
    source_towards(ip) == Some(ip)
}

/// Where gateways that run reserve their addresses. Its parent belongs to root, so that no other user can.
const RESERVED: &str = "/run/wicketgate";

/// Reserves the addresses in this network namespace while the result lives: two gateways with one address would take
/// each other's packets. A lock ends with its process; `own` is this gateway's steering table.
///
/// # Errors
/// Another gateway has one of them, or has left tunnels that are served there.
pub(crate) async fn reserve(
    addresses: &BTreeSet<Ipv4Addr>,
    own: &str,
) -> Result<Vec<DirectoryLock>, GroundError> {
    // `wicketgate down` serves no peers, and gives a loopback address.
    let served: Vec<_> = addresses.iter().copied().filter(|address| !address.is_loopback()).collect();
    let mut locks = Vec::new();
    for address in &served {
        locks.push(lock(*address).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => GroundError::AddressInUse(*address),
            _ => NetworkError::io(format!("reserve the address {address}"))(e).into(),
        })?);
    }
    for table in nft::tables().await?.into_iter().filter(|it| it.starts_with(TABLES) && it != own) {
        let arrive = nft::chain(&table, "arrive").await.unwrap_or_default();
        if let Some(address) = served.iter().copied().find(|address| names(&arrive, *address))
            && nft::map(&table, "inner").await?.contains("elements")
        {
            return Err(GroundError::AddressLeft { address, table });
        }
    }
    Ok(locks)
}

fn lock(address: Ipv4Addr) -> io::Result<DirectoryLock> {
    let all = Path::new(RESERVED);
    private_dir(all)?;
    if fs::metadata(all)?.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other(format!("{RESERVED} belongs to another user")));
    }
    let network = fs::metadata("/proc/thread-self/ns/net")?.ino();
    let own = all.join(format!("{network}-{address}"));
    private_dir(&own)?;
    DirectoryLock::take(&own)
}

/// Whether the rules name the address.
fn names(rules: &str, address: Ipv4Addr) -> bool {
    let words = rules.split(|c: char| !c.is_ascii_digit() && c != '.');
    words.filter_map(|word| word.parse::<Ipv4Addr>().ok()).any(|named| named == address)
}

/// The IPv4 addresses of this process's own namespace, but for 127/8.
pub(crate) async fn own_addresses() -> Result<BTreeSet<Ipv4Addr>, NetworkError> {
    let handle = handle()?;
    let steps = async {
        let mut addresses = BTreeSet::new();
        let mut list = handle.address().get().execute();
        while let Some(message) = list.try_next().await.map_err(netlink("list addresses"))? {
            addresses.extend(local(&message));
        }
        addresses.retain(|ip| !ip.is_loopback());
        Ok(addresses)
    };
    in_time("list addresses", steps).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_as_a_whole() {
        let rules = "ip daddr { 198.51.100.1, 10.0.0.1 } udp dport { 500, 4500 } dnat to ip saddr map @inner";
        let found = ["198.51.100.1", "10.0.0.1", "198.51.100.10", "98.51.100.1", "10.0.0.11"]
            .map(|address| names(rules, address.parse().unwrap()));
        assert_eq!(found, [true, true, false, false, false]);
    }
}
