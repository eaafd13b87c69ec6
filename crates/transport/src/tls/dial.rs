//! What all connections have in common at the end that dials.

use super::{error::TlsError, provider::provider, purpose::Purpose, verifier::PeerVerifier};
use rustls::{
    ClientConfig, ConfigBuilder,
    client::{Resumption, WantsClientCert},
    pki_types::ServerName,
};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The handshake. The caller bounds it.
pub(super) async fn dial(
    config: Arc<ClientConfig>,
    purpose: Purpose,
    tcp: TcpStream,
) -> Result<TlsStream<TcpStream>, TlsError> {
    let stream = TlsConnector::from(config).connect(name()?, tcp).await.map_err(TlsError::Handshake)?;
    if stream.get_ref().1.alpn_protocol() == Some(purpose.alpn()) {
        Ok(stream)
    } else {
        Err(TlsError::Protocol)
    }
}

/// The other end is identified by the URI in its certificate; this name is neither checked nor sent.
pub(super) fn name() -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from("gateway.invalid").map_err(|_| TlsError::Protocol)
}

pub(super) fn builder(
    verifier: PeerVerifier,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::OwnCertificate)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier)))
}

pub(super) fn of_purpose(mut config: ClientConfig, purpose: Purpose) -> ClientConfig {
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    config.alpn_protocols = Purpose::names(&[purpose]);
    config
}
