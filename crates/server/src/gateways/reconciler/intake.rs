//! Takes in rows that were written, and builds the desired state from them.

use std::sync::Arc;

use jiff::Timestamp;
use tracing::error;
use wicketgate_model::{Assignment, ShareDesired, ShareId, Status, TunnelDesired, TunnelId};
use wicketgate_store::{Change, ShareRow, TunnelRow};

use super::{Reconciler, Row, keep};

impl Reconciler {
    /// Takes in a row that is new or was changed.
    pub(super) fn take(&mut self, change: Change, now: Timestamp) {
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
        if self.tunnels.get(&id).is_some_and(|before| before.generation != row.generation)
            && let Some(Some(resumed)) = self.resumed.1.get_mut(&id)
        {
            resumed.changed();
        }
        keep(&mut self.waiting.tunnels, id, row.standing.status);
        let row = Row { generation: row.generation, standing: row.standing };
        self.tunnels.insert(id, row);
    }

    fn take_share(&mut self, row: ShareRow) {
        let id = row.id;
        self.untold.shares.insert(id);
        self.undecided.shares.insert(id);
        if row.standing.status == Status::Deleted {
            return self.forget_share(id);
        }
        // A generation is signed once: signing is the largest cost, and every signature is different.
        let is_signed = self.desired.shares.get(&id).is_some_and(|s| s.generation == row.generation);
        if row.standing.status.is_live() {
            match (!is_signed).then(|| self.share_desired(&row)) {
                None => {}
                Some(Ok(share)) => {
                    self.desired.shares.insert(id, Arc::new(share));
                }
                Some(Err(error)) => error!(share.id = %id, %error, "cannot sign a share's assignment"),
            }
        } else {
            self.desired.shares.remove(&id);
        }
        keep(&mut self.waiting.shares, id, row.standing.status);
        let row = Row { generation: row.generation, standing: row.standing };
        self.shares.insert(id, row);
    }

    pub(super) fn forget_tunnel(&mut self, id: TunnelId) {
        self.tunnels.remove(&id);
        self.waiting.tunnels.remove(&id);
        self.desired.tunnels.remove(&id);
        self.connections.remove(&id);
        self.resumed.1.remove(&id);
        self.expiring_keys.remove(&id);
    }

    pub(super) fn forget_share(&mut self, id: ShareId) {
        self.shares.remove(&id);
        self.waiting.shares.remove(&id);
        self.desired.shares.remove(&id);
        self.parts.metrics.forget(id);
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
            assignment: self.parts.ca.sign_assignment(&assignment)?,
        })
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
