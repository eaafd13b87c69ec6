//! How the end that dials verifies the other one: by the chain to the authority's CA and the role in the certificate's URI, never by a
//! host name. An end that has no certificate yet finds the CA in the chain by the fingerprint in its code.
//!
//! Invariant: an agent accepts gateways only, and a gateway servers only: whoever has a gateway's key cannot play a server.

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
use wicketgate_model::GatewayId;

/// Who is dialled.
#[derive(Debug, Clone, Copy)]
pub(super) enum Dialled {
    Gateway,
    /// No other gateway of the authority.
    ThisGateway(GatewayId),
    Server,
}

/// See the module.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    dialled: Dialled,
    trust: Trust,
}

#[derive(Debug)]
enum Trust {
    Ca(RootCertStore),
    /// The CA is in the chain, and has this fingerprint.
    Pinned(Fingerprint),
}

impl PeerVerifier {
    /// Trusts those of one CA.
    pub(super) fn of_ca(dialled: Dialled, ca: &CaCertificate) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        roots.add(ca.certificate().clone()).map_err(|_| TlsError::Ca)?;
        Ok(Self { dialled, trust: Trust::Ca(roots) })
    }

    /// Trusts those of the CA with this fingerprint.
    pub(super) fn pinned(dialled: Dialled, ca: Fingerprint) -> Self {
        Self { dialled, trust: Trust::Pinned(ca) }
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned;
        let roots = match &self.trust {
            Trust::Ca(roots) => roots,
            Trust::Pinned(fingerprint) => {
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
        match (self.dialled, Identity::of_certificate(leaf)) {
            (Dialled::Gateway, Ok(Identity::Gateway { .. }))
            | (Dialled::Server, Ok(Identity::Server { .. })) => Ok(ServerCertVerified::assertion()),
            (Dialled::ThisGateway(this), Ok(Identity::Gateway { gateway })) if this == gateway => {
                Ok(ServerCertVerified::assertion())
            }
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
