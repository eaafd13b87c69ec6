//! A proxy on the way to the server: HTTP with CONNECT (RFC 9110 §9.3.6), or SOCKS5 (RFC 1928).
//!
//! Both are asked with some lines of our own: of the crates that could, hyper-util's do not tell one refusal from another, and
//! tokio-socks depends on a second version of thiserror. Invariants: the proxy resolves the server's name; its password is in no
//! message, and not on the command line.

mod http;
mod login;
mod refusal;
mod rule;
mod socks5;
mod variables;

pub(crate) use login::{Login, Password};
pub(crate) use refusal::ProxyRefusal;
pub use rule::{ProxyPassword, ProxyRule};
pub(crate) use variables::from_variables;
#[cfg(any(test, fuzzing))]
pub use {http::fuzz::http_proxy_answer, socks5::fuzz::socks5_answer};

use crate::endpoint::Endpoint;
use percent_encoding::percent_decode_str;
use refusal::Refusal;
use std::{fmt, path::PathBuf};
use tokio::net::TcpStream;

/// Of a proxy whose URL has none, as with curl.
const DEFAULT_PORT: u16 = 1080;

/// `http://user@host:port` or `socks5://user@host:port`.
#[derive(Debug, Clone)]
pub struct Proxy {
    protocol: Protocol,
    endpoint: Endpoint,
    login: Option<Login>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http,
    Socks5,
}

/// Why no proxy is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Straight {
    #[error("no proxy is set")]
    NotSet,
    #[error("NO_PROXY exempts the server")]
    Exempted,
}

/// What is wrong with a proxy's URL. No text repeats the URL, which may contain a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAProxy {
    #[error("must be http://[USER@]HOST:PORT or socks5://[USER@]HOST:PORT")]
    Form,
    #[error(
        "a proxy is not connected to with TLS: write http://. The connection inside is TLS from end to end"
    )]
    Tls,
    #[error("SOCKS4 cannot be used: write socks5://, if the proxy speaks it")]
    Socks4,
    #[error(
        "must not contain the password, since command lines are visible to other users: write it into a file for \
         --proxy-password-file, or into WICKETGATE_PROXY_PASSWORD"
    )]
    PasswordShown,
    #[error("names a user without a password: give it in --proxy-password-file or WICKETGATE_PROXY_PASSWORD")]
    NoPassword,
    #[error("names no user, and a password is given: write USER@ before the host")]
    NoUser,
    #[error(
        "has a user that is too long or has a colon in it, or a password that is too long: at most 255 bytes each"
    )]
    Login,
}

/// Where a proxy's URL was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Others see it.
    CommandLine,
    Environment,
}

impl Proxy {
    /// Parses the URL. `password`: the one that was given beside it.
    pub(crate) fn parse(url: &str, source: Source, password: Option<Password>) -> Result<Self, NotAProxy> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let protocol = match scheme.to_ascii_lowercase().as_str() {
            "http" => Protocol::Http,
            "socks5" | "socks5h" => Protocol::Socks5,
            "https" => return Err(NotAProxy::Tls),
            "socks4" | "socks4a" => return Err(NotAProxy::Socks4),
            _ => return Err(NotAProxy::Form),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, at) = match rest.rsplit_once('@') {
            Some((user, at)) => (Some(user), at),
            None => (None, rest),
        };
        let decode = |text: &str| percent_decode_str(text).decode_utf8().map(String::from);
        let (user, inside) = match user.map(|user| user.split_once(':').ok_or(user)) {
            Some(Ok(_)) if source == Source::CommandLine => return Err(NotAProxy::PasswordShown),
            Some(Ok((user, password))) => (Some(user), Some(decode(password).map_err(|_| NotAProxy::Form)?)),
            Some(Err(user)) => (Some(user), None),
            None => (None, None),
        };
        let login = match (user, inside.map(Password::new).or(password)) {
            (Some(user), Some(password)) => {
                let user = decode(user).map_err(|_| NotAProxy::Form)?;
                Some(Login::new(user, password).ok_or(NotAProxy::Login)?)
            }
            (Some(_), None) => return Err(NotAProxy::NoPassword),
            (None, Some(_)) => return Err(NotAProxy::NoUser),
            (None, None) => None,
        };
        let endpoint = Endpoint::parse(at, Some(DEFAULT_PORT)).ok_or(NotAProxy::Form)?;
        Ok(Self { protocol, endpoint, login })
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Has the proxy connect to `server`. Afterwards, the connection is the server's. The caller bounds it.
    pub(crate) async fn ask_for(&self, tcp: &mut TcpStream, server: &Endpoint) -> Result<(), ProxyRefusal> {
        let asked = async {
            let login = self.login.as_ref().map(Login::read).transpose()?;
            match self.protocol {
                Protocol::Http => http::ask(tcp, server, login.as_ref()).await,
                Protocol::Socks5 => socks5::ask(tcp, server, login.as_ref()).await,
            }
        };
        asked.await.map_err(|refusal| self.refused(server, refusal))
    }

    /// The proxy did not answer in time.
    pub(crate) fn silent(&self, server: &Endpoint) -> ProxyRefusal {
        self.refused(server, Refusal::Silent)
    }

    fn refused(&self, server: &Endpoint, refusal: Refusal) -> ProxyRefusal {
        ProxyRefusal { proxy: self.to_string(), server: server.to_string(), refusal }
    }
}

/// Without the user and the password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.protocol {
            Protocol::Http => "http",
            Protocol::Socks5 => "socks5",
        };
        write!(f, "{scheme}://{}", self.endpoint)
    }
}

/// The password of `--proxy-password-file`, which is read for each connection, or that of the environment.
pub(crate) fn given_password(file: Option<PathBuf>, variable: Option<String>) -> Option<Password> {
    file.map(Password::File).or(variable.map(Password::new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HERE: Source = Source::CommandLine;

    fn parse(url: &str, source: Source) -> Result<String, NotAProxy> {
        Proxy::parse(url, source, None).map(|proxy| proxy.to_string())
    }

    #[test]
    fn an_url_is_read_and_shown_without_its_login() {
        for (url, shown) in [
            ("http://proxy.example:3128", "http://proxy.example:3128"),
            ("HTTP://10.0.0.1:8/", "http://10.0.0.1:8"),
            ("proxy", "http://proxy:1080"),
            ("socks5h://[fd00::1]", "socks5://[fd00::1]:1080"),
        ] {
            assert_eq!(parse(url, HERE).as_deref(), Ok(shown), "{url}");
        }
        let with_login = parse("http://me:s%40cret@proxy:3128", Source::Environment);
        assert_eq!(with_login.as_deref(), Ok("http://proxy:3128"));
    }

    #[test]
    fn a_fault_is_told_and_the_password_is_not() {
        let long = format!("http://{}@a:1", "u".repeat(256));
        let password = || Some(Password::new("hush".to_owned()));
        for (url, password, fault) in [
            ("http://me:hush@a:1", None, NotAProxy::PasswordShown),
            ("http://me:@a:1", None, NotAProxy::PasswordShown),
            ("http://me@a:1", None, NotAProxy::NoPassword),
            ("http://a:1", password(), NotAProxy::NoUser),
            ("https://a:1", None, NotAProxy::Tls),
            ("socks4a://a:1", None, NotAProxy::Socks4),
            ("ftp://a:1", None, NotAProxy::Form),
            ("http://", None, NotAProxy::Form),
            ("http://a:1/path", None, NotAProxy::Form),
            ("http://m%3Ae@a:1", password(), NotAProxy::Login),
            (&long, password(), NotAProxy::Login),
        ] {
            let error = Proxy::parse(url, HERE, password).unwrap_err();
            assert_eq!(error, fault, "{url}");
            assert!(!error.to_string().contains("hush"));
        }
        let proxy = Proxy::parse("http://me@a:1", HERE, password()).unwrap();
        assert!(!format!("{proxy:?} {proxy}").contains("hush"), "{proxy:?}");
    }

    proptest! {
        #[test]
        fn no_text_panics(url in "(http|socks5)?(://)?[a-z%@:0-9/\\[\\]]{0,30}") {
            let _ = Proxy::parse(&url, HERE, None);
            let _ = Proxy::parse(&url, Source::Environment, Some(Password::new(String::new())));
        }
    }
}
