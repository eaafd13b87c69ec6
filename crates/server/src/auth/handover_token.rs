//! The tokens of handover links and of the sessions that they open: 256 random bits, shown once and stored as SHA-256.

use super::client_secret::{random, sha256};
use secrecy::{ExposeSecret, SecretString};

/// They let scanners of repositories and logs recognize them.
const LINK: &str = "wgh_";
const SESSION: &str = "wgp_";

#[derive(Debug)]
pub(crate) struct HandoverToken(SecretString);

impl HandoverToken {
    /// # Errors
    /// The system has no random bytes.
    pub(crate) fn of_link() -> Result<Self, getrandom::Error> {
        random(LINK).map(Self)
    }

    /// # Errors
    /// The system has no random bytes.
    pub(crate) fn of_session() -> Result<Self, getrandom::Error> {
        random(SESSION).map(Self)
    }

    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    pub(crate) fn sha256(&self) -> [u8; 32] {
        sha256(self.expose())
    }
}
