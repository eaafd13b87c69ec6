//! How an agent verifies a gateway: by the chain to its server's CA and the role in the certificate's URI, never by a
//! host name. An agent that has not enrolled yet finds the CA in the chain by the fingerprint in its code.

use super::{error::TlsError, provider::provider};
use crate::{
    identity::Identity,
    trust::{CaCertificate, Fingerprint},
};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::verify_tls13_signature,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

#[derive(Debug)]
pub(super) enum GatewayVerifier {
    Ca(RootCertStore),
    /// The CA is in the chain, and has this fingerprint.
    Pinned(Fingerprint),
}

impl GatewayVerifier {
    /// Trusts the gateways of one CA.
    pub(super) fn of_ca(ca: &CaCertificate) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        roots.add(ca.certificate().clone()).map_err(|_| TlsError::Ca)?;
        Ok(Self::Ca(roots))
    }
}

impl ServerCertVerifier for GatewayVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned;
        let roots = match self {
            Self::Ca(roots) => roots,
            Self::Pinned(fingerprint) => {
                let ca = chain.iter().find(|c| Fingerprint::of(c) == *fingerprint);
                let mut roots = RootCertStore::empty();
                roots.add(ca.ok_or(CertificateError::UnknownIssuer)?.clone().into_owned())?;
                pinned = roots;
                &pinned
            }
        };
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, &[], now, algorithms)?;
        match Identity::of_certificate(leaf) {
            Ok(Identity::Gateway { .. }) => Ok(ServerCertVerified::assertion()),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
