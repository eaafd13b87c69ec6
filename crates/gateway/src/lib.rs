//! The data plane: tunnels, the listeners of shares, and the agents behind them.
//!
//! Invariant: it needs the control plane only for changes; what it serves, it keeps serving.

pub mod agents;
mod capacity;
mod counters;
mod desired_applier;
mod desired_journal;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod gateway;
mod ground;
pub mod host_check;
pub mod ipsec;
mod listener;
mod observations;
mod open_connections;
mod paced_shares;
mod parts;
mod proxy_protocol;
mod quota;
mod removal_guard;
mod share_check;
mod state_key;
mod traffic_room;
mod traffic_spool;
mod tunnel;
mod uplink;
mod watches;

pub use desired_journal::DesiredJournal;
pub use gateway::{Gateway, GatewayConfig};
pub use ipsec::{Backend, GroundError, IpsecConfig, IpsecMode};
pub use state_key::state_keys;
pub use traffic_room::CONNECTION_RATE;
pub use uplink::{Dialler, LinkSource, ToKeep};
