//! A share's options: allowed sources, limits of connections, idle timeout, and the PROXY protocol.

use crate::{
    Invalid, PeerCidr,
    declare::{bounded, serde_as_text, transparent},
};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::{net::Ipv4Addr, str::FromStr, time::Duration};

/// By default no option is set: all addresses of the remote site, and the gateway's own limits.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShareOptions {
    /// `None` admits all of the tunnel's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_sources: Option<AllowedSources>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<MaxConnections>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_seconds: Option<IdleTimeout>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// The port is closed while no agent can serve the share.
    #[serde(default)]
    pub close_when_unserved: bool,
}

/// How an agent finds out whether a target is alive while no client connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    pub r#type: HealthCheckType,
    /// The shortest pause between probes; half a minute if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_seconds: Option<ProbeInterval>,
}

impl HealthCheck {
    /// Whether and how often the target is probed.
    pub fn interval(self) -> Option<Duration> {
        /// Short enough to notice a target that is down, long enough to cause no load.
        const DEFAULT: Duration = Duration::from_secs(30);
        let chosen = self.interval_seconds.map(|n| Duration::from_secs(n.get().into()));
        (self.r#type == HealthCheckType::Tcp).then(|| chosen.unwrap_or(DEFAULT))
    }
}

transparent! {
    /// A network of the remote site: IPv4, host bits zero.
    SourceCidr(Ipv4Net);
}
serde_as_text!(SourceCidr);

impl SourceCidr {
    pub fn contains(self, ip: Ipv4Addr) -> bool {
        self.0.contains(&ip)
    }

    /// Whether all of it is in the tunnel's network.
    pub fn is_within(self, peer: PeerCidr) -> bool {
        peer.get().contains(&self.0)
    }
}

impl FromStr for SourceCidr {
    type Err = Invalid;

    fn from_str(s: &str) -> Result<Self, Invalid> {
        // A single address is often written without a prefix.
        let net: Ipv4Net = match s.parse::<Ipv4Addr>() {
            Ok(ip) => Ipv4Net::from(ip),
            Err(_) => s
                .parse()
                .map_err(|_| Invalid::new("must be IPv4 networks in CIDR notation, like 172.31.8.0/24"))?,
        };
        if net.trunc() != net {
            return Err(Invalid::new(format!("must have no host bits set: {} is the network", net.trunc())));
        }
        Ok(Self(net))
    }
}

/// One to [`AllowedSources::MOST`] networks, none of them twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<SourceCidr>")]
pub struct AllowedSources(Vec<SourceCidr>);

impl AllowedSources {
    /// Each connection is compared with all of them.
    pub const MOST: usize = 64;

    pub fn networks(&self) -> &[SourceCidr] {
        &self.0
    }

    pub fn admit(&self, ip: Ipv4Addr) -> bool {
        self.0.iter().any(|net| net.contains(ip))
    }
}

impl TryFrom<Vec<SourceCidr>> for AllowedSources {
    type Error = Invalid;

    fn try_from(networks: Vec<SourceCidr>) -> Result<Self, Invalid> {
        if !(1..=Self::MOST).contains(&networks.len()) {
            return Err(Invalid::new(format!(
                "must be 1 to {} networks; left out, all of peerCidr is admitted",
                Self::MOST
            )));
        }
        let mut sorted = networks.clone();
        sorted.sort_unstable();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(twice) => Err(Invalid::new(format!("must not name {} twice", twice[0]))),
            None => Ok(Self(networks)),
        }
    }
}

bounded!(
    /// Connections that a share serves at one time.
    MaxConnections(u32),
    1..=1_000_000
);
bounded!(
    /// Seconds without a byte either way after which a connection is ended; at most a week.
    IdleTimeout(u32),
    1..=604_800
);

bounded!(
    /// Seconds between probes of a target; at most a day.
    ProbeInterval(u32),
    1..=86_400
);

crate::text_enum!(
    /// What a probe of a target is.
    HealthCheckType {
        /// There is none: the connections of clients show whether the target is alive.
        None = "none",
        /// A connection that is closed at once.
        Tcp = "tcp",
    }
);
serde_as_text!(HealthCheckType);

#[expect(clippy::derivable_impls, reason = "the macro that declares the type has no default")]
impl Default for HealthCheckType {
    fn default() -> Self {
        Self::Tcp
    }
}

crate::text_enum!(
    /// What the target learns about the connection before its first byte.
    ProxyProtocol {
        /// The binary header of the PROXY protocol, version 2.
        V2 = "v2",
    }
);
serde_as_text!(ProxyProtocol);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_panics_and_display_parses_again(s in "[0-9./a:]{0,24}") {
            if let Ok(net) = s.parse::<SourceCidr>() {
                prop_assert_eq!(net.to_string().parse::<SourceCidr>(), Ok(net));
            }
        }

        #[test]
        fn a_source_is_within_a_network_when_both_its_ends_are(
            ip: [u8; 4], prefix in 8u8..=32, peer: [u8; 4], peer_prefix in 8u8..=32,
        ) {
            let net = |ip: [u8; 4], prefix| Ipv4Net::new(ip.into(), prefix).unwrap().trunc();
            let source = net(ip, prefix);
            let Ok(peer) = net(peer, peer_prefix).to_string().parse::<PeerCidr>() else { return Ok(()) };
            let both = peer.contains(source.network()) && peer.contains(source.broadcast());
            prop_assert_eq!(SourceCidr(source).is_within(peer), both);
        }

        #[test]
        fn options_survive_a_round_trip(
            nets in proptest::collection::btree_set((any::<[u8; 4]>(), 0u8..=32), 1..5),
            most in 1i64..=1_000_000, idle in proptest::option::of(1i64..=604_800), proxy: bool,
        ) {
            let nets: std::collections::BTreeSet<_> =
                nets.into_iter().map(|(ip, p)| SourceCidr(Ipv4Net::new(ip.into(), p).unwrap().trunc())).collect();
            let options = ShareOptions {
                allowed_sources: Some(nets.into_iter().collect::<Vec<_>>().try_into().unwrap()),
                max_connections: Some(most.try_into().unwrap()),
                idle_timeout_seconds: idle.map(|i| i.try_into().unwrap()),
                proxy_protocol: proxy.then_some(ProxyProtocol::V2),
                health_check: proxy.then(HealthCheck::default),
                close_when_unserved: !proxy,
            };
            let text = serde_json::to_string(&options).unwrap();
            prop_assert_eq!(serde_json::from_str::<ShareOptions>(&text).unwrap(), options);
        }
    }

    #[test]
    fn values_beyond_the_limits_are_refused() {
        for bad in ["", "10.0.0.1/8", "10.0.0.0/33", "fd00::/8", "x"] {
            assert!(bad.parse::<SourceCidr>().is_err(), "{bad:?}");
        }
        let net: SourceCidr = "10.0.0.1".parse().unwrap();
        assert_eq!(net.to_string(), "10.0.0.1/32");
        for bad in [vec![], vec![net, net], vec![net; 65]] {
            assert!(AllowedSources::try_from(bad).is_err());
        }
        for bad in [0, -1, 1_000_001, i64::MAX] {
            assert!(MaxConnections::try_from(bad).is_err());
        }
        assert!(IdleTimeout::try_from(604_801).is_err());
        assert!("v1".parse::<ProxyProtocol>().is_err());
    }
}
