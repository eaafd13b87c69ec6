//! The address of the server's agent port, and TCP connections to it.

use crate::{
    allow::AllowList,
    clock::{CURE, rounded},
    connect::{Handshake, Place, connect, unnumbered},
    names::Names,
};
use anyhow::anyhow;
use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    str::FromStr,
    sync::Arc,
    time::Duration,
};
use tokio::net::TcpStream;
use wicketgate_transport::{
    keepalive::keepalive,
    tls::{Diagnosis, TlsError},
};

/// A TCP connection and a handshake over a bad line take a few seconds.
pub(crate) const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// An idle connection to a vanished host is detected within three times this; also keeps the state of middleboxes alive.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// `https://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// A name or an address, an IPv6 one without brackets.
    host: String,
    port: NonZeroU16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAServer {
    #[error("the agent port speaks TLS only: write https://HOST:PORT")]
    Plain,
    #[error("must be https://HOST:PORT, the address of the server's agent port")]
    Form,
}

impl FromStr for ServerAddress {
    type Err = NotAServer;

    fn from_str(s: &str) -> Result<Self, NotAServer> {
        if s.starts_with("http://") {
            return Err(NotAServer::Plain);
        }
        let rest = s.strip_prefix("https://").ok_or(NotAServer::Form)?;
        let (host, port) = rest.strip_suffix('/').unwrap_or(rest).rsplit_once(':').ok_or(NotAServer::Form)?;
        let port: NonZeroU16 = port.parse().map_err(|_| NotAServer::Form)?;
        let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(v6) => v6.parse::<Ipv6Addr>().map_err(|_| NotAServer::Form)?.to_string(),
            None if host.is_empty() || host.contains([':', '/', '@', '?', '#', '[', ']', ' ']) => {
                return Err(NotAServer::Form);
            }
            None => host.to_owned(),
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "https://[{host}]:{port}")
        } else {
            write!(f, "https://{host}:{port}")
        }
    }
}

impl ServerAddress {
    /// Connects to the first of the server's addresses that answers.
    pub(crate) async fn connect(&self, names: &Arc<Names>) -> anyhow::Result<TcpStream> {
        let place = match self.host.parse::<IpAddr>() {
            Ok(ip) => Place::Ip(ip),
            Err(_) => Place::Name(&self.host),
        };
        let how = (Handshake::Whole, CONNECT_WITHIN);
        let tcp = connect(names, (place, self.port.get()), &AllowList::default(), how).await?;
        keepalive(&tcp, KEEPALIVE)?;
        Ok(tcp)
    }

    /// The address of this connection is dialled last from now on: behind it is no server, or the path to it passes no
    /// large packets.
    pub(crate) fn avoid(&self, names: &Names, address: Option<SocketAddr>) {
        if let Some(address) = address {
            names.failed(&self.host, unnumbered(address));
        }
    }

    /// Explains a failed handshake in terms of the configured address, if that may be its cause.
    pub(crate) fn explain(&self, error: TlsError) -> anyhow::Error {
        match error.diagnosis() {
            Some(Diagnosis::NotTls) => anyhow!(
                "the server at {self} does not speak TLS; use the port of --agent-listen (default 8443), not the API's"
            ),
            Some(Diagnosis::NothingInCommon) => anyhow!(
                "{self} is not the agent port of a compatible gateway; use the port of --agent-listen (default 8443)"
            ),
            Some(Diagnosis::Clock { is_behind: true, by }) => anyhow!(
                "the clock of this host is at least {} behind the server's, {self}, whose certificate is not valid yet: {CURE}",
                rounded(by.as_secs())
            ),
            Some(Diagnosis::Clock { is_behind: false, by }) => anyhow!(
                "the certificate of {self} has expired {} ago by the clock of this host, which is ahead of the server's: {CURE}",
                rounded(by.as_secs())
            ),
            Some(Diagnosis::Stranger) => anyhow!(
                "{self} is not the server that this agent enrolled with: check the address; to move the agent \
                 there, enrol it again with a new code and an empty --state-dir"
            ),
            _ => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read() {
        for good in ["https://gw.example:7443", "https://10.0.0.1:1", "https://[fd00::1]:443"] {
            assert_eq!(good.parse::<ServerAddress>().unwrap().to_string(), good);
        }
        assert_eq!("https://a:1/".parse::<ServerAddress>().unwrap().to_string(), "https://a:1");
        for bad in ["", "a:1", "https://a", "https://:1", "https://a:0", "https://a:1/x", "https://fd00::1:4"]
        {
            assert!(bad.parse::<ServerAddress>().is_err(), "{bad}");
        }
        assert_eq!("http://a:1".parse::<ServerAddress>(), Err(NotAServer::Plain));
    }
}
