//! The API over a real store, without a gateway: what the reconciler would write is written by the tests.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on fails")]

mod access;
mod agents;
mod api_accounts;
mod bodies;
mod checks;
mod conditional;
mod document;
mod environments;
mod events;
mod executions;
mod frontdoors;
mod harness;
mod health;
mod hostile;
mod idempotency;
mod lists;
mod metrics;
mod oauth;
mod oidc;
mod openapi_checker;
mod provider;
mod redact;
mod requests;
mod scopes;
mod share_options;
mod shares;
mod supersession;
mod tunnels;
mod vpn_config;

/// All of this binary once more, over the other database.
#[test]
fn everything_on_postgresql() {
    if !wicketgate_lab::postgres::rerun("everything_on_postgresql").unwrap() {
        eprintln!("skipped: PostgreSQL, or its user, is not installed (apt-get install postgresql)");
    }
}
