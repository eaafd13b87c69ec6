//! What a check of the host has found, and how bad it is.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostVerdict {
    Pass,
    /// The gateway runs, with a limit that the message names.
    Warn,
    /// The gateway does not start, or no tunnel works.
    Fail,
    /// A check before it has failed.
    Skip,
}

impl fmt::Display for HostVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "PASS",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
            Self::Skip => "SKIP",
        })
    }
}

/// The result of one check.
#[derive(Debug, Clone)]
pub struct HostFinding {
    pub check: &'static str,
    pub verdict: HostVerdict,
    /// What was found, and what to do if it is not good.
    pub message: String,
}

impl HostFinding {
    pub fn new(check: &'static str, verdict: HostVerdict, message: impl Into<String>) -> Self {
        Self { check, verdict, message: message.into() }
    }

    pub fn pass(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, HostVerdict::Pass, message)
    }

    pub fn warn(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, HostVerdict::Warn, message)
    }

    pub fn fail(check: &'static str, message: impl fmt::Display) -> Self {
        Self::new(check, HostVerdict::Fail, message.to_string())
    }
}
