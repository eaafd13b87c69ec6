//! Where the agent shows its status.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU16,
    str::FromStr,
};

/// `ADDRESS:PORT`, or a port at 127.0.0.1: others than this host's programs see the status only if the operator wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusAddress(pub(super) SocketAddr);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a port, or ADDRESS:PORT like 127.0.0.1:9481")]
pub struct NotAStatusAddress;

impl FromStr for StatusAddress {
    type Err = NotAStatusAddress;

    fn from_str(s: &str) -> Result<Self, NotAStatusAddress> {
        let port = s.parse::<NonZeroU16>().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port.get())));
        port.or_else(|_| s.parse()).map(Self).map_err(|_| NotAStatusAddress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_on_loopback() {
        let read = |text: &str| text.parse::<StatusAddress>().map(|address| address.0.to_string());
        assert_eq!(read("9481").as_deref(), Ok("127.0.0.1:9481"));
        assert_eq!(read("[::]:9481").as_deref(), Ok("[::]:9481"));
        for wrong in ["", "0", "localhost:9481", ":9481", "127.0.0.1"] {
            assert_eq!(read(wrong), Err(NotAStatusAddress), "{wrong}");
        }
    }
}
