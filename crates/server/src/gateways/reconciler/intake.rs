//! Takes in rows that were written, and builds the desired state from them.

use std::mem;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};
use tracing::error;
use wicketgate_authority::LEAF_LIFETIME;
use wicketgate_model::{
    Assignment, HealthCheck, HealthCheckType, ShareDesired, ShareId, SignedAssignment, Status, TunnelDesired,
    TunnelId,
};
use wicketgate_store::{Change, ShareRow, TunnelRow};

use super::Reconciler;
use crate::telemetry::TunnelFacts;

/// As long as certificates: agents serve through an outage of the server of twenty days.
const LIFETIME: SignedDuration = LEAF_LIFETIME;

/// A third of it.
const RENEWED_EVERY: SignedDuration = SignedDuration::from_hours(10 * 24);

const NO_PROBES: HealthCheck = HealthCheck { r#type: HealthCheckType::None, interval_seconds: None };

impl Reconciler {
    /// Takes in a row that is new or was changed.
    pub(super) fn take(&mut self, change: Change, now: Timestamp) {
        match change {
            Change::Tunnel(row) => self.take_tunnel(*row, now),
            Change::Share(row) => self.take_share(*row, now),
            Change::Agent(id, agent) => self.outbox.set_agent(id, Some(agent)),
            Change::Withdrawn(id) => self.withdraw(id),
            Change::Places { tunnel, are_several } => self.tunnels.share_with_others(tunnel, are_several),
            Change::Elsewhere(share) => self.leave_share(share),
            Change::Unreadable => {}
        }
    }

    /// The gateway serves the tunnel and its shares no longer. Their rows are another gateway's.
    fn withdraw(&mut self, id: TunnelId) {
        let shares = self.outbox.desired.shares.values().filter(|share| share.tunnel == id);
        for share in shares.map(|share| share.id).collect::<Vec<_>>() {
            self.forget_share(share);
        }
        self.forget_tunnel(id);
    }

    /// The share is another gateway's.
    fn leave_share(&mut self, id: ShareId) {
        if self.shares.get(id).is_some() {
            self.forget_share(id);
        }
    }

    fn take_tunnel(&mut self, mut row: TunnelRow, now: Timestamp) {
        let (id, status) = (row.id, row.standing.status);
        if status == Status::Deleted {
            return self.forget_tunnel(id);
        }
        let facts = TunnelFacts {
            name: row.spec.name.to_string(),
            location: row.spec.location.clone(),
            enabled: row.spec.enabled,
            created_at: row.created_at,
        };
        self.parts.metrics.tunnel(id, facts, row.connection.as_ref());
        let old_name = self.outbox.desired.tunnels.get(&id).map(|old| old.name.clone());
        let is_renamed = old_name.is_some_and(|old| old != row.spec.name);
        let is_address_taken = status.is_live() && row.peer_address_taken_at.is_some();
        // The gateway serves nothing of it, and keeps its shares for its return.
        row.spec.enabled &= !is_address_taken;
        self.outbox.set_tunnel(id, status.is_live().then(|| tunnel_desired(&row, now)));
        if row.previous_keys.valid(now).next().is_some() {
            self.expiring_keys.insert(id);
        }
        let (state, is_changed) = self.tunnels.take(id, row.generation, row.standing);
        if is_renamed {
            // Its shares are told of the peer again, by the new name.
            state.peer = None;
        }
        state.previous_keys = row.previous_keys;
        if mem::replace(&mut state.is_address_taken, is_address_taken) != is_address_taken {
            let of_tunnel = self.outbox.desired.shares.values().filter(|share| share.tunnel == id);
            self.shares.touch(of_tunnel.map(|share| share.id).collect());
        }
        // What this process recorded is newer than the row that was read.
        state.connection = state.connection.take().or(row.connection);
        let continuity = state.first_report.as_mut().and_then(|first| first.continuity.as_mut());
        if let Some(continuity) = continuity.filter(|_| is_changed) {
            continuity.changed();
        }
    }

    fn take_share(&mut self, row: ShareRow, now: Timestamp) {
        let (id, status) = (row.id, row.standing.status);
        match status {
            Status::Deleted => return self.forget_share(id),
            status if status.is_live() => match self.share_desired(&row, now) {
                Ok(desired) => self.outbox.set_share(id, Some(desired)),
                Err(error) => error!(share.id = %id, %error, "cannot write a share's assignment"),
            },
            _ => self.outbox.set_share(id, None),
        }
        self.shares.share_with_others(id, self.tunnels.is_shared(row.spec.tunnel));
        let (_, is_changed) = self.shares.take(id, row.generation, row.standing);
        if is_changed {
            self.parts.view.lock().recent.forget(id);
        }
    }

    fn share_desired(&self, row: &ShareRow, now: Timestamp) -> serde_json::Result<ShareDesired> {
        Ok(ShareDesired {
            id: row.id,
            generation: row.generation,
            tunnel: row.spec.tunnel,
            environment: row.spec.environment,
            ingress_port: row.spec.ingress_port,
            enabled: row.spec.enabled,
            expires_at: row.spec.expires_at,
            options: row.spec.options.clone(),
            assignment: SignedAssignment::unsigned(self.assignment(row, now)?),
        })
    }

    /// The body of the share's assignment.
    fn assignment(&self, row: &ShareRow, now: Timestamp) -> serde_json::Result<String> {
        let assignment = Assignment {
            environment: row.spec.environment,
            share: row.id,
            era: self.parts.era,
            generation: row.generation,
            target: row.spec.target.clone(),
            // A share that is not served needs no probe of its target.
            health_check: if row.spec.enabled { row.spec.options.health_check } else { Some(NO_PROBES) },
            name: Some(row.spec.name.to_string()),
            expires_at: Some(end_of_assignment(row.id, now)),
        };
        serde_json::to_string(&assignment)
    }
}

/// The same on every server, and for ten days. Then it is ten days later, so that it is never less than twenty days away. Shares get
/// another end at different seconds of the ten days.
pub(super) fn end_of_assignment(share: ShareId, now: Timestamp) -> Timestamp {
    let hash: [u8; 32] = Sha256::digest(share.to_string()).into();
    let period = RENEWED_EVERY.as_secs();
    let offset = hash.iter().fold(0, |rest, byte| (rest * 256 + i64::from(*byte)) % period);
    let start = (now.as_second() + offset).div_euclid(period) * period - offset;
    Timestamp::from_second(start + LIFETIME.as_secs()).unwrap_or(Timestamp::MAX)
}

fn tunnel_desired(row: &TunnelRow, now: Timestamp) -> TunnelDesired {
    let (previous, previous_until): (Vec<_>, _) = row.previous_keys.valid(now).cloned().unzip();
    TunnelDesired {
        id: row.id,
        generation: row.generation,
        frontdoor: Some(row.frontdoor),
        name: row.spec.name.clone(),
        slot: row.slot,
        peer_address: row.spec.peer_address,
        peer_cidr: row.spec.peer_cidr,
        peer_id: row.spec.peer_id.clone(),
        load_balancer_ip: row.load_balancer_ip,
        keys: row.spec.pre_shared_key.iter().cloned().chain(previous).collect(),
        previous_until,
        ike_proposals: row.spec.ike_proposals.clone().unwrap_or_default(),
        esp_proposals: row.spec.esp_proposals.clone().unwrap_or_default(),
        initiate: row.spec.initiate,
        cut: row.cut_generation,
        enabled: row.spec.enabled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn share(n: u128) -> ShareId {
        ShareId::new(Uuid::from_u128(n))
    }

    #[test]
    fn an_end_depends_on_share_and_time_only() {
        // Another version of the server has to find the same.
        let now = "2026-12-01T00:00:00Z".parse().unwrap();
        let ends = [1, 2, 3].map(|n| end_of_assignment(share(n), now).to_string());
        assert_eq!(ends, ["2026-12-26T10:05:33Z", "2026-12-29T21:52:15Z", "2026-12-23T11:48:25Z"]);
    }

    #[test]
    fn an_end_is_renewed_every_ten_days_and_never_near() {
        let begin: Timestamp = "2026-12-01T00:00:00Z".parse().unwrap();
        let (mut first, mut at) = (Vec::new(), Vec::new());
        for n in 0..50 {
            let (mut last, mut renewed) = (None, Vec::new());
            for hour in 0..=40 * 24 {
                let now = begin + SignedDuration::from_hours(hour);
                let end = end_of_assignment(share(n), now);
                let left = end.duration_since(now);
                assert!(20 * DAY < left + SignedDuration::from_secs(1) && left <= LIFETIME, "{left}");
                if last.replace(end).is_some_and(|last| last != end) {
                    renewed.push(hour);
                }
            }
            assert_eq!(renewed.len(), 4, "{renewed:?}");
            assert!(renewed.windows(2).all(|w| w[1] - w[0] == 240), "{renewed:?}");
            first.push(renewed[0] / 24);
            at.push(renewed[0]);
        }
        first.sort_unstable();
        first.dedup();
        at.sort_unstable();
        at.dedup();
        assert!(first.len() > 7 && at.len() > 35, "not all at once: {first:?} {at:?}");
    }
}
