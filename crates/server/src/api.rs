//! The REST API: all paths in one flat list. Each resource has a file of its own; formats are in
//! `wire`.
//!
//! Every answer of a path below `/frontdoor/v2` needs a token; [`access`] asks for it before anything else.

mod access;
mod agents;
mod api_accounts;
mod checks;
mod conditional;
mod connection_history;
mod enrollments;
mod environments;
mod events;
mod executions;
mod frontdoors;
mod health;
pub(crate) mod idempotency;
mod locations;
mod metrics;
mod oauth;
mod observe;
mod openapi;
mod refusal;
mod retry;
mod shares;
mod tunnels;
mod vpn_config;
mod wire;

pub use openapi::document;

use crate::{error::ApiError, state::AppState};
use axum::{
    Router,
    http::Uri,
    middleware::{from_fn, from_fn_with_state},
    routing::{get, post},
};
use std::sync::Arc;

/// All paths of the server.
pub fn router(state: AppState) -> Router {
    Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/openapi.json", get(openapi::get))
        .route("/docs", get(openapi::page))
        .route("/oauth/token", post(oauth::token))
        .route("/.well-known/jwks.json", get(oauth::keys))
        .route("/frontdoor/v2/api-accounts", get(api_accounts::list).post(api_accounts::create))
        .route("/frontdoor/v2/api-accounts/{id}", get(api_accounts::get).delete(api_accounts::delete))
        .route("/frontdoor/v2/executions", get(executions::list_of_organization))
        .route("/frontdoor/v2/executions/{id}", get(executions::get_of_organization))
        .route("/frontdoor/v2", get(frontdoors::list).post(frontdoors::create))
        .route(
            "/frontdoor/v2/{frontdoorId}",
            get(frontdoors::get).patch(frontdoors::patch).delete(frontdoors::delete),
        )
        .route("/frontdoor/v2/{frontdoorId}/locations", get(locations::list))
        .route("/frontdoor/v2/{frontdoorId}/environments", get(environments::list))
        .route(
            "/frontdoor/v2/{frontdoorId}/environments/{id}",
            get(environments::get).patch(environments::patch).delete(environments::delete),
        )
        .route("/frontdoor/v2/{frontdoorId}/agents", get(agents::list))
        .route("/frontdoor/v2/{frontdoorId}/agents/enrollments", post(enrollments::create))
        .route("/frontdoor/v2/{frontdoorId}/agents/{id}", get(agents::get).delete(agents::delete))
        .route("/frontdoor/v2/{frontdoorId}/ipsec-tunnels", get(tunnels::list).post(tunnels::create))
        .route(
            "/frontdoor/v2/{frontdoorId}/ipsec-tunnels/{id}",
            get(tunnels::get).put(tunnels::put).patch(tunnels::patch).delete(tunnels::delete),
        )
        .route("/frontdoor/v2/{frontdoorId}/ipsec-tunnels/{id}/vpn-config", get(vpn_config::get))
        .route("/frontdoor/v2/{frontdoorId}/ipsec-tunnels/{id}/psk", post(tunnels::rotate_key))
        .route("/frontdoor/v2/{frontdoorId}/ipsec-tunnels/{id}/metrics", get(metrics::of_tunnel))
        .route(
            "/frontdoor/v2/{frontdoorId}/ipsec-tunnels/{id}/connection-history",
            get(connection_history::list),
        )
        .route("/frontdoor/v2/{frontdoorId}/ipsec-shares", get(shares::list).post(shares::create))
        .route(
            "/frontdoor/v2/{frontdoorId}/ipsec-shares/{id}",
            get(shares::get).put(shares::put).patch(shares::patch).delete(shares::delete),
        )
        .route("/frontdoor/v2/{frontdoorId}/ipsec-shares/{id}/check", post(checks::walk))
        .route("/frontdoor/v2/{frontdoorId}/ipsec-shares/{id}/metrics", get(metrics::of_share))
        .route("/frontdoor/v2/{frontdoorId}/executions", get(executions::list))
        .route("/frontdoor/v2/{frontdoorId}/executions/{id}", get(executions::get))
        .route("/frontdoor/v2/{frontdoorId}/events", get(events::follow))
        .fallback(async |uri: Uri| ApiError::no_such_path(uri.path()))
        .method_not_allowed_fallback(async |uri: Uri| ApiError::no_such_method(uri.path()))
        .layer(from_fn_with_state(state.clone(), idempotency::once))
        .layer(from_fn(conditional::reads))
        .layer(from_fn_with_state(Arc::clone(&state.metrics), observe::observe))
        .with_state(state)
}
