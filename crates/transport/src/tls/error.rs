//! Errors of TLS connections.

use super::diagnosis::{Diagnosis, describe};
use std::io;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot use the certificate and the key")]
    OwnCertificate(rustls::Error),
    #[error("cannot use the certificate of the CA")]
    Ca,
    #[error("the TLS handshake failed: {}", describe(.0))]
    Handshake(io::Error),
    #[error("the peer speaks another protocol")]
    Protocol,
    #[error("the certificate of the peer does not match the purpose of the connection")]
    Peer,
}

impl TlsError {
    /// `None`: the peer is not the cause.
    pub fn diagnosis(&self) -> Option<Diagnosis> {
        match self {
            Self::Handshake(error) => Diagnosis::of(error),
            Self::Protocol => Some(Diagnosis::NothingInCommon),
            _ => None,
        }
    }
}

/// The library's error as tokio-rustls has it, too: [`Diagnosis::of`] finds it in there.
pub(super) fn broken(error: impl Into<rustls::Error>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.into())
}
