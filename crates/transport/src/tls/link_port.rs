//! The server's end of the link port.

use super::{
    certificate::LiveCertificate, error::TlsError, link_stream::LinkStream, provider::provider,
    purpose::Purpose,
};
use crate::{
    control::Control,
    identity::{Identity, PresentedGateway},
    key::PrivateKey,
    trust::CaCertificate,
};
use rustls::{
    RootCertStore, ServerConfig,
    server::{ResolvesServerCert, WebPkiClientVerifier},
};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use wicketgate_model::ServerId;

/// A server's identity on the link port, and the CA whose gateways it accepts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ServerIdentity {
    config: Arc<ServerConfig>,
    certificate: Arc<LiveCertificate>,
}

/// A connection whose client has presented the certificate that its purpose requires.
#[derive(Debug)]
pub enum LinkAccepted {
    /// The gateway has no identity yet.
    Join(Control),
    /// The gateway is of this CA. Whether it may link with this key is the database's decision.
    Link(PresentedGateway, LinkStream),
    /// The server is of this CA.
    Peer(ServerId, Control),
}

impl ServerIdentity {
    /// `certificate`: the server's own, DER, issued by `ca` for `key`.
    pub fn new(ca: &CaCertificate, key: PrivateKey, certificate: Vec<u8>) -> Result<Self, TlsError> {
        let certificate = Arc::new(LiveCertificate::new(key, certificate, Some(ca))?);
        let mut roots = RootCertStore::empty();
        roots.add(ca.certificate().clone()).map_err(|_| TlsError::Ca)?;
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .allow_unauthenticated()
            .build()
            .map_err(|_| TlsError::Ca)?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::OwnCertificate)?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::clone(&certificate) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = Purpose::names(&Purpose::OF_LINKS);
        // A resumed session would not present the certificate again.
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), certificate })
    }

    /// The server's certificate, to be replaced when it is renewed.
    pub fn certificate(&self) -> &LiveCertificate {
        &self.certificate
    }

    /// The handshake. The caller bounds it.
    pub async fn accept(&self, tcp: TcpStream) -> Result<LinkAccepted, TlsError> {
        let stream = TlsAcceptor::from(Arc::clone(&self.config)).accept(tcp).await;
        let stream = stream.map_err(TlsError::Handshake)?;
        let end = stream.get_ref().1;
        let purpose =
            Purpose::OF_LINKS.into_iter().find(|purpose| Some(purpose.alpn()) == end.alpn_protocol());
        let leaf = end.peer_certificates().and_then(<[_]>::first);
        match (purpose.ok_or(TlsError::Protocol)?, leaf) {
            (Purpose::Join, None) => Ok(LinkAccepted::Join(Control::of_agent(stream))),
            (Purpose::Link, Some(leaf)) => {
                let gateway = PresentedGateway::of_certificate(leaf).map_err(|_| TlsError::Peer)?;
                Ok(LinkAccepted::Link(gateway, LinkStream::new(stream)))
            }
            (Purpose::Peer, Some(leaf)) => match Identity::of_certificate(leaf) {
                Ok(Identity::Server { server }) => Ok(LinkAccepted::Peer(server, Control::new(stream))),
                _ => Err(TlsError::Peer),
            },
            _ => Err(TlsError::Peer),
        }
    }

    /// As which it dials other servers.
    pub(super) fn shared_certificate(&self) -> Arc<LiveCertificate> {
        Arc::clone(&self.certificate)
    }
}
