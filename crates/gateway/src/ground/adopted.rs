//! Tunnels of an earlier run. Their listeners are bound before everything about them was compared: with hundreds of
//! tunnels that takes seconds, in which clients need not be refused.
//!
//! Invariant: an adopted tunnel has its namespace and the load balancer's address, and with them the guard that was
//! applied before either, for the currently desired network of the site.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use wicketgate_model::TunnelId;
use wicketgate_system::Mutex;

use super::{Namespace, TunnelHandle};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct AdoptedTunnels(Mutex<BTreeMap<TunnelId, Arc<TunnelHandle>>>);

impl AdoptedTunnels {
    /// Adopts the tunnel in `namespace`, if its address is there.
    pub(super) fn adopt(
        &self,
        id: TunnelId,
        namespace: Namespace,
        load_balancer: Ipv4Addr,
    ) -> Option<Arc<TunnelHandle>> {
        let tunnel = Arc::new(TunnelHandle::new(Some(namespace), load_balancer));
        tunnel.bind(0).ok()?;
        self.0.lock().insert(id, Arc::clone(&tunnel));
        Some(tunnel)
    }

    /// Hands over an adopted tunnel, if it is the desired one.
    pub(super) fn take(
        &self,
        id: TunnelId,
        namespace: &Namespace,
        load_balancer: Ipv4Addr,
    ) -> Option<Arc<TunnelHandle>> {
        let found = self.0.lock().remove(&id)?;
        (found.is_in(namespace) && found.load_balancer() == load_balancer).then_some(found)
    }

    /// Drops an adopted tunnel, which would keep its namespace alive.
    pub(super) fn forget(&self, id: TunnelId) {
        self.0.lock().remove(&id);
    }
}
