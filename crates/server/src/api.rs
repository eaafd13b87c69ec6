//! The REST API. `operations` lists every method and path, each resource has a file of its own, and formats are in
//! `wire`.
//!
//! Every answer of a path below `/frontdoor/v2` needs a token, or the cookie of the web console; [`access`] asks for it
//! before anything else. [`console`] has the console's files.

mod access;
mod act;
mod agents;
mod api_accounts;
mod checks;
mod conditional;
mod connection_history;
mod connections;
mod console;
mod edit;
mod endpoints;
mod enrollments;
mod environments;
mod events;
mod executions;
mod frontdoors;
mod gateways;
mod handover_links;
mod health;
pub(crate) mod idempotency;
mod ike_log;
mod index;
mod installation;
mod join_tokens;
mod lasting;
mod limits;
mod links;
mod locations;
mod metrics;
mod oauth;
mod observe;
mod openapi;
mod operation;
mod operations;
mod reasons;
mod refusal;
mod request_context;
mod resets;
mod retry;
mod sessions;
mod shares;
mod sign_in;
mod site;
mod tunnels;
mod unknown_agents;
mod unknown_peers;
mod vpn_config;
mod wire;

pub use operations::document;
pub use reasons::explained;
#[cfg(any(test, fuzzing))]
pub use wire::{device_config, entity_tags, list_query, request_body};

use crate::{error::ApiError, state::AppState};
use axum::{
    Router,
    handler::Handler as _,
    http::Uri,
    middleware::{from_fn, from_fn_with_state},
};
use observe::Observer;
use operation::{Access, Operation};
use operations::OPERATIONS;

/// All paths of the server.
pub fn router(state: AppState) -> Router {
    let strangers = from_fn_with_state(state.clone(), limits::strangers);
    let unknown = async |uri: Uri| ApiError::no_such_path(uri.path());
    let router = console::routes().layer(strangers.clone()).fallback(unknown.layer(strangers.clone()));
    let router = OPERATIONS.iter().fold(router, |router, operation| {
        let route = (operation.route)();
        let is_limited = is_of_strangers(operation);
        router.route(operation.path, if is_limited { route.layer(strangers.clone()) } else { route })
    });
    router
        .method_not_allowed_fallback(async |uri: Uri| ApiError::no_such_method(uri.path()))
        .layer(from_fn(limits::to_the_end))
        .layer(from_fn_with_state(state.clone(), idempotency::once))
        .layer(from_fn(conditional::reads))
        .layer(from_fn_with_state(Observer::of(&state), observe::observe))
        // Around all that answers: errors have links, too.
        .layer(from_fn_with_state(state.clone(), links::absolute))
        .with_state(state)
}

/// Whether requests of the operation have no principal that they could be counted by. Monitors and balancers have to see whether
/// the process lives and serves whatever others send from their address.
fn is_of_strangers(operation: &Operation) -> bool {
    matches!(operation.access, Access::Public) && !limits::PROBES.contains(&operation.path)
}
