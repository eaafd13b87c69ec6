//! Routing netlink: handles of this process's own namespace and of a tunnel's, their bound in time, and their errors.

use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr},
};

use futures_util::TryStreamExt as _;
use netlink_packet_route::{
    address::{AddressAttribute, AddressMessage},
    link::LinkMessage,
};
use rtnetlink::Handle;
use tokio::time::timeout;

use super::{Namespace, NetworkError, tool::TOOL_TIMEOUT};

/// Routing netlink in this process's own namespace, for one request at a time: the kernel refuses (EBUSY) a second
/// listing over the same socket. Strict checking makes the kernel list only what was asked for, not the links of every
/// other tunnel.
pub(super) fn handle() -> Result<Handle, NetworkError> {
    let (connection, handle, _) =
        rtnetlink::new_connection_with_strict_check().map_err(NetworkError::io("open a netlink socket"))?;
    tokio::spawn(connection);
    Ok(handle)
}

/// As [`handle`], inside `namespace`, after `prepare` ran there: a socket stays in the namespace of the thread that opened
/// it.
pub(super) async fn enter(
    namespace: &Namespace,
    prepare: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<Handle, NetworkError> {
    let runtime = tokio::runtime::Handle::current();
    let open = move || {
        prepare()?;
        let _entered = runtime.enter();
        rtnetlink::new_connection_with_strict_check()
    };
    let (connection, handle, _) = namespace.run_blocking("open a netlink socket", open).await?;
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

pub(super) async fn index(handle: &Handle, name: &str) -> Result<Option<u32>, NetworkError> {
    Ok(get(handle, name).await?.map(|link| link.header.index))
}

/// The link of this name.
pub(super) async fn get(handle: &Handle, name: &str) -> Result<Option<LinkMessage>, NetworkError> {
    match handle.link().get().match_name(name).execute().try_next().await {
        Ok(link) => Ok(link),
        Err(e) if is(&e, rustix::io::Errno::NODEV) => Ok(None),
        Err(e) => Err(netlink("look up a link")(e)),
    }
}

pub(super) fn is(error: &rtnetlink::Error, errno: rustix::io::Errno) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(e) if e.raw_code() == -errno.raw_os_error())
}
