//! The domain of Wicketgate, pure: no async, no clock, no randomness, no IO. Time and fresh ids are arguments.
//!
//! A value of these types is valid by construction: parsing checks every rule that does not depend on other rows.

mod agent_report;
mod assignment;
pub mod base64_text;
mod connection;
mod continuity;
mod declare;
mod desired;
mod endpoints;
mod enrolment;
mod esp_mode;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod gateway_list;
mod generation;
mod handover;
mod ids;
mod invalid;
mod join;
mod load_balancer;
mod network;
mod observed;
mod options;
mod peer_claim;
mod peer_id;
mod placement;
mod problem;
mod proposal;
mod quota;
mod reset;
mod secret;
mod status;
mod target;
mod text;
mod traffic;
mod unknown_agent;
mod unknown_peer;

pub use agent_report::{AgentFinding, AgentReport, FindingResult};
pub use assignment::{Assignment, EXPIRED_ASSIGNMENT, OLDER_ASSIGNMENT, SignedAssignment};
pub use connection::{
    Algorithms, ChildSa, Connection, ConnectionDoubt, ConnectionError, ConnectionFault, ConnectionState,
    ConnectionWarning, InnerProtocol, Nat, Peer, Rekeys, SaTimes, TrafficSelectors, UnservedPort,
};
pub use continuity::ConnectionContinuity;
pub use desired::{AgentDesired, Desired, DesiredDelta, DesiredDigest, ShareDesired, Touched, TunnelDesired};
pub use endpoints::{EndpointView, Redundancy, combined};
pub use enrolment::{EnrolGrant, EnrolRefusal, EnrolRequest};
pub use esp_mode::EspMode;
pub use gateway_list::{DialledGateway, GatewayList, SignedGatewayList};
pub use generation::{Era, Generation};
pub use handover::{MaxUses, Passphrase};
pub use ids::{
    AgentId, ApiAccountId, EnrollmentId, EnvironmentId, EnvironmentKey, ExecutionId, FrontdoorId, GatewayId,
    HandoverLinkId, JoinTokenId, ServerId, ShareId, TunnelId, ZId,
};
pub use invalid::Invalid;
pub use join::{JoinGrant, JoinRefusal, JoinRequest};
pub use load_balancer::{LoadBalancerIp, LoadBalancerPool, LoadBalancerPools};
pub use network::{IngressPort, PeerAddress, PeerCidr, one_client};
pub use observed::{Observed, ObservedDelta, ShareObserved, TunnelObserved};
pub use options::{
    AllowedSources, HealthCheck, HealthCheckType, IdleTimeout, MaxConnections, ProbeInterval, ProxyProtocol,
    ShareOptions, SourceCidr,
};
pub use peer_claim::{PROOF_LASTS, PeerClaim, PeerHold, UNPROVED_LASTS};
pub use peer_id::{IdentityType, PeerId};
pub use placement::{GatewayLoad, PlacedEndpoint, PlacementStep, place, placement_step};
pub use problem::{Detail, Problem, Reason};
pub use proposal::{Encryption, EspProposal, EspProposals, Group, Hash, IkeProposal, IkeProposals};
pub use quota::{QuotaKind, QuotaLimit, QuotaSetting, Quotas};
pub use reset::{ResetMode, ResetScope};
pub use secret::PreSharedKey;
pub use status::{Deadlines, Flapping, Observation, Standing, Status, next};
pub use target::{Host, Target};
pub use text::*;
pub use traffic::{DialTimes, FailureReason, SpooledTraffic, TrafficDelta, Unanswered};
pub use unknown_agent::UnknownAgent;
pub use unknown_peer::UnknownPeer;
