//! A new link of a gateway that holds what another link has sent: it is sent the difference.
//!
//! Invariant: whatever is found, the digest of the first delta decides. A gateway whose state has another one asks for everything.

use jiff::Timestamp;
use tracing::info;
use wicketgate_link::HeldState;
use wicketgate_model::{
    Connection, ConnectionState, ShareId, ShareObserved, Touched, TunnelId, TunnelObserved,
};
use wicketgate_store::{Change, Revision, StoreError};

use super::{Reconciler, intake::end_of_assignment};
use crate::gateways::GatewayView;

impl Reconciler {
    /// Prepares the first delta, after all rows were read.
    pub(super) async fn resume(&mut self, held: &HeldState, now: Timestamp) -> Result<(), StoreError> {
        let gateway = self.parts.epoch.gateway();
        let HeldState { revision, tunnels, shares, .. } = *held;
        if self.outbox.resume(held.digest) {
            info!(gateway.id = %gateway, revision, tunnels, shares, "the gateway holds what it is to serve");
            return Ok(());
        }
        let since = Revision::of_number(revision);
        let since = since.filter(|since| *since > Revision::default() && *since <= self.revision);
        // Another era has revisions of its own, and a row that cannot be read is in no difference.
        let Some(since) = since.filter(|_| held.era == self.parts.era && self.outbox.knows_all()) else {
            info!(gateway.id = %gateway, revision, tunnels, shares, "the gateway is sent everything");
            return Ok(());
        };
        let (mut changed, mut are_all) = (Touched::default(), true);
        let read = self.parts.store.changes_of(gateway, since, |change| match change {
            Change::Tunnel(row) => drop(changed.tunnels.insert(row.id)),
            Change::Share(row) => drop(changed.shares.insert(row.id)),
            Change::Agent(id, _) => drop(changed.agents.insert(id)),
            Change::Withdrawn(id) => drop(changed.tunnels.insert(id)),
            Change::Elsewhere(id) => drop(changed.shares.insert(id)),
            Change::Places { .. } => {}
            Change::Unreadable => are_all = false,
        });
        read.await?;
        if are_all {
            changed.shares.extend(self.renewed_since(held.read_at, now));
            changed.tunnels.extend(self.keys_expired_since(held.read_at));
            let (tunnels, shares) = (changed.tunnels.len(), changed.shares.len());
            info!(gateway.id = %gateway, revision, tunnels, shares, "the gateway is sent what it has missed");
            self.outbox.resume_without(changed);
        }
        Ok(())
    }

    /// Adds what a short report does not name to the view: rows that are as desired.
    pub(super) fn take_as_desired(&mut self, view: &mut GatewayView, now: Timestamp) {
        self.outbox.heard(view.heard);
        if view.as_desired.take().is_none() {
            return;
        }
        let (tunnels, shares) = self.outbox.answered();
        for tunnel in tunnels {
            let recorded = self.tunnels.get(tunnel.id).and_then(|row| row.state.connection.as_ref());
            let since =
                recorded.filter(|known| known.state == ConnectionState::Down).map(|known| known.since);
            view.observed.tunnels.entry(tunnel.id).or_insert_with(|| TunnelObserved {
                ready: Some(tunnel.generation),
                problem: None,
                connection: Connection::down(since.unwrap_or(now)),
            });
        }
        for share in shares {
            let ready = Some(share.generation);
            view.observed.shares.entry(share.id).or_insert(ShareObserved { ready, problem: None });
        }
    }

    /// The shares whose assignments have another end than they had then.
    fn renewed_since(&self, then: Timestamp, now: Timestamp) -> Vec<ShareId> {
        let all = self.outbox.desired.shares.keys().copied();
        all.filter(|id| end_of_assignment(*id, then) != end_of_assignment(*id, now)).collect()
    }

    /// The tunnels that had another number of keys then.
    fn keys_expired_since(&self, then: Timestamp) -> Vec<TunnelId> {
        let all = self.outbox.desired.tunnels.values();
        let had = |id| self.tunnels.get(id).map_or(0, |row| 1 + row.state.previous_keys.valid(then).count());
        all.filter(|tunnel| tunnel.keys.len() != had(tunnel.id)).map(|tunnel| tunnel.id).collect()
    }
}
