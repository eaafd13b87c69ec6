//! The public part of the server's authority: its certificate, fingerprint and signatures.

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use serde::de::DeserializeOwned;
use std::{array, fmt};
use wicketgate_model::{Assignment, GatewayList, SignedAssignment, SignedGatewayList};

/// The first 160 bits of the SHA-256 of a CA's certificate in DER: enough against second preimages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fingerprint(pub(crate) [u8; Self::LENGTH]);

impl Fingerprint {
    pub(crate) const LENGTH: usize = 20;

    pub fn of(der: &[u8]) -> Self {
        let hash = sha256(der);
        Self(array::from_fn(|n| hash[n]))
    }
}

impl fmt::Display for Fingerprint {
    /// In hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// The certificate of a server's CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaCertificate(CertificateDer<'static>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    #[error("not a certificate")]
    NotACertificate,
    #[error("not signed by the server")]
    BadSignature,
    #[error("signed by the server, but this version cannot parse it")]
    NotAnAssignment,
    #[error(
        "signed by the server, but this version cannot parse it: install the version of the server on this host"
    )]
    NotAGatewayList,
}

impl CaCertificate {
    /// Takes the certificate (DER) from a trusted source: the local disk, or an authenticated server.
    pub fn from_der(der: Vec<u8>) -> Result<Self, TrustError> {
        let der = CertificateDer::from(der);
        webpki::anchor_from_trusted_cert(&der).map_err(|_| TrustError::NotACertificate)?;
        Ok(Self(der))
    }

    pub fn der(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.0
    }

    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.0)
    }

    /// The assignment, if this CA has signed it.
    pub fn verify(&self, signed: &SignedAssignment) -> Result<Assignment, TrustError> {
        let SignedAssignment { body, signature } = signed;
        self.read((body, SignedAssignment::signed_bytes(body)), signature, TrustError::NotAnAssignment)
    }

    /// The list of gateways, if this CA has signed it.
    pub fn verify_gateways(&self, signed: &SignedGatewayList) -> Result<GatewayList, TrustError> {
        let SignedGatewayList { body, signature } = signed;
        self.read((body, SignedGatewayList::signed_bytes(body)), signature, TrustError::NotAGatewayList)
    }

    /// What the body says, if this CA has signed the bytes; `unread`: it says nothing that this version knows.
    fn read<T: DeserializeOwned>(
        &self,
        (body, bytes): (&str, Vec<u8>),
        signature: &[u8],
        unread: TrustError,
    ) -> Result<T, TrustError> {
        // Only the public key of the certificate is used: no path is built.
        let ca = webpki::EndEntityCert::try_from(&self.0).map_err(|_| TrustError::NotACertificate)?;
        ca.verify_signature(webpki::aws_lc_rs::ECDSA_P256_SHA256, &bytes, signature)
            .map_err(|_| TrustError::BadSignature)?;
        serde_json::from_str(body).map_err(|_| unread)
    }
}
