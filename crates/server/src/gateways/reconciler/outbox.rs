//! The desired state of the gateway, and the state that it was last sent.

use std::{collections::BTreeMap, mem, sync::Arc};

use jiff::Timestamp;
use tokio::sync::mpsc;
use tracing::error;
use wicketgate_authority::Ca;
use wicketgate_link::{DigestedState, LinkKind, Part, ToGateway};
use wicketgate_model::{
    AgentDesired, AgentId, Desired, DesiredDelta, DesiredDigest, ShareDesired, ShareId, Touched,
    TunnelDesired, TunnelId,
};
use wicketgate_store::Revision;

/// Some milliseconds of a processor, after which other tasks run.
const SIGNED_AT_ONCE: usize = 64;

/// Sends the difference between the two, as numbered deltas. Assignments are signed when they are sent: signing is the largest cost, and
/// a gateway that holds them needs none of it.
#[derive(Debug)]
pub(super) struct Outbox {
    send: mpsc::Sender<ToGateway>,
    kind: LinkKind,
    pub(super) desired: Desired,
    sent: DigestedState,
    /// The next delta has everything.
    is_reset_due: bool,
    /// All rows could be read at least once. Otherwise the gateway may have more to serve than is desired here.
    knows_all: bool,
    /// Rows that the gateway may still have from another link, if they are not desired.
    perhaps_held: Touched,
    /// The rows of deltas that the gateway has not answered, by their numbers.
    unanswered: BTreeMap<u64, Touched>,
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
    /// With it, the gateway has all that it is to serve.
    pub(super) fn is_first(&self) -> bool {
        self.sequence == 1
    }
}

impl Outbox {
    pub(super) fn new(send: mpsc::Sender<ToGateway>, kind: LinkKind) -> Self {
        let (desired, sent) = Default::default();
        let (unsent, perhaps_held) = Default::default();
        let (sequence, unanswered) = Default::default();
        let (is_reset_due, knows_all) = (true, false);
        Self {
            send,
            kind,
            desired,
            sent,
            is_reset_due,
            knows_all,
            perhaps_held,
            unanswered,
            unsent,
            sequence,
        }
    }

    /// The gateway holds a state with this digest from another link. Returns whether that is the desired state: then nothing of it is
    /// sent.
    pub(super) fn resume(&mut self, held: DesiredDigest) -> bool {
        self.sent = self.desired.clone().into();
        let is_same = self.sent.digest() == held;
        (self.is_reset_due, self.unsent) = (!is_same, Touched::default());
        is_same
    }

    /// The gateway holds the desired state but for these rows, as far as is known: if not, it asks for everything.
    pub(super) fn resume_without(&mut self, changed: Touched) {
        self.sent.apply(&DesiredDelta {
            removed_tunnels: changed.tunnels.iter().copied().collect(),
            removed_shares: changed.shares.iter().copied().collect(),
            forgotten_agents: changed.agents.iter().copied().collect(),
            ..DesiredDelta::default()
        });
        (self.is_reset_due, self.perhaps_held, self.unsent) = (false, changed.clone(), changed);
    }

    /// Has everything sent again.
    pub(super) fn reset(&mut self) {
        self.is_reset_due = true;
    }

    /// All rows were read, or those that can be. What the gateway has kept for the sake of the others is cleared up once they can.
    pub(super) fn has_read(&mut self, are_all: bool) {
        self.is_reset_due |= are_all && !self.knows_all && self.sequence > 0;
        self.knows_all |= are_all;
    }

    pub(super) fn knows_all(&self) -> bool {
        self.knows_all
    }

    pub(super) fn set_tunnel(&mut self, id: TunnelId, desired: Option<TunnelDesired>) {
        self.unsent.tunnels.insert(id);
        set(&mut self.desired.tunnels, id, desired);
    }

    /// The assignment of the same body is signed once.
    pub(super) fn set_share(&mut self, id: ShareId, desired: Option<ShareDesired>) {
        self.unsent.shares.insert(id);
        let desired = desired.map(|mut share| {
            let old = self.desired.shares.get(&id).map(|old| &old.assignment);
            if let Some(old) = old.filter(|old| old.body == share.assignment.body) {
                share.assignment.signature.clone_from(&old.signature);
            }
            share
        });
        set(&mut self.desired.shares, id, desired);
    }

    pub(super) fn set_agent(&mut self, id: AgentId, desired: Option<AgentDesired>) {
        self.unsent.agents.insert(id);
        match desired {
            Some(agent) => drop(self.desired.agents.insert(id, agent)),
            None => drop(self.desired.agents.remove(&id)),
        }
    }

    /// Tells the gateway that these tunnels were deleted. Returns whether the link had room.
    pub(super) fn confirm_removal(&self, tunnels: Vec<TunnelId>) -> bool {
        tunnels.is_empty() || self.send.try_send(ToGateway::RemovalConfirmed { tunnels }).is_ok()
    }

    /// The gateway has answered the deltas up to `heard`.
    pub(super) fn heard(&mut self, heard: u64) {
        self.unanswered.retain(|sequence, _| *sequence > heard);
    }

    /// The rows that the gateway was sent and that no later delta than the last answered one names.
    pub(super) fn answered(&self) -> (Vec<Arc<TunnelDesired>>, Vec<Arc<ShareDesired>>) {
        let later: Vec<_> = self.unanswered.values().collect();
        let Desired { tunnels, shares, .. } = self.sent.state();
        let tunnels =
            tunnels.values().filter(|tunnel| !later.iter().any(|row| row.tunnels.contains(&tunnel.id)));
        let shares = shares.values().filter(|share| !later.iter().any(|row| row.shares.contains(&share.id)));
        (tunnels.cloned().collect(), shares.cloned().collect())
    }

    pub(super) fn has_sent_tunnel(&self, id: TunnelId) -> bool {
        self.sent.state().tunnels.contains_key(&id)
    }

    pub(super) fn has_sent_share(&self, id: ShareId) -> bool {
        self.sent.state().shares.contains_key(&id)
    }

    /// Signs the assignments that are to be sent. Dropped, it leaves the rest for the next call.
    pub(super) async fn sign(&mut self, ca: &Ca) {
        let all = || self.desired.shares.keys().copied().collect();
        let to_send: Vec<ShareId> =
            if self.is_reset_due { all() } else { self.unsent.shares.iter().copied().collect() };
        for ids in to_send.chunks(SIGNED_AT_ONCE) {
            ids.iter().for_each(|id| self.sign_one(*id, ca));
            tokio::task::yield_now().await;
        }
    }

    fn sign_one(&mut self, id: ShareId, ca: &Ca) {
        let Some(share) = self.desired.shares.get_mut(&id) else { return };
        if share.assignment.is_signed()
            || (!self.is_reset_due && self.sent.state().shares.get(&id) == Some(&*share))
        {
            return;
        }
        match ca.sign(share.assignment.body.clone()) {
            Ok(signed) => Arc::make_mut(share).assignment = signed,
            Err(error) => {
                error!(share.id = %id, %error, "cannot sign a share's assignment");
                match self.sent.state().shares.get(&id) {
                    Some(sent) => *share = Arc::clone(sent),
                    None => drop(self.desired.shares.remove(&id)),
                }
            }
        }
    }

    /// Sends the gateway what changed up to this revision, if anything did: the first delta of a link in any case. When the link is
    /// full, the next run sends it.
    pub(super) fn send(&mut self, revision: Revision, read_at: Timestamp) -> Option<Sent> {
        let mut changes = self.desired.since(self.sent.state(), &self.unsent);
        let (Desired { tunnels, shares, agents }, held) = (&self.desired, &self.perhaps_held);
        changes.removed_tunnels.extend(held.tunnels.iter().filter(|id| !tunnels.contains_key(id)));
        changes.removed_shares.extend(held.shares.iter().filter(|id| !shares.contains_key(id)));
        changes.forgotten_agents.extend(held.agents.iter().filter(|id| !agents.contains_key(id)));
        if changes.is_empty() && !self.is_reset_due && self.sequence > 0 {
            self.unsent = Touched::default();
            return None;
        }
        let place = self.send.try_reserve().ok()?;
        let DesiredDelta { removed_tunnels, removed_shares, .. } = &changes;
        let sent = Sent {
            sequence: self.sequence + 1,
            removed_tunnels: removed_tunnels.clone(),
            removed_shares: removed_shares.clone(),
        };
        let mut delta = if self.is_reset_due { self.desired.snapshot() } else { changes };
        (delta.revision, delta.read_at) = (revision.number(), read_at);
        delta.is_partial = delta.reset && !self.knows_all;
        (self.sequence, self.is_reset_due) = (sent.sequence, false);
        self.perhaps_held = Touched::default();
        let touched = mem::take(&mut self.unsent);
        if self.kind == LinkKind::Network {
            self.unanswered.insert(self.sequence, touched);
        }
        self.sent.apply(&delta);
        // In one process there is nothing to compare, and hashing all rows takes time.
        delta.digest = (self.kind == LinkKind::Network && !delta.is_partial).then(|| self.sent.digest());
        place.send(ToGateway::Desired { sequence: self.sequence, part: Part::WHOLE, delta });
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

#[cfg(test)]
mod tests;
