//! Opening a stream: pick an agent, take one of its carriers, wait for its answer.
//!
//! Invariant: the client's early data is kept until an agent has opened the stream, so after a failure the next agent
//! gets all of it.

use super::{
    Agents,
    carrier_pool::{ActiveStream, CarrierPool},
    dial_failure::{DialFailure, StreamOutcome},
    roster::{Pick, Session},
    stream::Stream,
};
use std::{
    future::pending,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::pin,
    sync::atomic::Ordering,
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;
use wicketgate_model::{AgentId, FailureReason, Problem, Reason, ShareId};
use wicketgate_transport::{
    carrier::{Carrier, EarlyData, TargetSign},
    frame::OpenRequest,
};

/// For opening a stream: within the usual connect timeout of clients.
const OPEN_WITHIN: Duration = Duration::from_secs(15);
/// For a carrier, if none is parked: a handshake behind a queue of others. A client is told why within 5 s.
const CARRIER_WITHIN: Duration = Duration::from_millis(4500);
/// For an agent's answer: its dial takes 4 s at most. A client is told within 5 s.
const ANSWER_WITHIN: Duration = Duration::from_millis(4800);
/// For a sign of a target that was connected: one that closes at once does so within a round trip.
const SIGN_WITHIN: Duration = Duration::from_millis(1500);
/// While a stream waits for an agent that is silent: how often others are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Dead carriers of one agent after which the next agent is tried.
const DEAD_CARRIERS: usize = 4;

/// The client address of a dial that only checks the target.
const NO_CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl Agents {
    /// Opens a stream to the share's target, which gets the early data first. Returns within 15 s.
    pub async fn open(
        &self,
        share: ShareId,
        client: SocketAddr,
        mut early: EarlyData<'_>,
    ) -> Result<Stream, DialFailure> {
        let deadline = Instant::now() + OPEN_WITHIN;
        let mut tried = Vec::new();
        let mut last = None;
        loop {
            let Some(pick) = self.with(|roster| roster.pick(share, &tried, std::time::Instant::now())) else {
                return Err(last.unwrap_or(DialFailure::NoAgent));
            };
            tried.push(pick.session.agent);
            let request = OpenRequest { share, generation: pick.generation, client };
            let opened = tokio::select! {
                opened = self.open_through(&pick, &request, &mut early, deadline) => opened,
                () = self.fell_silent(&pick.session, share, &tried) => Err(DialFailure::Timeout),
            };
            let outcome = opened.as_ref().map_or_else(DialFailure::outcome, |_| StreamOutcome::Well);
            if !pick.is_well || outcome != StreamOutcome::Well {
                self.with(|roster| roster.record(&pick, share, outcome, std::time::Instant::now()));
            }
            match opened {
                Ok((carrier, active)) => {
                    let (early, agents, agent) = (early.end(), self.clone(), pick.session.agent);
                    return Ok(Stream { carrier, early, agents, agent, active, in_use: pick.in_use });
                }
                Err(failure) => {
                    debug!(agent.id = %pick.session.agent, reason = %failure, "an agent did not open a stream");
                    last = Some(failure);
                }
            }
        }
    }

    /// Opens a stream as for a client, with `preface`, waits for a sign of the target, and closes it. Returns the agent
    /// that has reached a target which serves, why no stream was opened, and how long it took to connect.
    pub async fn dial(
        &self,
        share: ShareId,
        preface: Vec<u8>,
    ) -> (Result<AgentId, Problem>, Option<FailureReason>, Duration) {
        let begin = Instant::now();
        let is_prefaced = !preface.is_empty();
        let opened = tokio::select! {
            opened = self.open(share, NO_CLIENT, EarlyData::preface(preface)) => opened,
            problem = self.only_silent(share) => return (Err(problem), None, begin.elapsed()),
        };
        let took = begin.elapsed();
        let failure = opened.as_ref().err().map(DialFailure::metric);
        let dialled = match opened {
            Ok(Stream { mut carrier, agent, active, .. }) => {
                let serves = serves(&mut carrier, is_prefaced).await;
                drop(active);
                carrier.close();
                serves.map(|()| agent)
            }
            Err(failure) => Err(failure.bare_problem()),
        };
        (dialled, failure, took)
    }

    /// Waits until the agent is silent, and returns if another one that was not tried answers.
    async fn fell_silent(&self, session: &Session, share: ShareId, tried: &[AgentId]) {
        let mut is_silent = session.is_silent.subscribe();
        while is_silent.wait_for(|is_silent| *is_silent).await.is_ok() {
            if self.with(|roster| roster.has_answering(share, tried)) {
                return;
            }
            sleep(LOOK_EVERY).await;
        }
        // The end of its connection fails the stream.
        pending().await
    }

    /// Waits until no agent of the share answers. A client may wait for longer, a check says so at once.
    async fn only_silent(&self, share: ShareId) -> Problem {
        loop {
            let problem = self.standing(share).problem;
            if let Some(problem) = problem.filter(|problem| problem.reason == Reason::AgentSilent) {
                return problem;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn open_through(
        &self,
        pick: &Pick,
        request: &OpenRequest,
        early: &mut EarlyData<'_>,
        deadline: Instant,
    ) -> Result<(Carrier, ActiveStream), DialFailure> {
        let Session { agent, carriers, .. } = &*pick.session;
        let active = carriers.streams.begin();
        for _ in 0..DEAD_CARRIERS {
            let mut carrier = take_carrier(carriers, deadline).await?;
            let until = deadline.min(Instant::now() + ANSWER_WITHIN);
            let answer = tokio::select! {
                () = active.0.abort.triggered() => return Err(DialFailure::Barred),
                answer = timeout_at(until, carrier.open(request, early)) => answer,
            };
            match answer {
                Ok(Ok(Ok(()))) => {
                    active.0.heard.fetch_add(1, Ordering::Relaxed);
                    return Ok((carrier, active));
                }
                Ok(Ok(Err(refusal))) => {
                    self.park(*agent, carrier);
                    return Err(refusal.into());
                }
                Ok(Err(error)) => {
                    debug!(agent.id = %pick.session.agent, error = ?error, "a parked carrier was dead")
                }
                Err(_) => return Err(DialFailure::Timeout),
            }
        }
        Err(DialFailure::BrokenCarriers)
    }

    /// Parks a carrier, or closes it if it is not needed.
    pub(super) fn park(&self, agent: AgentId, carrier: Carrier) {
        let parked = match self.with(|roster| roster.session(agent)) {
            Some(session) if !carrier.is_worn() => session.carriers.park(carrier, &self.0.room),
            _ => Err(carrier),
        };
        if let Err(surplus) = parked {
            surplus.close();
        }
    }
}

/// Waits for a byte of the target or for its silence, and fails if it ends the connection. With a preface, it has to stay
/// although it sent something: a target that does not expect the preface may greet, or answer with an error, before it ends.
async fn serves(carrier: &mut Carrier, is_prefaced: bool) -> Result<(), Problem> {
    let until = Instant::now() + SIGN_WITHIN;
    let ended = |message: &str| Err(Problem::new(Reason::TargetClosed, message));
    loop {
        match timeout_at(until, carrier.sign()).await {
            // It waits for the client.
            Err(_) => return Ok(()),
            Ok(Ok(TargetSign::Data)) if is_prefaced => {}
            Ok(Ok(TargetSign::Data)) => return Ok(()),
            Ok(Ok(TargetSign::Ended)) if is_prefaced => {
                return ended("the target closed the connection after the PROXY protocol header");
            }
            Ok(Ok(TargetSign::Ended)) => {
                return ended("the target closed the connection before it sent a byte");
            }
            Ok(Err(_)) => {
                return Err(Problem::new(Reason::AgentOffline, "the agent's carrier broke during the check"));
            }
        }
    }
}

/// Takes a parked carrier, or waits for one.
async fn take_carrier(pool: &CarrierPool, deadline: Instant) -> Result<Carrier, DialFailure> {
    let until = deadline.min(Instant::now() + CARRIER_WITHIN);
    loop {
        let mut changed = pin!(pool.changed.notified());
        // Before the look, so that a carrier that is parked right after it wakes this task.
        changed.as_mut().enable();
        if let Some(carrier) = pool.take()? {
            return Ok(carrier);
        }
        if timeout_at(until, changed).await.is_err() {
            return Err(DialFailure::NoCarrier);
        }
    }
}
