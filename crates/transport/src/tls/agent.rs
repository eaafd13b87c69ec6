//! The agent's end of its connections to a gateway's agent port.

use super::{
    certificate::LiveCertificate,
    dial::{builder, dial, name, of_purpose},
    error::{TlsError, broken},
    handshake::handshake,
    purpose::Purpose,
    verifier::{Dialled, PeerVerifier},
};
use crate::{
    carrier::Carrier,
    control::Control,
    identity::Identity,
    key::PrivateKey,
    trust::{CaCertificate, Fingerprint},
};
use rustls::{
    ClientConfig,
    client::{ResolvesClientCert, UnbufferedClientConnection},
};
use std::sync::Arc;
use tokio::net::TcpStream;
use wicketgate_model::GatewayId;

/// An enrolled agent's end of its connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AgentTls {
    ca: CaCertificate,
    control: Arc<ClientConfig>,
    carrier: Arc<ClientConfig>,
    certificate: Arc<LiveCertificate>,
}

impl AgentTls {
    /// `certificate`: the agent's own, DER, issued by `ca` for `key`.
    pub fn new(ca: &CaCertificate, key: PrivateKey, certificate: Vec<u8>) -> Result<Self, TlsError> {
        Self::to(Dialled::Gateway, ca.clone(), Arc::new(LiveCertificate::new(key, certificate, None)?))
    }

    /// The same, with the same certificate also once it is renewed, for connections to this gateway only.
    pub fn for_gateway(&self, gateway: GatewayId) -> Result<Self, TlsError> {
        Self::to(Dialled::ThisGateway(gateway), self.ca.clone(), Arc::clone(&self.certificate))
    }

    fn to(dialled: Dialled, ca: CaCertificate, certificate: Arc<LiveCertificate>) -> Result<Self, TlsError> {
        let config = builder(PeerVerifier::of_ca(dialled, &ca)?)?
            .with_client_cert_resolver(Arc::clone(&certificate) as Arc<dyn ResolvesClientCert>);
        let mut carrier = of_purpose(config.clone(), Purpose::Carrier);
        carrier.enable_secret_extraction = true;
        let control = of_purpose(config, Purpose::Control);
        Ok(Self { ca, control: Arc::new(control), carrier: Arc::new(carrier), certificate })
    }

    pub fn certificate(&self) -> &LiveCertificate {
        &self.certificate
    }

    /// The handshake of a control connection. The caller bounds it. Only the gateway's first message shows that it has
    /// accepted the agent's certificate.
    pub async fn connect_control(&self, tcp: TcpStream) -> Result<Control, TlsError> {
        self.connect_named(tcp).await.map(|(_, control)| control)
    }

    /// [`Self::connect_control`], and which gateway it is.
    pub async fn connect_named(&self, tcp: TcpStream) -> Result<(GatewayId, Control), TlsError> {
        let stream = dial(Arc::clone(&self.control), Purpose::Control, tcp).await?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        match leaf.map(Identity::of_certificate) {
            Some(Ok(Identity::Gateway { gateway })) => Ok((gateway, Control::new(stream))),
            _ => Err(TlsError::Peer),
        }
    }

    /// The handshake of a carrier, like [`Self::connect_control`].
    pub async fn connect_carrier(&self, tcp: TcpStream) -> Result<Carrier, TlsError> {
        let end = UnbufferedClientConnection::new(Arc::clone(&self.carrier), name()?)
            .map_err(|error| TlsError::Handshake(broken(error)))?;
        let done = handshake(end, Vec::new(), tcp, None).await.map_err(TlsError::Handshake)?;
        if done.alpn.as_deref() == Some(Purpose::Carrier.alpn()) {
            Ok(Carrier::new(done.stream))
        } else {
            Err(TlsError::Protocol)
        }
    }
}

/// The first connection of an agent, which has no certificate and trusts the CA whose fingerprint is in its code.
/// The caller bounds the handshake.
pub async fn connect_enrol(ca: Fingerprint, tcp: TcpStream) -> Result<Control, TlsError> {
    let config = builder(PeerVerifier::pinned(Dialled::Gateway, ca))?.with_no_client_auth();
    dial(Arc::new(of_purpose(config, Purpose::Enrol)), Purpose::Enrol, tcp).await.map(Control::new)
}
