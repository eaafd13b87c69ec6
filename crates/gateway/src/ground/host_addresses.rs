//! The IPv4 addresses of this process's own namespace, and which of them it serves.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr as UnixAddress, UnixListener},
    },
};

use futures_util::TryStreamExt as _;

use super::{
    GroundError, NetworkError,
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

/// Reserves the addresses in this network namespace while the result lives: two gateways with one address would take
/// each other's packets. An abstract Unix socket belongs to a network namespace, and ends with its process (unix(7)).
///
/// # Errors
/// Another gateway has one of them.
pub(crate) fn reserve(addresses: &BTreeSet<Ipv4Addr>) -> Result<Vec<UnixListener>, GroundError> {
    // `wicketgate down` serves no peers, and gives a loopback address.
    let served = addresses.iter().filter(|address| !address.is_loopback());
    let reserve = |address: &Ipv4Addr| {
        let name = UnixAddress::from_abstract_name(format!("wicketgate {address}"));
        name.and_then(|name| UnixListener::bind_addr(&name)).map_err(|e| match e.kind() {
            io::ErrorKind::AddrInUse => GroundError::AddressInUse(*address),
            _ => NetworkError::io(format!("reserve the address {address}"))(e).into(),
        })
    };
    served.map(reserve).collect()
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
