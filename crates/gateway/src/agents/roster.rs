//! The connected agents, the assigned shares, and the agents' reports. Pure: the roster does no IO.
//!
//! Invariants: the two indexes of an environment contain exactly its assigned shares and connected agents; reports of
//! an agent are kept only for assigned shares, some 200 bytes for each, and its words within a bound ([`Words`]), so no agent can make
//! the roster grow.

mod acknowledgement;
mod admitted;
mod catch_up;
mod duplicates;
mod duty;
mod election;
mod gateway_lists;
mod hearing;
mod outbox;
mod pick;
mod readiness;
mod reports;
mod session;
mod strangers;
mod words;

pub(super) use admitted::Admission;
pub(super) use duty::ShareInUse;
pub(super) use election::REST_EVERY;
pub(super) use gateway_lists::Understood;
pub(super) use hearing::Hearing;
pub(super) use pick::Pick;
pub use readiness::AgentStanding;
pub(super) use readiness::CLOSE_EVERY;
pub(super) use session::Session;

use super::{
    allowance::Allowances,
    balancer::Record,
    carrier_pool::{AgentStreams, CarrierPool},
};
use acknowledgement::Acknowledgement;
use catch_up::CatchUp;
use duty::Duty;
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use wicketgate_link::ConnectedAgent;
use wicketgate_model::{
    AgentDesired, AgentId, AgentReport, Assignment, EnvironmentId, Generation, ShareDesired, ShareId,
    SignedAssignment, SignedGatewayList, Target, UnknownAgent,
};
use wicketgate_transport::identity::PresentedAgent;
use words::Words;

#[derive(Default)]
pub(super) struct Roster {
    shares: HashMap<ShareId, AssignedShare>,
    environments: HashMap<EnvironmentId, Environment>,
    connected: HashMap<AgentId, Connected>,
    streams: HashMap<AgentId, Arc<AgentStreams>>,
    named: HashMap<AgentId, AgentDesired>,
    allowances: Allowances,
    /// As the server has signed them.
    gateway_lists: HashMap<EnvironmentId, SignedGatewayList>,
    /// Agents that were refused lately because they are not named.
    strangers: BTreeMap<AgentId, UnknownAgent>,
    /// The server has said which agents there are.
    pub(super) is_informed: bool,
    /// Shares whose readiness may have changed.
    pub(super) changed: BTreeSet<ShareId>,
    /// Shares whose prober may change.
    unelected: BTreeSet<ShareId>,
    /// Shares that clients use, or have used lately.
    in_use: BTreeSet<ShareId>,
    /// Shares whose port is closed if their target stays unreachable, and when that was first looked at.
    closing: BTreeMap<ShareId, Option<Instant>>,
    /// Agents that have connected or disconnected.
    pub(super) moved: BTreeSet<AgentId>,
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
    /// How soon an agent probes the target once no client uses it; `None`: not at all.
    probes: Option<Duration>,
    duty: Duty,
    /// Its port is closed while no agent can serve it.
    closes: bool,
    is_open: watch::Sender<bool>,
}

#[derive(Default)]
struct Environment {
    shares: BTreeSet<ShareId>,
    agents: BTreeSet<AgentId>,
}

struct Connected {
    session: Arc<Session>,
    about: ConnectedAgent,
    /// Shares to send to the agent. Their state is read when they are sent.
    outbox: BTreeSet<ShareId>,
    /// Shares of which the agent learns whether it is their prober; `None`: it does not understand it.
    duties: Option<BTreeSet<ShareId>>,
    learns_gateways: bool,
    /// The list of gateways is to be sent to it.
    is_list_due: bool,
    acknowledgements: HashMap<ShareId, Acknowledgement>,
    words: Words,
    /// `None`: it has acknowledged all that it does.
    catch_up: Option<CatchUp>,
    /// The round-trip time of its last answer.
    rtt: Option<Duration>,
    record: Record,
    last_picked: u64,
    /// Whether it answers, and since when.
    hearing: (Hearing, Timestamp),
    /// How far the clock of its host is ahead of the gateway's, if it is wrong.
    seconds_ahead: Option<i64>,
    clock_told: Option<Instant>,
    /// What it has reported of itself and the server was not told, and when the server was told last.
    report: Option<Box<AgentReport>>,
    report_told: Option<Instant>,
    /// It is stopping and accepts no new streams.
    draining: bool,
    /// Agents with the same identity that were refused, and when the last time.
    duplicates: Vec<(ConnectedAgent, Instant)>,
}

impl Roster {
    pub(super) fn all_connected(&self) -> BTreeSet<AgentId> {
        self.connected.keys().copied().collect()
    }

    pub(super) fn assign(&mut self, share: &ShareDesired) {
        // The listener keeps its end of it.
        let is_open = self.shares.get(&share.id).map(|old| old.is_open.clone());
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
            probes: share.options.health_check.unwrap_or_default().interval(),
            duty: self.shares.remove(&share.id).map(|old| old.duty).unwrap_or_default(),
            closes: share.options.close_when_unserved,
            is_open: is_open.unwrap_or_else(|| watch::Sender::new(true)),
        };
        self.shares.insert(share.id, wanted);
        self.environments.entry(share.environment).or_default().shares.insert(share.id);
        self.enqueue(share.environment, share.id);
    }

    pub(super) fn withdraw(&mut self, share: ShareId) {
        let Some(wanted) = self.shares.remove(&share) else { return };
        self.enqueue(wanted.environment, share);
        let Some(environment) = self.environments.get_mut(&wanted.environment) else { return };
        environment.shares.remove(&share);
        for agent in &environment.agents {
            if let Some(connected) = self.connected.get_mut(agent) {
                connected.acknowledgements.remove(&share);
            }
        }
        self.forget_if_empty(wanted.environment);
    }

    /// Puts the share into the outboxes of the environment's agents.
    fn enqueue(&mut self, environment: EnvironmentId, share: ShareId) {
        self.touch(share);
        for agent in self.environments.get(&environment).into_iter().flat_map(|e| &e.agents) {
            if let Some(connected) = self.connected.get_mut(agent) {
                connected.outbox.insert(share);
                connected.session.outbox_filled.notify_one();
            }
        }
    }

    /// Registers a control connection and ends an older one of the same agent.
    pub(super) fn connect(
        &mut self,
        presented: &PresentedAgent,
        about: ConnectedAgent,
        takes: Understood,
        now: Instant,
    ) -> Result<Arc<Session>, Admission> {
        let agent = about.agent;
        match self.admits(presented) {
            Admission::Admitted => {}
            why => return Err(why),
        }
        self.remove(agent);
        // Also a stream that is only about to begin refers to them: barring its agent must abort it.
        self.streams.retain(|id, s| Arc::strong_count(s) > 1 || self.connected.contains_key(id));
        self.last_session += 1;
        let streams = Arc::clone(self.streams.entry(agent).or_default());
        streams.begin_session(self.last_session);
        let environment = self.environments.entry(about.environment).or_default();
        environment.agents.insert(agent);
        self.changed.extend(&environment.shares);
        self.unelected.extend(&environment.shares);
        self.moved.insert(agent);
        let session = Arc::new(Session {
            agent,
            name: about.name.clone(),
            number: self.last_session,
            end: CancellationToken::new(),
            outbox_filled: Notify::new(),
            asked: Notify::new(),
            answers: watch::Sender::default(),
            is_silent: watch::Sender::default(),
            carriers: CarrierPool::new(streams),
            allowance: self.allowances.of(agent, about.environment, now.into()),
        });
        session.outbox_filled.notify_one();
        let connected = Connected {
            session: Arc::clone(&session),
            about,
            outbox: environment.shares.clone(),
            duties: takes.duties.then(BTreeSet::new),
            learns_gateways: takes.gateways,
            is_list_due: takes.gateways,
            acknowledgements: HashMap::new(),
            words: Words::default(),
            catch_up: Some(CatchUp::default()),
            rtt: None,
            record: Record::new(now),
            last_picked: 0,
            hearing: (Hearing::Answers, Timestamp::UNIX_EPOCH),
            seconds_ahead: None,
            clock_told: None,
            report: None,
            report_told: None,
            draining: false,
            duplicates: Vec::new(),
        };
        self.connected.insert(agent, connected);
        Ok(session)
    }

    /// The agent of the control connection, unless it has ended or has a successor.
    fn connected(&mut self, session: &Session) -> Option<&mut Connected> {
        newest(&mut self.connected, session)
    }

    /// The control connection has ended. Running streams continue: the agent may return.
    pub(super) fn disconnect(&mut self, session: &Session) {
        if self.connected(session).is_some() {
            self.remove(session.agent);
        }
    }

    /// The agent of this control connection has had time to return. If it has not, its streams are aborted: a client that
    /// waits for an answer would wait for as long as TCP does. Returns how many streams that were.
    pub(super) fn lost(&mut self, session: &Session) -> usize {
        let agent = session.agent;
        let returned = self.connected.contains_key(&agent);
        let is_last = self.streams.get(&agent).is_some_and(|streams| streams.is_last(session.number));
        if returned || !is_last {
            return 0;
        }
        let Some(streams) = self.streams.remove(&agent) else { return 0 };
        streams.abort.trigger();
        streams.active()
    }

    fn remove(&mut self, agent: AgentId) {
        let Some(connected) = self.connected.remove(&agent) else { return };
        connected.session.end.cancel();
        self.moved.insert(agent);
        let id = connected.about.environment;
        if let Some(environment) = self.environments.get_mut(&id) {
            environment.agents.remove(&agent);
            self.changed.extend(&environment.shares);
            self.unelected.extend(&environment.shares);
        }
        self.forget_if_empty(id);
    }

    fn forget_if_empty(&mut self, id: EnvironmentId) {
        if self.environments.get(&id).is_some_and(|e| e.shares.is_empty() && e.agents.is_empty()) {
            self.environments.remove(&id);
        }
    }

    /// The readiness or the prober of the share may have changed.
    fn touch(&mut self, share: ShareId) {
        self.changed.insert(share);
        self.unelected.insert(share);
    }
}

/// The agent of the control connection, unless it has ended or has a successor.
fn newest<'a>(
    connected: &'a mut HashMap<AgentId, Connected>,
    session: &Session,
) -> Option<&'a mut Connected> {
    connected.get_mut(&session.agent).filter(|c| c.session.number == session.number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;
    use wicketgate_model::{Era, FrontdoorId, IngressPort, TunnelId};
    use wicketgate_transport::identity::AgentIdentity;

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
            health_check: None,
            name: None,
            era: Era::FIRST,
            expires_at: None,
        };
        ShareDesired {
            id: assignment.share,
            generation: assignment.generation,
            tunnel: TunnelId::new(Uuid::nil()),
            environment: assignment.environment,
            ingress_port: IngressPort::try_from(1).unwrap(),
            enabled: true,
            expires_at: None,
            assignment: SignedAssignment {
                body: serde_json::to_string(&assignment).unwrap(),
                signature: Vec::new(),
            },
            options: wicketgate_model::ShareOptions::default(),
        }
    }

    #[test]
    fn streams_of_an_agent_that_does_not_return_are_aborted() {
        let mut roster = Roster::default();
        let first = connect(&mut roster, 1);
        let _stream = first.carriers.streams.begin();
        assert_eq!(roster.lost(&first), 0, "it is connected");
        roster.disconnect(&first);
        let second = connect(&mut roster, 1);
        assert_eq!(roster.lost(&first), 0, "it has returned");
        roster.disconnect(&second);
        assert_eq!(roster.lost(&first), 0, "the time of the second connection counts");
        let abort = second.carriers.streams.abort.token().clone();
        assert!(!abort.is_cancelled());
        assert_eq!(roster.lost(&second), 1);
        assert!(abort.is_cancelled());
        let third = connect(&mut roster, 1);
        assert!(!third.carriers.streams.abort.token().is_cancelled(), "new streams are not affected");
    }

    pub(super) fn connect(roster: &mut Roster, n: u128) -> Arc<Session> {
        let identity = AgentIdentity {
            frontdoor: FrontdoorId::new(Uuid::nil()),
            environment: share(1).environment,
            agent: agent(n),
        };
        let presented = PresentedAgent { identity, key_sha256: [1; 32] };
        let enrolled =
            AgentDesired::Enrolled { environment: identity.environment, key_sha256: presented.key_sha256 };
        roster.name(agent(n), Some(enrolled));
        let about = ConnectedAgent {
            agent: agent(n),
            environment: share(1).environment,
            version: String::new(),
            name: String::new(),
            address: std::net::Ipv4Addr::LOCALHOST.into(),
        };
        roster
            .connect(&presented, about, Understood { duties: true, gateways: true }, Instant::now())
            .unwrap()
    }
}
