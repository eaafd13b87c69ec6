//! What this gateway observes of its tunnels and shares: the serving components write it, the report reads it.
//!
//! Invariant: an entry exists from the moment its desired state arrived until nothing of it is left. So a server that
//! knows which delta was applied may treat a missing entry as removed.

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

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Observations {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// The newest delta whose entries are all present.
    heard: u64,
    reset: bool,
    agents_expected: bool,
    tunnels: BTreeMap<TunnelId, TunnelObserved>,
    shares: BTreeMap<ShareId, ListenerState>,
    touched_tunnels: BTreeSet<TunnelId>,
    touched_shares: BTreeSet<ShareId>,
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

    /// All entries of the delta are present. With `reset`, the next report has everything.
    pub(crate) fn heard(&self, sequence: u64, reset: bool) {
        self.write(|inner| {
            inner.heard = sequence;
            inner.reset |= reset;
            true
        });
    }

    /// Adds an entry for a tunnel that is desired, or whose remains were found.
    pub(crate) fn expect_tunnel(&self, id: TunnelId, now: Timestamp) {
        let mut inner = self.inner.lock();
        inner.touched_tunnels.insert(id);
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
            inner.tunnels.remove(&id);
            inner.touched_tunnels.insert(id);
            true
        });
    }

    /// Adds an entry for a share that is desired on `tunnel`, which writes the entry from now on.
    pub(crate) fn expect_share(&self, id: ShareId, tunnel: TunnelId) {
        let mut inner = self.inner.lock();
        inner.touched_shares.insert(id);
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
                inner.shares.remove(&id);
                inner.touched_shares.insert(id);
            }
            is_its_own
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

    /// The changes since the last report, and the delta that they answer. `agents_changed` names shares whose agents
    /// may have changed.
    pub(crate) fn report(&self, agents: &Agents, agents_changed: BTreeSet<ShareId>) -> (u64, ObservedDelta) {
        let mut inner = self.inner.lock();
        let reset = mem::take(&mut inner.reset);
        let mut tunnels = mem::take(&mut inner.touched_tunnels);
        let mut shares = mem::take(&mut inner.touched_shares);
        shares.extend(agents_changed);
        if reset {
            tunnels = inner.tunnels.keys().copied().collect();
            shares = inner.shares.keys().copied().collect();
        }
        let mut delta = ObservedDelta { reset, ..ObservedDelta::default() };
        for id in tunnels {
            match inner.tunnels.get(&id) {
                Some(seen) => delta.tunnels.push((id, seen.clone())),
                None => delta.gone_tunnels.push(id),
            }
        }
        for id in shares {
            match inner.shares.get(&id) {
                Some(seen) => {
                    let mut agents = agents.standing(id);
                    if !inner.agents_expected || agents.catches_up {
                        agents.problem = agents.problem.map(await_agents);
                    }
                    delta.shares.push((id, share_observed(seen, agents)));
                }
                None => delta.gone_shares.push(id),
            }
        }
        (inner.heard, delta)
    }
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
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_disabled_share_is_as_desired_without_an_agent_and_another_is_not() {
        let tunnel = TunnelId::new(Uuid::nil());
        let offline = Problem::new(Reason::AgentOffline, "no agent of the environment is connected");
        let seen = |problem: Option<Problem>| {
            let listener = ListenerState { tunnel, bound: Some(Generation::FIRST), problem };
            share_observed(
                &listener,
                AgentStanding { ready: None, problem: Some(offline.clone()), catches_up: false },
            )
        };
        let disabled = seen(Some(Problem::disabled()));
        assert_eq!((disabled.ready, disabled.problem), (Some(Generation::FIRST), Some(Problem::disabled())));
        let enabled = seen(None);
        assert_eq!((enabled.ready, enabled.problem), (None, Some(offline.clone())));
    }
}
