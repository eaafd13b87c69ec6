//! Networks to try the product in: namespaces joined by links, remote sites with a real strongSwan, and the
//! product's own processes. The demo runs in one, the tests run in many at once.
//!
//! Invariant: everything that a [`Lab`] makes outside its directory (a namespace, a process) is written into its
//! ledger *before* it exists, so that it can be removed however the program that made it ended, and nothing else
//! is ever removed. Its directory is its own from the start: a [`LabDirectory`].

mod api;
mod checkout;
mod directory;
mod forwarder;
pub mod history;
mod lab;
mod ledger;
mod named;
mod namespace;
pub mod npm;
mod own_postgres;
pub mod postgres;
mod process;
mod product;
mod program;
pub mod reference;
pub mod roles;
mod site;
mod unpacked;
mod wire;

pub use api::{Api, Reply};
pub use checkout::in_checkout;
pub use directory::{LabDirectory, Running, sweep};
pub use forwarder::Forwarder;
pub use lab::{Lab, Stopped};
pub use ledger::Swept;
pub use named::named;
pub use namespace::{End, Namespace};
pub use own_postgres::OwnPostgres;
pub use process::Process;
pub use product::{Agent, AgentOptions, GatewayOptions, GatewayProcess};
pub use program::run;
pub use site::Site;
pub use unpacked::unpacked;
pub use wire::Wire;
