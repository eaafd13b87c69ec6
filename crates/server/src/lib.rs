//! The control plane: the REST API, who may use it, and the reconciler that makes true what was asked for.

pub mod api;
pub mod auth;
mod claim;
mod error;
pub mod feed;
pub mod gateway_status;
mod link;
pub mod questions;
mod reconciler;
mod serve;
mod server;
pub mod state;
pub mod telemetry;

pub use reconciler::LastRun;
pub use serve::tls::{ApiTls, ApiTlsError};
pub use server::{Prepared, Server, ServerConfig};
