//! The system's resolver: hosts file, name servers, search domains and modules, as the host's nsswitch.conf says.

use crate::shortage::Shortage;
use dns_lookup::{AddrFamily, AddrInfoHints, LookupErrorKind, SockType, getaddrinfo};
use std::{collections::BTreeSet, net::SocketAddr};

/// Which addresses are requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Any,
    V4,
}

/// Why a name has no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAddress {
    #[error("name not found")]
    NotFound,
    #[error("no name server answers for the name")]
    NoAnswer,
    #[error(transparent)]
    Shortage(#[from] Shortage),
}

/// The addresses of the name, with port 0, in the order of RFC 6724. Blocks until the resolver gives up.
pub(super) fn resolve(name: &str, family: Family) -> Result<Vec<SocketAddr>, NoAddress> {
    let address = match family {
        Family::Any => 0,
        Family::V4 => AddrFamily::Inet.into(),
    };
    let hints = AddrInfoHints { socktype: SockType::Stream.into(), address, ..AddrInfoHints::default() };
    let found = getaddrinfo(Some(name), None, Some(hints)).map_err(|error| match error.kind() {
        LookupErrorKind::Again => NoAddress::NoAnswer,
        LookupErrorKind::Memory => Shortage::Memory.into(),
        // Of opening the hosts file, or a socket.
        LookupErrorKind::System => Shortage::of(&error.into()).map_or(NoAddress::NoAnswer, NoAddress::from),
        LookupErrorKind::Fail => NoAddress::NoAnswer,
        _ => NoAddress::NotFound,
    })?;
    let mut seen = BTreeSet::new();
    let addresses = found.filter_map(|one| Some(one.ok()?.sockaddr));
    // A hosts file may name an address twice.
    let addresses: Vec<_> = addresses.filter(|address| seen.insert(*address)).collect();
    if addresses.is_empty() { Err(NoAddress::NotFound) } else { Ok(addresses) }
}
