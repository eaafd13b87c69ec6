//! Why the server did not do what was asked.

use std::{error::Error as _, fmt, path::PathBuf};

use reqwest::Url;
use serde::Deserialize;

/// Why there is no success. The text is one or two sentences: what happened, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// `account` is the API account whose secret is exchanged for tokens, if it is one.
    #[error("not signed in: {why}")]
    NotSignedIn { why: String, account: Option<String> },
    #[error("{problem}")]
    Refused { status: u16, problem: ApiProblem, retry_after: Option<u64> },
    #[error(
        "{url} is served by user {user}, who is neither root nor the owner of the secret, so that it was not sent: start \
         the server (`systemctl start wicketgate`, or `wicketgate up` where the package is not installed), or use the server's https:// address"
    )]
    Stranger { url: Url, user: u32 },
    /// `may_be_done`: the request may have been carried out.
    #[error("{url} cannot be reached: {why}")]
    Unreachable { url: Url, why: String, may_be_done: bool },
    #[error(
        "{url} answers {status} and is no Wicketgate API: check the server's address, and the path of a reverse proxy"
    )]
    NoApi { url: Url, status: u16 },
    #[error("{0} answers without an end: check the server's address")]
    TooLarge(Url),
    #[error("{}: {why}", file.display())]
    Authority { file: PathBuf, why: String },
    #[error("{0} is no path of the API: check the names and ids")]
    Path(String),
}

/// The body of an error answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ApiProblem {
    /// Stable: programs act on it.
    pub error: String,
    pub message: String,
    /// One for each fault, if there are several.
    #[serde(default)]
    pub details: Vec<Fault>,
}

/// A fault of one property.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Fault {
    pub property: String,
    pub message: String,
}

impl fmt::Display for ApiProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        // The message of several faults may contain them.
        for fault in self.details.iter().filter(|fault| !self.message.contains(&fault.message)) {
            write!(f, "\n  {}: {}", fault.property, fault.message)?;
        }
        Ok(())
    }
}

/// What the libraries say of a port that serves something else, and of certificates, and what that is. Nothing was done then.
const STRANGE: &[(&str, &str)] = &[
    (
        "UnknownIssuer",
        "no authority that this host trusts has made its certificate: name the file of the authority's with --ca FILE",
    ),
    (
        "CaUsedAsEndEntity",
        "its certificate is that of an authority: give the server one of its own that the authority has made",
    ),
    (
        "NotValidForName",
        "its certificate is for other names: use one of them, or give the server one for this name",
    ),
    ("certificate expired", "its certificate has expired: renew it, or correct the clock of this host"),
    ("Expired", "its certificate has expired: renew it, or correct the clock of this host"),
    ("InvalidContentType", "it answers without TLS: check the port, or use http:// if it is on this host"),
    ("tls handshake eof", "it ends the TLS handshake: check the port, which may be the one for agents"),
    ("no application protocol", "it serves no HTTP: check the port, which may be the one for agents"),
    ("HTTP version", "it does not speak HTTP: check the port, or use https://"),
];

const CLOSED: (&str, &str) = (
    "connection closed before message completed",
    "it closed the connection before it answered: what was asked for may be done",
);

/// What the API says if it does not know whether its database has committed.
const UNKNOWN: &str = "it is unknown whether";

impl Failure {
    /// The innermost cause says what happened; the outer ones say that a request failed.
    pub(crate) fn unreachable(url: &Url, error: &reqwest::Error) -> Self {
        let mut why = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            why = inner.to_string();
            cause = inner.source();
        }
        if error.is_timeout() {
            "it does not answer in time".clone_into(&mut why);
        }
        let strange = STRANGE.iter().find(|(words, _)| why.contains(words));
        let may_be_done = strange.is_none() && !error.is_connect();
        if let Some((_, cause)) = strange.or(Some(&CLOSED).filter(|(words, _)| why.contains(words))) {
            why = format!("{cause} ({why})");
        }
        Self::Unreachable { url: url.clone(), why, may_be_done }
    }

    pub(crate) fn silent(url: &Url) -> Self {
        Self::Unreachable {
            url: url.clone(),
            why: "it does not answer in time".to_owned(),
            may_be_done: true,
        }
    }

    /// Whether the same request may succeed later.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::NoApi { .. } => true,
            Self::Refused { status, .. } => *status == 429 || *status >= 500,
            Self::NotSignedIn { .. }
            | Self::Stranger { .. }
            | Self::TooLarge(_)
            | Self::Authority { .. }
            | Self::Path(_) => false,
        }
    }

    /// Whether the server may have done what was asked, although its answer has not arrived.
    pub fn is_without_answer(&self) -> bool {
        match self {
            // It says so if it does not know whether its database has committed.
            Self::Refused { status: 503, problem, .. } => problem.message.contains(UNKNOWN),
            Self::Refused { status, .. } => *status >= 500,
            Self::Unreachable { may_be_done, .. } => *may_be_done,
            Self::NoApi { .. } | Self::TooLarge(_) => true,
            Self::NotSignedIn { .. } | Self::Stranger { .. } | Self::Authority { .. } | Self::Path(_) => {
                false
            }
        }
    }

    /// Whether the token may not do this.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused { status: 403, .. })
    }

    /// Whether the resource does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether the server does not understand the request, such as a filter.
    pub fn is_wrong_request(&self) -> bool {
        matches!(self, Self::Refused { status: 400, .. })
    }

    /// Whether the resource has changed since it was read.
    pub fn is_outdated(&self) -> bool {
        matches!(self, Self::Refused { status: 412, .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_the_server_does_not_say_that_nothing_was_done() {
        let refused = |status, message: &str| {
            let (error, message) = ("unavailable".to_owned(), message.to_owned());
            let problem = ApiProblem { error, message, details: Vec::new() };
            Failure::Refused { status, problem, retry_after: None }
        };
        let unconfirmed =
            "The database did not confirm the write, so it is unknown whether the change was made";
        for (status, message, is_unknown) in [
            (400, "", false),
            (409, "", false),
            (429, "", false),
            (500, "", true),
            (502, "", true),
            (503, unconfirmed, true),
            (503, "The database's disk is full: free space on it", false),
        ] {
            assert_eq!(refused(status, message).is_without_answer(), is_unknown, "{status} {message}");
        }
    }

    #[tokio::test]
    async fn where_nothing_was_sent_nothing_was_done() {
        let http = reqwest::Client::new();
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let url: Url = format!("http://{nobody}/").parse().unwrap();
        let error = http.post(url.clone()).send().await.unwrap_err();
        assert!(!Failure::unreachable(&url, &error).is_without_answer(), "{error:?}");
        assert!(Failure::silent(&url).is_without_answer());
    }
}
