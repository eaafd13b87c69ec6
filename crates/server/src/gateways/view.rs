//! The server's view of one gateway: its link writes it; the reconciler, the API and the metrics read it.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::{sync::Notify, time::timeout};
use tracing::warn;
use uuid::Uuid;
use wicketgate_link::GatewayHello;
use wicketgate_model::{
    AgentId, EnvironmentId, EspMode, Observed, ObservedDelta, Problem, ShareId, ShareObserved,
    SpooledTraffic, TunnelId, UnknownAgent, UnknownPeer,
};
use wicketgate_store::{GatewayFacts, StoreError, TrafficReport};
use wicketgate_system::{Mutex, MutexGuard, Outage};

use super::{
    backlog::{Backlog, LinkRecord},
    recent_connections::RecentConnections,
};

/// Between two attempts of a write that must not be lost.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// One attempt: longer than any of these writes takes. A longer one hangs at a database that is gone.
const WRITTEN_WITHIN: Duration = Duration::from_secs(30);

/// A [`GatewayView`] that its readers share.
#[derive(Debug)]
pub struct SharedView {
    inner: Mutex<GatewayView>,
    wake: Notify,
    pub(crate) backlog: Backlog,
}

/// One gateway as its reports show it.
#[derive(Debug)]
pub(crate) struct GatewayView {
    /// The gateway's last hello.
    hello: Option<GatewayHello>,
    pub(crate) is_connected: bool,
    pub(crate) observed: Observed,
    /// The newest delta that the gateway has answered; 0 before its first report on this link.
    pub(crate) heard: u64,
    /// Since when the gateway has reported nothing; `None` once it has reported.
    pub(crate) silent_since: Option<Timestamp>,
    /// The rows that the gateway was sent until this delta, and that are not in `observed`, are as desired. The reconciler adds them.
    pub(crate) as_desired: Option<u64>,
    /// The gateway has to be sent everything.
    pub(crate) is_resync_due: bool,
    /// Tunnels that the gateway goes on serving until it is told that they were deleted. The reconciler answers.
    pub(crate) doubtful: Vec<TunnelId>,
    /// Whose control connections are up.
    pub(crate) connected: BTreeSet<AgentId>,
    /// Environments that have had an agent there on this link, and which version of the list of gateways was told for it; 0: none.
    pub(crate) lists: BTreeMap<EnvironmentId, u64>,
    /// The gateway has announced that it stops, and leaves its tunnels as they are.
    pub(crate) is_draining: bool,
    /// When the gateway's first report on this link arrived.
    pub(crate) reporting_since: Timestamp,
    /// When it last reported that it has looked at a row, or begins to. It looks at very many one after another.
    pub(crate) progress_at: Timestamp,
    pub(crate) recent: RecentConnections,
    /// Spool and number of the last report of traffic that was taken in.
    last_traffic: Option<(Uuid, u64)>,
    /// Who sends IKE and is no tunnel's peer.
    pub(crate) unknown_peers: Vec<UnknownPeer>,
    pub(crate) unknown_agents: Vec<UnknownAgent>,
    /// Agents' connections that wait for a stream.
    pub(crate) parked: usize,
    touched: TouchedRows,
}

/// Rows whose observation may have changed since they were last taken.
#[derive(Debug, Default)]
pub(crate) struct TouchedRows {
    /// A reset or the end of the link touched everything.
    pub(crate) all: bool,
    pub(crate) tunnels: BTreeSet<TunnelId>,
    pub(crate) shares: BTreeSet<ShareId>,
}

impl SharedView {
    /// The view of a gateway that has not reported anything yet.
    pub fn new(now: Timestamp) -> Arc<Self> {
        let view = GatewayView {
            hello: None,
            is_connected: false,
            observed: Observed::default(),
            heard: 0,
            silent_since: Some(now),
            as_desired: None,
            is_resync_due: false,
            doubtful: Vec::new(),
            connected: BTreeSet::new(),
            lists: BTreeMap::new(),
            is_draining: false,
            reporting_since: now,
            progress_at: now,
            recent: RecentConnections::default(),
            last_traffic: None,
            unknown_peers: Vec::new(),
            unknown_agents: Vec::new(),
            parked: 0,
            touched: TouchedRows { all: true, ..TouchedRows::default() },
        };
        Arc::new(Self { inner: Mutex::new(view), wake: Notify::new(), backlog: Backlog::default() })
    }

    /// Wakes the gateway's reconciler: reports and accepted writes do.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits for the next [`SharedView::wake`], or returns at once if there was one since the last call. Cancel-safe.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, GatewayView> {
        self.inner.lock()
    }

    fn write(&self, change: impl FnOnce(&mut GatewayView)) {
        change(&mut self.lock());
        self.wake();
    }

    /// The gateway is linked and has introduced itself.
    pub fn linked(&self, hello: GatewayHello) {
        let mut view = self.lock();
        (view.is_connected, view.hello) = (true, Some(hello));
    }

    /// The link has ended, or the gateway is about to stop.
    pub fn lost(&self, now: Timestamp) {
        self.write(|view| {
            view.is_connected = false;
            view.silent_since.get_or_insert(now);
            view.heard = 0;
            view.parked = 0;
            view.observed = Observed::default();
            view.as_desired = None;
            view.touched.all = true;
        });
    }

    pub(crate) fn draining(&self, now: Timestamp) {
        self.lock().is_draining = true;
        self.lost(now);
    }

    /// Connections ended, or were served, as this report says, which is to be recorded. Returns whether it is new: one that the gateway
    /// sends again may not be recorded yet, and was looked at before.
    pub fn carried(&self, report: &SpooledTraffic, now: Timestamp) -> bool {
        if !self.backlog.push(LinkRecord::Traffic(TrafficReport::new(report, now)), now) {
            warn!("dropped a report of traffic: the gateway sends more than it may before they are recorded");
            return false;
        }
        let mut view = self.lock();
        let SpooledTraffic { spool, number, at, deltas } = report;
        if view.last_traffic.is_some_and(|(last, newest)| last == *spool && newest >= *number) {
            return false;
        }
        view.last_traffic = Some((*spool, *number));
        let changed = view.recent.take(deltas, now.min(*at));
        if !changed.is_empty() {
            view.touched.shares.extend(changed);
            drop(view);
            self.wake();
        }
        true
    }

    /// The gateway's state is another than it was sent.
    pub(crate) fn resync(&self) {
        self.write(|view| view.is_resync_due = true);
    }

    /// The gateway asks which of these tunnels were deleted.
    pub(crate) fn doubts(&self, tunnels: Vec<TunnelId>) {
        self.write(|view| view.doubtful = tunnels);
    }

    /// A check has reached the share's target.
    pub(crate) fn reached(&self, share: ShareId) {
        let mut view = self.lock();
        if view.recent.mended(share) {
            view.touched.shares.insert(share);
            drop(view);
            self.wake();
        }
    }

    pub fn observe(&self, heard: u64, delta: ObservedDelta, now: Timestamp) {
        self.write(|view| {
            view.heard = heard;
            // Only the answer to the first delta is complete.
            if delta.reset {
                (view.silent_since, view.is_draining) = (None, false);
                (view.reporting_since, view.progress_at) = (now, now);
                view.touched.all = true;
                view.as_desired = delta.as_desired.then_some(heard);
            }
            if is_progress(&view.observed, &delta) {
                view.progress_at = now;
            }
            for (id, now) in &delta.shares {
                let before = view.observed.shares.get(id);
                if serves(now) && before.is_some_and(|before| !serves(before)) {
                    view.recent.mended(*id);
                }
            }
            view.touched.tunnels.extend(delta.tunnels.iter().map(|(id, _)| id));
            view.touched.tunnels.extend(&delta.gone_tunnels);
            view.touched.shares.extend(delta.shares.iter().map(|(id, _)| id));
            view.touched.shares.extend(&delta.gone_shares);
            view.observed.apply(delta);
        });
    }
}

impl GatewayView {
    pub(crate) fn take_touched(&mut self) -> TouchedRows {
        mem::take(&mut self.touched)
    }

    /// The gateway was sent what it is to serve, and has nothing to report before: it is not silent for longer.
    pub(crate) fn asked(&mut self, at: Timestamp) {
        self.silent_since = self.silent_since.map(|since| since.max(at));
    }

    /// The lists that the gateway lacks, with the versions that these have; none, if it takes none.
    pub(crate) fn lists_wanted(
        &self,
        newest: impl Fn(EnvironmentId) -> Option<u64>,
    ) -> Vec<(EnvironmentId, u64)> {
        if !self.hello.as_ref().is_some_and(|hello| hello.versions.take_gateway_lists()) {
            return Vec::new();
        }
        let newest = |(environment, told): (&EnvironmentId, &u64)| {
            let version = newest(*environment).filter(|version| version > told)?;
            Some((*environment, version))
        };
        self.lists.iter().filter_map(newest).collect()
    }

    pub(crate) fn lists_told(&mut self, told: &[(EnvironmentId, u64)]) {
        self.lists.extend(told.iter().copied());
    }

    /// Where ESP is done; `None` until the gateway has reported it.
    pub(crate) fn esp(&self) -> Option<EspMode> {
        Some(self.hello.as_ref()?.esp)
    }

    /// What the gateway has told of itself on this link.
    pub(crate) fn facts(&self) -> Option<GatewayFacts> {
        let GatewayHello { esp, public_address, max_tunnels, namespaces, agent_url, version, .. } =
            self.hello.as_ref()?;
        Some(GatewayFacts {
            public_address: *public_address,
            esp: Some(*esp),
            namespaces: namespaces.clone(),
            max_tunnels: *max_tunnels,
            agent_url: agent_url.clone(),
            version: Some(version.clone()),
        })
    }
}

/// Whether the gateway has looked at a row since the last report, or begins to.
fn is_progress(before: &Observed, delta: &ObservedDelta) -> bool {
    let waits = |problem: Option<&Problem>| problem.is_some_and(Problem::is_pending);
    let mut tunnels = delta.tunnels.iter().map(|(id, now)| {
        let before = before.tunnels.get(id).and_then(|tunnel| tunnel.problem.as_ref());
        (before, now.problem.as_ref())
    });
    let mut shares = delta.shares.iter().map(|(id, now)| {
        let before = before.shares.get(id).and_then(|share| share.problem.as_ref());
        (before, now.problem.as_ref())
    });
    tunnels.any(|(before, now)| waits(before) != waits(now))
        || shares.any(|(before, now)| waits(before) != waits(now))
}

/// Whether the gateway sees nothing that impairs the share.
fn serves(share: &ShareObserved) -> bool {
    share.ready.is_some() && share.problem.as_ref().is_none_or(|problem| problem.reason.is_warning())
}

/// Writes until it succeeds, however long the database does not answer. A store that is closed is written to no more, nor is what is
/// about a gateway whose link another server has. Returns whether it was written.
pub(crate) async fn retry_until_written<T, F>(what: &str, mut write: impl FnMut() -> F) -> bool
where
    F: Future<Output = wicketgate_store::Result<T>>,
{
    let mut outage = Outage::default();
    while let Err(error) = timeout(WRITTEN_WITHIN, write()).await.unwrap_or(Err(StoreError::Late)) {
        if error.is_closed() {
            warn!("cannot {what}: the database is closed");
            return false;
        }
        if error.is_superseded() {
            warn!("cannot {what}: {error}");
            return false;
        }
        if outage.failed() {
            warn!(%error, "cannot {what}; retrying every second");
        }
        tokio::time::sleep(RETRY_EVERY).await;
    }
    true
}
