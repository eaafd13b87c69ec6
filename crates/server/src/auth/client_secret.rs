//! The secret of an API account: 256 random bits, shown once and stored as SHA-256.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// Lets scanners of repositories and logs recognize it, and distinguishes it from a JWT.
const PREFIX: &str = "wgs_";

#[derive(Debug)]
pub struct ClientSecret(SecretString);

impl ClientSecret {
    /// # Errors
    /// The system has no random bytes.
    pub fn generate() -> Result<Self, getrandom::Error> {
        random(PREFIX).map(Self)
    }

    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    pub fn sha256(&self) -> [u8; 32] {
        sha256(self.expose())
    }

    /// Whether a token has the form of a client secret.
    pub fn is_like(token: &str) -> bool {
        token.starts_with(PREFIX)
    }
}

/// 256 random bits after a prefix.
pub(super) fn random(prefix: &str) -> Result<SecretString, getrandom::Error> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)?;
    Ok(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random)).into())
}

/// The hash of a secret that a caller presents.
pub(crate) fn sha256(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_random_and_never_printed() {
        let (a, b) = (ClientSecret::generate().unwrap(), ClientSecret::generate().unwrap());
        assert!(ClientSecret::is_like(a.expose()) && a.expose().len() == 47 && a.expose() != b.expose());
        assert_eq!(a.sha256(), sha256(a.expose()));
        assert!(!format!("{a:?}").contains(a.expose()));
    }
}
