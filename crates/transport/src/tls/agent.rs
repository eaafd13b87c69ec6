//! The agent's end of its connections to a gateway's agent port.

use super::{
    certificate::LiveCertificate,
    error::{TlsError, broken},
    handshake::handshake,
    provider::provider,
    purpose::Purpose,
    verifier::GatewayVerifier,
};
use crate::{
    carrier::Carrier,
    control::Control,
    key::PrivateKey,
    trust::{CaCertificate, Fingerprint},
};
use rustls::{
    ClientConfig, ConfigBuilder,
    client::{ResolvesClientCert, Resumption, UnbufferedClientConnection, WantsClientCert},
    pki_types::ServerName,
};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// An enrolled agent's end of its connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AgentTls {
    control: Arc<ClientConfig>,
    carrier: Arc<ClientConfig>,
    certificate: Arc<LiveCertificate>,
}

impl AgentTls {
    /// `certificate`: the agent's own, DER, issued by `ca` for `key`.
    pub fn new(ca: &CaCertificate, key: PrivateKey, certificate: Vec<u8>) -> Result<Self, TlsError> {
        let certificate = Arc::new(LiveCertificate::new(key, certificate, None)?);
        let config = builder(GatewayVerifier::of_ca(ca)?)?
            .with_client_cert_resolver(Arc::clone(&certificate) as Arc<dyn ResolvesClientCert>);
        let mut carrier = of_purpose(config.clone(), Purpose::Carrier);
        carrier.enable_secret_extraction = true;
        let control = of_purpose(config, Purpose::Control);
        Ok(Self { control: Arc::new(control), carrier: Arc::new(carrier), certificate })
    }

    pub fn certificate(&self) -> &LiveCertificate {
        &self.certificate
    }

    /// The handshake of a control connection. The caller bounds it. Only the gateway's first message shows that it has
    /// accepted the agent's certificate.
    pub async fn connect_control(&self, tcp: TcpStream) -> Result<Control, TlsError> {
        connect(Arc::clone(&self.control), Purpose::Control, tcp).await
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
    let config = builder(GatewayVerifier::Pinned(ca))?.with_no_client_auth();
    connect(Arc::new(of_purpose(config, Purpose::Enrol)), Purpose::Enrol, tcp).await
}

async fn connect(config: Arc<ClientConfig>, purpose: Purpose, tcp: TcpStream) -> Result<Control, TlsError> {
    let stream = TlsConnector::from(config).connect(name()?, tcp).await.map_err(TlsError::Handshake)?;
    if stream.get_ref().1.alpn_protocol() == Some(purpose.alpn()) {
        Ok(Control::new(stream))
    } else {
        Err(TlsError::Protocol)
    }
}

/// The gateway is identified by the URI in its certificate; this name is neither checked nor sent.
fn name() -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from("gateway.invalid").map_err(|_| TlsError::Protocol)
}

pub(super) fn builder(
    gateways: GatewayVerifier,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::OwnCertificate)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(gateways)))
}

pub(super) fn of_purpose(mut config: ClientConfig, purpose: Purpose) -> ClientConfig {
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![purpose.alpn().to_vec()];
    config
}
