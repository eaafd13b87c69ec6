//! The reconciler: the one path from what was written to what is served, and back to a status.
//!
//! It is woken by signal and by time; the signal carries no data. A run reads the rows that are newer than the newest one
//! seen, sends the gateway the difference between its desired state and what it was last sent, and lets
//! [`wicketgate_model::next`] decide the status of each row. First deployment, retry, restart and failover are this path.
//!
//! What it keeps in memory is a cache of the database and of the gateway's view: every few minutes it reads all rows
//! again, so that whatever was missed is repaired.

use std::{collections::BTreeSet, mem, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::{sync::mpsc, time::Instant};
use tracing::{error, info, warn};
use wicketgate_authority::Ca;
use wicketgate_link::{HeldState, LinkKind, ToGateway};
use wicketgate_model::{Connection, ConnectionContinuity, Deadlines, Era, ShareId, TunnelId};
use wicketgate_store::{Change, GatewayEpoch, PreviousKeys, Revision, Store, StoreError};

use super::{PeerState, SharedView};
use crate::{
    background::{BackgroundTask, Outcome},
    telemetry::ServerMetrics,
};
use outbox::Outbox;
use rows::Rows;

mod decide;
mod doubts;
mod intake;
mod outbox;
mod resume;
mod rows;

/// How often it runs without a signal: deadlines pass, and a signal may have been lost with its process.
const PERIOD: Duration = Duration::from_secs(1);

/// How often all rows are read, and not only those that are newer than the last revision: a change that was lost, by a
/// fault of this program or an edit by hand, is repaired after this time. Reading 100,000 rows takes seconds.
const FULL_READ_EVERY: SignedDuration = SignedDuration::from_mins(5);

/// Status updates in one transaction: callers' writes wait for it, and after a start there may be very many.
const SETTLED_AT_ONCE: usize = 500;

/// For one run: far longer than it takes. A longer one hangs at a database that is gone.
const RUN_WITHIN: Duration = Duration::from_secs(30);

/// What a reconciler works with.
#[derive(Debug, Clone)]
pub(crate) struct ReconcilerParts {
    pub(crate) store: Store,
    pub(crate) ca: Arc<Ca>,
    /// Taken when the gateway's link began.
    pub(crate) epoch: GatewayEpoch,
    /// Of the database.
    pub(crate) era: Era,
    pub(crate) view: Arc<SharedView>,
    pub(crate) metrics: Arc<ServerMetrics>,
    pub(crate) send: mpsc::Sender<ToGateway>,
    pub(crate) kind: LinkKind,
    /// What the gateway has from another link, as its hello says, until the first delta.
    pub(crate) held: Option<HeldState>,
    pub(crate) deadlines: Deadlines,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Reconciler {
    parts: ReconcilerParts,
    revision: Revision,
    /// When all rows were last read.
    read_all_at: Option<Timestamp>,
    tunnels: Rows<TunnelId, TunnelState>,
    shares: Rows<ShareId, ()>,
    /// Tunnels with previous keys that are still valid.
    expiring_keys: BTreeSet<TunnelId>,
    outbox: Outbox,
    /// Tunnels whose peer was lost a moment ago.
    lost: BTreeSet<TunnelId>,
    /// When rows were last examined because of the time.
    swept_at: Option<Timestamp>,
    /// The newest delta that the gateway had answered at the last run.
    heard: u64,
    /// Tunnels that the gateway serves and that the database does not know as deleted.
    held: Vec<TunnelId>,
}

/// What is kept of a tunnel, beyond what is kept of every row.
#[derive(Debug, Default)]
struct TunnelState {
    /// As it was last recorded.
    connection: Option<Connection>,
    first_report: Option<FirstReport>,
    previous_keys: PreviousKeys,
    /// Another tunnel has its peer's address: it is not served.
    is_address_taken: bool,
    /// As its shares were last told.
    peer: Option<PeerState>,
    /// Since when the peer is lost, of which its shares are not told yet.
    lost_since: Option<Timestamp>,
}

/// The first report of a tunnel's connection since the gateway began to report.
#[derive(Debug)]
struct FirstReport {
    /// When the gateway began to report. After its restart, this report is out of date.
    reporting_since: Timestamp,
    /// `None`: no connection was recorded before, so reports are shown as they are.
    continuity: Option<ConnectionContinuity>,
}

impl Reconciler {
    pub(crate) fn new(parts: ReconcilerParts) -> Self {
        Self {
            outbox: Outbox::new(parts.send.clone(), parts.kind),
            parts,
            revision: Revision::default(),
            read_all_at: None,
            tunnels: Rows::default(),
            shares: Rows::default(),
            expiring_keys: BTreeSet::new(),
            lost: BTreeSet::new(),
            swept_at: None,
            heard: 0,
            held: Vec::new(),
        }
    }

    async fn reconcile(&mut self, now: Timestamp) -> Result<Outcome, StoreError> {
        let begin = Instant::now();
        self.read(now).await?;
        self.expire_keys(now);
        if let Some(held) = self.parts.held {
            self.resume(&held, now).await?;
            self.parts.held = None;
        }
        if mem::take(&mut self.parts.view.lock().is_resync_due) {
            warn!(gateway.id = %self.parts.epoch.gateway(), "the gateway has another state than it was sent: it is sent everything");
            self.outbox.reset();
        }
        self.outbox.sign(&self.parts.ca).await;
        if let Some(sent) = self.outbox.send(self.revision, self.read_all_at.unwrap_or(now)) {
            if sent.is_first() {
                // Reading and signing very many rows takes seconds.
                self.parts.view.lock().asked(now + begin.elapsed());
            }
            self.tunnels.removal_sent(sent.removed_tunnels, sent.sequence);
            self.shares.removal_sent(sent.removed_shares, sent.sequence);
        }
        self.answer_doubts().await?;
        match self.decide(now).await {
            Err(StoreError::Superseded)
                if self.parts.kind == LinkKind::InProcess
                    && self.parts.store.hold_gateway_again(&self.parts.epoch).await? =>
            {
                error!(
                    "the database has lost the record of the gateway's link, as after a failover: it is written again"
                );
                self.decide(now).await
            }
            decided => decided,
        }
    }

    /// Takes in the rows that are newer than the newest one seen; every few minutes, and after the database has lost
    /// transactions, all of them, and then those that are gone are forgotten.
    async fn read(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let is_first = self.read_all_at.is_none();
        if self.read_all_at.is_none_or(|at| now.duration_since(at) >= FULL_READ_EVERY) {
            if !is_first {
                // Before it: a full read that fails or is cut must not hold up what changes meanwhile.
                self.read_all_at = Some(now);
            }
            match self.read_all(now).await {
                Ok(()) => {
                    self.read_all_at = Some(now);
                    return Ok(());
                }
                Err(error) if is_first => return Err(error),
                Err(error) => {
                    error!(%error, "cannot read all rows, so lost changes are not repaired; new changes are still served");
                }
            }
        }
        let store = self.parts.store.clone();
        let gateway = self.parts.epoch.gateway();
        let newest = store.changes_of(gateway, self.revision, |change| self.take(change, now)).await?;
        if newest < self.revision {
            error!(
                seen = ?self.revision, ?newest,
                "the database has lost transactions that were seen, as after a failover to a PostgreSQL server without the last \
                 ones: everything is read again. Run `wicketgate restore --in-place`, as DATABASE.md says under \"After a failover\""
            );
            self.read_all(now).await?;
            self.read_all_at = Some(now);
            return Ok(());
        }
        self.revision = newest;
        Ok(())
    }

    async fn read_all(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let store = self.parts.store.clone();
        let (mut tunnels, mut shares, mut agents) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut are_all = true;
        let gateway = self.parts.epoch.gateway();
        let revision = store.changes_of(gateway, Revision::default(), |change| {
            match &change {
                Change::Tunnel(row) => drop(tunnels.insert(row.id)),
                Change::Share(row) => drop(shares.insert(row.id)),
                Change::Agent(id, _) => drop(agents.insert(*id)),
                Change::Withdrawn(_) | Change::Places { .. } | Change::Elsewhere(_) => {}
                Change::Unreadable => are_all = false,
            }
            self.take(change, now);
        });
        self.revision = revision.await?;
        self.outbox.has_read(are_all);
        if !are_all {
            // What is missing may be there, and is served as before.
            return Ok(());
        }
        let known: Vec<_> = self.outbox.desired.agents.keys().copied().collect();
        for id in known.into_iter().filter(|id| !agents.contains(id)) {
            self.outbox.set_agent(id, None);
        }
        for id in self.tunnels.missing_in(&tunnels) {
            self.forget_tunnel(id);
        }
        for id in self.shares.missing_in(&shares) {
            self.forget_share(id);
        }
        self.parts.view.lock().recent.retain(&shares);
        Ok(())
    }

    /// Removes keys whose grace time is over.
    fn expire_keys(&mut self, now: Timestamp) {
        let (tunnels, outbox) = (&self.tunnels, &mut self.outbox);
        self.expiring_keys.retain(|id| {
            let Some(row) = tunnels.get(*id) else { return false };
            let Some(tunnel) = outbox.desired.tunnels.get_mut(id) else { return false };
            let (previous, until): (Vec<_>, _) = row.state.previous_keys.valid(now).cloned().unzip();
            let are_left = !previous.is_empty();
            if previous.len() + 1 < tunnel.keys.len() {
                let tunnel = Arc::make_mut(tunnel);
                tunnel.keys.truncate(1);
                tunnel.keys.extend(previous);
                tunnel.previous_until = until;
                outbox.unsent.tunnels.insert(*id);
                info!(tunnel.id = %id, "a previous key of the tunnel expired");
            }
            are_left
        });
    }

    fn forget_tunnel(&mut self, id: TunnelId) {
        self.tunnels.forget(id);
        self.outbox.set_tunnel(id, None);
        self.parts.metrics.forget_tunnel(id);
        self.expiring_keys.remove(&id);
        self.lost.remove(&id);
    }

    fn forget_share(&mut self, id: ShareId) {
        self.shares.forget(id);
        self.outbox.set_share(id, None);
        self.parts.view.lock().recent.forget(id);
        self.parts.metrics.forget(id);
    }
}

impl BackgroundTask for Reconciler {
    const NAME: &'static str = "reconciler";
    const PERIOD: Duration = PERIOD;
    const WITHIN: Duration = RUN_WITHIN;

    async fn signal(&self) {
        self.parts.view.woken().await;
    }

    /// If it is cut, the next run repeats what was not written.
    async fn activate(&mut self, now: Timestamp) -> anyhow::Result<Outcome> {
        Ok(self.reconcile(now).await?)
    }
}

/// The operator's provisioning deadline; the other deadlines have their defaults.
pub(crate) fn deadlines(provisioning: Duration) -> Deadlines {
    let provisioning = SignedDuration::try_from(provisioning).unwrap_or(SignedDuration::MAX);
    Deadlines { provisioning, ..Deadlines::default() }
}

#[cfg(test)]
mod tests;
