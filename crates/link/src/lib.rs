//! The link between a server and a gateway: its messages, their encoding, and its ends, inside one process or over a stream of bytes.
//!
//! Messages are plain data: they hold no references into a process. Both ends first send a hello with the protocol
//! versions they speak ([`Versions`]); an end is handed its sender only when its hello is sent, and its receiver only
//! when the other end's hello has arrived ([`Handshake`]). Messages with many rows are cut into parts on their way ([`Parted`]). A request that expects an answer carries a [`RequestId`];
//! its sender keeps the waiting caller in [`Pending`].

pub mod codec;
mod digest;
mod ends;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod handshake;
mod in_process;
mod message;
mod part;
mod parts;
mod pending;
mod pump;
mod receiver;
mod version;
mod wire;

pub use digest::DigestedState;
pub use ends::{GatewayEnd, LinkKind, ServerEnd};
pub use handshake::{Handshake, HandshakeError};
pub use in_process::{in_process, in_process_encoded};
pub use message::{
    AgentShareState, AgentShares, CertificateAnswer, ConnectedAgent, FromGateway, GatewayHello, HeldState,
    IKE_LOG_LINES, IkeLogLine, LinkRefusal, RenewRequest, SHARES_PER_AGENT, ServerHello, ShareCheck,
    ToGateway, TunnelCheck, UNRECORDED_REPORTS,
};
pub use part::Part;
pub use parts::{Joiner, MissingPart, Parted, ROWS_OF_PART};
pub use pending::{Call, Pending, RequestId};
pub use pump::{LinkBroken, Pump, gateway_pump, in_process_over_wire, refuse, server_pump};
pub use receiver::LinkReceiver;
pub use version::{VERSIONS, VersionMismatch, Versions};
pub use wire::WireError;
