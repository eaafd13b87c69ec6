//! What this gateway observes of its tunnels and shares: the serving components write it, the report reads it.
//!
//! Invariant: an entry exists from the moment its desired state arrived until nothing of it is left. So a server that
//! knows which delta was applied may treat a missing entry as removed. "Nothing of it" includes the gateway's disk.

mod unsynced;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use jiff::Timestamp;
use tokio::sync::Notify;
use wicketgate_model::{
    Connection, Generation, ObservedDelta, Problem, Reason, ShareId, ShareObserved, TunnelId, TunnelObserved,
};
use wicketgate_system::Mutex;

use crate::agents::{AgentStanding, Agents};
use unsynced::Unsynced;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Observations {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// The newest delta of this link whose entries are all present.
    heard: u64,
    /// A link has begun, and its first delta is not applied yet: nothing is reported.
    is_waiting: bool,
    reset: bool,
    /// What the next report, which is complete, may leave out.
    desired: Option<DesiredGenerations>,
    agents_expected: bool,
    tunnels: BTreeMap<TunnelId, TunnelObserved>,
    shares: BTreeMap<ShareId, ListenerState>,
    unsynced_tunnels: Unsynced<TunnelId>,
    unsynced_shares: Unsynced<ShareId>,
    touched_tunnels: BTreeSet<TunnelId>,
    touched_shares: BTreeSet<ShareId>,
}

/// What the next report has to name.
#[derive(Debug)]
pub(crate) enum Answer {
    /// What has changed.
    Changes,
    Everything,
    /// What is not as desired: the server knows the rest.
    Exceptions(DesiredGenerations),
}

/// The generations of all desired rows.
#[derive(Debug, Default)]
pub(crate) struct DesiredGenerations {
    pub(crate) tunnels: BTreeMap<TunnelId, Generation>,
    pub(crate) shares: BTreeMap<ShareId, Generation>,
}

/// The state of a share's listener. Whether the share works also depends on the agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListenerState {
    /// The tunnel that serves the share, or will.
    pub(crate) tunnel: TunnelId,
    /// The newest generation that is served.
    pub(crate) bound: Option<Generation>,
    pub(crate) problem: Option<Problem>,
}

impl Observations {
    /// Waits until something was written since the last [`Observations::report`].
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Changes the entries, and wakes the report if `change` returns `true`.
    fn write(&self, change: impl FnOnce(&mut Inner) -> bool) {
        let is_changed = change(&mut self.inner.lock());
        if is_changed {
            self.changed.notify_one();
        }
    }

    /// A link begins whose deltas count from 1. When this returns, no report of the link before is sent any more.
    pub(crate) fn begin_link(&self) {
        let mut inner = self.inner.lock();
        (inner.heard, inner.is_waiting) = (0, true);
    }

    /// All entries of the delta are present.
    pub(crate) fn heard(&self, sequence: u64, answer: Answer) {
        self.write(|inner| {
            (inner.heard, inner.is_waiting) = (sequence, false);
            match answer {
                Answer::Changes => {}
                Answer::Everything => (inner.reset, inner.desired) = (true, None),
                Answer::Exceptions(desired) => {
                    (inner.reset, inner.desired) = (true, Some(desired));
                    // What changes from now on is named in any case.
                    inner.touched_tunnels.clear();
                    inner.touched_shares.clear();
                }
            }
            true
        });
    }

    /// Adds an entry for a tunnel that is desired, or whose remains were found.
    pub(crate) fn expect_tunnel(&self, id: TunnelId, now: Timestamp) {
        let mut inner = self.inner.lock();
        inner.touched_tunnels.insert(id);
        if inner.unsynced_tunnels.returns(id) {
            inner.tunnels.remove(&id);
        }
        inner.tunnels.entry(id).or_insert_with(|| TunnelObserved {
            ready: None,
            problem: Some(Problem::new(Reason::Pending, "the gateway is setting the tunnel up")),
            connection: Connection::down(now),
        });
    }

    pub(crate) fn update_tunnel(&self, id: TunnelId, change: impl FnOnce(&mut TunnelObserved)) {
        self.write(|inner| {
            let Some(seen) = inner.tunnels.get_mut(&id) else { return false };
            let before = seen.clone();
            change(seen);
            let is_changed = *seen != before;
            if is_changed {
                inner.touched_tunnels.insert(id);
            }
            is_changed
        });
    }

    pub(crate) fn remove_tunnel(&self, id: TunnelId) {
        self.write(|inner| {
            if inner.unsynced_tunnels.is_gone(id) {
                if let Some(seen) = inner.tunnels.get_mut(&id) {
                    (seen.ready, seen.problem) = (None, Some(removal_unwritten()));
                    seen.connection = Connection::down(seen.connection.since);
                }
            } else {
                inner.tunnels.remove(&id);
            }
            inner.touched_tunnels.insert(id);
            true
        });
    }

    /// Adds an entry for a share that is desired on `tunnel`, which writes the entry from now on.
    pub(crate) fn expect_share(&self, id: ShareId, tunnel: TunnelId) {
        let mut inner = self.inner.lock();
        inner.touched_shares.insert(id);
        if inner.unsynced_shares.returns(id) {
            inner.shares.remove(&id);
        }
        if inner.shares.get(&id).is_none_or(|seen| seen.tunnel != tunnel) {
            let problem = Problem::new(Reason::Pending, "the gateway is setting the share up");
            inner.shares.insert(id, ListenerState { tunnel, bound: None, problem: Some(problem) });
        }
    }

    /// Writes a share's entry, unless the share has moved to another tunnel.
    pub(crate) fn set_share(&self, id: ShareId, seen: ListenerState) {
        self.write(|inner| match inner.shares.get_mut(&id) {
            Some(old) if old.tunnel == seen.tunnel && *old != seen => {
                *old = seen;
                inner.touched_shares.insert(id);
                true
            }
            Some(_) | None => false,
        });
    }

    /// The time for agents to reconnect after a start is over: a missing agent counts as offline from now on.
    pub(crate) fn agents_expected(&self) {
        self.write(|inner| {
            inner.agents_expected = true;
            inner.touched_shares.extend(inner.shares.keys());
            true
        });
    }

    /// Nothing of the share is left on `tunnel`.
    pub(crate) fn remove_share(&self, id: ShareId, tunnel: TunnelId) {
        self.write(|inner| {
            let is_its_own = inner.shares.get(&id).is_some_and(|seen| seen.tunnel == tunnel);
            if is_its_own {
                if inner.unsynced_shares.is_gone(id) {
                    let problem = Some(removal_unwritten());
                    inner.shares.insert(id, ListenerState { tunnel, bound: None, problem });
                } else {
                    inner.shares.remove(&id);
                }
                inner.touched_shares.insert(id);
            }
            is_its_own
        });
    }

    /// These rows are removed, and stay here until the disk has it: a start without a server would serve them again. `number` is that of
    /// the removal.
    pub(crate) fn keep_until_synced(&self, number: u64, tunnels: &[TunnelId], shares: &[ShareId]) {
        let mut inner = self.inner.lock();
        for id in tunnels.iter().filter(|id| inner.tunnels.contains_key(id)).copied().collect::<Vec<_>>() {
            inner.unsynced_tunnels.remove(id, number);
            inner.touched_tunnels.insert(id);
        }
        for id in shares.iter().filter(|id| inner.shares.contains_key(id)).copied().collect::<Vec<_>>() {
            inner.unsynced_shares.remove(id, number);
            inner.touched_shares.insert(id);
        }
    }

    /// The disk has all removals up to this number.
    pub(crate) fn synced(&self, number: u64) {
        self.write(|inner| {
            let (tunnels, shares) =
                (inner.unsynced_tunnels.synced(number), inner.unsynced_shares.synced(number));
            for id in &tunnels {
                inner.tunnels.remove(id);
            }
            for id in &shares {
                inner.shares.remove(id);
            }
            let is_changed = !tunnels.is_empty() || !shares.is_empty();
            inner.touched_tunnels.extend(tunnels);
            inner.touched_shares.extend(shares);
            is_changed
        });
    }

    /// Why the newest generation of the tunnel is not ready.
    pub(crate) fn tunnel_problem(&self, tunnel: TunnelId) -> Option<Problem> {
        self.inner.lock().tunnels.get(&tunnel)?.problem.clone()
    }

    /// The generation that listens at the share's port, and the problem of a newer one.
    pub(crate) fn listener(&self, share: ShareId) -> (Option<Generation>, Option<Problem>) {
        match self.inner.lock().shares.get(&share) {
            Some(seen) => (seen.bound, seen.problem.clone()),
            None => (None, Some(Problem::new(Reason::Pending, "the gateway has not received the share yet"))),
        }
    }

    /// Passes on the changes since the last report, and the delta that they answer, unless a link waits for its first delta.
    /// `agents_changed` names shares whose agents may have changed.
    pub(crate) fn report(
        &self,
        agents: &Agents,
        agents_changed: BTreeSet<ShareId>,
        send: impl FnOnce(u64, ObservedDelta),
    ) {
        // Held while it is sent: a link that begins meanwhile waits for it.
        let mut inner = self.inner.lock();
        if inner.is_waiting {
            inner.touched_shares.extend(agents_changed);
            return;
        }
        let (heard, delta) = inner.report_with(|share| agents.standing(share), agents_changed);
        send(heard, delta);
    }

    #[cfg(test)]
    fn report_with(
        &self,
        agents: impl Fn(ShareId) -> AgentStanding,
        agents_changed: BTreeSet<ShareId>,
    ) -> (u64, ObservedDelta) {
        self.inner.lock().report_with(agents, agents_changed)
    }
}

impl Inner {
    fn report_with(
        &mut self,
        agents: impl Fn(ShareId) -> AgentStanding,
        agents_changed: BTreeSet<ShareId>,
    ) -> (u64, ObservedDelta) {
        let inner = self;
        let (reset, desired) = (mem::take(&mut inner.reset), inner.desired.take());
        let mut tunnels = mem::take(&mut inner.touched_tunnels);
        let mut shares = mem::take(&mut inner.touched_shares);
        shares.extend(agents_changed);
        let seen_share = |id, seen: &ListenerState| {
            let mut agents = agents(id);
            if !inner.agents_expected || agents.catches_up {
                agents.problem = agents.problem.map(await_agents);
            }
            share_observed(seen, agents)
        };
        let mut delta = ObservedDelta { reset, as_desired: desired.is_some(), ..ObservedDelta::default() };
        if let Some(desired) = desired {
            let exceptions = inner.tunnels.iter().filter(|(id, seen)| !desired.has_tunnel(**id, seen));
            tunnels.extend(exceptions.map(|(id, _)| *id));
            let exceptions =
                inner.shares.iter().filter(|(id, seen)| !desired.has_share(**id, &seen_share(**id, seen)));
            shares.extend(exceptions.map(|(id, _)| *id));
        } else if reset {
            tunnels = inner.tunnels.keys().copied().collect();
            shares = inner.shares.keys().copied().collect();
        }
        for id in tunnels {
            match inner.tunnels.get(&id) {
                Some(seen) => delta.tunnels.push((id, seen.clone())),
                None => delta.gone_tunnels.push(id),
            }
        }
        for id in shares {
            match inner.shares.get(&id) {
                Some(seen) => delta.shares.push((id, seen_share(id, seen))),
                None => delta.gone_shares.push(id),
            }
        }
        (inner.heard, delta)
    }
}

impl DesiredGenerations {
    /// Whether the tunnel is as desired, and not connected, as [`ObservedDelta::as_desired`] says.
    fn has_tunnel(&self, id: TunnelId, seen: &TunnelObserved) -> bool {
        let TunnelObserved { ready, problem, connection } = seen;
        self.tunnels.get(&id) == ready.as_ref()
            && ready.is_some()
            && problem.is_none()
            && *connection == Connection::down(connection.since)
    }

    fn has_share(&self, id: ShareId, seen: &ShareObserved) -> bool {
        seen.ready.is_some() && self.shares.get(&id) == seen.ready.as_ref() && seen.problem.is_none()
    }
}

fn removal_unwritten() -> Problem {
    let message = "nothing of it is served; that it was removed is not on the gateway's disk yet, so that a start of the gateway without \
                   a server would serve it again";
    Problem::new(Reason::Pending, message)
}

/// Right after the gateway's start no agent is connected yet, and one that has just connected acknowledges its shares one after
/// another: nothing is wrong with a share whose turn has not come.
fn await_agents(problem: Problem) -> Problem {
    match problem.reason {
        Reason::AgentOffline | Reason::AgentPending => {
            Problem::new(Reason::Pending, "the share waits for an agent that connects, or has just connected")
        }
        _ => problem,
    }
}

/// A share works when its listener is bound and an agent has acknowledged it, at the older of both generations; one that is
/// disabled needs no agent. The listener's problem comes first, because a client meets it first.
fn share_observed(listener: &ListenerState, agents: AgentStanding) -> ShareObserved {
    let is_disabled = listener.problem.as_ref().is_some_and(|problem| problem.reason == Reason::Disabled);
    ShareObserved {
        ready: match is_disabled {
            true => listener.bound,
            false => listener.bound.zip(agents.ready).map(|(l, a)| l.min(a)),
        },
        problem: listener.problem.clone().or(agents.problem),
    }
}

#[cfg(test)]
mod tests;
