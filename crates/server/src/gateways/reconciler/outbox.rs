//! The desired state of the gateway, and the state that it was last sent.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::mpsc;
use wicketgate_link::ToGateway;
use wicketgate_model::{
    AgentDesired, AgentId, Desired, ShareDesired, ShareId, Touched, TunnelDesired, TunnelId,
};

/// Sends the difference between the two, as numbered deltas.
#[derive(Debug)]
pub(super) struct Outbox {
    send: mpsc::Sender<ToGateway>,
    pub(super) desired: Desired,
    sent: Desired,
    /// Rows whose desired state may differ from what the gateway was sent.
    pub(super) unsent: Touched,
    /// The number of the last delta.
    sequence: u64,
}

/// The removals of a delta that was sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) sequence: u64,
    pub(super) removed_tunnels: Vec<TunnelId>,
    pub(super) removed_shares: Vec<ShareId>,
}

impl Sent {
    /// It has all that the gateway is to serve.
    pub(super) fn is_first(&self) -> bool {
        self.sequence == 1
    }
}

impl Outbox {
    pub(super) fn new(send: mpsc::Sender<ToGateway>) -> Self {
        let (desired, sent) = Default::default();
        Self { send, desired, sent, unsent: Touched::default(), sequence: 0 }
    }

    pub(super) fn set_tunnel(&mut self, id: TunnelId, desired: Option<TunnelDesired>) {
        self.unsent.tunnels.insert(id);
        set(&mut self.desired.tunnels, id, desired);
    }

    pub(super) fn set_share(&mut self, id: ShareId, desired: Option<ShareDesired>) {
        self.unsent.shares.insert(id);
        set(&mut self.desired.shares, id, desired);
    }

    pub(super) fn set_agent(&mut self, id: AgentId, desired: Option<AgentDesired>) {
        self.unsent.agents.insert(id);
        match desired {
            Some(agent) => drop(self.desired.agents.insert(id, agent)),
            None => drop(self.desired.agents.remove(&id)),
        }
    }

    pub(super) fn has_sent_tunnel(&self, id: TunnelId) -> bool {
        self.sent.tunnels.contains_key(&id)
    }

    pub(super) fn has_sent_share(&self, id: ShareId) -> bool {
        self.sent.shares.contains_key(&id)
    }

    /// Sends the gateway what changed, if anything did. When its link is full, the next run sends it.
    pub(super) fn send(&mut self) -> Option<Sent> {
        let delta = match self.sequence {
            0 => self.desired.snapshot(),
            _ => self.desired.since(&self.sent, &self.unsent),
        };
        if delta.is_empty() {
            self.unsent = Touched::default();
            return None;
        }
        let place = self.send.try_reserve().ok()?;
        self.unsent = Touched::default();
        self.sequence += 1;
        self.sent.apply(&delta);
        let sent = Sent {
            sequence: self.sequence,
            removed_tunnels: delta.removed_tunnels.clone(),
            removed_shares: delta.removed_shares.clone(),
        };
        place.send(ToGateway::Desired { sequence: self.sequence, delta });
        Some(sent)
    }
}

/// An equal value is not replaced: the gateway was sent the old one, and both would be kept.
fn set<Id: Ord, T: PartialEq>(all: &mut BTreeMap<Id, Arc<T>>, id: Id, desired: Option<T>) {
    match desired {
        Some(new) if all.get(&id).is_some_and(|old| **old == new) => {}
        Some(new) => drop(all.insert(id, Arc::new(new))),
        None => drop(all.remove(&id)),
    }
}
