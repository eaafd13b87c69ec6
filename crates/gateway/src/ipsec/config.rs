//! How a gateway does IPsec, as the command line has it.

use std::{net::Ipv4Addr, path::PathBuf};

wicketgate_model::text_enum!(
    /// Which back end to use, as the command line has it.
    IpsecMode {
        /// ESP in the kernel if it supports ESP, else in userland.
        Auto = "auto",
        Kernel = "kernel",
        Userland = "userland",
        /// No IPsec and no root: for development and benchmarks.
        Off = "off",
    }
);

#[derive(Debug, Clone)]
pub struct IpsecConfig {
    pub mode: IpsecMode,
    /// Exists, mode 0700. One running gateway has it to itself.
    pub state_dir: PathBuf,
    /// What peers dial; `None` for the source address of the default route. It need not be an address of this
    /// host: behind a 1:1 NAT it is not.
    pub public_address: Option<Ipv4Addr>,
}
