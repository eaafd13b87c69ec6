//! The link between the gateway's own namespace and a tunnel's: a veth pair with a /30 network, what is on `lo`,
//! and the routes.

use std::{io, net::Ipv4Addr, os::fd::AsRawFd as _};

use futures_util::TryStreamExt as _;
use netlink_packet_route::{
    AddressFamily,
    link::{InfoData, InfoVeth, LinkAttribute, LinkFlags},
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::{
    Namespace, NetworkError,
    default_route::DefaultRoute,
    inner_packets::InnerPackets,
    link_addresses::LinkAddresses,
    return_route,
    rtnetlink_handle::{enter, get, handle, in_time, index, is, local, netlink},
    sysctl,
};

/// The link's name inside a tunnel's namespace.
pub(crate) const UPLINK: &str = "uplink";

/// The largest packet between the namespaces: that of the network that nearly every peer is behind.
pub(crate) const MTU: u32 = 1500;

/// The least path MTU that an ICMP error can set, in bytes. IPv4 requires 68 (RFC 791); lines of today have more than this.
const LEAST_PATH_MTU: &str = "1200";

/// Brings the link `outside` and the inside of `namespace` to the desired state, and returns what was missing. The route into
/// the tunnel is named apart: it also goes with the engine's device. Correct settings are not written again: the monitor
/// would report a change.
pub(crate) async fn ensure(
    namespace: &Namespace,
    outside: &str,
    addresses: LinkAddresses,
    on_lo: Ipv4Addr,
    packets: InnerPackets,
) -> Result<(Vec<String>, Option<String>), NetworkError> {
    let own = handle()?;
    let mut missing = Vec::new();
    let mut route = None;
    let steps = async {
        let inside = enter(namespace, settings).await?;
        let lo = bring_up(&inside, "lo", &mut missing).await?;
        set_addresses(&inside, lo, (on_lo, 32), &mut missing).await?;

        // Each end of a pair disappears with the other, so a lone end is a leftover.
        if index(&inside, UPLINK).await?.is_none() || index(&own, outside).await?.is_none() {
            take_down(&own, outside).await?;
            create(&own, namespace, outside).await?;
            missing.push(format!("the link {outside} was missing"));
        }
        let own_index = bring_up(&own, outside, &mut missing).await?;
        let inside_index = bring_up(&inside, UPLINK, &mut missing).await?;
        set_addresses(&own, own_index, (addresses.outside, 30), &mut missing).await?;
        set_addresses(&inside, inside_index, (addresses.inside, 30), &mut missing).await?;
        if DefaultRoute::main(inside_index, addresses.outside).ensure(&inside).await? {
            missing.push("the tunnel's default route was missing".to_owned());
        }
        if return_route::ensure(&inside, on_lo, packets).await? {
            route = Some("the route into the tunnel was missing".to_owned());
        }
        Ok(())
    };
    in_time("set up a link", steps).await?;
    Ok((missing, route))
}

/// Removes the link, if it is there.
pub(crate) async fn remove(outside: &str) -> Result<(), NetworkError> {
    in_time("remove a link", take_down(&handle()?, outside)).await
}

async fn take_down(own: &Handle, outside: &str) -> Result<(), NetworkError> {
    let Some(index) = index(own, outside).await? else { return Ok(()) };
    match own.link().del(index).execute().await {
        // It disappeared with the namespace of its other end.
        Err(e) if is(&e, rustix::io::Errno::NODEV) => Ok(()),
        other => other.map_err(netlink("remove a link")),
    }
}

/// A new namespace inherits the host's defaults, so each setting is written.
fn settings() -> io::Result<()> {
    sysctl::set("ip_forward", "0")?;
    // An answer leaves through the tunnel, not by the route to the packet's source.
    sysctl::set("conf.all.rp_filter", "0")?;
    sysctl::set("conf.default.rp_filter", "0")?;
    sysctl::set("conf.all.accept_redirects", "0")?;
    // An ICMP error for less is no reason for smaller segments: what does not fit is fragmented on the way.
    match sysctl::set("route.min_pmtu", LEAST_PATH_MTU) {
        // Linux before 5.17 has it in the host's namespace only.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        set => set?,
    }
    // On a path that drops large packets silently, connections find smaller segments by themselves.
    sysctl::set("tcp_mtu_probing", "1")?;
    sysctl::set("conf.default.accept_redirects", "0")
}

async fn create(own: &Handle, namespace: &Namespace, outside: &str) -> Result<(), NetworkError> {
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(UPLINK)
        .mtu(MTU)
        .append_extra_attribute(LinkAttribute::NetNsFd(namespace.file.as_raw_fd()))
        .build();
    let link =
        LinkVeth::new(outside, UPLINK).mtu(MTU).set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).build();
    own.link().add(link).execute().await.map_err(netlink("make a veth pair"))
}

async fn bring_up(handle: &Handle, name: &str, missing: &mut Vec<String>) -> Result<u32, NetworkError> {
    let link = get(handle, name).await?;
    let link = link.ok_or_else(|| NetworkError::refused(format!("bring up {name}"), "it is gone"))?;
    let index = link.header.index;
    if !link.header.flags.contains(LinkFlags::Up) {
        let up = LinkUnspec::new_with_index(index).up().build();
        handle.link().set(up).execute().await.map_err(netlink("bring up a link"))?;
        missing.push(format!("the link {name} was down"));
    }
    Ok(index)
}

/// Gives the link `address` and removes all others except 127/8.
async fn set_addresses(
    handle: &Handle,
    index: u32,
    (address, prefix): (Ipv4Addr, u8),
    missing: &mut Vec<String>,
) -> Result<(), NetworkError> {
    let mut is_there = false;
    let mut others = Vec::new();
    let mut list = handle.address().get().set_link_index_filter(index);
    // Also filters in the kernel, which returns only this link's addresses.
    (list.message_mut().header.family, list.message_mut().header.index) = (AddressFamily::Inet, index);
    let mut list = list.execute();
    while let Some(message) = list.try_next().await.map_err(netlink("list addresses"))? {
        match local(&message) {
            Some(ip) if ip == address && message.header.prefix_len == prefix => is_there = true,
            Some(ip) if !ip.is_loopback() => others.push(message),
            _ => {}
        }
    }
    for other in others {
        handle.address().del(other).execute().await.map_err(netlink("remove an address"))?;
    }
    if !is_there {
        let add = handle.address().add(index, address.into(), prefix);
        add.execute().await.map_err(netlink("add an address"))?;
        missing.push(format!("the address {address} was missing"));
    }
    Ok(())
}
