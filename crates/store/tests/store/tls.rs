//! PostgreSQL over a network: its certificate is verified.

use crate::database;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::fs;
use tempfile::TempDir;
use wicketgate_lab::postgres::TlsPostgres;
use wicketgate_store::StoreError;

struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::default());
        params.distinguished_name.push(DnType::CommonName, "Databases");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { certificate, issuer: Issuer::new(params, key) }
    }
}

#[tokio::test]
async fn the_certificate_of_a_database_is_verified() {
    let (ours, other) = (Authority::new(), Authority::new());
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &ours.issuer).unwrap().pem();
    let Some(server) = TlsPostgres::start(&certificate, &key.serialize_pem()).unwrap() else { return };
    let dir = TempDir::new().unwrap();
    let roots = |name: &str, authority: &Authority| {
        let path = dir.path().join(name);
        fs::write(&path, &authority.certificate).unwrap();
        path.display().to_string().replace('/', "%2F")
    };
    let (ours, other) = (roots("ours.pem", &ours), roots("other.pem", &other));
    let open = async |host: &str, options: String| {
        let place = format!("postgres://postgres@{host}:{}/postgres?{options}", server.port);
        database::open(&place, &dir).await
    };

    let store = open("localhost", format!("sslmode=verify-full&sslrootcert={ours}")).await.unwrap();
    store.ping().await.unwrap();
    store.close().await;
    // `sslmode=require` encrypts without verifying the certificate.
    open("127.0.0.1", "sslmode=require".to_owned()).await.unwrap().close().await;
    for (host, options) in [
        ("localhost", format!("sslmode=verify-full&sslrootcert={other}")),
        // The certificate has another name.
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={ours}")),
        // The server refuses connections without TLS.
        ("localhost", "sslmode=disable".to_owned()),
    ] {
        let refused = open(host, options.clone()).await;
        assert!(matches!(refused, Err(StoreError::Open(_))), "{options}: {refused:?}");
    }
}
