//! The IPv4 addresses of this process's own namespace.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
};

use futures_util::TryStreamExt as _;

use super::{
    NetworkError,
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
