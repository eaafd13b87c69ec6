//! Why a proxy does not connect the agent to the server: what happened, and what to do.

use std::{io, path::PathBuf};

/// A refusal, with the proxy and the server that it is about.
#[derive(Debug, thiserror::Error)]
#[error("{}", .refusal.said(.proxy, .server))]
pub(crate) struct ProxyRefusal {
    pub(super) proxy: String,
    pub(super) server: String,
    pub(super) refusal: Refusal,
}

impl ProxyRefusal {
    /// Another address of the proxy's name may do better.
    pub(crate) fn may_be_of_one_address(&self) -> bool {
        matches!(self.refusal, Refusal::Cut | Refusal::Broken(_) | Refusal::Silent | Refusal::NotSpoken(_))
    }
}

#[derive(Debug)]
pub(super) enum Refusal {
    /// The file of the password, and why it cannot be used.
    PasswordFile(PathBuf, String),
    LoginRequired,
    LoginRefused,
    /// The methods that the proxy offers instead.
    LoginUnsupported(String),
    Forbidden(Option<u16>),
    /// The proxy has not reached the server, and how it says so.
    Unreached(String),
    /// Another HTTP status.
    Status(u16),
    /// Another reply of SOCKS5.
    Reply(u8),
    /// The protocol that is not spoken.
    NotSpoken(&'static str),
    Cut,
    Broken(io::Error),
    Silent,
}

impl Refusal {
    pub(super) fn of(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                Self::Cut
            }
            _ => Self::Broken(error),
        }
    }

    fn said(&self, proxy: &str, server: &str) -> String {
        match self {
            Self::PasswordFile(path, fault) => {
                format!("cannot use the password of the proxy {proxy} in {}: {fault}", path.display())
            }
            Self::LoginRequired => format!(
                "the proxy {proxy} requires a user and a password: write the user into its URL and the password into \
                 a file for --proxy-password-file"
            ),
            Self::LoginRefused => format!(
                "the proxy {proxy} refuses the user or the password: correct the user in its URL, or the password"
            ),
            Self::LoginUnsupported(methods) => format!(
                "the proxy {proxy} authenticates by {methods} only, and the agent by user and password: have the proxy \
                 permit that, or this host without authentication"
            ),
            Self::Forbidden(status) => {
                let by = status.map_or_else(String::new, |status| format!(" (HTTP status {status})"));
                format!(
                    "the proxy {proxy} does not permit connections to {server}{by}: have its rules permit this host, this \
                     host name and this port"
                )
            }
            Self::Unreached(how) => format!(
                "the proxy {proxy} does not reach {server} ({how}): check the server's address, and that the proxy's host \
                 finds and reaches it"
            ),
            Self::Status(status) => format!(
                "the proxy {proxy} answers CONNECT with HTTP status {status}: check that it is a proxy, and that it \
                 permits CONNECT to {server}"
            ),
            Self::Reply(reply) => format!(
                "the proxy {proxy} refuses to connect to {server} with SOCKS reply {reply}: see its log"
            ),
            Self::NotSpoken(protocol) => format!(
                "what listens at {proxy} does not speak {protocol}: check the scheme and the port of the proxy's URL"
            ),
            Self::Cut => format!(
                "the proxy {proxy} closed the connection without an answer: see its log, and check that its rules permit \
                 this host"
            ),
            Self::Broken(error) => format!("the connection to the proxy {proxy} broke: {error}; see its log"),
            Self::Silent => format!(
                "the proxy {proxy} does not answer: check its URL, and that the proxy's host reaches {server}"
            ),
        }
    }
}
