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
    /// The words were printed already.
    #[error("")]
    Said,
    /// The reader of the output has gone: `wicketgate share list | head`.
    #[error("")]
    ReaderGone,
}

/// What `--help` says of it.
pub(crate) const EXIT_STATUS: &str = "\
Exit status: 0 done, 1 failed, 2 wrong usage, 4 not signed in, 8 still pending.";

impl Failed {
    pub(crate) fn usage(why: impl Into<String>) -> Self {
        Self::Usage(why.into())
    }

    pub(crate) fn other(why: impl Into<String>) -> Self {
        Self::Other(why.into())
    }

    pub(crate) fn status(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::ReaderGone => 0,
            Self::Other(_) | Self::Said => 1,
            Self::Usage(_) => 2,
            Self::NotSignedIn(_) => 4,
            Self::Pending(_) => 8,
        })
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotSignedIn(why) => Self::NotSignedIn(format!(
                "not signed in: {why}\nSign in with: wicketgate login --server URL --token-file FILE"
            )),
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
