//! The control plane: the REST API, authentication, and the reconciler that brings gateways to the desired state.

mod api;
pub mod auth;
mod authentication_failures;
mod background;
mod database_check;
mod database_ownership;
mod error;
mod event_feed;
mod external;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod gateways;
mod heartbeat;
mod link_port;
mod metric;
mod placement;
mod rate_limits;
mod reason_link;
mod retention;
mod revocation_journal;
mod serve;
mod server;
mod server_certificate;
mod shared_secrets;
mod site_desk;
mod state;
mod telemetry;
mod turns;

pub use api::{document, explained, router};
pub use background::{BackgroundTask, BackgroundTasks, LastRun, Outcome};
pub use external::{ExternalAddress, ExternalUrl, TrustedProxy};
pub use gateways::{GatewayDirectory, GatewayRpc, Gateways, LinkedGateway, SharedView};
pub use rate_limits::{RateSetting, Rates};
pub use revocation_journal::FILE as REVOCATIONS_FILE;
pub use serve::tls::{ApiTls, ApiTlsError};
pub use server::{GatewayLinks, LinkListener, Prepared, Server, ServerConfig};
pub use shared_secrets::replace_authority;
pub use state::{AppState, StateConfig, ensure_first_frontdoor};
