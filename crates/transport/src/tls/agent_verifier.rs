//! How a gateway verifies an agent: by the chain to its server's CA, and by the date.
//!
//! Invariant: an expired agent is named only from a certificate that the CA has signed. Anyone with a copy of that certificate can
//! present it, so the name does not prove who connects.

use crate::identity::{AgentIdentity, Identity};
use jiff::Timestamp;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use std::sync::Arc;
use wicketgate_system::Mutex;

/// An agent that was refused because its certificate has expired by the clock of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpiredAgent {
    pub identity: AgentIdentity,
    pub expired_at: Timestamp,
}

/// See the module.
#[derive(Debug)]
pub(super) struct AgentVerifier {
    verifier: Arc<dyn ClientCertVerifier>,
    /// The last one. Agents try again all the time, so that of several none is passed over for long.
    expired: Mutex<Option<ExpiredAgent>>,
}

impl AgentVerifier {
    /// `verifier` knows the CA.
    pub(super) fn new(verifier: Arc<dyn ClientCertVerifier>) -> Self {
        Self { verifier, expired: Mutex::default() }
    }

    /// The one that was refused since the last call.
    pub(super) fn take_expired(&self) -> Option<ExpiredAgent> {
        self.expired.lock().take()
    }

    /// Without the CA's signature anyone could say so of any agent, and the library looks at the date first.
    fn note_expired(&self, leaf: &CertificateDer<'_>, chain: &[CertificateDer<'_>], not_after: UnixTime) {
        let was_valid = self.verifier.verify_client_cert(leaf, chain, not_after).is_ok();
        let expired_at = i64::try_from(not_after.as_secs()).ok().and_then(|s| Timestamp::from_second(s).ok());
        if let (true, Some(expired_at), Ok(Identity::Agent(identity))) =
            (was_valid, expired_at, Identity::of_certificate(leaf))
        {
            *self.expired.lock() = Some(ExpiredAgent { identity, expired_at });
        }
    }
}

impl ClientCertVerifier for AgentVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.verifier.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.verifier.verify_client_cert(leaf, chain, now);
        if let Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) = &verified
        {
            self.note_expired(leaf, chain, *not_after);
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
