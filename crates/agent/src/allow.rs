//! The agent's own allow list: the targets that it may connect to, whatever the server assigns.
//!
//! Invariant: the address that is dialled is the address that was checked; a host name is resolved and checked for each
//! connection.

use ipnet::IpNet;
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    ops::RangeInclusive,
    str::FromStr,
};
use wicketgate_model::{Host, Target};

/// Rules; without any, everything is allowed but the agent's own loopback and link-local addresses: what listens there
/// trusts the host itself, such as most clouds' metadata service.
#[derive(Debug, Clone, Default)]
pub struct AllowList(Vec<AllowRule>);

/// `10.20.0.0/16:443,8000-8999`, `[fd00::/8]:5432`, `10.0.0.1:*`, `*:5432`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowRule {
    /// `None`: every address.
    net: Option<IpNet>,
    ports: Vec<RangeInclusive<u16>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotARule {
    #[error("must be CIDR:PORTS, like 10.20.0.0/16:443,8000-8999 or [fd00::/8]:5432 or *:5432")]
    Form,
    #[error("must be an IPv4 network, an IPv6 network in brackets, or *")]
    Network,
    #[error("must have no host bits set in its network")]
    HostBits,
    #[error("must end in ports or ranges between 1 and 65535, with commas between, or *")]
    Ports,
    #[error("has a range of ports that is backwards: write {1}-{0}")]
    Backwards(u16, u16),
}

impl AllowList {
    pub fn new(rules: Vec<AllowRule>) -> Self {
        Self(rules)
    }

    /// For connections to what the agent's own operator has named.
    pub(crate) fn everything() -> Self {
        Self(vec![AllowRule { net: None, ports: vec![1..=u16::MAX] }])
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn rules(&self) -> &[AllowRule] {
        &self.0
    }

    pub(crate) fn permits(&self, address: SocketAddr) -> bool {
        // An IPv4-mapped IPv6 address counts as the IPv4 address.
        let (ip, port) = (address.ip().to_canonical(), address.port());
        if self.0.is_empty() {
            return !is_of_the_host(ip);
        }
        self.0.iter().any(|r| r.has_port(port) && r.has_address(ip))
    }

    /// Whether the target can be permitted. A host name can; its addresses are checked when it is dialled.
    pub(crate) fn may_permit(&self, target: &Target) -> bool {
        match target.host {
            Host::V4(ip) => self.permits((ip, target.port).into()),
            Host::V6(ip) => self.permits((ip, target.port).into()),
            Host::Name(_) => self.0.is_empty() || self.0.iter().any(|r| r.has_port(target.port)),
        }
    }
}

impl AllowRule {
    /// The target that the rule permits, if it is one address and one port.
    pub(crate) fn only_target(&self) -> Option<Target> {
        let net = self.net.filter(|net| net.prefix_len() == net.max_prefix_len())?;
        let [ports] = &self.ports[..] else { return None };
        let is_one = ports.start() == ports.end();
        is_one.then(|| SocketAddr::new(net.addr(), *ports.start()).to_string().parse().ok()).flatten()
    }

    fn has_port(&self, port: u16) -> bool {
        self.ports.iter().any(|r| r.contains(&port))
    }

    fn has_address(&self, ip: IpAddr) -> bool {
        self.net.is_none_or(|n| n.contains(&ip))
    }
}

/// Loopback (RFC 6890 §2.2), link-local (RFC 3927, RFC 4291 §2.5.6), and the unspecified address, which Linux connects to
/// loopback.
fn is_of_the_host(ip: IpAddr) -> bool {
    let is_link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    ip.is_loopback() || ip.is_unspecified() || is_link_local
}

/// As it can be parsed again.
impl fmt::Display for AllowRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_one = |net: &IpNet| net.prefix_len() == net.max_prefix_len();
        match self.net {
            None => f.write_str("*")?,
            Some(IpNet::V4(net)) if is_one(&net.into()) => net.addr().fmt(f)?,
            Some(IpNet::V6(net)) if is_one(&net.into()) => write!(f, "[{}]", net.addr())?,
            Some(IpNet::V4(net)) => net.fmt(f)?,
            Some(IpNet::V6(net)) => write!(f, "[{net}]")?,
        }
        for (i, ports) in self.ports.iter().enumerate() {
            f.write_str(if i == 0 { ":" } else { "," })?;
            match (*ports.start(), *ports.end()) {
                (1, u16::MAX) => f.write_str("*")?,
                (first, last) if first == last => first.fmt(f)?,
                (first, last) => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for AllowRule {
    type Err = NotARule;

    fn from_str(s: &str) -> Result<Self, NotARule> {
        let (net, ports) = s.rsplit_once(':').ok_or(NotARule::Form)?;
        let (net, is_v6) = match net.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
            Some(v6) => (v6, true),
            None => (net, false),
        };
        let net = match net {
            "*" if !is_v6 => None,
            _ => {
                let net: IpNet = net
                    .parse()
                    .or_else(|_| net.parse::<IpAddr>().map(IpNet::from))
                    .map_err(|_| NotARule::Network)?;
                if matches!(net, IpNet::V6(_)) != is_v6 {
                    return Err(NotARule::Network);
                }
                if net.trunc() != net {
                    return Err(NotARule::HostBits);
                }
                Some(net)
            }
        };
        let ports = match ports {
            "*" => vec![1..=u16::MAX],
            _ => ports.split(',').map(range).collect::<Result<_, _>>()?,
        };
        Ok(Self { net, ports })
    }
}

fn range(s: &str) -> Result<RangeInclusive<u16>, NotARule> {
    let port = |s: &str| match s.parse::<NonZeroU16>() {
        Ok(port) if !s.starts_with('+') => Ok(port.get()),
        _ => Err(NotARule::Ports),
    };
    let (first, last) = match s.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(s)?, port(s)?),
    };
    if first > last {
        return Err(NotARule::Backwards(first, last));
    }
    Ok(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(rules: &[&str]) -> AllowList {
        AllowList::new(rules.iter().map(|r| r.parse().unwrap()).collect())
    }

    fn permits(list: &AllowList, address: &str) -> bool {
        list.permits(address.parse().unwrap())
    }

    proptest! {
        #[test]
        fn no_text_panics_and_a_rule_reparses(s in "[*0-9a-f.:/\\[\\],-]{0,40}|[0-9]{1,2}\\.0\\.0\\.0/8:[0-9]{1,4}(-[0-9]{1,5})?") {
            if let Ok(rule) = s.parse::<AllowRule>() {
                prop_assert_eq!(rule.to_string().parse::<AllowRule>(), Ok(rule));
            }
        }
    }

    #[test]
    fn rules_determine_what_is_allowed() {
        let l = list(&["10.20.0.0/16:443,8000-8999", "[fd00::/8]:5432", "192.168.0.7:*"]);
        assert!(permits(&l, "10.20.255.1:443") && permits(&l, "10.20.0.1:8500"));
        assert!(!permits(&l, "10.21.0.1:443") && !permits(&l, "10.20.0.1:444"));
        assert!(permits(&l, "[fd12::1]:5432") && !permits(&l, "[fe80::1]:5432"));
        assert!(permits(&l, "[::ffff:192.168.0.7]:1"));
        assert!(l.may_permit(&"db.internal:443".parse().unwrap()));
        assert!(!l.may_permit(&"10.9.9.9:443".parse().unwrap()));
        assert!(permits(&AllowList::default(), "8.8.8.8:53"));
        assert!(permits(&list(&["*:5432"]), "[fd00::1]:5432"));
    }

    #[test]
    fn without_rules_the_agents_own_host_is_not_reached() {
        let none = AllowList::default();
        let own = ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "0.0.0.0:1", "[::]:1", "169.254.169.254:80"];
        for address in own.into_iter().chain(["[fe80::1]:1", "[::ffff:127.0.0.1]:1"]) {
            assert!(!permits(&none, address), "{address}");
            assert!(permits(&list(&["*:*"]), address), "{address}");
        }
        assert!(!none.may_permit(&"127.0.0.1:443".parse().unwrap()));
        assert!(
            none.may_permit(&"localhost:443".parse().unwrap()),
            "its addresses are checked when it is dialled"
        );
        assert!(permits(&none, "10.0.0.1:1") && permits(&none, "[fd00::1]:1"));
    }

    #[test]
    fn a_fault_is_reported() {
        for (bad, fault) in [
            ("10.0.0.0/8", NotARule::Form),
            ("x:1", NotARule::Network),
            ("fd00::/8:1", NotARule::Network),
            ("10.0.0.1/8:1", NotARule::HostBits),
            ("10.0.0.0/8:", NotARule::Ports),
            ("10.0.0.0/8:0", NotARule::Ports),
            ("10.0.0.0/8:443,9-8", NotARule::Backwards(9, 8)),
            ("10.0.0.0/8:9-", NotARule::Ports),
            ("10.0.0.0/8:+1", NotARule::Ports),
        ] {
            assert_eq!(bad.parse::<AllowRule>(), Err(fault), "{bad}");
        }
    }
}
