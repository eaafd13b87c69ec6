//! A host and a port that the agent connects to itself: the server's agent port, or a proxy.

use crate::{
    allow::AllowList,
    connect::{Handshake, NoConnection, Place, connect},
    names::Names,
};
use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU16,
    sync::Arc,
    time::Duration,
};
use tokio::net::TcpStream;

/// A TCP connection and a handshake over a bad line take a few seconds.
pub(crate) const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// A name or an address, an IPv6 one without brackets.
    host: String,
    port: u16,
}

impl Endpoint {
    /// Parses `host:port`, or `host` if there is a default port; an IPv6 address stands in brackets.
    pub(crate) fn parse(s: &str, default: Option<u16>) -> Option<Self> {
        let (host, port) = match s.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse::<NonZeroU16>().ok()?.get()),
            _ => (s, default?),
        };
        let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(v6) => v6.parse::<Ipv6Addr>().ok()?.to_string(),
            None if host.is_empty() || !host.chars().all(is_of_a_name) => return None,
            None => host.to_owned(),
        };
        Some(Self { host, port })
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `None`: the host is a name.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Connects to the first of the host's addresses that answers.
    pub(crate) async fn connect(&self, names: &Arc<Names>) -> Result<TcpStream, NoConnection> {
        let place = self.ip().map_or(Place::Name(&self.host), Place::Ip);
        let how = (Handshake::Whole, CONNECT_WITHIN);
        connect(names, (place, self.port()), &AllowList::everything(), how).await
    }
}

/// Also of names that no name server would have: a hosts file may have them.
fn is_of_a_name(c: char) -> bool {
    !c.is_control() && !c.is_whitespace() && !":/@?#[]\\".contains(c)
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_or_the_default() {
        let default = Some(1080);
        for (text, port) in [("a", 1080), ("a:3128", 3128), ("[fd00::1]", 1080), ("[fd00::1]:8", 8)] {
            let endpoint = Endpoint::parse(text, default).unwrap();
            assert_eq!(endpoint.port(), port, "{text}");
            assert_eq!(Endpoint::parse(text, None).is_some(), port != 1080, "{text}");
        }
        for bad in
            ["", ":1", "a:", "a:0", "a:b", "a:1:2", "fd00::1", "[fd00::1", "a b:1", "a\r\nb:1", "[a]:1"]
        {
            assert_eq!(Endpoint::parse(bad, default), None, "{bad:?}");
        }
    }
}
