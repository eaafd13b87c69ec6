//! Routing netlink: the handle of this process's own namespace, its bound in time, and its errors.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr},
};

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::Handle;
use tokio::time::timeout;

use super::{NetworkError, tool::TOOL_TIMEOUT};

/// Routing netlink in this process's own namespace, for one request at a time: the kernel refuses (EBUSY) a second
/// listing over the same socket. Strict checking makes the kernel list only what was asked for, not the links of every
/// other tunnel.
pub(super) fn handle() -> Result<Handle, NetworkError> {
    let (connection, handle, _) =
        rtnetlink::new_connection_with_strict_check().map_err(NetworkError::io("open a netlink socket"))?;
    tokio::spawn(connection);
    Ok(handle)
}

/// A netlink answer may be lost when its queue overflows, and then never arrives.
pub(super) async fn in_time<T>(
    what: &str,
    steps: impl Future<Output = Result<T, NetworkError>>,
) -> Result<T, NetworkError> {
    let done = timeout(TOOL_TIMEOUT, steps).await;
    done.unwrap_or_else(|_| Err(NetworkError::refused(what, "the kernel took too long")))
}

pub(super) fn local(message: &AddressMessage) -> Option<Ipv4Addr> {
    message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(IpAddr::V4(ip)) => Some(*ip),
        _ => None,
    })
}

pub(super) fn netlink(what: &'static str) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
    move |error| NetworkError::refused(what, error.to_string())
}
