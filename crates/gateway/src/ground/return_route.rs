//! The way back into the tunnel where the engine has a device for it: all that the load balancer sends enters the device.
//!
//! A rule by source leads to a table with one route. So the engine's own packets, IKE and ESP, which have the link's
//! address, never enter the device, whatever the peer's network contains: also the peer's own public address. And the
//! route depends on no SA: when one of several ends, the others still carry. The guard drops answers that leave otherwise.
//! With ESP in the kernel, the kernel's policies do the same.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt as _;
use netlink_packet_route::{
    link::LinkFlags,
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use rtnetlink::{Handle, IpVersion, LinkUnspec};

use super::{
    Namespace, NetworkError,
    default_route::DefaultRoute,
    inner_packets::InnerPackets,
    rtnetlink_handle::{enter, get, in_time, netlink},
};

/// The routing table with the one route, and the priority of its rule: before that of the main table, 32766.
const TABLE: u32 = 100;
const PRIORITY: u32 = 100;

/// Adds the route once the engine has its device. A new device, of an engine that was started again, has no route.
///
/// # Errors
/// The kernel refused.
pub(crate) async fn open(namespace: &Namespace, packets: InnerPackets) -> Result<(), NetworkError> {
    let InnerPackets::Device(tun) = packets else { return Ok(()) };
    let steps = async { route(&enter(namespace, || Ok(())).await?, tun).await };
    in_time("route answers into a tunnel", steps).await.map(drop)
}

/// Makes the rule for `load_balancer` the only one, and adds the route if the engine has its device. Returns whether
/// either was missing.
pub(super) async fn ensure(
    inside: &Handle,
    load_balancer: Ipv4Addr,
    packets: InnerPackets,
) -> Result<bool, NetworkError> {
    let InnerPackets::Device(tun) = packets else { return Ok(false) };
    let mut is_there = false;
    let mut others = Vec::new();
    let mut list = Box::pin(inside.rule().get(IpVersion::V4).execute());
    while let Some(rule) = list.try_next().await.map_err(netlink("list routing rules"))? {
        match is_for(&rule, load_balancer) {
            Some(true) => is_there = true,
            Some(false) => others.push(rule),
            None => {}
        }
    }
    drop(list);
    for other in others {
        inside.rule().del(other).execute().await.map_err(netlink("remove a routing rule"))?;
    }
    if !is_there {
        let rule = inside.rule().add().v4().source_prefix(load_balancer, 32).table_id(TABLE);
        let rule = rule.priority(PRIORITY).action(RuleAction::ToTable);
        rule.execute().await.map_err(netlink("add a routing rule"))?;
    }
    Ok(route(inside, tun).await? || !is_there)
}

/// Adds the route if the device is there, which is brought up if it is down. Returns whether the route was missing.
async fn route(inside: &Handle, tun: &str) -> Result<bool, NetworkError> {
    let Some(link) = get(inside, tun).await? else { return Ok(false) };
    let index = link.header.index;
    if !link.header.flags.contains(LinkFlags::Up) {
        let up = LinkUnspec::new_with_index(index).up().build();
        inside.link().set(up).execute().await.map_err(netlink("bring up the engine's device"))?;
    }
    DefaultRoute { table: TABLE, link: index, gateway: None }.ensure(inside).await
}

/// Whether a rule of the table is the one for `load_balancer`; `None` for a rule of another table.
fn is_for(rule: &RuleMessage, load_balancer: Ipv4Addr) -> Option<bool> {
    let has = |attribute| rule.attributes.contains(&attribute);
    has(RuleAttribute::Table(TABLE)).then(|| {
        rule.header.src_len == 32
            && has(RuleAttribute::Source(IpAddr::V4(load_balancer)))
            && has(RuleAttribute::Priority(PRIORITY))
    })
}
