//! Which agents are connected, what is assigned, and which agent has acknowledged what. Pure: the roster does no IO.
//!
//! Invariants: the two indexes of an environment contain exactly its assigned shares and connected agents; reports of
//! an agent are kept only for assigned shares, so no agent can make the roster grow.

mod acknowledgements;
mod pick;

pub(super) use pick::{Pick, Shown};

use super::{
    balancer::Record,
    carrier_pool::{AgentStreams, CarrierPool},
};
use acknowledgements::Acknowledgement;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use wicketgate_link::ConnectedAgent;
use wicketgate_model::{
    AgentId, Assignment, EnvironmentId, Generation, Problem, ShareDesired, ShareId, SignedAssignment, Target,
};
use wicketgate_transport::control::{ASSIGNMENTS_PER_MESSAGE, ToAgent};

/// The readiness of a share at the agents of its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentStanding {
    /// The newest generation that a connected agent has acknowledged.
    pub ready: Option<Generation>,
    /// Why the newest generation is not ready, or, if it is ready, what impairs the share.
    pub problem: Option<Problem>,
}

#[derive(Default)]
pub(super) struct Roster {
    shares: HashMap<ShareId, AssignedShare>,
    environments: HashMap<EnvironmentId, Environment>,
    connected: HashMap<AgentId, Connected>,
    streams: HashMap<AgentId, Arc<AgentStreams>>,
    barred: HashSet<AgentId>,
    changed: BTreeSet<ShareId>,
    moved: BTreeSet<AgentId>,
    last_session: u64,
    picks: u64,
}

/// A share and its newest assignment.
struct AssignedShare {
    environment: EnvironmentId,
    generation: Generation,
    assignment: SignedAssignment,
    /// `None`: the assignment cannot be parsed.
    target: Option<Target>,
    /// The first generation with this target.
    same_target_since: Generation,
}

#[derive(Default)]
struct Environment {
    shares: BTreeSet<ShareId>,
    agents: BTreeSet<AgentId>,
}

struct Connected {
    session: u64,
    about: ConnectedAgent,
    end: CancellationToken,
    /// Shares to send to the agent. Their state is read when they are sent.
    outbox: BTreeSet<ShareId>,
    outbox_filled: Arc<Notify>,
    said: HashMap<ShareId, Acknowledgement>,
    carriers: Arc<CarrierPool>,
    /// The round-trip time of its last answer.
    rtt: Option<Duration>,
    record: Record,
    last_picked: u64,
    /// It is stopping and accepts no new streams.
    draining: bool,
}

/// A control connection, as the roster knows it.
pub(super) struct Session {
    pub(super) number: u64,
    /// Cancelled when the connection must end: the agent was barred, or has a newer one.
    pub(super) end: CancellationToken,
    pub(super) outbox_filled: Arc<Notify>,
    /// Closed by the control connection's task when it ends.
    pub(super) carriers: Arc<CarrierPool>,
}

impl Roster {
    pub(super) fn assign(&mut self, share: &ShareDesired) {
        if self.shares.get(&share.id).is_some_and(|w| w.environment != share.environment) {
            self.withdraw(share.id);
        }
        // Only to detect a changed target; agents check the assignment.
        let assignment = serde_json::from_str::<Assignment>(&share.assignment.body);
        let target = assignment.ok().map(|a| a.target);
        let same_target_since = match self.shares.get(&share.id) {
            Some(old) if target.is_some() && old.target == target => old.same_target_since,
            _ => share.generation,
        };
        let wanted = AssignedShare {
            environment: share.environment,
            generation: share.generation,
            assignment: share.assignment.clone(),
            target,
            same_target_since,
        };
        self.shares.insert(share.id, wanted);
        self.environments.entry(share.environment).or_default().shares.insert(share.id);
        self.tell(share.environment, share.id);
    }

    pub(super) fn withdraw(&mut self, share: ShareId) {
        let Some(wanted) = self.shares.remove(&share) else { return };
        self.tell(wanted.environment, share);
        let Some(environment) = self.environments.get_mut(&wanted.environment) else { return };
        environment.shares.remove(&share);
        for agent in &environment.agents {
            if let Some(connected) = self.connected.get_mut(agent) {
                connected.said.remove(&share);
            }
        }
        self.forget_if_empty(wanted.environment);
    }

    fn tell(&mut self, environment: EnvironmentId, share: ShareId) {
        self.changed.insert(share);
        for agent in self.environments.get(&environment).into_iter().flat_map(|e| &e.agents) {
            if let Some(connected) = self.connected.get_mut(agent) {
                connected.outbox.insert(share);
                connected.outbox_filled.notify_one();
            }
        }
    }

    pub(super) fn bar(&mut self, agent: AgentId) {
        self.barred.insert(agent);
        if let Some(session) = self.connected.get(&agent).map(|c| c.session) {
            self.disconnect(agent, session);
        }
        if let Some(streams) = self.streams.remove(&agent) {
            streams.abort.trigger();
        }
    }

    pub(super) fn unbar(&mut self, agent: AgentId) {
        self.barred.remove(&agent);
    }

    pub(super) fn is_barred(&self, agent: AgentId) -> bool {
        self.barred.contains(&agent)
    }

    /// Registers a control connection and ends an older one of the same agent. `None`: the agent is barred.
    pub(super) fn connect(&mut self, about: ConnectedAgent, now: Instant) -> Option<Session> {
        let agent = about.agent;
        if self.barred.contains(&agent) {
            return None;
        }
        if let Some(session) = self.connected.get(&agent).map(|c| c.session) {
            self.disconnect(agent, session);
        }
        // Also a stream that is only about to begin refers to them: barring its agent must abort it.
        self.streams.retain(|id, s| Arc::strong_count(s) > 1 || self.connected.contains_key(id));
        self.last_session += 1;
        let environment = self.environments.entry(about.environment).or_default();
        environment.agents.insert(agent);
        self.changed.extend(&environment.shares);
        self.moved.insert(agent);
        let session = Session {
            number: self.last_session,
            end: CancellationToken::new(),
            outbox_filled: Arc::new(Notify::new()),
            carriers: Arc::new(CarrierPool::new(Arc::clone(self.streams.entry(agent).or_default()))),
        };
        session.outbox_filled.notify_one();
        let connected = Connected {
            session: session.number,
            about,
            end: session.end.clone(),
            outbox: environment.shares.clone(),
            outbox_filled: Arc::clone(&session.outbox_filled),
            said: HashMap::new(),
            carriers: Arc::clone(&session.carriers),
            rtt: None,
            record: Record::new(now),
            last_picked: 0,
            draining: false,
        };
        self.connected.insert(agent, connected);
        Some(session)
    }

    /// The control connection has ended. Running streams continue.
    pub(super) fn disconnect(&mut self, agent: AgentId, session: u64) {
        if self.connected.get(&agent).is_none_or(|c| c.session != session) {
            return;
        }
        let Some(connected) = self.connected.remove(&agent) else { return };
        connected.end.cancel();
        self.moved.insert(agent);
        let id = connected.about.environment;
        if let Some(environment) = self.environments.get_mut(&id) {
            environment.agents.remove(&agent);
            self.changed.extend(&environment.shares);
        }
        self.forget_if_empty(id);
    }

    /// The agent is stopping: new streams use other agents, running ones continue.
    pub(super) fn draining(&mut self, agent: AgentId, session: u64) {
        if let Some(connected) = self.connected.get_mut(&agent).filter(|c| c.session == session) {
            connected.draining = true;
            let environment = self.environments.get(&connected.about.environment);
            self.changed.extend(environment.into_iter().flat_map(|e| &e.shares));
        }
    }

    fn forget_if_empty(&mut self, id: EnvironmentId) {
        if self.environments.get(&id).is_some_and(|e| e.shares.is_empty() && e.agents.is_empty()) {
            self.environments.remove(&id);
        }
    }

    /// The messages to send to the agent, each of bounded length.
    pub(super) fn take_outbox(&mut self, agent: AgentId, session: u64) -> Vec<ToAgent> {
        let Some(connected) = self.connected.get_mut(&agent).filter(|c| c.session == session) else {
            return Vec::new();
        };
        let (mut assignments, mut withdrawn) = (Vec::new(), Vec::new());
        while let Some(share) = connected.outbox.pop_first() {
            match self.shares.get(&share) {
                Some(w) if w.environment == connected.about.environment => {
                    assignments.push(w.assignment.clone());
                }
                _ => withdrawn.push(share),
            }
            if assignments.len().max(withdrawn.len()) == ASSIGNMENTS_PER_MESSAGE {
                connected.outbox_filled.notify_one();
                break;
            }
        }
        let mut messages = Vec::new();
        if !withdrawn.is_empty() {
            messages.push(ToAgent::Withdraw { shares: withdrawn });
        }
        if !assignments.is_empty() {
            messages.push(ToAgent::Assign { assignments });
        }
        messages
    }

    /// The pools of all connected agents.
    pub(super) fn pools(&self) -> Vec<Arc<CarrierPool>> {
        self.connected.values().map(|c| Arc::clone(&c.carriers)).collect()
    }

    /// The pool of the agent, if it is connected.
    pub(super) fn pool(&self, agent: AgentId) -> Option<Arc<CarrierPool>> {
        self.connected.get(&agent).map(|c| Arc::clone(&c.carriers))
    }

    pub(super) fn about(&self, agent: AgentId) -> Option<(u64, ConnectedAgent)> {
        self.connected.get(&agent).map(|c| (c.session, c.about.clone()))
    }

    pub(super) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    pub(super) fn take_changed(&mut self) -> BTreeSet<ShareId> {
        mem::take(&mut self.changed)
    }

    pub(super) fn has_moved(&self) -> bool {
        !self.moved.is_empty()
    }

    pub(super) fn take_moved(&mut self) -> BTreeSet<AgentId> {
        mem::take(&mut self.moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;
    use wicketgate_model::{IngressPort, TunnelId};

    pub(super) fn agent(n: u128) -> AgentId {
        AgentId::new(Uuid::from_u128(n))
    }

    pub(super) fn share(generation: u64) -> ShareDesired {
        share_to(generation, "10.0.0.1:1")
    }

    pub(super) fn share_to(generation: u64, target: &str) -> ShareDesired {
        let assignment = Assignment {
            environment: EnvironmentId::new(Uuid::nil()),
            share: ShareId::new(Uuid::nil()),
            generation: Generation::new(generation),
            target: target.parse().unwrap(),
        };
        ShareDesired {
            id: assignment.share,
            generation: assignment.generation,
            tunnel: TunnelId::new(Uuid::nil()),
            environment: assignment.environment,
            ingress_port: IngressPort::try_from(1).unwrap(),
            assignment: SignedAssignment {
                body: serde_json::to_string(&assignment).unwrap(),
                signature: Vec::new(),
            },
            options: wicketgate_model::ShareOptions::default(),
        }
    }

    pub(super) fn connect(roster: &mut Roster, n: u128) -> Session {
        let about = ConnectedAgent {
            agent: agent(n),
            environment: share(1).environment,
            version: String::new(),
            name: String::new(),
            address: std::net::Ipv4Addr::LOCALHOST.into(),
        };
        roster.connect(about, Instant::now()).unwrap()
    }
}
