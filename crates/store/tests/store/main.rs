//! The store on SQLite and, if it is installed, on PostgreSQL, with the same tests.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admin_token;
mod api_accounts;
mod archive;
mod damage;
mod database;
mod database_lock;
mod endpoints;
mod enrollments;
mod environment_gateways;
mod events;
mod executions;
mod frontdoors;
mod gateways;
mod handover_links;
mod installation;
mod join_tokens;
mod lists;
mod migration;
mod outage;
mod peer_addresses;
mod quotas;
mod random_rows;
mod reconcile;
mod revision;
mod secrets;
mod servers;
mod shared_secrets;
mod silent_gateways;
mod site;
mod tags;
mod tls;
mod traffic;
mod transfer;
mod tunnels_and_shares;
mod wakes;
