//! Takes in rows that were written, and builds the desired state from them.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    mem,
};

use jiff::{SignedDuration, Timestamp};
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

/// In seconds.
const DAY: u64 = 24 * 3600;

const NO_PROBES: HealthCheck = HealthCheck { r#type: HealthCheckType::None, interval_seconds: None };

impl Reconciler {
    /// Takes in a row that is new or was changed.
    pub(super) fn take(&mut self, change: Change, now: Timestamp) {
        match change {
            Change::Tunnel(row) => self.take_tunnel(*row, now),
            Change::Share(row) => self.take_share(*row, now),
            Change::Agent(id, agent) => self.outbox.set_agent(id, Some(agent)),
            Change::Withdrawn(id) => self.withdraw(id),
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
                Err(error) => error!(share.id = %id, %error, "cannot sign a share's assignment"),
            },
            _ => self.outbox.set_share(id, None),
        }
        let (_, is_changed) = self.shares.take(id, row.generation, row.standing);
        if is_changed {
            self.parts.view.lock().recent.forget(id);
        }
    }

    fn share_desired(&self, row: &ShareRow, now: Timestamp) -> anyhow::Result<ShareDesired> {
        Ok(ShareDesired {
            id: row.id,
            generation: row.generation,
            tunnel: row.spec.tunnel,
            environment: row.spec.environment,
            ingress_port: row.spec.ingress_port,
            enabled: row.spec.enabled,
            expires_at: row.spec.expires_at,
            options: row.spec.options.clone(),
            assignment: self.assignment(row, now)?,
        })
    }

    /// The one that was signed before, until it has to be renewed: signing is the largest cost, and every signature is
    /// different.
    fn assignment(&self, row: &ShareRow, now: Timestamp) -> anyhow::Result<SignedAssignment> {
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
        let signed = self.outbox.desired.shares.get(&row.id).map(|old| &old.assignment);
        let kept = signed.filter(|signed| {
            serde_json::from_str::<Assignment>(&signed.body).is_ok_and(|old| {
                old.is_renewal_of(&assignment) && old.expires_at.is_some_and(|end| !is_renewal_due(end, now))
            })
        });
        Ok(match kept {
            Some(signed) => signed.clone(),
            None => self.parts.ca.sign_assignment(&assignment)?,
        })
    }
}

/// A different second for each share, within a day: they were all signed together when the server started, and are not all
/// renewed together.
fn end_of_assignment(share: ShareId, now: Timestamp) -> Timestamp {
    let mut hasher = DefaultHasher::new();
    share.hash(&mut hasher);
    let spread = SignedDuration::from_secs((hasher.finish() % DAY).try_into().unwrap_or_default());
    let end = now.saturating_add(LIFETIME - spread).unwrap_or(Timestamp::MAX);
    Timestamp::from_second(end.as_second()).unwrap_or(Timestamp::MAX)
}

/// After a third of its lifetime, or if its end is so far away that the clock was ahead when it was signed.
fn is_renewal_due(end: Timestamp, now: Timestamp) -> bool {
    let left = end.duration_since(now);
    left < LIFETIME / 3 * 2 || left > LIFETIME
}

fn tunnel_desired(row: &TunnelRow, now: Timestamp) -> TunnelDesired {
    let previous = row.previous_keys.valid(now).map(|(key, _)| key.clone());
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
        ike_proposals: row.spec.ike_proposals.clone().unwrap_or_default(),
        esp_proposals: row.spec.esp_proposals.clone().unwrap_or_default(),
        initiate: row.spec.initiate,
        cut: row.cut_generation,
        enabled: row.spec.enabled,
    }
}
