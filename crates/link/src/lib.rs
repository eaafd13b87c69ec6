//! The link between a server and a gateway: its messages, their encoding, and its ends, inside one process or over a stream of bytes.
//!
//! Messages are plain data: they hold no references into a process. Both ends first send a hello with the protocol
//! versions they speak ([`Versions`]); an end is handed its sender only when its hello is sent, and its receiver only
//! when the other end's hello has arrived ([`Handshake`]). A request that expects an answer carries a [`RequestId`];
//! its sender keeps the waiting caller in [`Pending`].

pub mod codec;
mod ends;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod handshake;
mod in_process;
mod message;
mod pending;
mod pump;
mod receiver;
mod version;
mod wire;

pub use ends::{GatewayEnd, ServerEnd};
pub use handshake::{Handshake, HandshakeError};
pub use in_process::{in_process, in_process_encoded};
pub use message::{
    AgentShareState, AgentShares, CertificateAnswer, ConnectedAgent, FromGateway, GatewayHello,
    IKE_LOG_LINES, IkeLogLine, RenewRequest, SHARES_PER_AGENT, ShareCheck, ToGateway, TunnelCheck,
    UNRECORDED_REPORTS,
};
pub use pending::{Call, Pending, RequestId};
pub use pump::{LinkBroken, Pump, gateway_pump, in_process_over_wire, server_pump};
pub use receiver::LinkReceiver;
pub use version::{VERSIONS, VersionMismatch, Versions};
pub use wire::WireError;
