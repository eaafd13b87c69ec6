//! The messages of a link.

use crate::{Part, RequestId, Versions};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};
use uuid::Uuid;
use wicketgate_model::{
    AgentId, AgentReport, Connection, DesiredDelta, DesiredDigest, EnrolGrant, EnrolRefusal, EnrolRequest,
    EnvironmentId, Era, EspMode, FailureReason, Generation, ObservedDelta, Problem, ResetMode, ResetScope,
    ShareId, SignedGatewayList, SpooledTraffic, TunnelId, UnknownAgent, UnknownPeer,
};

/// Messages from the server to a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGateway {
    /// The first message of a link.
    Hello(ServerHello),
    /// Changes of the desired state. The first one of a link has `reset` set and contains everything, unless the gateway holds what
    /// another link has sent, as its hello says.
    Desired {
        /// Counts the deltas of this link from 1.
        sequence: u64,
        part: Part,
        delta: DesiredDelta,
    },
    /// Inspects a share's path and dials its target. [`FromGateway::Checked`] answers within 15 s.
    Check { request: RequestId, share: ShareId },
    /// Resets the share's open connections: all of them, or those of one client. [`FromGateway::ConnectionsClosed`] answers at
    /// once.
    CloseConnections { request: RequestId, share: ShareId, source: Option<Ipv4Addr> },
    /// Rekeys or restarts the tunnel's SAs. [`FromGateway::Reset`] answers within 50 s, when the outcome is seen.
    Reset { request: RequestId, tunnel: TunnelId, scope: ResetScope, mode: ResetMode },
    /// Requests the lines of the tunnel's IKE log with numbers above `after`. [`FromGateway::IkeLog`] answers at once, with the
    /// first [`IKE_LOG_LINES`] of them.
    IkeLog { request: RequestId, tunnel: TunnelId, after: u64 },
    /// Requests the shares of these agents. [`FromGateway::Agents`] answers at once, for those that are connected to
    /// this gateway.
    Agents { request: RequestId, agents: Vec<AgentId> },
    /// The answer to [`FromGateway::Enrol`].
    Enrolled { request: RequestId, answer: CertificateAnswer<EnrolGrant> },
    /// The answer to [`FromGateway::Renew`]: a certificate in DER.
    Renewed { request: RequestId, answer: CertificateAnswer<Vec<u8>> },
    /// The answer to [`FromGateway::RenewOwn`]: a certificate in DER; `None`: it could not be issued, ask again later.
    RenewedOwn { request: RequestId, certificate: Option<Vec<u8>> },
    /// What gateways dial, of all servers of the database: after a change.
    Servers(Vec<String>),
    /// Which gateways the agents of environments dial, of those with agents at this gateway: after a change, and when an agent has
    /// connected. Only to a gateway that [takes them](Versions::take_gateway_lists).
    GatewayLists(Vec<(EnvironmentId, SignedGatewayList)>),
    /// In place of the hello: the server has no link for the gateway, and closes this one.
    Refused(LinkRefusal),
    /// The answer to [`FromGateway::Doubtful`]: these were deleted, or are another gateway's.
    RemovalConfirmed { tunnels: Vec<TunnelId> },
    /// The answer to [`FromGateway::Traffic`]: the report with this number is recorded.
    TrafficRecorded { spool: Uuid, number: u64 },
}

/// Messages from a gateway to the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromGateway {
    /// The first message of a link.
    Hello(GatewayHello),
    /// Changes of the observed state. The answer to a `reset` has `reset` set and contains everything.
    Observed {
        /// The newest delta that the gateway had applied when it made the report. An entry that the delta removed and
        /// that the report does not name is gone. Without this number, its absence could also mean that the gateway
        /// has not received the delta yet.
        heard: u64,
        part: Part,
        delta: ObservedDelta,
    },
    /// The gateway's state with the last delta is not what the delta says: it needs one with `reset`.
    Resync,
    /// A state that was sent as a whole has so few tunnels that it may be a mistake. The gateway goes on serving these, until
    /// [`ToGateway::RemovalConfirmed`] or a delta names them.
    Doubtful { tunnels: Vec<TunnelId> },
    /// Agents' control connections came up at this gateway.
    ConnectedAgents {
        agents: Vec<ConnectedAgent>,
        /// No other agent is connected, as at the beginning of a link.
        is_all: bool,
        part: Part,
    },
    /// An agent's control connection ended.
    AgentDisconnected(AgentId),
    /// What an agent has reported of itself, as it said it.
    AgentReported { agent: AgentId, report: Box<AgentReport> },
    /// Traffic of shares. [`ToGateway::TrafficRecorded`] answers when it is recorded, and the gateway sends the next one only then,
    /// so that a server never has to merge two: but when it stops: then it sends all that waits, [`UNRECORDED_REPORTS`] at most.
    Traffic { report: Arc<SpooledTraffic>, part: Part },
    /// The number of carriers that are parked at the gateway now.
    Carriers { parked: usize },
    /// All addresses from which IKE has arrived lately and that are no tunnel's, after a change.
    UnknownPeers(Vec<UnknownPeer>),
    /// All agents that were refused lately because the server does not name them, after a change.
    UnknownAgents(Vec<UnknownAgent>),
    /// The gateway is stopping: it accepts no new connections, and still reports the traffic of established ones.
    Draining,
    /// An agent requests its first certificate. [`ToGateway::Enrolled`] answers.
    Enrol {
        request: RequestId,
        ask: EnrolRequest,
        /// Where its connection came from. Older gateways do not tell.
        #[serde(default)]
        source: Option<IpAddr>,
    },
    /// An agent requests a new certificate for the identity that it has proved on its connection.
    /// [`ToGateway::Renewed`] answers.
    Renew { request: RequestId, ask: RenewRequest },
    /// The gateway requests a new certificate for the key that it has joined with, an uncompressed P-256 point (SEC 1 §2.3.3).
    /// [`ToGateway::RenewedOwn`] answers.
    RenewOwn { request: RequestId, public_key: Vec<u8> },
    /// The answer to [`ToGateway::Check`].
    Checked { request: RequestId, check: Box<ShareCheck> },
    /// The answer to [`ToGateway::CloseConnections`]: how many were reset.
    ConnectionsClosed { request: RequestId, closed: u64 },
    /// The answer to [`ToGateway::Reset`]: what was seen, or why it failed.
    Reset { request: RequestId, outcome: Result<String, String> },
    /// The answer to [`ToGateway::IkeLog`].
    IkeLog { request: RequestId, lines: Vec<IkeLogLine> },
    /// The answer to [`ToGateway::Agents`].
    Agents { request: RequestId, agents: Vec<AgentShares>, part: Part },
}

/// Why a gateway gets no link. The text is for its operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum LinkRefusal {
    /// The database may be an older one, or another: the gateway serves on.
    #[error("the server does not know this gateway: is it the right server, and the right database?")]
    Unknown,
    /// The database says that its tunnels are not this machine's: it serves nothing any more.
    #[error(
        "this gateway was deleted, or another machine has taken its place; to use this one again, have it join with a new token"
    )]
    Ended,
}

/// What a server tells of itself and of the link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerHello {
    pub versions: Versions,
    /// Of the link: each link of the gateway has a later one.
    pub epoch: u64,
    /// Of the database: revisions are compared within it.
    pub era: Era,
    /// What gateways dial, of all servers of the database. None, in one process.
    pub servers: Vec<String>,
}

/// What a gateway has kept of the desired state that its last link has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldState {
    pub era: Era,
    /// Of the last delta.
    pub revision: u64,
    /// Of the last delta.
    pub read_at: Timestamp,
    pub digest: DesiredDigest,
    /// For the log.
    pub tunnels: usize,
    /// For the log.
    pub shares: usize,
}

/// A gateway's properties, which do not change while it runs, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayHello {
    pub versions: Versions,
    /// Of the program.
    pub version: String,
    /// Tells a run of the gateway from the next.
    pub boot: Uuid,
    /// `None` for a gateway that holds nothing, as one that has just started.
    #[serde(default)]
    pub held: Option<HeldState>,
    /// What agents dial, if it is known.
    #[serde(default)]
    pub agent_url: Option<String>,
    pub esp: EspMode,
    /// The address that remote sites dial; `None` without IPsec.
    pub public_address: Option<Ipv4Addr>,
    /// The maximum of tunnels; `None`: as many as there are addresses for.
    pub max_tunnels: Option<u32>,
    /// The name of a tunnel's namespace is this, `-`, and its slot; `None` without namespaces.
    #[serde(default)]
    pub namespaces: Option<String>,
}

/// Reports of traffic of one gateway that are not recorded, at most: the one under way, and behind it, if the gateway stops, its last ten
/// minutes in steps of ten seconds.
pub const UNRECORDED_REPORTS: usize = 61;

/// Lines of an IKE log in an answer: it stays below a quarter of a megabyte.
pub const IKE_LOG_LINES: usize = 500;

/// A line of a tunnel's IKE log. It holds no key, nonce or secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IkeLogLine {
    /// Grows from line to line, also over a restart of the gateway.
    pub number: u64,
    pub at: Timestamp,
    /// The part of the IKE daemon, as that abbreviates it.
    pub group: String,
    /// The daemon's number of the IKE SA.
    #[serde(default)]
    pub ike_sa: Option<u64>,
    pub text: String,
}

/// Shares of one agent in an answer: more than an agent usually has, and few enough for a page of agents.
pub const SHARES_PER_AGENT: usize = 200;

/// A connected agent's shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentShares {
    pub agent: AgentId,
    /// Those of its environment, by id; the first [`SHARES_PER_AGENT`] of them.
    pub shares: Vec<(ShareId, AgentShareState)>,
    /// When its last message arrived, if it does not answer any more.
    #[serde(default)]
    pub unanswered_since: Option<Timestamp>,
    /// How far the clock of its host is ahead of the gateway's, or behind it if negative; `None`: about the same.
    #[serde(default)]
    pub clock_seconds_ahead: Option<i64>,
}

/// A share's state, as an agent reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentShareState {
    /// The agent serves the newest generation.
    Serving,
    /// The newest generation was sent to the agent, or will be, and the agent has not answered.
    Pending,
    /// The agent refuses the newest generation, for this reason.
    Refused(String),
    /// The agent serves the newest generation and cannot connect to the target, for this reason.
    Unreachable(String),
}

/// What a gateway finds when it inspects a tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelCheck {
    /// What has kept the tunnel from serving until now, although it was set up.
    pub problem: Option<Problem>,
    /// The connection as the IKE daemon has just reported it; `None`: it was not asked, or did not answer.
    pub connection: Option<Connection>,
}

/// The state of a share's path at a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareCheck {
    /// An older gateway does not inspect the tunnel.
    #[serde(default)]
    pub tunnel: TunnelCheck,
    /// The newest generation that is served at the ingress port.
    pub bound: Option<Generation>,
    pub listener_problem: Option<Problem>,
    /// Why the listener would refuse another client now.
    #[serde(default)]
    pub refused: Option<Problem>,
    /// The port is closed, because no agent could serve the share before the check.
    #[serde(default)]
    pub closed: bool,
    /// The newest generation that a connected agent has acknowledged.
    pub acknowledged: Option<Generation>,
    pub agent_problem: Option<Problem>,
    /// Duration of the inspection of the listener.
    pub listener_took: Duration,
    /// The last measured round trip to the nearest agent of the environment; `None` if none has answered.
    pub agent_took: Option<Duration>,
    /// The agent that has just connected to the target over one of its carriers, and the target keeps the connection; or
    /// why there is none. `TargetUnreachable` and `TargetClosed` concern the target, the reason in `refused` that none was
    /// tried, and every other reason the agents.
    pub dialled: Result<AgentId, Problem>,
    /// Why no connection was opened, as a client's failure is counted.
    #[serde(default)]
    pub failure: Option<FailureReason>,
    pub dial_took: Duration,
    /// Of the whole check at the gateway: it also waits whether the target keeps the connection. 0: the gateway is older.
    #[serde(default)]
    pub took: Duration,
}

/// An agent whose control connection is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectedAgent {
    pub agent: AgentId,
    pub environment: EnvironmentId,
    /// Version and host name, as the agent reports them.
    pub version: String,
    pub name: String,
    /// The source address of the connection.
    pub address: IpAddr,
}

impl fmt::Display for ConnectedAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) at {}", self.agent, self.name, self.address)
    }
}

/// The server's answer to a request for a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CertificateAnswer<T> {
    Granted(T),
    Refused(EnrolRefusal),
    /// The server cannot decide now; the agent may repeat the request.
    Unavailable,
}

/// Agent and key of a renewal. The server reads the agent's Frontdoor and environment from its database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    pub agent: AgentId,
    /// As in [`EnrolRequest`]: the key that the agent enrolled with.
    pub public_key: Vec<u8>,
}

#[cfg(test)]
pub(crate) mod tests;
