//! The link between a server and a gateway: what each tells the other.
//!
//! `wicketgate up` joins the two ends in one process.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};
use wicketgate_model::{
    AgentId, DesiredDelta, EnrolRefusal, EnrollmentId, EnvironmentId, EspMode, FrontdoorId, GatewayId,
    Generation, LocationId, ObservedDelta, Problem, ShareId, TrafficDelta, ZId,
};

/// Messages that may wait on either end. A gateway that is slow to take the next delta makes the server wait;
/// since a delta is made from what was last told, nothing piles up behind it.
const CAPACITY: usize = 64;

/// The server's end of a link.
#[derive(Debug)]
pub struct ServerEnd {
    pub gateway: GatewayId,
    pub location: LocationId,
    pub send: mpsc::Sender<ToGateway>,
    pub receive: mpsc::Receiver<FromGateway>,
}

/// The gateway's end of a link.
#[derive(Debug)]
pub struct GatewayEnd {
    pub send: mpsc::Sender<FromGateway>,
    pub receive: mpsc::Receiver<ToGateway>,
}

/// Both ends of a link inside one process.
pub fn in_process(gateway: GatewayId, location: LocationId) -> (ServerEnd, GatewayEnd) {
    let (to_gateway, from_server) = mpsc::channel(CAPACITY);
    let (to_server, from_gateway) = mpsc::channel(CAPACITY);
    (
        ServerEnd { gateway, location, send: to_gateway, receive: from_gateway },
        GatewayEnd { send: to_server, receive: from_server },
    )
}

#[derive(Debug)]
pub enum ToGateway {
    /// What changed in what the gateway should serve. The first one of a link has `reset` set.
    Desired {
        /// Counts the deltas of this link from 1.
        sequence: u64,
        delta: DesiredDelta,
    },
    /// A look along a share's path, with a dial of its target. Answered within 15 s.
    Check(ShareId, oneshot::Sender<ShareCheck>),
    /// What these agents have said of their shares. Answered at once, for those that are connected here.
    Agents(Vec<AgentId>, oneshot::Sender<Vec<AgentSight>>),
}

/// Shares of one agent in an answer: more than an agent of a usual site has, and few enough for a page of agents.
pub const SHARES_TOLD: usize = 200;

/// A connected agent's view, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSight {
    pub agent: AgentId,
    /// Those of its environment, by id; the first [`SHARES_TOLD`] of them.
    pub shares: Vec<(ShareId, ShareSight)>,
}

/// How an agent has a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShareSight {
    /// It serves the newest generation.
    Serving,
    /// It was told of the newest generation, or is about to be, and has not answered.
    Pending,
    /// It refuses the newest generation; why.
    Refused(String),
    /// It serves the newest generation, and can't connect to the target; why.
    Unreachable(String),
}

/// What a gateway finds when it looks along a share's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareCheck {
    /// The newest generation that is served at the ingress port.
    pub bound: Option<Generation>,
    pub listener_problem: Option<Problem>,
    /// The newest generation that a connected agent has acknowledged.
    pub acknowledged: Option<Generation>,
    pub agent_problem: Option<Problem>,
    /// How long the look at the listener took.
    pub listener_took: Duration,
    /// From the gateway to the agent and back, when it was last asked; of the nearest agent of the environment. `None`
    /// while none has answered.
    pub agent_took: Option<Duration>,
    /// The agent that has just reached the target, over one of its carriers; or why none has. `TargetUnreachable`
    /// speaks of the target, every other reason of the agents.
    pub dialled: Result<AgentId, Problem>,
    pub dial_took: Duration,
}

#[derive(Debug)]
pub enum FromGateway {
    /// How many carriers are parked at the gateway now.
    Carriers { parked: usize },
    /// The gateway is about to end: it serves nothing new from now on, and still tells what it carries.
    Draining,
    /// The first message of a link.
    Hello(GatewayHello),
    /// What changed in what the gateway sees. The answer to a `reset` has `reset` set.
    Observed {
        /// The newest delta that the gateway had applied when it looked. What that delta removed and this report
        /// does not name any more is gone; without it, silence could mean that the gateway has not heard yet.
        heard: u64,
        delta: ObservedDelta,
    },
    /// An agent's control connection came up at this gateway.
    AgentConnected(ConnectedAgent),
    /// It is gone.
    AgentDisconnected(AgentId),
    /// What shares carried since the last such message.
    Traffic(Vec<TrafficDelta>),
    /// An agent asks for its first certificate. A dropped reply channel means that the server can't answer now.
    Enrol(EnrolRequest, oneshot::Sender<Result<EnrolGrant, EnrolRefusal>>),
    /// An agent asks for a fresh certificate for the identity that it has proved on the connection.
    Renew(RenewRequest, oneshot::Sender<Result<Vec<u8>, EnrolRefusal>>),
}

/// What a gateway says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayHello {
    /// Where ESP is done: `kernel`, `userland` or `off`.
    pub esp: EspMode,
    /// The address that remote sites dial; `None` without IPsec.
    pub public_address: Option<Ipv4Addr>,
    /// How many tunnels it can hold; `None`: as many as there are addresses for.
    pub max_tunnels: Option<u32>,
}

/// An agent whose control connection is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectedAgent {
    pub agent: AgentId,
    pub environment: EnvironmentId,
    /// The agent's own version and host name, as it gave them.
    pub version: String,
    pub name: String,
    /// Where the connection comes from.
    pub address: IpAddr,
}

pub struct EnrolRequest {
    pub enrollment: EnrollmentId,
    /// The code's secret part.
    pub secret: Vec<u8>,
    /// The agent's public key: an uncompressed P-256 point (SEC 1 §2.3.3), 65 bytes.
    pub public_key: Vec<u8>,
    /// The agent's host name: what a new environment is called until somebody names it.
    pub name: String,
}

impl fmt::Debug for EnrolRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnrolRequest({}, …)", self.enrollment)
    }
}

#[derive(Debug, Clone)]
pub struct EnrolGrant {
    pub agent: AgentId,
    pub environment: EnvironmentId,
    pub frontdoor: FrontdoorId,
    pub z_id: ZId,
    /// DER.
    pub certificate: Vec<u8>,
    /// DER.
    pub ca_certificate: Vec<u8>,
}

/// Whose the agent is, the server knows itself.
#[derive(Debug)]
pub struct RenewRequest {
    pub agent: AgentId,
    /// As in [`EnrolRequest`]: the key that the agent enrolled with.
    pub public_key: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_to_enrol_does_not_show_its_secret() {
        let (gateway, location) = (GatewayId::new(uuid::Uuid::nil()), "local".parse().unwrap());
        let (mut server, end) = in_process(gateway, location);
        let request = EnrolRequest {
            enrollment: EnrollmentId::new(uuid::Uuid::nil()),
            secret: vec![201, 202, 203],
            public_key: Vec::new(),
            name: String::new(),
        };
        end.send.try_send(FromGateway::Enrol(request, oneshot::channel().0)).unwrap();
        let shown = format!("{:?}", server.receive.try_recv().unwrap());
        assert!(shown.contains("EnrolRequest") && !shown.contains("201"), "{shown}");
    }
}
