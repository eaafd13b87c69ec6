//! The store on SQLite and, where it is installed, on PostgreSQL: the same tests, the same answers.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod api_accounts;
mod database;
mod database_lock;
mod enrollments;
mod events;
mod frontdoors;
mod lists;
mod migration;
mod outage;
mod reconcile;
mod site;
mod tls;
mod traffic;
mod tunnels_and_shares;
