//! TLS of the public API: the operator's own certificate, TLS 1.2 and 1.3, HTTP/1.1. Callers authenticate
//! with tokens, so no client certificate is requested.
//!
//! Invariant: an unusable pair of files never replaces a usable one.

use crate::background::{BackgroundTask, Outcome};
use anyhow::Context;
use jiff::Timestamp;
use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::info;
use wicketgate_system::{Latest, Mutex, TurnsToCompute};
use zeroize::Zeroizing;

/// Why a certificate and its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ApiTlsError {
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("{} contains no certificate in PEM", .0.display())]
    NoCertificate(PathBuf),
    #[error("{} contains no private key in PEM", .0.display())]
    NoKey(PathBuf),
    #[error("the certificate in {} and the key in {} do not match", certificate.display(), key.display())]
    NoPair { certificate: PathBuf, key: PathBuf, source: rustls::Error },
}

/// The API's certificate, its key, and the files that they come from.
pub struct ApiTls {
    acceptor: TlsAcceptor,
    turns: TurnsToCompute,
    certificate: PathBuf,
    key: PathBuf,
    live: Arc<Live>,
    /// What is in use.
    seen: Mutex<Files>,
}

#[derive(PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

/// The only provider of cryptography that is linked.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

struct Live(Latest<CertifiedKey>);

impl ApiTls {
    /// Reads the certificate with its chain, leaf first, and the key (PKCS #8, SEC 1 or PKCS #1), both PEM.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, ApiTlsError> {
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        let files = Files::read(&certificate, &key)?;
        let pair = files.pair(&certificate, &key)?;
        let live = Arc::new(Live(Latest::new(pair)));
        let no_pair =
            |source| ApiTlsError::NoPair { certificate: certificate.clone(), key: key.clone(), source };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(no_pair)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&live) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let turns = TurnsToCompute::for_half();
        Ok(Self { acceptor, turns, certificate, key, live, seen: Mutex::new(files) })
    }

    /// Reads the files, and uses what they hold from now on: `true` if that is something new. After an error the pair
    /// from before stays in use.
    pub fn reload(&self) -> Result<bool, ApiTlsError> {
        let files = Files::read(&self.certificate, &self.key)?;
        let mut seen = self.seen.lock();
        if *seen == files {
            return Ok(false);
        }
        let pair = files.pair(&self.certificate, &self.key)?;
        *seen = files;
        self.live.0.set(pair);
        Ok(true)
    }

    /// The handshake. The caller bounds it.
    pub async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.turns.of(self.acceptor.accept(stream)).await
    }
}

/// Uses new files of the API's certificate. Until they are valid, the certificate before stays in use.
#[derive(Debug)]
pub(crate) struct TlsReload(pub(crate) Arc<ApiTls>);

impl BackgroundTask for TlsReload {
    const NAME: &'static str = "api-certificate";
    const PERIOD: Duration = Duration::from_secs(5);
    /// Files may be on a slow network.
    const WITHIN: Duration = Duration::from_secs(30);

    async fn activate(&mut self, _now: Timestamp) -> anyhow::Result<Outcome> {
        let tls = Arc::clone(&self.0);
        let reloaded = tokio::task::spawn_blocking(move || tls.reload()).await?;
        if reloaded.context("the API's new certificate cannot be used; the one before stays in use")? {
            info!("the API's certificate was replaced");
        }
        Ok(Outcome::Done)
    }
}

impl Files {
    fn read(certificate: &Path, key: &Path) -> Result<Self, ApiTlsError> {
        let read = |path: &Path| fs::read(path).map_err(|e| ApiTlsError::Read(path.to_owned(), e));
        Ok(Self { certificate: read(certificate)?, key: read(key)?.into() })
    }

    fn pair(&self, certificate: &Path, key: &Path) -> Result<CertifiedKey, ApiTlsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.certificate).collect();
        let chain = chain.ok().filter(|c| !c.is_empty());
        let chain = chain.ok_or_else(|| ApiTlsError::NoCertificate(certificate.to_owned()))?;
        let private =
            PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| ApiTlsError::NoKey(key.to_owned()))?;
        CertifiedKey::from_der(chain, private, &provider())
            .and_then(|pair| pair.keys_match().map(|()| pair))
            .map_err(|source| ApiTlsError::NoPair {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
                source,
            })
    }
}

impl ResolvesServerCert for Live {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.get())
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Live(…)")
    }
}

impl fmt::Debug for ApiTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { certificate, key, .. } = self;
        f.debug_struct("ApiTls").field("certificate", certificate).field("key", key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, pki_types::ServerName};
    use tempfile::TempDir;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsConnector;

    struct Pair {
        dir: TempDir,
    }

    impl Pair {
        fn paths(&self) -> (PathBuf, PathBuf) {
            (self.dir.path().join("api.crt"), self.dir.path().join("api.key"))
        }

        /// Writes a new self-signed pair and returns its certificate.
        fn renew(&self) -> CertificateDer<'static> {
            let key = KeyPair::generate().unwrap();
            let certificate =
                CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
            let (certificate_path, key_path) = self.paths();
            fs::write(certificate_path, certificate.pem()).unwrap();
            fs::write(key_path, key.serialize_pem()).unwrap();
            certificate.der().clone()
        }
    }

    fn pair() -> (Pair, CertificateDer<'static>, ApiTls) {
        let pair = Pair { dir: TempDir::new().unwrap() };
        let certificate = pair.renew();
        let (certificate_path, key_path) = pair.paths();
        let tls = ApiTls::load(&certificate_path, &key_path).unwrap();
        (pair, certificate, tls)
    }

    /// Connects a client that trusts `root`. Returns the negotiated application protocol, or `None` on
    /// failure.
    async fn connects(
        tls: &ApiTls,
        root: &CertificateDer<'static>,
        version: &'static SupportedProtocolVersion,
    ) -> Option<Vec<u8>> {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let client = connector.connect(ServerName::try_from("localhost").unwrap(), tcp);
        let server = async { tls.accept(listener.accept().await.unwrap().0).await };
        let (client, _server) = tokio::join!(client, server);
        client.ok().and_then(|c| c.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
    }

    #[tokio::test]
    async fn both_tls_versions_are_supported() {
        let (_pair, certificate, tls) = pair();
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            assert_eq!(connects(&tls, &certificate, version).await.as_deref(), Some(b"http/1.1".as_slice()));
        }
    }

    #[tokio::test]
    async fn a_new_pair_is_used_and_an_invalid_one_is_not() {
        let (pair, first, tls) = pair();
        let version = &rustls::version::TLS13;
        assert!(!tls.reload().unwrap());
        let second = pair.renew();
        assert!(connects(&tls, &first, version).await.is_some());
        assert!(tls.reload().unwrap());
        assert!(connects(&tls, &first, version).await.is_none());
        assert!(connects(&tls, &second, version).await.is_some());

        let (certificate, key) = pair.paths();
        let good = fs::read(&certificate).unwrap();
        fs::write(&certificate, "not a certificate").unwrap();
        assert!(matches!(tls.reload(), Err(ApiTlsError::NoCertificate(_))));
        assert!(tls.reload().is_err(), "the error must persist until the files are valid");
        fs::write(&certificate, good).unwrap();
        fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
        assert!(matches!(tls.reload(), Err(ApiTlsError::NoPair { .. })));
        fs::remove_file(&key).unwrap();
        assert!(matches!(tls.reload(), Err(ApiTlsError::Read(..))));
        assert!(connects(&tls, &second, version).await.is_some());
        assert!(!format!("{tls:?}").contains("BEGIN"));
    }
}
