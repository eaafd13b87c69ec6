//! One of the things that are compared.

use std::net::SocketAddr;

/// A path to the targets.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) sink: SocketAddr,
    pub(crate) source: SocketAddr,
    pub(crate) echo: SocketAddr,
    pub(crate) answer: SocketAddr,
    /// The addresses over which many idle connections are spread evenly.
    pub(crate) echoes: Vec<SocketAddr>,
    /// The ids of its processes. Clients connect to the first.
    pub(crate) pids: Vec<u32>,
}
