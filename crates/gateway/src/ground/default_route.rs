//! A default route of one routing table.

use std::net::Ipv4Addr;

use futures_util::TryStreamExt as _;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteScope};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::{NetworkError, rtnetlink_handle::netlink};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(super) struct DefaultRoute {
    pub(super) table: u32,
    /// The link's index.
    pub(super) link: u32,
    /// `None`: the link has no neighbours.
    pub(super) gateway: Option<Ipv4Addr>,
}

impl DefaultRoute {
    pub(super) fn main(link: u32, gateway: Ipv4Addr) -> Self {
        Self { table: RouteHeader::RT_TABLE_MAIN.into(), link, gateway: Some(gateway) }
    }

    /// Adds the route in place of another one, unless it is there: the monitor would report a change. Returns whether it
    /// was missing.
    pub(super) async fn ensure(self, handle: &Handle) -> Result<bool, NetworkError> {
        // The kernel lists the routes of this table only.
        let all = RouteMessageBuilder::<Ipv4Addr>::new().table_id(self.table).build();
        let mut list = Box::pin(handle.route().get(all).execute());
        while let Some(route) = list.try_next().await.map_err(netlink("list routes"))? {
            if self.is(&route) {
                return Ok(false);
            }
        }
        let added = handle.route().add(self.message()).replace().execute().await;
        added.map(|()| true).map_err(netlink("add a default route"))
    }

    fn message(self) -> RouteMessage {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(Ipv4Addr::UNSPECIFIED, 0)
            .output_interface(self.link)
            .table_id(self.table);
        match self.gateway {
            Some(gateway) => route.gateway(gateway).build(),
            None => route.scope(RouteScope::Link).build(),
        }
    }

    /// Whether `route` is this one. The kernel lists neither a priority of 0 nor empty metrics.
    fn is(self, route: &RouteMessage) -> bool {
        let has = |attribute| route.attributes.contains(&attribute);
        let is_other =
            |a: &RouteAttribute| matches!(a, RouteAttribute::Priority(_) | RouteAttribute::Metrics(_));
        route.header.destination_prefix_length == 0
            && !route.attributes.iter().any(is_other)
            && has(RouteAttribute::Table(self.table))
            && has(RouteAttribute::Oif(self.link))
            && self.gateway.is_none_or(|gateway| has(RouteAttribute::Gateway(RouteAddress::Inet(gateway))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::route::RouteMetric;

    #[test]
    fn a_default_route_with_a_priority_or_metrics_is_not_the_gateways() {
        let own = DefaultRoute::main(7, Ipv4Addr::new(169, 254, 4, 1));
        let mut route = own.message();
        // The kernel lists the table as an attribute.
        route.attributes.push(RouteAttribute::Table(RouteHeader::RT_TABLE_MAIN.into()));
        assert!(own.is(&route) && !DefaultRoute { link: 8, ..own }.is(&route));
        assert!(!DefaultRoute { table: 100, ..own }.is(&route));
        for other in [RouteAttribute::Priority(5), RouteAttribute::Metrics(vec![RouteMetric::Mtu(1400)])] {
            route.attributes.push(other);
            assert!(!own.is(&route), "{route:?}");
            route.attributes.pop();
        }
    }
}
