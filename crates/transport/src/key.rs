//! A private key of a CA, a gateway or an agent: ECDSA on P-256.
//!
//! Invariant: the key leaves this type only to a file of mode 0600 and to the TLS library; `Debug` never shows it.

use aws_lc_rs::{
    error::Unspecified,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use std::{fmt, fs, io, path::Path};
use wicketgate_system::{if_exists, private_file};
use zeroize::Zeroizing;

pub struct PrivateKey {
    pair: EcdsaKeyPair,
    /// RFC 5208, DER.
    pkcs8: Zeroizing<Vec<u8>>,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot generate a key")]
    Generate(#[source] Unspecified),
    #[error("{0} is not a P-256 key in PEM")]
    Parse(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl PrivateKey {
    pub fn generate() -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(KeyError::Generate)?;
        let pkcs8 = pair.to_pkcs8v1().map_err(KeyError::Generate)?;
        Ok(Self { pair, pkcs8: Zeroizing::new(pkcs8.as_ref().to_vec()) })
    }

    /// Loads the key from the file, or generates one and saves it (mode 0600) before it is returned.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        let pem = private_file::load_or_create(path, || Ok::<_, KeyError>(Self::generate()?.to_pem()))?;
        Self::from_pem(&Zeroizing::new(pem)).ok_or_else(|| KeyError::Parse(path.display().to_string()))
    }

    /// Loads the key from the file; `None` if there is no file.
    pub fn load(path: &Path) -> Result<Option<Self>, KeyError> {
        let Some(pem) = if_exists(fs::read(path).map(Zeroizing::new))? else { return Ok(None) };
        Self::from_pem(&pem).map(Some).ok_or_else(|| KeyError::Parse(path.display().to_string()))
    }

    fn from_pem(pem: &[u8]) -> Option<Self> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).ok()?;
        let pkcs8 = Zeroizing::new(der.secret_pkcs8_der().to_vec());
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8).ok()?;
        Some(Self { pair, pkcs8 })
    }

    fn to_pem(&self) -> Zeroizing<String> {
        let body = Zeroizing::new(STANDARD.encode(&*self.pkcs8));
        let mut pem = Zeroizing::new(String::with_capacity(body.len() + 64));
        pem.push_str("-----BEGIN PRIVATE KEY-----\n");
        // RFC 7468 §2: lines of 64 characters.
        for (n, letter) in body.chars().enumerate() {
            if n > 0 && n % 64 == 0 {
                pem.push('\n');
            }
            pem.push(letter);
        }
        pem.push_str("\n-----END PRIVATE KEY-----\n");
        pem
    }

    /// The public key: an uncompressed point (SEC 1 §2.3.3), 65 bytes.
    pub fn public_point(&self) -> Vec<u8> {
        self.pair.public_key().as_ref().to_vec()
    }

    /// PKCS #8 (RFC 5208), DER, for the certificate library.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    pub(crate) fn to_rustls(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8.to_vec()))
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
    fn a_key_is_saved_and_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        let made = PrivateKey::load_or_create(&path).unwrap().public_point();
        assert_eq!((made.len(), made[0]), (65, 4));
        assert_eq!(PrivateKey::load_or_create(&path).unwrap().public_point(), made);
        fs::write(&path, "not a key").unwrap();
        assert!(PrivateKey::load_or_create(&path).is_err());
    }
}
