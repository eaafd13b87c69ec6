//! How a command ends without success: the sentence, and the exit status.

use std::process::ExitCode;

use wicketgate_client::Failure;

/// Why a command has not done what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    NotSignedIn(String),
    #[error("{0}")]
    Pending(String),
    #[error("{0}")]
    Other(String),
    #[error("{0}")]
    Interrupted(String),
    /// A plan was made, and something differs.
    #[error("")]
    Differs,
    /// A status was shown, and something is not ready.
    #[error("")]
    NotReady,
    /// The words were printed already.
    #[error("")]
    Said,
    /// The reader of the output has gone: `wicketgate share list | head`.
    #[error("")]
    ReaderGone,
}

/// What `--help` says of it.
pub(crate) const EXIT_STATUS: &str = "\
Exit status: 0 done, 1 failed, 2 wrong usage, 3 something differs (apply --plan), 4 not signed in, \
5 something is not ready (status), 8 still pending, 130 interrupted.";

impl Failed {
    pub(crate) fn usage(why: impl Into<String>) -> Self {
        Self::Usage(why.into())
    }

    pub(crate) fn other(why: impl Into<String>) -> Self {
        Self::Other(why.into())
    }

    /// With what it is about before the words.
    pub(crate) fn about(self, what: &str) -> Self {
        self.map(|words| format!("{what}: {words}"))
    }

    /// With a further line.
    pub(crate) fn with(self, line: &str) -> Self {
        self.map(|words| format!("{words}\n{line}"))
    }

    fn map(self, change: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Usage(words) => Self::Usage(change(words)),
            Self::NotSignedIn(words) => Self::NotSignedIn(change(words)),
            Self::Pending(words) => Self::Pending(change(words)),
            Self::Other(words) => Self::Other(change(words)),
            Self::Interrupted(words) => Self::Interrupted(change(words)),
            said @ (Self::Differs | Self::NotReady | Self::Said | Self::ReaderGone) => said,
        }
    }

    pub(crate) fn status(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::ReaderGone => 0,
            Self::Other(_) | Self::Said => 1,
            Self::Usage(_) => 2,
            Self::Differs => 3,
            Self::NotSignedIn(_) => 4,
            Self::NotReady => 5,
            Self::Pending(_) => 8,
            Self::Interrupted(_) => 130,
        })
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotSignedIn { why, account } => {
                let secret = match account {
                    Some(_) => "--account CLIENT_ID --secret-file FILE",
                    None => "--token-file FILE",
                };
                Self::NotSignedIn(format!(
                    "not signed in: {why}\nSign in with: wicketgate login --server URL {secret}"
                ))
            }
            other => Self::Other(other.to_string()),
        }
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::Other(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_to_sign_in_fits_the_credentials() {
        let advice = |account: Option<&str>| {
            let account = account.map(str::to_owned);
            Failed::from(Failure::NotSignedIn { why: "why".to_owned(), account }).to_string()
        };
        assert!(advice(None).ends_with(" --token-file FILE"));
        assert!(advice(Some("acc-1")).ends_with(" --account CLIENT_ID --secret-file FILE"));
    }
}
