//! Tests of the API with a real store and no gateway: the tests write what the reconciler would write.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod access;
mod agents;
mod api_accounts;
mod audit;
mod bodies;
mod checks;
mod conditional;
mod connections;
mod database_faults;
mod document;
mod environments;
mod events;
mod executions;
mod frontdoors;
mod gateways;
mod handover_links;
mod harness;
mod health;
mod held_connections;
mod hostile;
mod idempotency;
mod ike_log;
mod installation;
mod link_port;
mod lists;
mod metrics;
mod oauth;
mod oidc;
mod openapi_checker;
mod outage;
mod peer_addresses;
mod provider;
mod quotas;
mod rate_limits;
mod reasons;
mod redact;
mod redundancy;
mod requests;
mod resets;
mod reverse_proxy;
mod scopes;
mod serving;
mod sessions;
mod share_options;
mod shared_secrets;
mod shares;
mod sign_in;
mod site_page;
mod supersession;
mod tunnels;
mod vpn_config;

/// Runs all tests of this binary again, with PostgreSQL.
#[test]
fn everything_on_postgresql() {
    if !wicketgate_lab::postgres::rerun("everything_on_postgresql").unwrap() {
        eprintln!("skipped: PostgreSQL or its system user is missing (apt-get install postgresql)");
    }
}
