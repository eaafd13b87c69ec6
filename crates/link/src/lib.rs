//! The link between a server and a gateway: its messages, their encoding, and both ends inside one process.
//!
//! Messages are plain data and hold no references into a process. Both sides begin with a hello that states the
//! protocol versions they speak ([`Versions`]). A request that expects an answer carries a [`RequestId`]; the sender
//! keeps the waiting caller in [`Pending`].

pub mod codec;
mod in_process;
mod message;
mod pending;
mod version;

pub use in_process::{GatewayEnd, LinkReceiver, ServerEnd, in_process, in_process_encoded};
pub use message::{
    AgentShareState, AgentShares, CertificateAnswer, ConnectedAgent, FromGateway, GatewayHello, RenewRequest,
    SHARES_PER_AGENT, ShareCheck, ToGateway,
};
pub use pending::{Call, Pending, RequestId};
pub use version::{VERSIONS, VersionMismatch, Versions};
