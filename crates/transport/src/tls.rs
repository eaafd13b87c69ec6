//! TLS 1.3 on the agent port: the gateway's end and the agent's end.
//!
//! The protocol name (ALPN, RFC 7301) states the purpose of a connection. Invariant: a control connection or a carrier
//! has an agent of this CA on one end and a gateway of this CA on the other; only the client of an enrolment has no
//! certificate.

pub(crate) mod diagnosis;
mod handshake;
mod record;
mod stream;
#[cfg(test)]
pub(crate) mod tests;
mod verifier;

use crate::{
    identity::{AgentIdentity, Identity},
    key::PrivateKey,
    trust::{CaCertificate, Fingerprint},
};
pub use diagnosis::Diagnosis;
use diagnosis::describe;
use handshake::handshake;
pub(crate) use record::{HEADER as RECORD_HEADER, MAX_PLAIN, RecordSealer, SLOT, TrafficKeys};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SignatureScheme,
    client::{ResolvesClientCert, Resumption, UnbufferedClientConnection},
    crypto::{
        CryptoProvider,
        aws_lc_rs::cipher_suite::{
            TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
        },
    },
    pki_types::{CertificateDer, ServerName},
    server::{ClientHello, ResolvesServerCert, UnbufferedServerConnection, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use std::{
    fmt, io,
    sync::{Arc, LazyLock},
};
pub use stream::TlsStream;
pub(crate) use stream::{Incoming, Next};
use tokio::net::TcpStream;
use verifier::GatewayVerifier;
use wicketgate_system::Latest;

/// The overhead of a record.
pub(crate) const MARGIN: usize = SLOT - MAX_PLAIN;

/// The purpose of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Enrol,
    Control,
    Carrier,
}

impl Purpose {
    const ALL: [Self; 3] = [Self::Enrol, Self::Control, Self::Carrier];

    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Enrol => b"wicketgate-enrol/1",
            Self::Control => b"wicketgate-control/1",
            Self::Carrier => b"wicketgate-carrier/1",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot use the certificate and the key")]
    OwnCertificate(rustls::Error),
    #[error("cannot use the certificate of the CA")]
    Ca,
    #[error("the TLS handshake failed: {}", describe(.0))]
    Handshake(io::Error),
    #[error("the peer speaks another protocol")]
    Protocol,
    #[error("the certificate of the peer does not match the purpose of the connection")]
    Peer,
}

/// Why a gateway was not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    #[error("the certificate of the peer is not valid at this machine's time")]
    Clock,
    /// Its certificate is not from the expected CA, or not a gateway's.
    #[error("the peer is not the expected gateway")]
    Stranger,
}

impl TlsError {
    /// `None`: the peer is not the cause.
    pub fn diagnosis(&self) -> Option<Diagnosis> {
        match self {
            Self::Handshake(error) => Diagnosis::of(error),
            Self::Protocol => Some(Diagnosis::NothingInCommon),
            _ => None,
        }
    }
}

/// A certificate and its key, replaced while connections go on.
pub struct LiveCertificate {
    key: PrivateKey,
    /// Sent after the leaf, so that an enrolling agent can compare the CA's fingerprint with its code.
    ca: Option<CertificateDer<'static>>,
    current: Latest<CertifiedKey>,
}

impl LiveCertificate {
    fn new(key: PrivateKey, leaf: Vec<u8>, ca: Option<&CaCertificate>) -> Result<Self, TlsError> {
        let ca = ca.map(|c| c.certificate().clone());
        let current = Latest::new(certified(&key, leaf, ca.as_ref())?);
        Ok(Self { key, ca, current })
    }

    /// The public key that a renewed certificate must be for.
    pub fn public_point(&self) -> Vec<u8> {
        self.key.public_point()
    }

    /// Uses the certificate (DER) for new connections. One for another key is an error and changes nothing.
    pub fn replace(&self, leaf: Vec<u8>) -> Result<(), TlsError> {
        self.current.set(certified(&self.key, leaf, self.ca.as_ref())?);
        Ok(())
    }
}

fn certified(
    key: &PrivateKey,
    leaf: Vec<u8>,
    ca: Option<&CertificateDer<'static>>,
) -> Result<CertifiedKey, TlsError> {
    let chain = [CertificateDer::from(leaf)].into_iter().chain(ca.cloned()).collect();
    let certified = CertifiedKey::from_der(chain, key.to_rustls(), &provider());
    let certified = certified.map_err(TlsError::OwnCertificate)?;
    certified.keys_match().map_err(TlsError::OwnCertificate)?;
    Ok(certified)
}

impl fmt::Debug for LiveCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LiveCertificate(…)")
    }
}

impl ResolvesServerCert for LiveCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.get())
    }
}

impl ResolvesClientCert for LiveCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current.get())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A gateway's identity on the agent port, and the CA whose agents it accepts. Cheap to clone.
#[derive(Clone)]
pub struct GatewayIdentity {
    config: Arc<ServerConfig>,
    certificate: Arc<LiveCertificate>,
}

/// A connection whose client has presented the certificate that its purpose requires.
#[derive(Debug)]
pub enum Accepted {
    /// The client has no identity yet.
    Enrol(Box<TlsStream>),
    Control(AgentIdentity, Box<TlsStream>),
    Carrier(AgentIdentity, Box<TlsStream>),
}

impl GatewayIdentity {
    /// `certificate`: the gateway's own, DER, issued by `ca` for `key`.
    pub fn new(ca: &CaCertificate, key: PrivateKey, certificate: Vec<u8>) -> Result<Self, TlsError> {
        let certificate = Arc::new(LiveCertificate::new(key, certificate, Some(ca))?);
        let mut roots = RootCertStore::empty();
        roots.add(ca.certificate().clone()).map_err(|_| TlsError::Ca)?;
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .allow_unauthenticated()
            .build()
            .map_err(|_| TlsError::Ca)?;
        let mut config = ServerConfig::builder_with_provider(agent_provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::OwnCertificate)?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::clone(&certificate) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = Purpose::ALL.iter().map(|p| p.alpn().to_vec()).collect();
        config.enable_secret_extraction = true;
        // Carriers are reused; a ticket would cost memory and would have to be revoked, too.
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), certificate })
    }

    /// The gateway's certificate, to be replaced when it is renewed.
    pub fn certificate(&self) -> &LiveCertificate {
        &self.certificate
    }

    /// The handshake. The caller bounds it.
    pub async fn accept(&self, mut tcp: TcpStream) -> Result<Accepted, TlsError> {
        let end = UnbufferedServerConnection::new(Arc::clone(&self.config)).map_err(failed)?;
        let done = handshake(end, &mut tcp).await.map_err(TlsError::Handshake)?;
        let purpose = Purpose::ALL.into_iter().find(|p| done.alpn.as_deref() == Some(p.alpn()));
        let identity = match &done.leaf {
            Some(leaf) => Some(Identity::of_certificate(leaf).map_err(|_| TlsError::Peer)?),
            None => None,
        };
        let stream = Box::new(TlsStream::new(tcp, done).map_err(TlsError::Handshake)?);
        match (purpose, identity) {
            (Some(Purpose::Enrol), None) => Ok(Accepted::Enrol(stream)),
            (Some(Purpose::Control), Some(Identity::Agent(agent))) => Ok(Accepted::Control(agent, stream)),
            (Some(Purpose::Carrier), Some(Identity::Agent(agent))) => Ok(Accepted::Carrier(agent, stream)),
            (Some(_), _) => Err(TlsError::Peer),
            (None, _) => Err(TlsError::Protocol),
        }
    }
}

impl fmt::Debug for GatewayIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GatewayIdentity(…)")
    }
}

/// An enrolled agent's end of its connections. Cheap to clone.
#[derive(Clone)]
pub struct AgentTls {
    control: Arc<ClientConfig>,
    carrier: Arc<ClientConfig>,
    certificate: Arc<LiveCertificate>,
}

impl AgentTls {
    /// `certificate`: the agent's own, DER, issued by `ca` for `key`.
    pub fn new(ca: &CaCertificate, key: PrivateKey, certificate: Vec<u8>) -> Result<Self, TlsError> {
        let certificate = Arc::new(LiveCertificate::new(key, certificate, None)?);
        let gateways = Arc::new(GatewayVerifier::of_ca(ca, provider())?);
        let mut config = client_builder()?
            .dangerous()
            .with_custom_certificate_verifier(gateways)
            .with_client_cert_resolver(Arc::clone(&certificate) as Arc<dyn ResolvesClientCert>);
        prepare(&mut config);
        let of = |purpose: Purpose| {
            let mut config = config.clone();
            config.alpn_protocols = vec![purpose.alpn().to_vec()];
            Arc::new(config)
        };
        Ok(Self { control: of(Purpose::Control), carrier: of(Purpose::Carrier), certificate })
    }

    pub fn certificate(&self) -> &LiveCertificate {
        &self.certificate
    }

    /// The handshake of a control connection. The caller bounds it. Only the gateway's first message shows that it has
    /// accepted the agent's certificate.
    pub async fn connect_control(&self, tcp: TcpStream) -> Result<TlsStream, TlsError> {
        connect(&self.control, Purpose::Control, tcp).await
    }

    /// The handshake of a carrier, like [`Self::connect_control`].
    pub async fn connect_carrier(&self, tcp: TcpStream) -> Result<TlsStream, TlsError> {
        connect(&self.carrier, Purpose::Carrier, tcp).await
    }
}

impl fmt::Debug for AgentTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentTls(…)")
    }
}

/// The first connection of an agent, which has no certificate and trusts the CA whose fingerprint is in its code.
/// `short` is [`Fingerprint::short`]. The caller bounds the handshake.
pub async fn connect_enrol(short: [u8; Fingerprint::SHORT], tcp: TcpStream) -> Result<TlsStream, TlsError> {
    let mut config = client_builder()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(GatewayVerifier::pinned(short, provider())))
        .with_no_client_auth();
    prepare(&mut config);
    config.alpn_protocols = vec![Purpose::Enrol.alpn().to_vec()];
    connect(&Arc::new(config), Purpose::Enrol, tcp).await
}

/// Settings of all connections of an agent.
fn prepare(config: &mut ClientConfig) {
    config.enable_sni = false;
    config.enable_secret_extraction = true;
    config.resumption = Resumption::disabled();
}

async fn connect(
    config: &Arc<ClientConfig>,
    purpose: Purpose,
    mut tcp: TcpStream,
) -> Result<TlsStream, TlsError> {
    // The gateway is identified by the URI in its certificate; this name is neither checked nor sent.
    let name = ServerName::try_from("gateway.invalid").map_err(|_| TlsError::Protocol)?;
    let end = UnbufferedClientConnection::new(Arc::clone(config), name).map_err(failed)?;
    let done = handshake(end, &mut tcp).await.map_err(TlsError::Handshake)?;
    if done.alpn.as_deref() == Some(purpose.alpn()) {
        TlsStream::new(tcp, done).map_err(TlsError::Handshake)
    } else {
        Err(TlsError::Protocol)
    }
}

fn failed(error: rustls::Error) -> TlsError {
    TlsError::Handshake(broken(error))
}

fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn client_builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, TlsError> {
    ClientConfig::builder_with_provider(agent_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::OwnCertificate)
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// For the agent port, where both ends are Wicketgate's.
fn agent_provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        // The first is the fastest with AES instructions; TLS 1.3 has no weak cipher suite.
        provider.cipher_suites =
            vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
        Arc::new(provider)
    });
    Arc::clone(&PROVIDER)
}
