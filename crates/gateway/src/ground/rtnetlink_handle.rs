//! Routing netlink: the handle of this process's own namespace, its bound in time, and its errors.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr},
};

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::Handle;
use tokio::time::timeout;

use super::{NetworkError, tool::TOOL_TIMEOUT};

/// Routing netlink in this process's own namespace. For one after the other: the kernel refuses (EBUSY) to list anything
/// over a socket that is listing already. It has the kernel list what is asked for only: in this namespace, every other
/// tunnel's would be listed, too.
pub(super) fn handle() -> Result<Handle, NetworkError> {
    let (connection, handle, _) =
        rtnetlink::new_connection_with_strict_check().map_err(NetworkError::io("open a netlink socket"))?;
    tokio::spawn(connection);
    Ok(handle)
}

/// An answer of netlink may be lost where its queue overflows; then it never comes.
pub(super) async fn in_time<T>(
    what: &str,
    steps: impl Future<Output = Result<T, NetworkError>>,
) -> Result<T, NetworkError> {
    timeout(TOOL_TIMEOUT, steps).await.unwrap_or_else(|_| {
        Err(NetworkError::Tool { what: what.to_owned(), message: "the kernel took too long".to_owned() })
    })
}

pub(super) fn local(message: &AddressMessage) -> Option<Ipv4Addr> {
    message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(IpAddr::V4(ip)) => Some(*ip),
        _ => None,
    })
}

pub(super) fn netlink(what: &'static str) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
    move |source| NetworkError::Netlink { what: what.to_owned(), source }
}
