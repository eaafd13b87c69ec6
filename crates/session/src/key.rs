//! A private key of a CA, a gateway or an agent: ECDSA on P-256.
//!
//! Invariant: the key leaves this type only to a file of mode 0600 and to the TLS library; `Debug` never shows it.

use crate::private_file;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::{fmt, fs, io, path::Path};
use zeroize::Zeroizing;

pub struct PrivateKey(KeyPair);

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("can't make a key")]
    Generate(#[source] rcgen::Error),
    #[error("{0} is not a P-256 key in PEM")]
    Parse(String),
    #[error("can't read or write {0}")]
    Io(String, #[source] io::Error),
}

impl PrivateKey {
    pub fn generate() -> Result<Self, KeyError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Self).map_err(KeyError::Generate)
    }

    /// The key in the file, or a fresh one, in the file (0600) before it is returned.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        let failed = |e| KeyError::Io(path.display().to_string(), e);
        match fs::read_to_string(path).map(Zeroizing::new) {
            Ok(pem) => {
                return Self::from_pem(&pem).ok_or_else(|| KeyError::Parse(path.display().to_string()));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(e)),
        }
        let key = Self::generate()?;
        let pem = Zeroizing::new(key.0.serialize_pem());
        match private_file::create(path, pem.as_bytes()) {
            Ok(()) => Ok(key),
            // Another process was first: its key is the key.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let pem = fs::read_to_string(path).map(Zeroizing::new).map_err(failed)?;
                Self::from_pem(&pem).ok_or_else(|| KeyError::Parse(path.display().to_string()))
            }
            Err(e) => Err(failed(e)),
        }
    }

    fn from_pem(pem: &str) -> Option<Self> {
        let key = KeyPair::from_pem(pem).ok()?;
        key.is_compatible(&PKCS_ECDSA_P256_SHA256).then_some(Self(key))
    }

    /// The public key: an uncompressed point (SEC 1 §2.3.3), 65 bytes.
    pub fn public_point(&self) -> Vec<u8> {
        self.0.der_bytes().to_vec()
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.0
    }

    pub(crate) fn to_rustls(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.serialize_der()))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        let made = PrivateKey::load_or_create(&path).unwrap().public_point();
        assert_eq!((made.len(), made[0]), (65, 4));
        assert_eq!(PrivateKey::load_or_create(&path).unwrap().public_point(), made);
        fs::write(&path, "not a key").unwrap();
        assert!(PrivateKey::load_or_create(&path).is_err());
    }
}
