//! The reconciler: the one path from what was written to what is served, and back to a status.
//!
//! It is woken by signal and by time; the signal carries no data. A run reads the rows that are newer than the newest one
//! seen, sends the gateway the difference between its desired state and what it was last told, and lets
//! [`wicketgate_model::next`] decide the status of each row. First deployment, retry, restart and failover are this path.
//!
//! What it keeps in memory is a cache of the database and of the gateway's view: every few minutes it reads all rows
//! again, so that whatever was missed is repaired.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, mpsc};
use tracing::{error, info};
use wicketgate_authority::Ca;
use wicketgate_link::ToGateway;
use wicketgate_model::{
    Connection, ConnectionContinuity, Deadlines, Desired, GatewayId, Generation, ShareId, Standing, Status,
    Touched, TunnelId,
};
use wicketgate_store::{Change, PreviousKeys, Revision, Store, StoreError};

use super::SharedView;
use crate::{
    background::{BackgroundTask, Outcome},
    telemetry::Metrics,
};

mod decide;
mod intake;

/// How often it runs without a signal: deadlines pass, and a signal may have been lost with its process.
const PERIOD: Duration = Duration::from_secs(1);

/// How often all rows are read, and not only those that are newer than the last revision: a change that was lost, by a
/// fault of this program or an edit by hand, is repaired after this time. Reading 100,000 rows takes seconds.
const FULL_READ_EVERY: SignedDuration = SignedDuration::from_mins(5);

/// Rows settled in one transaction: callers' writes wait for it, and after a start there may be very many.
const SETTLED_AT_ONCE: usize = 500;

/// For one run: far longer than it takes. A longer one hangs at a database that is gone.
const RUN_WITHIN: Duration = Duration::from_secs(30);

/// What the reconciler keeps of a row: of each, and there may be very many.
#[derive(Debug)]
struct Row {
    generation: Generation,
    standing: Standing,
}

/// What a reconciler works with.
#[derive(Debug)]
pub(crate) struct ReconcilerParts {
    pub(crate) store: Store,
    pub(crate) ca: Arc<Ca>,
    pub(crate) gateway: GatewayId,
    pub(crate) view: Arc<SharedView>,
    pub(crate) wake: Arc<Notify>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) send: mpsc::Sender<ToGateway>,
    pub(crate) deadlines: Deadlines,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Reconciler {
    parts: ReconcilerParts,
    revision: Revision,
    /// When all rows were last read.
    read_all_at: Option<Timestamp>,
    tunnels: BTreeMap<TunnelId, Row>,
    shares: BTreeMap<ShareId, Row>,
    /// Connections as they were last recorded.
    connections: BTreeMap<TunnelId, Connection>,
    /// Tunnels reported since the gateway began to report at that time, with their continuity over its restart.
    resumed: (Timestamp, BTreeMap<TunnelId, Option<ConnectionContinuity>>),
    /// Previous keys that are still valid.
    expiring_keys: BTreeMap<TunnelId, PreviousKeys>,
    desired: Desired,
    /// What the gateway was last told, and the number of the last delta.
    told: Desired,
    sequence: u64,
    /// The delta in which a row's removal was sent.
    removed_tunnels: BTreeMap<TunnelId, u64>,
    removed_shares: BTreeMap<ShareId, u64>,
    /// Rows whose desired state may differ from what the gateway was told.
    untold: Touched,
    /// Rows whose status has to be decided again.
    undecided: Touched,
    /// Rows that wait for something, so that a deadline may pass.
    waiting: Touched,
    /// When rows were last looked at because of the time.
    swept_at: Option<Timestamp>,
    /// The newest delta that the gateway had answered at the last run.
    heard: u64,
}

impl Reconciler {
    pub(crate) fn new(parts: ReconcilerParts) -> Self {
        Self {
            parts,
            revision: Revision::default(),
            read_all_at: None,
            tunnels: BTreeMap::new(),
            shares: BTreeMap::new(),
            connections: BTreeMap::new(),
            resumed: (Timestamp::MIN, BTreeMap::new()),
            expiring_keys: BTreeMap::new(),
            desired: Desired::default(),
            told: Desired::default(),
            sequence: 0,
            removed_tunnels: BTreeMap::new(),
            removed_shares: BTreeMap::new(),
            untold: Touched::default(),
            undecided: Touched::default(),
            waiting: Touched::default(),
            swept_at: None,
            heard: 0,
        }
    }

    async fn reconcile(&mut self, now: Timestamp) -> Result<Outcome, StoreError> {
        self.read(now).await?;
        self.expire_keys(now);
        self.tell();
        self.decide(now).await
    }

    /// Takes in the rows that are newer than the newest one seen; every few minutes all of them, and then those that are
    /// gone are forgotten.
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
        self.revision = store.changes(self.revision, |change| self.take(change, now)).await?;
        Ok(())
    }

    async fn read_all(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let store = self.parts.store.clone();
        let (mut found, mut barred) = (Touched::default(), BTreeSet::new());
        let revision = store.changes(Revision::default(), |change| {
            match &change {
                Change::Tunnel(row) => drop(found.tunnels.insert(row.id)),
                Change::Share(row) => drop(found.shares.insert(row.id)),
                Change::Barred(agent) => drop(barred.insert(*agent)),
                Change::Unbarred(_) => {}
            }
            self.take(change, now);
        });
        self.revision = revision.await?;
        self.desired.barred = barred;
        let gone: Vec<_> = self.tunnels.keys().filter(|id| !found.tunnels.contains(id)).copied().collect();
        for id in gone {
            self.untold.tunnels.insert(id);
            self.forget_tunnel(id);
        }
        let gone: Vec<_> = self.shares.keys().filter(|id| !found.shares.contains(id)).copied().collect();
        for id in gone {
            self.untold.shares.insert(id);
            self.forget_share(id);
        }
        Ok(())
    }

    /// Removes keys whose grace time is over.
    fn expire_keys(&mut self, now: Timestamp) {
        self.expiring_keys.retain(|id, previous| {
            let Some(tunnel) = self.desired.tunnels.get_mut(id) else { return false };
            let valid = previous.valid(now).count();
            if valid + 1 < tunnel.keys.len() {
                let tunnel = Arc::make_mut(tunnel);
                tunnel.keys.truncate(1);
                tunnel.keys.extend(previous.valid(now).map(|(key, _)| key.clone()));
                self.untold.tunnels.insert(*id);
                info!(tunnel.id = %id, "a previous key of the tunnel expired");
            }
            valid > 0
        });
    }

    /// Sends the gateway what changed. When its link is full, the next run sends it.
    fn tell(&mut self) {
        let delta = if self.sequence == 0 {
            self.desired.snapshot()
        } else {
            self.desired.since(&self.told, &self.untold)
        };
        if !delta.is_empty() {
            let Ok(place) = self.parts.send.try_reserve() else { return };
            self.sequence += 1;
            self.removed_tunnels.extend(delta.removed_tunnels.iter().map(|id| (*id, self.sequence)));
            self.removed_shares.extend(delta.removed_shares.iter().map(|id| (*id, self.sequence)));
            self.told.apply(&delta);
            place.send(ToGateway::Desired { sequence: self.sequence, delta });
        }
        self.untold = Touched::default();
    }
}

impl BackgroundTask for Reconciler {
    const NAME: &'static str = "reconciler";
    const PERIOD: Duration = PERIOD;
    const WITHIN: Duration = RUN_WITHIN;

    async fn signal(&self) {
        self.parts.wake.notified().await;
    }

    /// If it is cut, the next run repeats what was not written.
    async fn activate(&mut self, now: Timestamp) -> anyhow::Result<Outcome> {
        let result = self.reconcile(now).await;
        self.parts.metrics.reconciled(now, result.is_err());
        Ok(result?)
    }
}

/// Only rows that wait for something are examined in each run, however many rows there are.
fn keep<Id: Ord>(waiting: &mut BTreeSet<Id>, id: Id, status: Status) {
    if matches!(status, Status::New | Status::Deleting) {
        waiting.insert(id);
    } else {
        waiting.remove(&id);
    }
}

/// The operator's provisioning deadline; the other deadlines have their defaults.
pub(crate) fn deadlines(provisioning: Duration) -> Deadlines {
    let provisioning = SignedDuration::try_from(provisioning).unwrap_or(SignedDuration::MAX);
    Deadlines { provisioning, ..Deadlines::default() }
}

#[cfg(test)]
mod tests;
