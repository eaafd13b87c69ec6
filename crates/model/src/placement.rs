//! Which gateways of a location serve a tunnel.
//!
//! Invariant: a tunnel stays where it is, since its site's device dials that address: it leaves a gateway only if that is draining,
//! and another one can serve it, or if it is gone. While its location has a gateway, it has one.

use crate::GatewayId;

/// A gateway of the location, as far as placement is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatewayLoad {
    pub id: GatewayId,
    /// The tunnels that are placed at it.
    pub tunnels: u64,
    /// As many as it can hold; `None`: that is not known.
    pub max_tunnels: Option<u32>,
    /// It is to be emptied: it gets no more.
    pub is_draining: bool,
}

impl GatewayLoad {
    /// Whether it can take another tunnel.
    fn takes_more(&self) -> bool {
        !self.is_draining && self.max_tunnels.is_none_or(|most| self.tunnels < u64::from(most))
    }
}

/// The gateways at which a tunnel is to be served, the preferred one first: no more than `wanted`, and one at least, unless there
/// are no gateways. It is served at `current` now.
///
/// A second gateway needs to have room. The first has it if any gateway does.
pub fn place(gateways: &[GatewayLoad], current: &[GatewayId], wanted: usize) -> Vec<GatewayId> {
    let known = |id: &GatewayId| gateways.iter().find(|gateway| gateway.id == *id);
    let current: Vec<_> = current.iter().filter_map(known).collect();
    let mut placed: Vec<_> = current.iter().filter(|gateway| !gateway.is_draining).map(|g| g.id).collect();
    placed.truncate(wanted);
    let mut others: Vec<_> =
        gateways.iter().filter(|gateway| gateway.takes_more() && !placed.contains(&gateway.id)).collect();
    others.sort_unstable_by_key(|gateway| (gateway.tunnels, gateway.id));
    placed.extend(others.iter().take(wanted.saturating_sub(placed.len())).map(|gateway| gateway.id));
    if placed.is_empty() && wanted > 0 {
        let least = || gateways.iter().min_by_key(|g| (g.is_draining, g.tunnels, g.id));
        placed.extend(current.first().copied().or_else(least).map(|gateway| gateway.id));
    }
    placed
}

#[cfg(test)]
mod tests;
