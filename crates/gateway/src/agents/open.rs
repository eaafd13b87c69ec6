//! Opening a stream: pick an agent, take one of its carriers, wait for its answer.
//!
//! Invariant: what the client has sent so far is kept until an agent has opened the stream, so after a failure the
//! next agent gets all of it.

use super::{
    Agents,
    carrier_pool::{AgentStreams, CarrierPool, PoolClosed},
    roster::{Pick, Shown},
};
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, timeout_at};
use tracing::debug;
use wicketgate_model::{AgentId, FailureReason, Problem, Reason, ShareId};
use wicketgate_transport::{
    carrier::{Carrier, EarlyData},
    frame::{OpenRequest, RefusalReason},
    relay::{Broken, Counters, relay},
    reset_on_drop::ResetOnDrop,
};

/// For all of it: what a client's own connect timeout would bear.
const OPEN_WITHIN: Duration = Duration::from_secs(15);
/// For a carrier, when none is parked: a handshake, with a queue of others before it.
const CARRIER_WITHIN: Duration = Duration::from_secs(5);
/// For an agent's answer: its own dial ends after half of it.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Parked carriers of one agent that may turn out to be dead before the next agent is asked.
const DEAD_CARRIERS: usize = 4;

/// The client of a dial that is only to see whether it can be done.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Why no stream was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialFailure {
    pub reason: DialFailureReason,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialFailureReason {
    /// No connected agent has acknowledged the share.
    NoAgent,
    /// The agent has no carrier to give, or its carriers break.
    NoCarrier,
    /// The agent has not answered.
    Timeout,
    /// The agent has answered why not.
    Refused(RefusalReason),
}

impl DialFailureReason {
    /// As it is counted.
    pub(crate) fn counted(self) -> FailureReason {
        match self {
            Self::NoAgent | Self::Refused(RefusalReason::Draining) => FailureReason::NoAgent,
            Self::NoCarrier => FailureReason::NoCarrier,
            Self::Timeout => FailureReason::AgentTimeout,
            Self::Refused(RefusalReason::NotAssigned | RefusalReason::NotAllowed) => {
                FailureReason::AgentRefused
            }
            Self::Refused(RefusalReason::NameNotFound) => FailureReason::NameNotFound,
            Self::Refused(RefusalReason::ConnectionRefused) => FailureReason::ConnectionRefused,
            Self::Refused(RefusalReason::TimedOut) => FailureReason::DialTimeout,
            Self::Refused(RefusalReason::Unreachable) => FailureReason::TargetUnreachable,
        }
    }

    /// What it shows of the replica.
    fn shows(self) -> Shown {
        match self {
            Self::NoAgent => Shown::Gone,
            Self::Refused(RefusalReason::Draining) => Shown::Draining,
            Self::NoCarrier | Self::Timeout => Shown::AgentFails,
            Self::Refused(_) => Shown::TargetFails,
        }
    }

    fn shown(self) -> Reason {
        match self {
            Self::Refused(reason) if reason.is_of_the_target() => Reason::TargetUnreachable,
            Self::Refused(RefusalReason::NotAllowed) => Reason::AgentRefused,
            Self::Refused(RefusalReason::NotAssigned) => Reason::AgentPending,
            // An agent's own dial ends long before its answer is late.
            Self::Refused(_) | Self::NoAgent | Self::NoCarrier | Self::Timeout => Reason::AgentOffline,
        }
    }
}

impl fmt::Display for DialFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for DialFailure {}

fn failure(reason: DialFailureReason, text: impl Into<String>) -> DialFailure {
    DialFailure { reason, text: text.into() }
}

/// A stream to a share's target, open at the agent.
#[derive(Debug)]
pub struct Stream {
    carrier: Carrier,
    /// What was sent of the client's before the agent had answered, and why nothing more can be heard of it, if so.
    early: (u64, Option<io::Error>),
    agents: Agents,
    active: Active,
}

/// Counts as one of its agent's streams.
struct Active {
    agent: AgentId,
    streams: Arc<AgentStreams>,
}

impl Active {
    fn new(agent: AgentId, streams: Arc<AgentStreams>) -> Self {
        streams.begin();
        Self { agent, streams }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.streams.end();
    }
}

impl fmt::Debug for Active {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Active({})", self.agent)
    }
}

impl Stream {
    /// The agent that it goes through.
    pub fn agent(&self) -> AgentId {
        self.active.agent
    }

    /// Relays between the client and the target until both have ended; `rx` counts what comes from the client,
    /// `tx` what goes to it. A stream that breaks, is cut or dropped, or has carried nothing for `idle`, resets the
    /// client's connection.
    pub async fn relay(
        self,
        client: ResetOnDrop,
        rx: &AtomicU64,
        tx: &AtomicU64,
        idle: Option<Duration>,
    ) -> Result<(), Broken> {
        let Self { carrier, early: (early, broken), agents, active } = self;
        rx.fetch_add(early, Ordering::Relaxed);
        if let Some(error) = broken {
            drop(client);
            carrier.reset().await;
            return Err(Broken::Tcp(error));
        }
        let counters = Counters { to_carrier: rx, from_carrier: tx };
        let carrier = relay(client, carrier, counters, idle, &active.streams.abort).await?;
        agents.park(active.agent, carrier);
        Ok(())
    }
}

impl Agents {
    /// Opens a stream to the share's target, which gets what is `early` before anything else of the client's. Answers
    /// within 15 s.
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
                return Err(last.unwrap_or_else(|| {
                    failure(DialFailureReason::NoAgent, "no connected agent has acknowledged the share")
                }));
            };
            tried.push(pick.agent);
            let opened = self.open_through(&pick, share, client, &mut early, deadline).await;
            let shown = match &opened {
                Ok(_) => Shown::Well,
                Err(failure) => failure.reason.shows(),
            };
            if !pick.is_well || shown != Shown::Well {
                self.with(|roster| roster.shown(&pick, share, shown, std::time::Instant::now()));
            }
            match opened {
                Ok((carrier, active)) => {
                    return Ok(Stream { carrier, early: early.end(), agents: self.clone(), active });
                }
                Err(failure) => {
                    debug!(agent.id = %pick.agent, reason = %failure, "an agent did not open a stream");
                    last = Some(failure);
                }
            }
        }
    }

    /// Opens a stream as a client's connection would, and ends it: answers the agent that has reached the target.
    pub async fn dial(&self, share: ShareId) -> Result<AgentId, Problem> {
        match self.open(share, NOBODY, EarlyData::default()).await {
            Ok(Stream { carrier, active, .. }) => {
                // Ending is a goodbye of a second at most; nobody waits for it.
                self.0.tasks.spawn(carrier.close());
                Ok(active.agent)
            }
            Err(failure) => Err(Problem::new(failure.reason.shown(), failure.text)),
        }
    }

    async fn open_through(
        &self,
        pick: &Pick,
        share: ShareId,
        client: SocketAddr,
        early: &mut EarlyData<'_>,
        deadline: Instant,
    ) -> Result<(Carrier, Active), DialFailure> {
        let open = OpenRequest { share, generation: pick.generation, client };
        let active = Active::new(pick.agent, Arc::clone(&pick.carriers.streams));
        for _ in 0..DEAD_CARRIERS {
            let mut carrier = take_carrier(&pick.carriers, deadline).await?;
            let until = deadline.min(Instant::now() + ANSWER_WITHIN);
            let answer = tokio::select! {
                () = active.streams.abort.triggered() => {
                    return Err(failure(DialFailureReason::NoAgent, "the agent was barred"));
                }
                answer = timeout_at(until, carrier.open(&open, early)) => answer,
            };
            match answer {
                Ok(Ok(Ok(()))) => return Ok((carrier, active)),
                Ok(Ok(Err(refusal))) => {
                    self.park(pick.agent, carrier);
                    return Err(failure(DialFailureReason::Refused(refusal.reason), refusal.text));
                }
                Ok(Err(error)) => debug!(agent.id = %pick.agent, error = ?error, "a parked carrier was dead"),
                Err(_) => {
                    return Err(failure(DialFailureReason::Timeout, "the agent did not answer in time"));
                }
            }
        }
        Err(failure(DialFailureReason::NoCarrier, "the agent's carriers break"))
    }

    /// Parks a carrier, or closes it if it is not needed.
    pub(super) fn park(&self, agent: AgentId, carrier: Carrier) {
        let parked = match self.with(|roster| roster.pool(agent)) {
            Some(pool) => pool.park(carrier),
            None => Err(carrier),
        };
        if let Err(surplus) = parked {
            self.0.tasks.spawn(surplus.close());
        }
    }
}

/// A parked carrier of the agent, once there is one.
async fn take_carrier(pool: &CarrierPool, deadline: Instant) -> Result<Carrier, DialFailure> {
    let until = deadline.min(Instant::now() + CARRIER_WITHIN);
    loop {
        let mut changed = pin!(pool.changed.notified());
        // Before the look, so that a carrier that is parked right after it wakes this task.
        changed.as_mut().enable();
        match pool.take() {
            Ok(Some(carrier)) => return Ok(carrier),
            Ok(None) => {}
            Err(PoolClosed) => {
                return Err(failure(DialFailureReason::NoAgent, "the agent has disconnected"));
            }
        }
        if timeout_at(until, changed).await.is_err() {
            return Err(failure(DialFailureReason::NoCarrier, "the agent has no free carrier"));
        }
    }
}
