//! Representations: JSON and HAL, query strings, durations, device configurations. Only the API knows the names of
//! properties; the file of each resource has the table of its properties.

use jiff::{SignedDuration, Timestamp};

/// How long deleted resources stay readable.
pub(super) const RETENTION: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Whether the retention of a row that was deleted at this time is over.
pub(super) fn is_past_retention(deleted_at: Option<Timestamp>) -> bool {
    deleted_at.is_some_and(|at| crate::state::now().duration_since(at) > RETENTION)
}

pub(super) mod agent;
pub(super) mod answer;
pub(super) mod api_account;
pub(super) mod body;
pub(super) mod check;
pub(super) mod closing;
pub(super) mod connection;
pub(super) mod connection_change;
pub(super) mod duration;
pub(super) mod enrollment_code;
pub(super) mod environment;
pub(super) mod etag;
pub(super) mod event;
pub(super) mod execution;
pub(super) mod fields;
pub(super) mod frontdoor;
#[cfg(any(test, fuzzing))]
mod fuzz;
pub(super) mod gateway;
pub(super) mod handover_link;
pub(super) mod ike_log;
pub(super) mod join_token;
pub(super) mod metrics;
pub(super) mod property;
pub(super) mod query;
pub(super) mod reset;
pub(super) mod schema;
pub(super) mod session;
pub(super) mod share;
pub(super) mod site;
pub(super) mod status_detail;
pub(super) mod token_request;
pub(super) mod tunnel;
pub(super) mod vpn_config;

#[cfg(any(test, fuzzing))]
pub use {
    etag::fuzz::entity_tags, fuzz::request_body, query::fuzz::list_query, vpn_config::fuzz::device_config,
};
