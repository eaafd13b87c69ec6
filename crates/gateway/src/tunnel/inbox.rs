//! The desired state of one tunnel. The gateway writes it, the tunnel's task reads it.

use std::{collections::BTreeMap, mem, sync::Arc};

use tokio::sync::Notify;
use wicketgate_model::{ShareDesired, ShareId, TunnelDesired};
use wicketgate_system::Mutex;

use crate::{listener::ShareState, traffic_room::TunnelPlaces};

/// See the module.
#[derive(Debug)]
pub(crate) struct TunnelInbox {
    inner: Mutex<InboxInner>,
    pub(crate) places: Arc<TunnelPlaces>,
    woken: Notify,
}

#[derive(Debug, Default)]
struct InboxInner {
    tunnel: Option<Arc<TunnelDesired>>,
    /// Changes that the task has not taken yet.
    shares: BTreeMap<ShareId, Change>,
}

/// A share, and the state that its connections share.
pub(super) type ShareEntry = (Arc<ShareDesired>, Arc<ShareState>);

/// The new state of a share; `None`: the tunnel no longer serves it.
pub(super) type Change = Option<ShareEntry>;

impl TunnelInbox {
    pub(crate) fn new(places: Arc<TunnelPlaces>) -> Self {
        Self { inner: Mutex::default(), places, woken: Notify::new() }
    }

    /// `None`: the tunnel is removed.
    pub(crate) fn set_tunnel(&self, tunnel: Option<Arc<TunnelDesired>>) {
        if let Some(tunnel) = &tunnel {
            self.places.serve(tunnel.enabled);
        }
        self.inner.lock().tunnel = tunnel;
        self.woken.notify_one();
    }

    /// `None`: the tunnel no longer serves the share.
    pub(crate) fn set_share(&self, id: ShareId, change: Change) {
        self.inner.lock().shares.insert(id, change);
        self.woken.notify_one();
    }

    /// The tunnel, and the changes since the last call.
    pub(super) fn read(&self) -> (Option<Arc<TunnelDesired>>, BTreeMap<ShareId, Change>) {
        let mut inner = self.inner.lock();
        (inner.tunnel.clone(), mem::take(&mut inner.shares))
    }

    /// Waits until something is written. Cancel-safe; a write while nothing waits is not missed.
    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }
}
