//! What one tunnel should be, as far as it was heard. Written by the gateway, read by the tunnel's task.

use std::{collections::BTreeMap, mem, sync::Arc};

use tokio::sync::Notify;
use wicketgate_model::{ShareDesired, ShareId, TunnelDesired};
use wicketgate_system::Mutex;

use crate::listener::ShareState;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct TunnelInbox {
    inner: Mutex<InboxInner>,
    woken: Notify,
}

#[derive(Debug, Default)]
struct InboxInner {
    tunnel: Option<Arc<TunnelDesired>>,
    /// Changes that the task has not taken yet.
    shares: BTreeMap<ShareId, Change>,
}

/// A share, and what its connections are state with.
pub(super) type ShareEntry = (Arc<ShareDesired>, Arc<ShareState>);

/// What a share is to be from now on; `None`: the tunnel is not to serve it.
pub(super) type Change = Option<ShareEntry>;

impl TunnelInbox {
    /// `None`: nothing of the tunnel is to be left.
    pub(crate) fn set_tunnel(&self, tunnel: Option<Arc<TunnelDesired>>) {
        self.inner.lock().tunnel = tunnel;
        self.woken.notify_one();
    }

    /// `None`: the tunnel is not to serve the share.
    pub(crate) fn set_share(&self, id: ShareId, wish: Change) {
        self.inner.lock().shares.insert(id, wish);
        self.woken.notify_one();
    }

    /// The tunnel, and what changed since this was last read.
    pub(super) fn read(&self) -> (Option<Arc<TunnelDesired>>, BTreeMap<ShareId, Change>) {
        let mut inner = self.inner.lock();
        (inner.tunnel.clone(), mem::take(&mut inner.shares))
    }

    /// Waits until something is written. Cancel-safe, and what is written while nobody waits is not missed.
    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }
}
