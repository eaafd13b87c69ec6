//! The end that dials a server's link port: a gateway, or another server.

use super::{
    dial::{builder, dial, of_purpose},
    error::TlsError,
    gateway::GatewayIdentity,
    link_port::ServerIdentity,
    link_stream::LinkStream,
    purpose::Purpose,
    verifier::{Dialled, PeerVerifier},
};
use crate::{
    control::Control,
    identity::Identity,
    trust::{CaCertificate, Fingerprint},
};
use rustls::{ClientConfig, client::ResolvesClientCert};
use std::sync::Arc;
use tokio::net::TcpStream;
use wicketgate_model::ServerId;

/// A gateway's end of its links. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LinkTls(Arc<ClientConfig>);

impl LinkTls {
    /// The gateway has the same certificate as on its agent port, also once it is renewed. Accepts servers of `ca`.
    pub fn new(ca: &CaCertificate, gateway: &GatewayIdentity) -> Result<Self, TlsError> {
        let config = builder(PeerVerifier::of_ca(Dialled::Server, ca)?)?
            .with_client_cert_resolver(gateway.shared_certificate() as Arc<dyn ResolvesClientCert>);
        Ok(Self(Arc::new(of_purpose(config, Purpose::Link))))
    }

    /// The handshake of a link. The caller bounds it. Only the server's first message shows that it has accepted the gateway's
    /// certificate.
    pub async fn connect(&self, tcp: TcpStream) -> Result<(ServerId, LinkStream), TlsError> {
        let stream = dial(Arc::clone(&self.0), Purpose::Link, tcp).await?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        match leaf.map(Identity::of_certificate) {
            Some(Ok(Identity::Server { server })) => Ok((server, LinkStream::new(stream))),
            _ => Err(TlsError::Peer),
        }
    }
}

/// A server's end of its connections to other servers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PeerTls(Arc<ClientConfig>);

impl PeerTls {
    /// The server has the same certificate as on its link port, also once it is renewed. Accepts servers of `ca`.
    pub fn new(ca: &CaCertificate, server: &ServerIdentity) -> Result<Self, TlsError> {
        let config = builder(PeerVerifier::of_ca(Dialled::Server, ca)?)?
            .with_client_cert_resolver(server.shared_certificate() as Arc<dyn ResolvesClientCert>);
        Ok(Self(Arc::new(of_purpose(config, Purpose::Peer))))
    }

    /// The handshake. The caller bounds it. Only the other server's answer shows that it has accepted the certificate.
    pub async fn connect(&self, tcp: TcpStream) -> Result<Control, TlsError> {
        dial(Arc::clone(&self.0), Purpose::Peer, tcp).await.map(Control::new)
    }
}

/// The first connection of a gateway, which has no certificate and trusts the CA whose fingerprint is in its token. The caller
/// bounds the handshake.
pub async fn connect_join(ca: Fingerprint, tcp: TcpStream) -> Result<Control, TlsError> {
    let config = builder(PeerVerifier::pinned(Dialled::Server, ca))?.with_no_client_auth();
    dial(Arc::new(of_purpose(config, Purpose::Join)), Purpose::Join, tcp).await.map(Control::new)
}
