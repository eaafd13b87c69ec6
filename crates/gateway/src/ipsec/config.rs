//! How a gateway does IPsec, as the command line has it, and why it cannot.

use std::{fmt, net::Ipv4Addr, path::PathBuf, str::FromStr};

use crate::ground::GroundError;

/// Which back end to use, as the command line has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IpsecMode {
    /// ESP in the kernel where it can, else in userland.
    #[default]
    Auto,
    Kernel,
    Userland,
    /// No IPsec and no root: for development and benchmarks.
    Off,
}

impl IpsecMode {
    const ALL: [Self; 4] = [Self::Auto, Self::Kernel, Self::Userland, Self::Off];

    fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Kernel => "kernel",
            Self::Userland => "userland",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for IpsecMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for IpsecMode {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|mode| mode.as_str() == s)
            .ok_or_else(|| "must be auto, kernel, userland or off".to_owned())
    }
}

#[derive(Debug, Clone)]
pub struct IpsecConfig {
    pub mode: IpsecMode,
    /// Exists, mode 0700. One running gateway has it to itself.
    pub state_dir: PathBuf,
    /// What peers dial; `None` for the source address of the default route. It need not be an address of this
    /// host: behind a 1:1 NAT it is not.
    pub public_address: Option<Ipv4Addr>,
}

/// Why IPsec cannot start. Each text is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum IpsecError {
    #[error(transparent)]
    Ground(#[from] GroundError),
    #[error("neither kernel nor userland can do ESP here: {kernel}; {userland}")]
    NoEsp { kernel: Box<GroundError>, userland: Box<GroundError> },
}
