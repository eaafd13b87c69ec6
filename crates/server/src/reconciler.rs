//! The reconciler: the one path from what was written to what is served, and back to a status.
//!
//! It is woken by signal and by time, and takes no input, even where somebody knows what changed: it reads the
//! rows that are newer than the newest it has seen, tells the gateway the difference between what it should serve
//! and what it was last told, and lets [`wicketgate_model::next`] decide where each row stands. First deploy,
//! retry, restart and failover are this path.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use wicketgate_model::{
    Assignment, Connection, Deadlines, Desired, Generation, Observation, Reason, ResourceName, ShareDesired,
    ShareId, Standing, Status, Touched, TunnelDesired, TunnelId, next,
};
use wicketgate_session::{ca::Ca, link::ToGateway};
use wicketgate_store::{
    Change, PreviousKeys, Resource, Revision, Settlement, ShareRow, Store, StoreError, TunnelRow,
};

use crate::{
    link::{Seen, Sight},
    telemetry::Metrics,
};

/// How often it looks although nobody woke it: deadlines pass, and a signal may have been lost with its process.
const PERIOD: Duration = Duration::from_secs(1);

/// Rows settled in one transaction: callers' writes wait for it, and after a start there may be very many.
const SETTLED_AT_ONCE: usize = 500;

/// One run, which settles that many shares at most: far longer than it takes. What is longer hangs at a database that
/// is gone.
const RUN_WITHIN: Duration = Duration::from_secs(30);

/// When the reconciler last ran, and with what result: for `/readyz`.
#[derive(Debug, Clone, Default)]
pub struct LastRun {
    pub at: Option<Timestamp>,
    /// What went wrong, if something did.
    pub error: Option<String>,
}

/// What the reconciler keeps of a row.
#[derive(Debug)]
struct Row {
    /// For logs.
    name: ResourceName,
    generation: Generation,
    standing: Standing,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Reconciler {
    store: Store,
    ca: Arc<Ca>,
    sight: Arc<Sight>,
    metrics: Arc<Metrics>,
    send: mpsc::Sender<ToGateway>,
    deadlines: Deadlines,
    revision: Revision,
    tunnels: BTreeMap<TunnelId, Row>,
    shares: BTreeMap<ShareId, Row>,
    /// Connections as they were last recorded.
    connections: BTreeMap<TunnelId, Connection>,
    /// Keys that still work beside a newer one.
    expiring_keys: BTreeMap<TunnelId, PreviousKeys>,
    desired: Desired,
    /// What the gateway was last told, and the number of the last delta.
    told: Desired,
    sequence: u64,
    /// In which delta a row's removal was told.
    removed_tunnels: BTreeMap<TunnelId, u64>,
    removed_shares: BTreeMap<ShareId, u64>,
    /// Rows whose wish may differ from what was told.
    untold: Touched,
    /// Rows whose standing has to be decided anew.
    undecided: Touched,
    /// Rows that wait for something, so that a deadline may pass.
    waiting: Touched,
    /// When rows were last looked at because of the time.
    swept_at: Option<Timestamp>,
    /// The newest delta that the gateway had answered at the last run.
    heard: u64,
}

/// Whether a run has left something to the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    /// Rows to settle: so many at a time, and between them whatever was written meanwhile.
    More,
}

impl Reconciler {
    pub(crate) fn new(
        store: Store,
        ca: Arc<Ca>,
        sight: Arc<Sight>,
        metrics: Arc<Metrics>,
        send: mpsc::Sender<ToGateway>,
        deadlines: Deadlines,
    ) -> Self {
        Self {
            store,
            ca,
            sight,
            metrics,
            send,
            deadlines,
            revision: Revision::default(),
            tunnels: BTreeMap::new(),
            shares: BTreeMap::new(),
            connections: BTreeMap::new(),
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

    /// Runs until `stop`. A run that fails is told on `last_run`, and tried again a period later.
    pub(crate) async fn run(
        mut self,
        wake: Arc<Notify>,
        last_run: watch::Sender<LastRun>,
        stop: CancellationToken,
    ) {
        let mut failing = false;
        loop {
            let now = Timestamp::now();
            // A run that is cut is as one that failed: what it has not written down, the next one does again.
            let run = timeout(RUN_WITHIN, self.activate(now)).await;
            let result = run.map_err(|_| StoreError::Late).and_then(|done| done);
            match &result {
                Ok(_) if failing => info!("reconciler works again"),
                Err(error) if !failing => error!(%error, "reconciler failed; it tries again every second"),
                Ok(_) | Err(_) => {}
            }
            failing = result.is_err();
            self.metrics.reconciled(now, failing);
            let left = result.as_ref().copied().unwrap_or(Left::Nothing);
            last_run.send_replace(LastRun { at: Some(now), error: result.err().map(|e| e.to_string()) });
            if left == Left::More && !stop.is_cancelled() {
                continue;
            }
            tokio::select! {
                () = wake.notified() => {}
                () = tokio::time::sleep(PERIOD) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn activate(&mut self, now: Timestamp) -> Result<Left, StoreError> {
        let (store, since) = (self.store.clone(), self.revision);
        self.revision = store.changes(since, |change| self.take(change, now)).await?;
        self.expire_keys(now);
        self.tell();
        self.decide(now).await
    }

    /// Takes in a row that is new or was changed.
    fn take(&mut self, change: Change, now: Timestamp) {
        match change {
            Change::Tunnel(row) => self.take_tunnel(*row, now),
            Change::Share(row) => self.take_share(*row),
            Change::Barred(agent) => {
                self.desired.barred.insert(agent);
            }
            Change::Unbarred(agent) => {
                self.desired.barred.remove(&agent);
            }
        }
    }

    fn take_tunnel(&mut self, row: TunnelRow, now: Timestamp) {
        let id = row.id;
        self.untold.tunnels.insert(id);
        self.undecided.tunnels.insert(id);
        if row.standing.status == Status::Deleted {
            return self.forget_tunnel(id);
        }
        match row.previous_keys.valid(now).next() {
            Some(_) => self.expiring_keys.insert(id, row.previous_keys.clone()),
            None => self.expiring_keys.remove(&id),
        };
        if row.standing.status.is_live() {
            self.desired.tunnels.insert(id, Arc::new(tunnel_desired(&row, now)));
        } else {
            self.desired.tunnels.remove(&id);
        }
        if let Some(connection) = row.connection {
            self.connections.entry(id).or_insert(connection);
        }
        keep(&mut self.waiting.tunnels, id, row.standing.status);
        let row = Row { name: row.name, generation: row.generation, standing: row.standing };
        self.tunnels.insert(id, row);
    }

    fn take_share(&mut self, row: ShareRow) {
        let id = row.id;
        self.untold.shares.insert(id);
        self.undecided.shares.insert(id);
        if row.standing.status == Status::Deleted {
            return self.forget_share(id);
        }
        if row.standing.status.is_live() {
            match self.share_desired(&row) {
                Ok(share) => {
                    self.desired.shares.insert(id, Arc::new(share));
                }
                Err(error) => error!(share.id = %id, %error, "could not sign a share's assignment"),
            }
        } else {
            self.desired.shares.remove(&id);
        }
        keep(&mut self.waiting.shares, id, row.standing.status);
        let row = Row { name: row.name, generation: row.generation, standing: row.standing };
        self.shares.insert(id, row);
    }

    fn forget_tunnel(&mut self, id: TunnelId) {
        self.tunnels.remove(&id);
        self.waiting.tunnels.remove(&id);
        self.desired.tunnels.remove(&id);
        self.connections.remove(&id);
        self.expiring_keys.remove(&id);
    }

    fn forget_share(&mut self, id: ShareId) {
        self.shares.remove(&id);
        self.waiting.shares.remove(&id);
        self.desired.shares.remove(&id);
        self.metrics.forget(id);
    }

    fn share_desired(&self, row: &ShareRow) -> anyhow::Result<ShareDesired> {
        let assignment = Assignment {
            environment: row.environment,
            share: row.id,
            generation: row.generation,
            target: row.target.clone(),
        };
        Ok(ShareDesired {
            id: row.id,
            generation: row.generation,
            tunnel: row.tunnel,
            environment: row.environment,
            ingress_port: row.ingress_port,
            options: row.options.clone(),
            assignment: self.ca.sign_assignment(&assignment)?,
        })
    }

    /// Keys whose grace time is over stop working.
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

    /// Tells the gateway what changed. When its link is full, what is untold waits for the next run.
    fn tell(&mut self) {
        let delta = if self.sequence == 0 {
            self.desired.snapshot()
        } else {
            self.desired.since(&self.told, &self.untold)
        };
        if !delta.is_empty() {
            let Ok(place) = self.send.try_reserve() else { return };
            self.sequence += 1;
            self.removed_tunnels.extend(delta.removed_tunnels.iter().map(|id| (*id, self.sequence)));
            self.removed_shares.extend(delta.removed_shares.iter().map(|id| (*id, self.sequence)));
            self.told.apply(&delta);
            place.send(ToGateway::Desired { sequence: self.sequence, delta });
        }
        self.untold = Touched::default();
    }

    /// Decides where rows stand, and writes what changed.
    async fn decide(&mut self, now: Timestamp) -> Result<Left, StoreError> {
        let (tunnels, (shares, down_to), connections) = {
            let sight = Arc::clone(&self.sight);
            let mut seen = sight.lock();
            let touched = seen.take_touched();
            self.undecided.tunnels.extend(touched.tunnels);
            self.undecided.shares.extend(touched.shares);
            self.removed_tunnels.retain(|_, sequence| *sequence > seen.heard);
            self.removed_shares.retain(|_, sequence| *sequence > seen.heard);
            // Deadlines are in seconds: what waits for one is looked at that often, and everything while the gateway
            // is silent or has only just begun to report. To look at very many rows at every signal finds no more.
            let by_time = seen.silent_since.is_some()
                || now.duration_since(seen.reporting_since) < self.deadlines.silence * 2;
            let is_due = self.swept_at.is_none_or(|at| now.duration_since(at).unsigned_abs() >= PERIOD);
            if touched.all || (by_time && is_due) {
                self.undecided.tunnels.extend(self.tunnels.keys());
                self.undecided.shares.extend(self.shares.keys());
            } else if is_due || seen.heard != self.heard {
                self.undecided.tunnels.extend(&self.waiting.tunnels);
                self.undecided.shares.extend(&self.waiting.shares);
            }
            if is_due {
                self.swept_at = Some(now);
            }
            self.heard = seen.heard;
            (
                self.tunnel_settlements(&seen, now),
                self.share_settlements(&seen, now),
                self.new_connections(&seen, now),
            )
        };
        for part in tunnels.chunks(SETTLED_AT_ONCE) {
            self.settle(part).await?;
        }
        self.settle(&shares).await?;
        if !connections.is_empty() {
            self.store.record_connections(&connections, now).await?;
        }
        self.undecided.tunnels = BTreeSet::new();
        self.connections.extend(connections);
        match down_to {
            Some(last) => self.undecided.shares.split_off(&last),
            None => mem::take(&mut self.undecided.shares),
        };
        Ok(if self.undecided.shares.is_empty() { Left::Nothing } else { Left::More })
    }

    async fn settle(&mut self, settlements: &[Settlement]) -> Result<(), StoreError> {
        self.store.settle(settlements).await?;
        for settlement in settlements {
            self.settled(settlement.clone());
        }
        Ok(())
    }

    fn tunnel_settlements(&self, seen: &Seen, now: Timestamp) -> Vec<Settlement> {
        let settlements = self.undecided.tunnels.iter().filter_map(|id| {
            let row = self.tunnels.get(id)?;
            let entry = seen.observed.tunnels.get(id).map(|t| (t.ready, t.problem.clone()));
            let told = self.told.tunnels.contains_key(id) || self.removed_tunnels.contains_key(id);
            self.settlement(Resource::Tunnel(*id), row, &observation(seen, entry, told), now)
        });
        settlements.collect()
    }

    /// Those of the newest shares, so that whoever has just made one does not wait for all the others after a restart;
    /// and, if that is as many as are settled at once, down to which share they go.
    fn share_settlements(&self, seen: &Seen, now: Timestamp) -> (Vec<Settlement>, Option<ShareId>) {
        let mut settlements = Vec::new();
        for id in self.undecided.shares.iter().rev() {
            let Some(row) = self.shares.get(id) else { continue };
            let entry = seen.observed.shares.get(id).map(|s| (s.ready, s.problem.clone()));
            let told = self.told.shares.contains_key(id) || self.removed_shares.contains_key(id);
            let settlement = self.settlement(Resource::Share(*id), row, &observation(seen, entry, told), now);
            settlements.extend(settlement);
            if settlements.len() == SETTLED_AT_ONCE {
                return (settlements, Some(*id));
            }
        }
        (settlements, None)
    }

    fn settlement(
        &self,
        resource: Resource,
        row: &Row,
        seen: &Observation,
        now: Timestamp,
    ) -> Option<Settlement> {
        let standing = next(&row.standing, row.generation, seen, self.deadlines, now);
        (standing != row.standing).then_some(Settlement { resource, generation: row.generation, standing })
    }

    fn settled(&mut self, settlement: Settlement) {
        let Settlement { resource, standing, .. } = settlement;
        let row = match resource {
            Resource::Tunnel(id) => self.tunnels.get_mut(&id),
            Resource::Share(id) => self.shares.get_mut(&id),
        };
        let Some(row) = row else { return };
        if row.standing.status != standing.status {
            match standing.status {
                Status::Error => {
                    let problem = standing.detail.as_ref().map(|d| d.problem.message.as_str());
                    warn!(resource = %resource, name = %row.name, status = %standing.status, problem, "status changed");
                }
                _ => {
                    info!(resource = %resource, name = %row.name, status = %standing.status, "status changed")
                }
            }
        }
        let status = standing.status;
        let deleted = status == Status::Deleted;
        row.standing = standing;
        match resource {
            Resource::Tunnel(id) if deleted => self.forget_tunnel(id),
            Resource::Share(id) if deleted => self.forget_share(id),
            Resource::Tunnel(id) => keep(&mut self.waiting.tunnels, id, status),
            Resource::Share(id) => keep(&mut self.waiting.shares, id, status),
        }
    }

    /// Connections that are not as they were last recorded. A silent gateway's are not known to be up.
    fn new_connections(&self, seen: &Seen, now: Timestamp) -> Vec<(TunnelId, Connection)> {
        let lost = seen.silent_since.is_some_and(|since| now.duration_since(since) >= self.deadlines.silence);
        let looked_at = self.undecided.tunnels.iter().filter(|id| self.tunnels.contains_key(id));
        let changed = looked_at.filter_map(|id| {
            let recorded = self.connections.get(id);
            let current = match seen.observed.tunnels.get(id) {
                Some(tunnel) => tunnel.connection.clone(),
                None if lost && recorded.is_some_and(|c| c.state != Default::default()) => {
                    Connection::down(now)
                }
                None => return None,
            };
            (recorded != Some(&current)).then_some((*id, current))
        });
        changed.collect()
    }
}

/// Only what waits is looked at each time, however many rows there are.
fn keep<Id: Ord>(waiting: &mut BTreeSet<Id>, id: Id, status: Status) {
    if matches!(status, Status::New | Status::Deleting) {
        waiting.insert(id);
    } else {
        waiting.remove(&id);
    }
}

/// What is known of a row. Without an entry it is gone only if the gateway has heard of its removal, or never
/// heard of the row at all.
fn observation(
    seen: &Seen,
    entry: Option<(Option<Generation>, Option<wicketgate_model::Problem>)>,
    told: bool,
) -> Observation {
    match (seen.silent_since, entry) {
        (Some(since), _) => Observation::Silent { since },
        (None, Some((None, Some(problem)))) if problem.reason == Reason::Pending => {
            Observation::Looking { since: seen.reporting_since }
        }
        (None, Some((ready, problem))) => Observation::Seen { ready, problem },
        (None, None) if told => Observation::Seen { ready: None, problem: None },
        (None, None) => Observation::Gone,
    }
}

fn tunnel_desired(row: &TunnelRow, now: Timestamp) -> TunnelDesired {
    let previous = row.previous_keys.valid(now).map(|(key, _)| key.clone());
    TunnelDesired {
        id: row.id,
        generation: row.generation,
        name: row.name.clone(),
        slot: row.slot,
        peer_address: row.peer_address,
        peer_cidr: row.peer_cidr,
        peer_id: row.peer_id.clone(),
        load_balancer_ip: row.load_balancer_ip,
        keys: std::iter::once(row.key.clone()).chain(previous).collect(),
        ike_proposals: row.ike_proposals.clone().unwrap_or_default(),
        esp_proposals: row.esp_proposals.clone().unwrap_or_default(),
        initiate: row.initiate,
    }
}

/// The provisioning deadline of an operator's choice, the rest as it is by default.
pub(crate) fn deadlines(provisioning: Duration) -> Deadlines {
    let provisioning = SignedDuration::try_from(provisioning).unwrap_or(SignedDuration::MAX);
    Deadlines { provisioning, ..Deadlines::default() }
}

#[cfg(test)]
mod tests;
