//! The way to the server's agent port: straight, or through a proxy.
//!
//! Invariant: TLS to the gateway is end to end on either way: a proxy moves its bytes and sees nothing in them.

use crate::{
    clock::{CURE, rounded},
    connect::{NoConnection, unnumbered},
    endpoint::CONNECT_WITHIN,
    names::Names,
    proxy::{Proxy, ProxyRefusal, Straight},
    server_address::ServerAddress,
    shortage::Shortage,
};
use anyhow::anyhow;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpStream, time::timeout};
use wicketgate_transport::{
    keepalive::keepalive,
    tls::{Diagnosis, TlsError},
};

/// An idle connection to a vanished host is detected within three times this; also keeps the state of middleboxes alive.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// For a proxy's answer, which may dial some addresses of the server before it.
const PROXY_WITHIN: Duration = Duration::from_secs(20);

/// See the module.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) server: ServerAddress,
    pub(crate) proxy: Result<Proxy, Straight>,
    pub(crate) names: Arc<Names>,
}

/// Why there is no TCP connection to the server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoRoute {
    #[error("cannot connect: {0}; check the address, that the gateway runs, and firewalls on the way")]
    Server(NoConnection),
    #[error(
        "cannot connect to the proxy {proxy}: {error}; check its address, and that a proxy listens there"
    )]
    Proxy { proxy: String, error: NoConnection },
    #[error(transparent)]
    Refused(#[from] ProxyRefusal),
    #[error("cannot set up the connection: {0}")]
    Socket(io::Error),
}

impl NoRoute {
    /// What the agent or its host has run out of, if that is the cause.
    pub(crate) fn shortage(&self) -> Option<Shortage> {
        match self {
            Self::Server(error) | Self::Proxy { error, .. } => error.shortage(),
            _ => None,
        }
    }
}

impl Route {
    /// A TCP connection to the server, or a proxy's to it.
    pub(crate) async fn connect(&self) -> Result<TcpStream, NoRoute> {
        let Ok(proxy) = &self.proxy else {
            let tcp = self.server.endpoint().connect(&self.names).await.map_err(NoRoute::Server)?;
            keepalive(&tcp, KEEPALIVE).map_err(NoRoute::Socket)?;
            return Ok(tcp);
        };
        let connected = proxy.endpoint().connect(&self.names).await;
        let mut tcp = connected.map_err(|error| NoRoute::Proxy { proxy: proxy.to_string(), error })?;
        keepalive(&tcp, KEEPALIVE).map_err(NoRoute::Socket)?;
        let asked = timeout(PROXY_WITHIN, proxy.ask_for(&mut tcp, self.server.endpoint())).await;
        match asked.unwrap_or_else(|_| Err(proxy.silent(self.server.endpoint()))) {
            Ok(()) => Ok(tcp),
            Err(refusal) => {
                if refusal.may_be_of_one_address() {
                    self.avoid(tcp.peer_addr().ok());
                }
                Err(refusal.into())
            }
        }
    }

    /// The address of this connection is dialled last from now on: behind it is no server, or the path to it passes no
    /// large packets.
    pub(crate) fn avoid(&self, address: Option<SocketAddr>) {
        let dialled = self.proxy.as_ref().map_or(self.server.endpoint(), Proxy::endpoint);
        if let Some(address) = address {
            self.names.failed(dialled.host(), unnumbered(address));
        }
    }

    /// Bounds a TLS handshake, and explains its failure in terms of the configured addresses, if they may be its cause.
    pub(crate) async fn handshake<T>(
        &self,
        handshake: impl Future<Output = Result<T, TlsError>>,
    ) -> Result<T, NoHandshake> {
        match timeout(CONNECT_WITHIN, handshake).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(NoHandshake { diagnosis: error.diagnosis(), error: self.explain(error) }),
            Err(_) => Err(NoHandshake { diagnosis: None, error: anyhow!("the TLS handshake timed out") }),
        }
    }

    fn explain(&self, error: TlsError) -> anyhow::Error {
        let server = &self.server;
        match (error.diagnosis(), &self.proxy) {
            (Some(Diagnosis::NotTls), _) => anyhow!(
                "the server at {server} does not speak TLS; use the port of --agent-listen (default 8443), not the API's"
            ),
            (Some(Diagnosis::NothingInCommon), _) => anyhow!(
                "{server} is not the agent port of a compatible gateway; use the port of --agent-listen (default 8443)"
            ),
            (Some(Diagnosis::Clock { is_behind: true, by }), _) => anyhow!(
                "the clock of this host is at least {} behind the server's, {server}, whose certificate is not valid yet: {CURE}",
                rounded(by.as_secs())
            ),
            (Some(Diagnosis::Clock { is_behind: false, by }), _) => anyhow!(
                "the certificate of {server} has expired {} ago by the clock of this host, which is ahead of the server's: {CURE}",
                rounded(by.as_secs())
            ),
            (Some(Diagnosis::Stranger), Ok(proxy)) => anyhow!(
                "{server} is not the server that the enrolment code is from, or that this agent enrolled with: check the address and the \
                 code. If they are right, the proxy {proxy} or a device behind it opens TLS: have {server} exempted from that"
            ),
            (Some(Diagnosis::Stranger), Err(_)) => anyhow!(
                "{server} is not the server that the enrolment code is from, or that this agent enrolled with: check the address; to \
                 move the agent there, start it with a new enrolment code of that server"
            ),
            (Some(Diagnosis::Cut), Ok(proxy)) => anyhow!(
                "the proxy {proxy} agreed to connect to {server} and closed the connection: see its log, and check that a \
                 gateway listens there"
            ),
            _ => error.into(),
        }
    }
}

/// A failed TLS handshake.
#[derive(Debug)]
pub(crate) struct NoHandshake {
    /// `None`: it timed out, or the peer is not the cause.
    pub(crate) diagnosis: Option<Diagnosis>,
    pub(crate) error: anyhow::Error,
}
