//! The flags of the roles, which `up` has together.

pub(crate) mod gateway;
mod oidc;
pub(crate) mod server;

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::net::TcpListener;

/// Time for a port to become free: the daemon that a killed gateway was just starting may hold it for a moment.
const FREE_WITHIN: Duration = Duration::from_secs(1);

pub(crate) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "must be an IP address and a port, like 127.0.0.1:8480 or [::1]:8480".to_owned())
}

pub(crate) async fn listen(address: SocketAddr, peers: &str, flag: &str) -> anyhow::Result<TcpListener> {
    let end = Instant::now() + FREE_WITHIN;
    let bound = loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < end => {
                tokio::time::sleep(FREE_WITHIN / 20).await;
            }
            bound => break bound,
        }
    };
    bound.with_context(|| {
        format!("cannot listen for {peers} on {address}: choose another address with {flag}")
    })
}
