//! No IPsec, for development and benchmarks: a tunnel is a loopback address, open to every process on the host. Its
//! connection is always down without an error, because there is no peer.

use std::{collections::BTreeMap, sync::Arc};

use wicketgate_model::{TunnelDesired, TunnelId};
use wicketgate_system::Mutex;

use crate::ground::TunnelHandle;

/// See the module.
#[derive(Debug, Default)]
pub struct Off {
    tunnels: Mutex<BTreeMap<TunnelId, Arc<TunnelHandle>>>,
}

impl Off {
    pub(super) fn ensure(&self, desired: &TunnelDesired) -> Arc<TunnelHandle> {
        let mut tunnels = self.tunnels.lock();
        if let Some(tunnel) = tunnels.get(&desired.id)
            && tunnel.load_balancer() == desired.load_balancer_ip
        {
            return Arc::clone(tunnel);
        }
        let tunnel = Arc::new(TunnelHandle::new(None, desired.load_balancer_ip));
        tunnels.insert(desired.id, Arc::clone(&tunnel));
        tunnel
    }

    pub(super) fn remove(&self, tunnel: TunnelId) {
        self.tunnels.lock().remove(&tunnel);
    }
}
