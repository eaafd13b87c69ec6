//! Why a TLS connection failed, in terms of its operator: the library's messages are for programmers.
//!
//! Invariant: no text of the TLS library leaves this crate in a message; Debug still shows it.

use rustls::{AlertDescription as Alert, CertificateError as Certificate, Error, InvalidMessage};
use std::{
    io::{self, ErrorKind},
    time::Duration,
};

/// The cause of a failed TLS connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Diagnosis {
    #[error("the peer does not speak TLS")]
    NotTls,
    /// This machine's clock is behind the beginning of the certificate's validity, or ahead of its end, by so much.
    #[error("the certificate of the peer is not valid at this machine's time")]
    Clock { is_behind: bool, by: Duration },
    /// The certificate of the peer is not from the expected CA, or not of the role that was dialled.
    #[error("the peer is not the expected one: its certificate is of another authority or another role")]
    Stranger,
    #[error("the peer reports that the certificate has expired")]
    Expired,
    #[error("the peer rejects the certificate")]
    Refused,
    #[error("the peer supports no common TLS version or protocol")]
    NothingInCommon,
    #[error("the peer closed the connection without a reason")]
    Cut,
    #[error("the peer violated the TLS protocol")]
    Garbled,
}

impl Diagnosis {
    /// `None`: the error is one of the operating system.
    pub fn of(error: &io::Error) -> Option<Self> {
        let Some(tls) = error.get_ref().and_then(|e| e.downcast_ref::<Error>()) else {
            return (error.kind() == ErrorKind::UnexpectedEof).then_some(Self::Cut);
        };
        Some(match tls {
            Error::InvalidCertificate(Certificate::Expired) => Self::clock(false, 0, 0),
            Error::InvalidCertificate(Certificate::NotValidYet) => Self::clock(true, 0, 0),
            Error::InvalidCertificate(Certificate::ExpiredContext { time, not_after }) => {
                Self::clock(false, not_after.as_secs(), time.as_secs())
            }
            Error::InvalidCertificate(Certificate::NotValidYetContext { time, not_before }) => {
                Self::clock(true, time.as_secs(), not_before.as_secs())
            }
            Error::InvalidCertificate(_) => Self::Stranger,
            // What other protocols' first bytes look like.
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::MessageTooLarge
                | InvalidMessage::UnknownProtocolVersion,
            ) => Self::NotTls,
            Error::AlertReceived(Alert::CertificateExpired) => Self::Expired,
            Error::AlertReceived(
                Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::DecryptError,
            ) => Self::Refused,
            Error::AlertReceived(
                Alert::HandshakeFailure | Alert::ProtocolVersion | Alert::NoApplicationProtocol,
            )
            | Error::NoApplicationProtocol
            | Error::PeerIncompatible(_) => Self::NothingInCommon,
            _ => Self::Garbled,
        })
    }

    fn clock(is_behind: bool, earlier: u64, later: u64) -> Self {
        Self::Clock { is_behind, by: Duration::from_secs(later.saturating_sub(earlier)) }
    }
}

/// Describes the error without the TLS library's words.
pub(crate) fn describe(error: &io::Error) -> String {
    Diagnosis::of(error).map_or_else(|| error.to_string(), |fault| fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_librarys_messages_are_not_repeated() {
        for (tls, fault) in [
            (Error::InvalidMessage(InvalidMessage::InvalidContentType), Diagnosis::NotTls),
            (Certificate::BadSignature.into(), Diagnosis::Stranger),
            (Certificate::Expired.into(), Diagnosis::Clock { is_behind: false, by: Duration::ZERO }),
            (Error::AlertReceived(Alert::CertificateExpired), Diagnosis::Expired),
            (Error::AlertReceived(Alert::UnknownCA), Diagnosis::Refused),
            (Error::AlertReceived(Alert::NoApplicationProtocol), Diagnosis::NothingInCommon),
            (Error::General("https://docs.rs/".to_owned()), Diagnosis::Garbled),
        ] {
            let error = io::Error::new(ErrorKind::InvalidData, tls.clone());
            assert_eq!(Diagnosis::of(&error), Some(fault));
            assert!(!describe(&error).contains(&tls.to_string()), "{tls}");
        }
        let eof = io::Error::new(ErrorKind::UnexpectedEof, "see https://docs.rs/");
        assert_eq!(describe(&eof), Diagnosis::Cut.to_string());
        let refused = io::Error::from(ErrorKind::ConnectionRefused);
        assert_eq!((Diagnosis::of(&refused), describe(&refused)), (None, refused.to_string()));
    }
}
