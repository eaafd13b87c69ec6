//! The links between agent, gateway and server.

pub mod link;
