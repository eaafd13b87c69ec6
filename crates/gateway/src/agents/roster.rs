//! Who is connected, what is assigned, and who has acknowledged what: the state, without IO.
//!
//! Invariants: the two indexes of an environment name exactly the shares assigned and agents connected of it; what
//! an agent has said is kept only for shares assigned now, so no agent can make the roster grow.

mod acknowledgements;
mod pick;

pub(super) use pick::{Pick, Shown};

use super::{
    balancer::Record,
    pool::{self, Pool},
};
use acknowledgements::Acknowledgement;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use wicketgate_link::ConnectedAgent;
use wicketgate_model::{
    AgentId, Assignment, EnvironmentId, Generation, Problem, ShareDesired, ShareId, SignedAssignment, Target,
};
use wicketgate_transport::{
    abort::Abort,
    carrier::Carrier,
    control::{ASSIGNMENTS_PER_MESSAGE, ToAgent},
};

/// The part of a surplus of carriers that is ended each second: the next burst may be near.
const TEND: usize = 4;

/// How a share stands with the agents of its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentStanding {
    /// The newest generation that a connected agent has acknowledged.
    pub ready: Option<Generation>,
    /// Why the newest generation is not ready; with it ready, what impairs the share.
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

/// A share as it is assigned.
struct AssignedShare {
    environment: EnvironmentId,
    generation: Generation,
    assignment: SignedAssignment,
    /// `None`: the assignment can't be read.
    target: Option<Target>,
    /// From this generation on, the target has been the same.
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
    /// Shares that the agent is to be told of, as they are when it is told.
    outbox: BTreeSet<ShareId>,
    outbox_filled: Arc<Notify>,
    said: HashMap<ShareId, Acknowledgement>,
    /// The oldest first.
    parked: Vec<Carrier>,
    pool: Pool,
    carrier_parked: Arc<Notify>,
    streams: Arc<AgentStreams>,
    /// There and back, when it last answered.
    rtt: Option<Duration>,
    record: Record,
    last_picked: u64,
    /// It is about to end, and takes no new streams.
    draining: bool,
}

/// What lives on over an agent's connections: its streams.
#[derive(Default)]
pub(super) struct AgentStreams {
    pub(super) abort: Abort,
    pub(super) active: AtomicUsize,
    /// The most and the fewest at a time since the pool was tended.
    most: AtomicUsize,
    fewest: AtomicUsize,
}

impl AgentStreams {
    pub(super) fn begin(&self) {
        let active = self.active.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(active, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        let active = self.active.fetch_sub(1, Ordering::Relaxed) - 1;
        self.fewest.fetch_min(active, Ordering::Relaxed);
    }
}

/// A control connection's place in the roster.
pub(super) struct Session {
    pub(super) session: u64,
    /// The connection is to end: the agent was barred, or has a newer one.
    pub(super) end: CancellationToken,
    pub(super) outbox_filled: Arc<Notify>,
}

impl Roster {
    pub(super) fn assign(&mut self, share: &ShareDesired) {
        if self.shares.get(&share.id).is_some_and(|w| w.environment != share.environment) {
            self.withdraw(share.id);
        }
        // Only to see whether it is the same one: what it leads to is the agents' business.
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

    /// A control connection has come up; an older one of the same agent ends. `None`: the agent is barred.
    pub(super) fn connect(&mut self, about: ConnectedAgent, now: Instant) -> Option<Session> {
        let agent = about.agent;
        if self.barred.contains(&agent) {
            return None;
        }
        if let Some(session) = self.connected.get(&agent).map(|c| c.session) {
            self.disconnect(agent, session);
        }
        self.streams.retain(|id, s| s.active.load(Ordering::Relaxed) > 0 || self.connected.contains_key(id));
        self.last_session += 1;
        let environment = self.environments.entry(about.environment).or_default();
        environment.agents.insert(agent);
        self.changed.extend(&environment.shares);
        self.moved.insert(agent);
        let place = Session {
            session: self.last_session,
            end: CancellationToken::new(),
            outbox_filled: Arc::new(Notify::new()),
        };
        place.outbox_filled.notify_one();
        let connected = Connected {
            session: place.session,
            about,
            end: place.end.clone(),
            outbox: environment.shares.clone(),
            outbox_filled: Arc::clone(&place.outbox_filled),
            said: HashMap::new(),
            parked: Vec::new(),
            pool: Pool::default(),
            carrier_parked: Arc::new(Notify::new()),
            streams: Arc::clone(self.streams.entry(agent).or_default()),
            rtt: None,
            record: Record::new(now),
            last_picked: 0,
            draining: false,
        };
        self.connected.insert(agent, connected);
        Some(place)
    }

    /// The control connection is gone, and with it the parked carriers. Running streams go on.
    pub(super) fn disconnect(&mut self, agent: AgentId, session: u64) {
        if self.connected.get(&agent).is_none_or(|c| c.session != session) {
            return;
        }
        let Some(connected) = self.connected.remove(&agent) else { return };
        connected.end.cancel();
        // Whoever waits for a carrier looks again, and finds nobody.
        connected.carrier_parked.notify_waiters();
        self.moved.insert(agent);
        let id = connected.about.environment;
        if let Some(environment) = self.environments.get_mut(&id) {
            environment.agents.remove(&agent);
            self.changed.extend(&environment.shares);
        }
        self.forget_if_empty(id);
    }

    /// The agent is about to end: new streams go elsewhere, and those that it has go on.
    pub(super) fn draining(&mut self, agent: AgentId, session: u64) {
        if let Some(connected) = self.connected.get_mut(&agent).filter(|c| c.session == session) {
            connected.draining = true;
            // Whoever waits for a carrier of it looks again, and finds that there will be none.
            connected.carrier_parked.notify_waiters();
            let environment = self.environments.get(&connected.about.environment);
            self.changed.extend(environment.into_iter().flat_map(|e| &e.shares));
        }
    }

    fn forget_if_empty(&mut self, id: EnvironmentId) {
        if self.environments.get(&id).is_some_and(|e| e.shares.is_empty() && e.agents.is_empty()) {
            self.environments.remove(&id);
        }
    }

    /// What the agent has not been told yet, in messages that are not too long.
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

    /// Carriers that are parked here, of all agents.
    pub(super) fn parked(&self) -> usize {
        self.connected.values().map(|c| c.parked.len()).sum()
    }

    /// Parks a carrier; one of an agent that is not connected, or one too many, comes back. Streams take the carrier
    /// that was parked last: those that died below it are found here, before they take a live one's place.
    pub(super) fn park(&mut self, agent: AgentId, carrier: Carrier) -> Result<(), Carrier> {
        let Some(connected) = self.connected.get_mut(&agent) else { return Err(carrier) };
        // A peak that is just ending counts, though the pool has not been tended since.
        let ending = (2 * connected.streams.most.load(Ordering::Relaxed)).min(2 * usize::from(pool::MOST));
        let most = connected.pool.keep().max(ending);
        if connected.parked.len() >= most {
            connected.parked.retain_mut(Carrier::is_quiet);
        }
        if connected.parked.len() >= most {
            return Err(carrier);
        }
        connected.parked.push(carrier);
        connected.carrier_parked.notify_one();
        Ok(())
    }

    /// To be called each second: ends some of the carriers that are not needed any more, those that were parked
    /// longest, and answers how many the agent is to have parked.
    pub(super) fn tend_pool(&mut self, agent: AgentId, session: u64) -> Option<u16> {
        let connected = self.connected.get_mut(&agent).filter(|c| c.session == session)?;
        let streams = &connected.streams;
        let active = streams.active.load(Ordering::Relaxed);
        let fewest = streams.fewest.swap(active, Ordering::Relaxed).min(active);
        let most = streams.most.swap(active, Ordering::Relaxed).max(active);
        connected.pool.second(fewest, most);
        let surplus = connected.parked.len().saturating_sub(connected.pool.keep());
        connected.parked.drain(..surplus.div_ceil(TEND));
        Some(connected.pool.want())
    }

    /// The carrier that was parked last, `Ok(None)` if there is none now, `Err` if the agent has gone since the pick.
    pub(super) fn take_carrier(&mut self, pick: &Pick) -> Result<Option<Carrier>, ()> {
        let connected = self.connected.get_mut(&pick.agent).filter(|c| c.session == pick.session).ok_or(())?;
        while let Some(mut carrier) = connected.parked.pop() {
            if carrier.is_quiet() {
                return Ok(Some(carrier));
            }
        }
        Ok(None)
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
