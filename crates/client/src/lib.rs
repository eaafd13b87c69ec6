//! The client of the public API: authenticates, pages through lists, follows events, and turns every answer that is no
//! success into a [`Failure`] that says what to do.
//!
//! Resources are JSON values, so that a client and a server of different versions understand each other.

mod client;
mod events;
mod failure;
mod local_server;
mod page;

pub use client::{ApiClient, Credentials, Method, OwnedSecret};
pub use events::{Event, EventStream};
pub use failure::{ApiProblem, Failure, Fault};
