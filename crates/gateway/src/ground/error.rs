//! Why a step on the host's network fails, and why a host cannot carry tunnels.

use std::{collections::BTreeSet, io, net::Ipv4Addr, path::PathBuf};

/// A step on a namespace, a link or a rule set failed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("cannot {what}: {error}")]
    Io { what: String, error: io::Error },
    /// Refused by a program or the kernel.
    #[error("cannot {what}: {message}")]
    Refused { what: String, message: String },
}

impl NetworkError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { what: what.into(), error }
    }

    pub(crate) fn refused(what: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Refused { what: what.into(), message: message.into() }
    }
}

/// A sentence for `statusDetail`.
impl From<NetworkError> for String {
    fn from(error: NetworkError) -> Self {
        error.to_string()
    }
}

/// Why this host cannot carry tunnels. Each text is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum GroundError {
    #[error(
        "IPsec needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN): start the gateway as root, or with --ipsec off \
         for development without IPsec"
    )]
    NotRoot,
    #[error(
        "network namespaces made by this process would be invisible to other processes, because `ip netns exec` or a \
         service's sandbox gave it mounts of its own: start it in the machine's mounts, with \
         `nsenter --net=/run/netns/NAME wicketgate` or in a unit without PrivateTmp=, ProtectSystem= and the like"
    )]
    HiddenNames,
    #[error(
        "the last run's tunnels are in another network namespace: start the gateway there, with \
         `nsenter --net={found} wicketgate up …`, or remove them with `nsenter --net={found} wicketgate down --data-dir {data}`; \
         if that namespace is unrelated, nothing is left: remove {}",
        .file.display(),
        found = .found.display(),
        // The state directory is in the data directory.
        data = .file.ancestors().nth(2).unwrap_or(.file).display()
    )]
    Elsewhere { found: PathBuf, file: PathBuf },
    #[error("{program} is missing: install {package} (Debian: apt-get install {package})")]
    Missing { program: &'static str, package: &'static str },
    #[error(
        "the kernel has no ESP (modules esp4 and xfrm_user): use --ipsec userland, or a kernel with CONFIG_INET_ESP"
    )]
    NoKernelEsp,
    #[error(
        "there is no TUN device for ESP in userland: load the module tun, or give the container /dev/net/tun ({0})"
    )]
    NoTun(String),
    #[error("neither kernel nor userland can do ESP here: {kernel}; {userland}")]
    NoEsp { kernel: Box<Self>, userland: Box<Self> },
    #[error("the host has no default route to derive its public address from: set --public-address")]
    NoPublicAddress,
    #[error(
        "{given} is no address of this host, which has {}; nor can it be one that a NAT in front of it translates, since \
         there is no default route: give --public-address one of its own, or add the route",
        addresses(has)
    )]
    NotAnAddress { given: Ipv4Addr, has: BTreeSet<Ipv4Addr> },
    #[error(
        "another gateway serves the address {0} in this network namespace: stop it, or add an address to this host and give that \
         to this one as --public-address. Where a NAT translates the public address, packets for both would arrive at {0}"
    )]
    AddressInUse(Ipv4Addr),
    #[error(
        "tunnels that another gateway left serve the public address {address} in this network namespace: start that gateway \
         again, or remove them with `wicketgate down` and its --data-dir; if its data is lost, run `nft delete table ip {table}`"
    )]
    AddressLeft { address: Ipv4Addr, table: String },
    #[error("another gateway is running with the state directory {0}: stop it, or use another directory")]
    InUse(PathBuf),
    #[error("cannot use the state directory {path}: {error}")]
    StateDir { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Network(#[from] NetworkError),
}

fn addresses(all: &BTreeSet<Ipv4Addr>) -> String {
    if all.is_empty() {
        return "none but loopback".to_owned();
    }
    all.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_printed_once() {
        let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
        let network = NetworkError::io("turn on forwarding")(refused());
        let printed = |error: GroundError| format!("{:#}", anyhow::Error::new(error));
        assert_eq!(printed(network.into()), "cannot turn on forwarding: permission denied");
        let path = PathBuf::from("/state");
        let directory = GroundError::StateDir { path, error: refused() };
        assert_eq!(printed(directory), "cannot use the state directory /state: permission denied");
    }
}
