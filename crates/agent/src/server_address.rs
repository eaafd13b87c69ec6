//! The address of the server's agent port.

use crate::endpoint::Endpoint;
use std::{fmt, str::FromStr};

/// `https://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress(Endpoint);

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
        let endpoint = Endpoint::parse(rest.strip_suffix('/').unwrap_or(rest), None);
        endpoint.map(Self).ok_or(NotAServer::Form)
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.0)
    }
}

impl ServerAddress {
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.0
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
