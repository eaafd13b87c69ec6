//! The API over a real store, without a gateway: what the reconciler would write is written by the tests.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on fails")]

mod access;
mod agents;
mod bodies;
mod environments;
mod executions;
mod frontdoors;
mod harness;
mod health;
mod lists;
mod metrics;
mod redact;
mod requests;
mod shares;
mod tunnels;
mod vpn_config;
