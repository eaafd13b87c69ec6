//! The gateway's end of the agent port.

use super::{
    agent_verifier::{AgentVerifier, ExpiredAgent},
    certificate::LiveCertificate,
    error::{TlsError, broken},
    handshake::handshake,
    provider::provider,
    purpose::Purpose,
};
use crate::{
    carrier::Carrier, control::Control, identity::PresentedAgent, key::PrivateKey, trust::CaCertificate,
};
use bytes::BufMut as _;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::CertificateDer,
    server::{
        Acceptor, ResolvesServerCert, UnbufferedServerConnection, WebPkiClientVerifier,
        danger::ClientCertVerifier,
    },
};
use std::{
    io::{self, Cursor, ErrorKind},
    sync::Arc,
};
use tokio::{
    io::{AsyncReadExt as _, join},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;
use wicketgate_system::PatientThreads;

/// The longest ClientHello. One of an agent has less than 2 KiB.
const MAX_HELLO: usize = 16 * 1024;
/// Bytes of a ClientHello that are read at once: as many as the TLS library's reader takes.
const READ: usize = 4 * 1024;

/// A gateway's identity on the agent port, and the CA whose agents it accepts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct GatewayIdentity {
    config: Arc<ServerConfig>,
    certificate: Arc<LiveCertificate>,
    agents: Arc<AgentVerifier>,
    /// Where the handshakes of carriers compute; `None`: where they are polled.
    threads: Option<PatientThreads>,
}

/// A connection whose client has presented the certificate that its purpose requires.
#[derive(Debug)]
pub enum Accepted {
    /// The client has no identity yet.
    Enrol(Control),
    Control(PresentedAgent, Control),
    Carrier(PresentedAgent, Carrier),
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
        let agents = Arc::new(AgentVerifier::new(clients));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::OwnCertificate)?
            .with_client_cert_verifier(Arc::clone(&agents) as Arc<dyn ClientCertVerifier>)
            .with_cert_resolver(Arc::clone(&certificate) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = Purpose::names(&Purpose::OF_AGENTS);
        // Of carriers.
        config.enable_secret_extraction = true;
        // Carriers are reused; a ticket would cost memory and would have to be revoked, too.
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), certificate, agents, threads: None })
    }

    /// Has the handshakes of carriers compute on `threads`: an agent makes as many carriers as its customers have connections, and
    /// those of one do not delay the streams of others.
    #[must_use]
    pub fn computing_on(self, threads: PatientThreads) -> Self {
        Self { threads: Some(threads), ..self }
    }

    /// The gateway's certificate, to be replaced when it is renewed.
    pub fn certificate(&self) -> &LiveCertificate {
        &self.certificate
    }

    /// For the gateway's other connections.
    pub(super) fn shared_certificate(&self) -> Arc<LiveCertificate> {
        Arc::clone(&self.certificate)
    }

    /// An agent that was refused since the last call, because its certificate has expired.
    pub fn take_expired(&self) -> Option<ExpiredAgent> {
        self.agents.take_expired()
    }

    /// The handshake. The caller bounds it.
    pub async fn accept(&self, mut tcp: TcpStream) -> Result<Accepted, TlsError> {
        let (hello, purpose) = client_hello(&mut tcp).await.map_err(TlsError::Handshake)?;
        if let Some(purpose @ (Purpose::Enrol | Purpose::Control)) = purpose {
            return self.accept_control(purpose, hello, tcp).await;
        }
        let end = UnbufferedServerConnection::new(Arc::clone(&self.config))
            .map_err(|error| TlsError::Handshake(broken(error)))?;
        let done = handshake(end, hello, tcp, self.threads.as_ref()).await.map_err(TlsError::Handshake)?;
        same(purpose, done.alpn.as_deref())?;
        match (purpose, agent(done.leaf.as_ref())?) {
            (Some(Purpose::Carrier), Some(agent)) => Ok(Accepted::Carrier(agent, Carrier::new(done.stream))),
            (Some(_), _) => Err(TlsError::Peer),
            (None, _) => Err(TlsError::Protocol),
        }
    }

    async fn accept_control(
        &self,
        purpose: Purpose,
        hello: Vec<u8>,
        tcp: TcpStream,
    ) -> Result<Accepted, TlsError> {
        let (read, write) = tcp.into_split();
        let tcp = join(Cursor::new(hello).chain(read), write);
        let stream = TlsAcceptor::from(Arc::clone(&self.config)).accept(tcp).await;
        let stream = stream.map_err(TlsError::Handshake)?;
        same(Some(purpose), stream.get_ref().1.alpn_protocol())?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        match (purpose, agent(leaf)?) {
            (Purpose::Enrol, None) => Ok(Accepted::Enrol(Control::of_agent(stream))),
            (Purpose::Control, Some(agent)) => Ok(Accepted::Control(agent, Control::of_agent(stream))),
            _ => Err(TlsError::Peer),
        }
    }
}

/// Checks that the handshake agreed on the purpose that the ClientHello stated: after a HelloRetryRequest, a second one
/// may state another.
fn same(purpose: Option<Purpose>, alpn: Option<&[u8]>) -> Result<(), TlsError> {
    match purpose {
        Some(purpose) if alpn != Some(purpose.alpn()) => Err(TlsError::Protocol),
        _ => Ok(()),
    }
}

fn agent(leaf: Option<&CertificateDer<'_>>) -> Result<Option<PresentedAgent>, TlsError> {
    leaf.map(PresentedAgent::of_certificate).transpose().map_err(|_| TlsError::Peer)
}

/// Reads the ClientHello, which states the purpose. No purpose: it names none, or it is no ClientHello; the handshake
/// with these bytes then fails with the cause and sends the alert.
async fn client_hello(tcp: &mut TcpStream) -> io::Result<(Vec<u8>, Option<Purpose>)> {
    let (mut hello, mut acceptor) = (Vec::with_capacity(READ), Acceptor::default());
    while hello.len() < MAX_HELLO {
        let before = hello.len();
        if tcp.read_buf(&mut (&mut hello).limit(READ)).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        acceptor.read_tls(&mut &hello[before..])?;
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let offered: Vec<_> = accepted.client_hello().alpn().into_iter().flatten().collect();
                let purpose =
                    Purpose::OF_AGENTS.into_iter().find(|purpose| offered.contains(&purpose.alpn()));
                return Ok((hello, purpose));
            }
            Err(_) => break,
        }
    }
    Ok((hello, None))
}
