//! A share's target: the private service that an agent dials.

use crate::{Invalid, declare::serde_as_text};
use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// `host:port`; also read with a `tcp://` before it, which is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    pub host: Host,
    pub port: u16,
}

/// A target's host. A name is resolved by the agent, in its own network.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    /// A DNS name in lower case, without a final dot.
    Name(String),
}

impl FromStr for Target {
    type Err = Invalid;

    fn from_str(s: &str) -> Result<Self, Invalid> {
        let form = || {
            Invalid::new("must be host:port, with an IPv4 address, a bracketed IPv6 address or a DNS name")
        };
        let rest = s.strip_prefix("tcp://").unwrap_or(s);
        let (host, port) = rest.rsplit_once(':').ok_or_else(form)?;
        let digits = !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
        let port = digits
            .then(|| port.parse::<u16>().ok().filter(|&p| p != 0))
            .flatten()
            .ok_or_else(|| Invalid::new("must end in a port between 1 and 65535"))?;
        let host = if let Some(v6) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Host::V6(v6.parse().map_err(|_| form())?)
        } else if let Ok(v4) = host.parse() {
            Host::V4(v4)
        } else {
            Host::Name(dns_name(host).ok_or_else(form)?)
        };
        Ok(Self { host, port })
    }
}

/// RFC 1123 §2.1 labels, with the underscore that service names use. A name whose last label is all digits is
/// a mistyped address.
fn dns_name(s: &str) -> Option<String> {
    let name = s.strip_suffix('.').unwrap_or(s).to_ascii_lowercase();
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let last_is_number = name.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
    (name.len() <= 253 && name.split('.').all(label) && !last_is_number).then_some(name)
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(ip) => ip.fmt(f),
            Self::V6(ip) => write!(f, "[{ip}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

serde_as_text!(Target);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_panics_and_display_parses_again(s in "(tcp://)?[\\[\\]a-zA-Z0-9:._-]{0,40}(:[0-9]{0,6})?") {
            if let Ok(target) = s.parse::<Target>() {
                prop_assert_eq!(target.to_string().parse::<Target>(), Ok(target));
            }
        }
    }

    #[test]
    fn every_form_is_parsed() {
        for (text, normal) in [
            ("10.20.100.1:8443", "10.20.100.1:8443"),
            ("tcp://db.internal:5432", "db.internal:5432"),
            ("DB.Internal.:5432", "db.internal:5432"),
            ("[fd00::1]:22", "[fd00::1]:22"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), normal);
        }
        for bad in [
            "",
            ":1",
            "a",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "fd00::1:22",
            "[1.2.3.4]:1",
            "1.2.3:4",
            "http://a:1",
            "a b:1",
            "-a:1",
            "a..b:1",
        ] {
            assert!(bad.parse::<Target>().is_err(), "{bad:?}");
        }
    }
}
