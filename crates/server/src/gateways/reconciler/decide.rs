//! Decides the status of rows from what their gateway reports.

use std::{collections::BTreeSet, mem, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};
use wicketgate_link::LinkKind;
use wicketgate_model::{
    Connection, ConnectionContinuity, ConnectionState, Generation, Observation, Problem, ShareId, Status,
    TunnelDesired, TunnelId,
};
use wicketgate_store::{Resource, RowReport, StatusUpdate, StoreError};

use super::{FirstReport, PERIOD, Reconciler, Rows, SETTLED_AT_ONCE, TunnelState};
use crate::{
    background::Outcome,
    gateways::{GatewayView, PeerState},
};

/// Recorded in one transaction, some statements each: callers' writes wait for it.
const CONNECTIONS_AT_ONCE: usize = 50;

/// How long a peer that was connected may be away before its shares' rows say so: all of them are written, with events.
/// Most devices that reconnect are back sooner. Who reads a share is told at once.
const PEER_HELD: SignedDuration = SignedDuration::from_secs(4);

impl Reconciler {
    /// Decides the status of rows, and writes what changed. If many shares change, the newest come first, so that one
    /// that was just created does not wait for all others after a restart.
    pub(super) async fn decide(&mut self, now: Timestamp) -> Result<Outcome, StoreError> {
        let (of_tunnels, of_shares, connections) = {
            let view = Arc::clone(&self.parts.view);
            let mut seen = view.lock();
            self.take_as_desired(&mut seen, now);
            self.touch(&mut seen, now);
            let connections = self.new_connections(&seen, now);
            let Self { tunnels, shares, outbox, parts, .. } = self;
            let of_tunnels = tunnels.decisions(usize::MAX, parts.deadlines, now, |id, state, is_removed| {
                if state.is_address_taken {
                    return (Resource::Tunnel(id), address_taken());
                }
                let entry = seen.observed.tunnels.get(&id).map(|t| (t.ready, t.problem.clone()));
                let is_sent = is_removed || outbox.has_sent_tunnel(id);
                (Resource::Tunnel(id), observation(parts.kind, &seen, entry, is_sent))
            });
            let of_shares = shares.decisions(SETTLED_AT_ONCE, parts.deadlines, now, |id, (), is_removed| {
                let tunnel = outbox.desired.shares.get(&id).and_then(|share| tunnels.get(share.tunnel));
                if tunnel.is_some_and(|tunnel| tunnel.state.is_address_taken) {
                    return (Resource::Share(id), address_taken());
                }
                let entry = seen.observed.shares.get(&id).map(|s| {
                    let tunnel = || outbox.desired.tunnels.get(&outbox.desired.shares.get(&id)?.tunnel);
                    let impaired = || s.ready.and_then(|_| impairment(&seen, tunnels, id, tunnel()?));
                    // A warning hides nothing that impairs the share.
                    let grave = s.problem.clone().filter(|problem| !problem.reason.is_warning());
                    (s.ready, grave.or_else(impaired).or_else(|| s.problem.clone()))
                });
                let is_sent = is_removed || outbox.has_sent_share(id);
                (Resource::Share(id), observation(parts.kind, &seen, entry, is_sent))
            });
            (of_tunnels, of_shares, connections)
        };
        // Before the statuses, so that no reader sees a tunnel that is disabled and connected. A failure holds up none of them.
        let recorded = self.record(&connections, now).await;
        for updates in of_tunnels.updates.chunks(SETTLED_AT_ONCE).chain([&of_shares.updates[..]]) {
            self.parts.store.update_statuses(&self.parts.epoch, updates).await?;
            for update in updates {
                self.updated(update, now);
            }
        }
        for reports in of_tunnels.reports.chunks(SETTLED_AT_ONCE).chain([&of_shares.reports[..]]) {
            self.report(reports, now).await?;
        }
        recorded?;
        self.tunnels.decided(None);
        Ok(if self.shares.decided(of_shares.last) { Outcome::Done } else { Outcome::More })
    }

    /// Writes what the gateway sees of rows that others serve, too, and takes in their statuses.
    async fn report(&mut self, reports: &[RowReport], now: Timestamp) -> Result<(), StoreError> {
        let Self { parts, tunnels, shares, .. } = self;
        let decided = parts.store.observe(&parts.epoch, reports, parts.deadlines, now).await?;
        for RowReport { resource, generation, seen } in reports {
            match *resource {
                Resource::Tunnel(id) => tunnels.reported(id, *generation, seen.clone()),
                Resource::Share(id) => shares.reported(id, *generation, seen.clone()),
            }
        }
        for update in &decided {
            self.updated(update, now);
        }
        Ok(())
    }

    async fn record(
        &mut self,
        connections: &[(TunnelId, Connection)],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        for part in connections.chunks(CONNECTIONS_AT_ONCE) {
            self.parts.store.record_connections(&self.parts.epoch, part, now).await?;
            for (id, connection) in part {
                self.parts.metrics.connected(*id, connection);
                if let Some(row) = self.tunnels.get_mut(*id) {
                    row.state.connection = Some(connection.clone());
                }
            }
        }
        Ok(())
    }

    /// Collects the rows whose status may have changed.
    fn touch(&mut self, seen: &mut GatewayView, now: Timestamp) {
        // Deadlines are in seconds: rows that wait for one are examined once a second, and all rows while the gateway is
        // silent. Examining all of them at every signal would find no more.
        let is_due = self.swept_at.is_none_or(|at| now.duration_since(at).unsigned_abs() >= PERIOD);
        let Self { tunnels, shares, outbox, lost, .. } = self;
        let touched = seen.take_touched();
        tunnels.touch(touched.tunnels);
        if is_due {
            tunnels.touch(lost.clone());
        }
        shares.touch(touched.shares);
        let mut changed_peers = BTreeSet::new();
        tunnels.each_undecided(|id, row| {
            if row.state.tells_peer(PeerState::of(seen, id), now) {
                changed_peers.insert(id);
            }
            match row.state.lost_since {
                Some(_) => lost.insert(id),
                None => lost.remove(&id),
            };
        });
        if !changed_peers.is_empty() {
            // Looking through all shares takes milliseconds; an index by tunnel would take memory for each of them, always.
            let all = outbox.desired.shares.values();
            shares.touch(
                all.filter(|share| changed_peers.contains(&share.tunnel)).map(|share| share.id).collect(),
            );
        }
        tunnels.heard(seen.heard);
        shares.heard(seen.heard);
        if touched.all || (is_due && seen.silent_since.is_some()) {
            tunnels.touch_all();
            shares.touch_all();
        } else if is_due || seen.heard != self.heard {
            tunnels.touch_waiting();
            shares.touch_waiting();
        }
        if is_due {
            shares.touch(seen.recent.expire(now).into_iter().collect());
            self.swept_at = Some(now);
        }
        self.heard = seen.heard;
    }

    /// An update was written.
    fn updated(&mut self, update: &StatusUpdate, now: Timestamp) {
        let StatusUpdate { resource, standing, .. } = update;
        let before = match *resource {
            Resource::Tunnel(id) => self.tunnels.updated(id, standing.clone(), now),
            Resource::Share(id) => self.shares.updated(id, standing.clone(), now),
        };
        let status = standing.status;
        if before.is_some_and(|before| before != status) {
            let problem = standing.detail.as_ref().map(|d| d.problem.message.as_str());
            if status == Status::Error {
                warn!(%resource, %status, problem, "status changed");
            } else {
                info!(%resource, %status, "status changed");
            }
        }
        match *resource {
            Resource::Tunnel(id) if status == Status::Deleted => self.forget_tunnel(id),
            Resource::Share(id) if status == Status::Deleted => self.forget_share(id),
            Resource::Tunnel(_) | Resource::Share(_) => {}
        }
    }

    /// Connections that are not as they were last recorded. Those of a silent gateway count as down, unless it has
    /// announced that it stops: then its tunnels live on, and it reports them when it is back. Nothing is known of a
    /// tunnel that it has not looked at yet.
    fn new_connections(&mut self, seen: &GatewayView, now: Timestamp) -> Vec<(TunnelId, Connection)> {
        let silence = self.parts.deadlines.silence;
        // One in a process of its own goes on with them.
        let is_lost = self.parts.kind == LinkKind::InProcess
            && !seen.is_draining
            && seen.silent_since.is_some_and(|since| now.duration_since(since) >= silence);
        let mut changed = Vec::new();
        self.tunnels.each_undecided(|id, row| {
            let state = &mut row.state;
            let current = match seen.observed.tunnels.get(&id) {
                Some(tunnel) if tunnel.problem.as_ref().is_some_and(Problem::is_pending) => return,
                Some(tunnel) => state.shown(&tunnel.connection, seen.reporting_since),
                None if is_lost
                    && state.connection.as_ref().is_some_and(|c| c.state != ConnectionState::Down) =>
                {
                    Connection::down(now)
                }
                None => return,
            };
            if state.connection.as_ref() != Some(&current) {
                changed.push((id, current));
            }
        });
        changed
    }
}

impl TunnelState {
    /// Takes in the state of the peer. Returns whether the shares of the tunnel have to be told.
    fn tells_peer(&mut self, peer: Option<PeerState>, now: Timestamp) -> bool {
        let passed = self.peer.is_some_and(|peer| peer.passes);
        if passed && peer.is_some_and(|peer| !peer.passes) {
            let since = *self.lost_since.get_or_insert(now);
            if now.duration_since(since) < PEER_HELD {
                return false;
            }
        }
        self.lost_since = None;
        mem::replace(&mut self.peer, peer) != peer
    }

    /// The connection to record for a report: one that goes on over a restart of its gateway is shown as before.
    fn shown(&mut self, reported: &Connection, reporting_since: Timestamp) -> Connection {
        if self.first_report.as_ref().is_none_or(|first| first.reporting_since != reporting_since) {
            let before = self.connection.clone();
            let continuity = before.map(|before| ConnectionContinuity::new(before, reported.clone()));
            self.first_report = Some(FirstReport { reporting_since, continuity });
        }
        match self.first_report.as_mut().and_then(|first| first.continuity.as_mut()) {
            Some(continuity) => continuity.shown(reported.clone()),
            None => reported.clone(),
        }
    }
}

/// What is known of a row. Without an entry it is gone only if the gateway has received its removal, or never
/// received the row at all.
fn observation(
    kind: LinkKind,
    seen: &GatewayView,
    entry: Option<(Option<Generation>, Option<Problem>)>,
    is_sent: bool,
) -> Observation {
    match (seen.silent_since, entry) {
        // It has linked, and says soon what it has: it serves meanwhile.
        (Some(since), _) if kind == LinkKind::Network && !seen.is_draining => {
            Observation::Unreachable { since, is_linked: seen.is_connected }
        }
        (Some(since), _) => Observation::Silent { since, drains: seen.is_draining },
        (None, Some((None, Some(problem)))) if problem.is_pending() => {
            Observation::Looking { since: seen.progress_at }
        }
        (None, Some((ready, problem))) => Observation::Seen { ready, problem },
        (None, None) if is_sent => Observation::Seen { ready: None, problem: None },
        (None, None) => Observation::Gone,
    }
}

/// Of a tunnel that has lost its peer's address, and of its shares, whatever the gateway still reports.
fn address_taken() -> Observation {
    Observation::Seen { ready: None, problem: Some(Problem::peer_address_taken()) }
}

/// What impairs a share that its gateway and an agent serve.
fn impairment(
    seen: &GatewayView,
    tunnels: &Rows<TunnelId, TunnelState>,
    share: ShareId,
    tunnel: &TunnelDesired,
) -> Option<Problem> {
    let peer = tunnels.get(tunnel.id).and_then(|row| row.state.peer?.problem(&tunnel.name));
    peer.or_else(|| seen.recent.problem(share))
}
