//! The certificate of a gateway or an agent, renewed while its connections continue.

use super::{error::TlsError, provider::provider};
use crate::{key::PrivateKey, trust::CaCertificate};
use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    pki_types::CertificateDer,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{fmt, sync::Arc};
use wicketgate_system::Latest;

/// A certificate and its key, replaced while connections go on.
pub struct LiveCertificate {
    key: PrivateKey,
    /// Sent after the leaf, so that an enrolling agent can compare the CA's fingerprint with its code.
    ca: Option<CertificateDer<'static>>,
    current: Latest<CertifiedKey>,
}

impl LiveCertificate {
    pub(super) fn new(key: PrivateKey, leaf: Vec<u8>, ca: Option<&CaCertificate>) -> Result<Self, TlsError> {
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
