//! What the two ends say to each other.

use crate::{RequestId, Versions};
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};
use wicketgate_model::{
    AgentId, DesiredDelta, EnrolGrant, EnrolRefusal, EnrolRequest, EnvironmentId, EspMode, Generation,
    ObservedDelta, Problem, ShareId, TrafficDelta,
};

/// From the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGateway {
    /// The first message of a link.
    Hello(Versions),
    /// What changed in what the gateway should serve. The first one of a link has `reset` set.
    Desired {
        /// Counts the deltas of this link from 1.
        sequence: u64,
        delta: DesiredDelta,
    },
    /// Inspects a share's path and dials its target. The answer is [`FromGateway::Checked`], within 15 s.
    Check { request: RequestId, share: ShareId },
    /// Asks for the shares of these agents. The answer is [`FromGateway::Agents`], at once, for those that are
    /// connected to this gateway.
    Agents { request: RequestId, agents: Vec<AgentId> },
    /// The answer to [`FromGateway::Enrol`].
    Enrolled { request: RequestId, answer: CertificateAnswer<EnrolGrant> },
    /// The answer to [`FromGateway::Renew`]: a certificate in DER.
    Renewed { request: RequestId, answer: CertificateAnswer<Vec<u8>> },
}

/// From the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromGateway {
    /// The first message of a link.
    Hello(GatewayHello),
    /// What changed in what the gateway observes. The answer to a `reset` has `reset` set.
    Observed {
        /// The newest delta that the gateway had applied when it looked. What that delta removed and this report
        /// does not name is gone; without it, silence could mean that the gateway has not received the delta yet.
        heard: u64,
        delta: ObservedDelta,
    },
    /// An agent's control connection came up at this gateway.
    AgentConnected(ConnectedAgent),
    /// An agent's control connection ended.
    AgentDisconnected(AgentId),
    /// What shares carried since the last such message.
    Traffic(Vec<TrafficDelta>),
    /// How many carriers are parked at the gateway now.
    Carriers { parked: usize },
    /// The gateway is about to end: it accepts nothing new from now on, and still reports what it carries.
    Draining,
    /// An agent asks for its first certificate. The answer is [`ToGateway::Enrolled`].
    Enrol { request: RequestId, ask: EnrolRequest },
    /// An agent asks for a fresh certificate for the identity that it has proved on its connection. The answer is
    /// [`ToGateway::Renewed`].
    Renew { request: RequestId, ask: RenewRequest },
    /// The answer to [`ToGateway::Check`].
    Checked { request: RequestId, check: ShareCheck },
    /// The answer to [`ToGateway::Agents`].
    Agents { request: RequestId, agents: Vec<AgentShares> },
}

/// What a gateway says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayHello {
    pub versions: Versions,
    pub esp: EspMode,
    /// The address that remote sites dial; `None` without IPsec.
    pub public_address: Option<Ipv4Addr>,
    /// How many tunnels it can hold; `None`: as many as there are addresses for.
    pub max_tunnels: Option<u32>,
}

/// Shares of one agent in an answer: more than an agent of a usual site has, and few enough for a page of agents.
pub const SHARES_PER_AGENT: usize = 200;

/// A connected agent's shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentShares {
    pub agent: AgentId,
    /// Those of its environment, by id; the first [`SHARES_PER_AGENT`] of them.
    pub shares: Vec<(ShareId, AgentShareState)>,
}

/// A share's state, as an agent reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentShareState {
    /// The agent serves the newest generation.
    Serving,
    /// The newest generation was sent to the agent, or is about to be, and it has not answered.
    Pending,
    /// The agent refuses the newest generation; why.
    Refused(String),
    /// The agent serves the newest generation, and can't connect to the target; why.
    Unreachable(String),
}

/// What a gateway finds along a share's path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareCheck {
    /// The newest generation that is served at the ingress port.
    pub bound: Option<Generation>,
    pub listener_problem: Option<Problem>,
    /// The newest generation that a connected agent has acknowledged.
    pub acknowledged: Option<Generation>,
    pub agent_problem: Option<Problem>,
    /// How long the inspection of the listener took.
    pub listener_took: Duration,
    /// The last measured round trip to the nearest agent of the environment; `None` if none has answered.
    pub agent_took: Option<Duration>,
    /// The agent that has just reached the target, over one of its carriers; or why none has. `TargetUnreachable` is
    /// about the target, every other reason about the agents.
    pub dialled: Result<AgentId, Problem>,
    pub dial_took: Duration,
}

/// An agent whose control connection is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectedAgent {
    pub agent: AgentId,
    pub environment: EnvironmentId,
    /// The agent's own version and host name, as it gave them.
    pub version: String,
    pub name: String,
    /// Where the connection comes from.
    pub address: IpAddr,
}

/// What the server makes of a request for a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CertificateAnswer<T> {
    Granted(T),
    Refused(EnrolRefusal),
    /// The server can't answer now: the agent may ask again.
    Unavailable,
}

/// The server reads the agent's Frontdoor and environment from its database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    pub agent: AgentId,
    /// As in [`EnrolRequest`]: the key that the agent enrolled with.
    pub public_key: Vec<u8>,
}

#[cfg(test)]
mod tests;
