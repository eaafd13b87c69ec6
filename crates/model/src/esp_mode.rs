//! Where a gateway encrypts.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Which implementation of ESP a gateway uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EspMode {
    Kernel,
    /// ESP in UDP only (RFC 3948): the peer must encapsulate even where no NAT is in between.
    Userland,
    /// No IPsec: development and benchmarks.
    Off,
}

impl EspMode {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Userland => "userland",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for EspMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
