//! Decides the status of rows from what their gateway reports.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use jiff::Timestamp;
use tracing::{info, warn};
use wicketgate_model::{
    Connection, ConnectionContinuity, Generation, Observation, Problem, Reason, ShareId, Status, TunnelId,
    TunnelObserved, next,
};
use wicketgate_store::{Resource, StatusUpdate, StoreError};

use super::{PERIOD, Reconciler, Row, SETTLED_AT_ONCE, keep};
use crate::{background::Outcome, gateways::GatewayView};

/// Recorded in one transaction, some statements each: callers' writes wait for it.
const CONNECTIONS_AT_ONCE: usize = 50;

impl Reconciler {
    /// Decides the status of rows, and writes what changed.
    pub(super) async fn decide(&mut self, now: Timestamp) -> Result<Outcome, StoreError> {
        let (tunnels, (shares, down_to), connections) = {
            let view = Arc::clone(&self.parts.view);
            let mut seen = view.lock();
            let touched = seen.take_touched();
            self.undecided.tunnels.extend(touched.tunnels);
            self.undecided.shares.extend(touched.shares);
            self.removed_tunnels.retain(|_, sequence| *sequence > seen.heard);
            self.removed_shares.retain(|_, sequence| *sequence > seen.heard);
            // Deadlines are in seconds: rows that wait for one are examined once a second, and all rows while the gateway
            // is silent or has only just begun to report. Examining all of them at every signal would find no more.
            let by_time = seen.silent_since.is_some()
                || now.duration_since(seen.reporting_since) < self.parts.deadlines.silence * 2;
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
        for part in connections.chunks(CONNECTIONS_AT_ONCE) {
            self.parts.store.record_connections(self.parts.gateway, part, now).await?;
            self.connections.extend(part.iter().cloned());
        }
        self.undecided.tunnels = BTreeSet::new();
        match down_to {
            Some(last) => self.undecided.shares.split_off(&last),
            None => mem::take(&mut self.undecided.shares),
        };
        Ok(if self.undecided.shares.is_empty() { Outcome::Done } else { Outcome::More })
    }

    async fn settle(&mut self, settlements: &[StatusUpdate]) -> Result<(), StoreError> {
        self.parts.store.update_statuses(settlements).await?;
        for settlement in settlements {
            self.settled(settlement.clone());
        }
        Ok(())
    }

    fn tunnel_settlements(&self, seen: &GatewayView, now: Timestamp) -> Vec<StatusUpdate> {
        let settlements = self.undecided.tunnels.iter().filter_map(|id| {
            let row = self.tunnels.get(id)?;
            let entry = seen.observed.tunnels.get(id).map(|t| (t.ready, t.problem.clone()));
            let told = self.told.tunnels.contains_key(id) || self.removed_tunnels.contains_key(id);
            self.settlement(Resource::Tunnel(*id), row, &observation(seen, entry, told), now)
        });
        settlements.collect()
    }

    /// The newest shares first, so that a share that was just created does not wait for all others after a restart. If
    /// there are more than one run writes, also the oldest share of this run.
    fn share_settlements(&self, seen: &GatewayView, now: Timestamp) -> (Vec<StatusUpdate>, Option<ShareId>) {
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
    ) -> Option<StatusUpdate> {
        let standing = next(&row.standing, row.generation, seen, self.parts.deadlines, now);
        (standing != row.standing).then_some(StatusUpdate { resource, generation: row.generation, standing })
    }

    fn settled(&mut self, settlement: StatusUpdate) {
        let StatusUpdate { resource, standing, .. } = settlement;
        let row = match resource {
            Resource::Tunnel(id) => self.tunnels.get_mut(&id),
            Resource::Share(id) => self.shares.get_mut(&id),
        };
        let Some(row) = row else { return };
        if row.standing.status != standing.status {
            match standing.status {
                Status::Error => {
                    let problem = standing.detail.as_ref().map(|d| d.problem.message.as_str());
                    warn!(resource = %resource, status = %standing.status, problem, "status changed");
                }
                _ => {
                    info!(resource = %resource, status = %standing.status, "status changed")
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

    /// Connections that are not as they were last recorded. Of a silent gateway's none is known to be up, unless it has said
    /// that it stops: then its tunnels live on, and what became of them is seen when it is back. Nothing is known of a
    /// tunnel that it has not looked at yet.
    fn new_connections(&mut self, seen: &GatewayView, now: Timestamp) -> Vec<(TunnelId, Connection)> {
        let lost = !seen.is_draining
            && seen
                .silent_since
                .is_some_and(|since| now.duration_since(since) >= self.parts.deadlines.silence);
        let is_pending =
            |problem: &Option<Problem>| problem.as_ref().is_some_and(|p| p.reason == Reason::Pending);
        if self.resumed.0 != seen.reporting_since {
            self.resumed = (seen.reporting_since, BTreeMap::new());
        }
        let looked_at = self.undecided.tunnels.iter().filter(|id| self.tunnels.contains_key(id));
        let changed = looked_at.filter_map(|id| {
            let recorded = self.connections.get(id);
            let current = match seen.observed.tunnels.get(id) {
                Some(tunnel) if is_pending(&tunnel.problem) => return None,
                Some(TunnelObserved { connection: told, .. }) => {
                    let resumed = self.resumed.1.entry(*id);
                    let resumed = resumed
                        .or_insert_with(|| Some(ConnectionContinuity::new(recorded?.clone(), told.clone())));
                    resumed.as_mut().map_or_else(|| told.clone(), |r| r.shown(told.clone()))
                }
                None if lost
                    && recorded.is_some_and(|c| c.state != wicketgate_model::ConnectionState::Down) =>
                {
                    Connection::down(now)
                }
                None => return None,
            };
            (recorded != Some(&current)).then_some((*id, current))
        });
        changed.collect()
    }
}

/// What is known of a row. Without an entry it is gone only if the gateway has received its removal, or never
/// received the row at all.
fn observation(
    seen: &GatewayView,
    entry: Option<(Option<Generation>, Option<Problem>)>,
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
