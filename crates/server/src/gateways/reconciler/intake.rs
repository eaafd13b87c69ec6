//! Takes in rows that were written, and builds the desired state from them.

use jiff::Timestamp;
use tracing::error;
use wicketgate_model::{Assignment, HealthCheck, HealthCheckType, ShareDesired, Status, TunnelDesired};
use wicketgate_store::{Change, ShareRow, TunnelRow};

use super::Reconciler;
use crate::telemetry::TunnelFacts;

const NO_PROBES: HealthCheck = HealthCheck { r#type: HealthCheckType::None, interval_seconds: None };

impl Reconciler {
    /// Takes in a row that is new or was changed.
    pub(super) fn take(&mut self, change: Change, now: Timestamp) {
        match change {
            Change::Tunnel(row) => self.take_tunnel(*row, now),
            Change::Share(row) => self.take_share(*row),
            Change::Agent(id, agent) => self.outbox.set_agent(id, Some(agent)),
            Change::Unreadable => {}
        }
    }

    fn take_tunnel(&mut self, row: TunnelRow, now: Timestamp) {
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
        // What this process recorded is newer than the row that was read.
        state.connection = state.connection.take().or(row.connection);
        let continuity = state.first_report.as_mut().and_then(|first| first.continuity.as_mut());
        if let Some(continuity) = continuity.filter(|_| is_changed) {
            continuity.changed();
        }
    }

    fn take_share(&mut self, row: ShareRow) {
        let (id, status) = (row.id, row.standing.status);
        match status {
            Status::Deleted => return self.forget_share(id),
            status if status.is_live() => match self.share_desired(&row) {
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

    fn share_desired(&self, row: &ShareRow) -> anyhow::Result<ShareDesired> {
        let assignment = Assignment {
            environment: row.spec.environment,
            share: row.id,
            generation: row.generation,
            target: row.spec.target.clone(),
            // A share that is not served needs no probe of its target.
            health_check: if row.spec.enabled { row.spec.options.health_check } else { Some(NO_PROBES) },
            name: Some(row.spec.name.to_string()),
        };
        // An assignment is signed once: signing is the largest cost, and every signature is different.
        let signed = self.outbox.desired.shares.get(&row.id).map(|old| &old.assignment);
        let signed =
            signed.filter(|signed| serde_json::from_str(&signed.body).ok().as_ref() == Some(&assignment));
        Ok(ShareDesired {
            id: row.id,
            generation: row.generation,
            tunnel: row.spec.tunnel,
            environment: row.spec.environment,
            ingress_port: row.spec.ingress_port,
            enabled: row.spec.enabled,
            expires_at: row.spec.expires_at,
            options: row.spec.options.clone(),
            assignment: match signed {
                Some(signed) => signed.clone(),
                None => self.parts.ca.sign_assignment(&assignment)?,
            },
        })
    }
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
