//! Traffic of shares, as a gateway reports it: differences since its last report, so that a restart of either side
//! never counts twice.

use crate::{ShareId, TunnelId, declare::serde_as_text};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};
use uuid::Uuid;

/// What a gateway has counted until `at`: a report, which it may send more than once. Its content never changes, so that what
/// was recorded of it in part can be completed by another server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpooledTraffic {
    /// Where the report waited: it tells the numbers of one run of a gateway from those of another.
    pub spool: Uuid,
    /// Counts the reports of the spool from 1.
    pub number: u64,
    /// By the gateway's clock.
    pub at: Timestamp,
    /// One for each share and tunnel.
    pub deltas: Vec<TrafficDelta>,
}

/// Traffic of one share on one tunnel since the last report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficDelta {
    pub share: ShareId,
    pub tunnel: TunnelId,
    /// Payload bytes from the remote site to the target.
    pub rx: u64,
    /// Payload bytes from the target to the remote site.
    pub tx: u64,
    /// Connections opened.
    pub connections: u64,
    /// Connections whose target has sent its first byte.
    #[serde(default)]
    pub answered: u64,
    /// Opened connections whose target has sent none.
    #[serde(default)]
    pub unanswered: Unanswered,
    /// Connections that could not be served, by their reasons, without zeros.
    pub failures: BTreeMap<FailureReason, u64>,
    /// Addresses of clients that the gateway refused before it looked for an agent; some of them if there are many.
    #[serde(default)]
    pub refused_sources: BTreeSet<IpAddr>,
    /// The most connections open at one time since the last report.
    pub active: u64,
    /// Of opened connections: from acceptance to the target's.
    pub dials: DialTimes,
}

impl TrafficDelta {
    /// The maximum of `refused_sources`. A scan has very many.
    pub const REFUSED_SOURCES: usize = 8;

    /// An empty delta.
    pub fn new(share: ShareId, tunnel: TunnelId) -> Self {
        Self {
            share,
            tunnel,
            rx: 0,
            tx: 0,
            connections: 0,
            answered: 0,
            unanswered: Unanswered::default(),
            failures: BTreeMap::new(),
            refused_sources: BTreeSet::new(),
            active: 0,
            dials: DialTimes::default(),
        }
    }

    /// Adds what the same share and tunnel carried later.
    pub fn add(&mut self, later: Self) {
        let sum = |this: &mut u64, later: u64| *this = this.saturating_add(later);
        sum(&mut self.rx, later.rx);
        sum(&mut self.tx, later.tx);
        sum(&mut self.connections, later.connections);
        sum(&mut self.answered, later.answered);
        sum(&mut self.unanswered.silent, later.unanswered.silent);
        sum(&mut self.unanswered.ended, later.unanswered.ended);
        for (reason, failed) in later.failures {
            sum(self.failures.entry(reason).or_default(), failed);
        }
        for source in later.refused_sources {
            if self.refused_sources.len() < Self::REFUSED_SOURCES {
                self.refused_sources.insert(source);
            }
        }
        self.active = self.active.max(later.active);
        self.dials.add(&later.dials);
    }

    /// Connections that could not be served.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Whether there is nothing to report.
    pub fn is_empty(&self) -> bool {
        let counted =
            [self.rx, self.tx, self.connections, self.active, self.answered, self.unanswered.count()];
        counted.iter().all(|count| *count == 0) && self.failures.is_empty()
    }
}

/// Connections to which the client sent bytes, and the target none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Unanswered {
    /// The client waited, until it ended or for half a minute.
    pub silent: u64,
    /// The target ended the connection.
    pub ended: u64,
}

impl Unanswered {
    pub fn count(self) -> u64 {
        self.silent + self.ended
    }
}

crate::text_enum!(
    /// Why a connection could not be served: a closed list, which labels a metric.
    FailureReason {
        /// Its source is not in the share's `allowedSources`.
        SourceNotAllowed = "source-not-allowed",
        /// The share has reached its limit of connections.
        ShareFull = "share-full",
        /// The tunnel has reached its limit.
        TunnelFull = "tunnel-full",
        /// The Frontdoor has reached its part of the gateway's connections.
        FrontdoorFull = "frontdoor-full",
        /// The gateway has reached its limit.
        GatewayFull = "gateway-full",
        /// No connected agent serves the share.
        NoAgent = "no-agent",
        /// The agents had no carrier left, or their carriers broke.
        NoCarrier = "no-carrier",
        /// The agent did not answer in time.
        AgentTimeout = "agent-timeout",
        /// The agent does not serve the share, or its allow list does not contain the target.
        AgentRefused = "agent-refused",
        /// The agent or its host has run out of open files, source ports or memory.
        AgentExhausted = "agent-exhausted",
        /// The target's name has no address at the agent.
        NameNotFound = "name-not-found",
        /// The target's host refuses the port.
        ConnectionRefused = "connection-refused",
        /// Nothing answers at the target's address.
        DialTimeout = "dial-timeout",
        /// A router, or the agent's host, reports that the target's host is not there.
        TargetUnreachable = "target-unreachable",
        /// No name server of the agent's host answers.
        NoNameServer = "no-name-server",
        /// The agent's host has no route to the target.
        NoRoute = "no-route",
        /// The agent's host forbids the connection.
        NotPermitted = "not-permitted",
    }
);
serde_as_text!(FailureReason);

impl FailureReason {
    /// The gateway refused the connection before it looked for an agent.
    pub fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::SourceNotAllowed
                | Self::ShareFull
                | Self::TunnelFull
                | Self::FrontdoorFull
                | Self::GatewayFull
        )
    }

    /// What it means, and what to do.
    pub fn advice(self) -> &'static str {
        match self {
            Self::SourceNotAllowed => {
                "the clients' addresses are not in allowedSources; add them if they may connect"
            }
            Self::ShareFull => {
                "the share has as many connections as maxConnections, or the gateway's default, allows; raise \
                 maxConnections, or end connections that are not used"
            }
            Self::TunnelFull => {
                "the tunnel's shares have half of the gateway's connections; raise the gateway's open-file limit"
            }
            Self::FrontdoorFull => {
                "the Frontdoor's tunnels have the half of the gateway's connections that one may have beside others, or its \
                 part of the last quarter; end connections that are not used, or raise the gateway's open-file limit"
            }
            Self::GatewayFull => "the gateway has no connection left; raise its open-file limit",
            Self::NoAgent => "no connected agent serves the share; start one, or see its log",
            Self::NoCarrier => {
                "the agents' connections to the gateway break or do not suffice; see the log of the agents"
            }
            Self::AgentTimeout => "the agent does not answer in time; check its host and the line to it",
            Self::AgentRefused => {
                "the agent does not serve the share, or its --allow list excludes the target; see its log"
            }
            Self::AgentExhausted => {
                "the agent's host has no open files, source ports or memory left; raise its limits, or start another \
                 agent"
            }
            Self::NameNotFound => {
                "the target's name has no address at the agent; correct the name, or add it to the name server of the \
                 agent's host (`getent ahosts NAME` shows what that finds)"
            }
            Self::ConnectionRefused => {
                "the target's host refuses the port; start the service, or correct the port of the target"
            }
            Self::DialTimeout => {
                "nothing answers the agent, so packets are dropped; check the address, that the target's host runs, and \
                 firewalls on the way and on the target's host"
            }
            Self::TargetUnreachable => {
                "a router, or the agent's host itself, reports that the target's host is not there; check its address, that \
                 it runs, and the routes to it"
            }
            Self::NoNameServer => {
                "no name server of the agent's host answers; repair its /etc/resolv.conf or the name server, or name the \
                 target in its /etc/hosts"
            }
            Self::NoRoute => {
                "the agent's host has no route to the target's address; add one, or correct the address"
            }
            Self::NotPermitted => {
                "a rule of the agent's host forbids the connection: a route of the type prohibit, or its security module; \
                 permit it"
            }
        }
    }
}

/// How long dials took, in buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DialTimes {
    /// How many took no longer than each of [`DialTimes::BOUNDS`], and longer than the one before; the last one is of
    /// those that took longer than all.
    pub counts: [u64; DialTimes::BUCKETS],
    /// The sum of all, in microseconds.
    pub micros: u64,
}

impl DialTimes {
    /// In microseconds: from a target beside the agent to the longest that a client waits.
    pub const BOUNDS: [u64; 11] =
        [500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000];
    pub const BUCKETS: usize = Self::BOUNDS.len() + 1;

    /// The bucket that a dial belongs to.
    pub fn bucket(took: Duration) -> usize {
        Self::BOUNDS.partition_point(|bound| took > Duration::from_micros(*bound))
    }

    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.saturating_add(more);
        }
        self.micros = self.micros.saturating_add(other.micros);
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_the_same_name_in_json() {
        for reason in FailureReason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }

    #[test]
    fn a_dial_belongs_to_the_first_bucket_that_contains_it() {
        let bucket = |micros| DialTimes::bucket(Duration::from_micros(micros));
        assert_eq!(
            [bucket(0), bucket(500), bucket(501), bucket(5_000_000), bucket(5_000_001)],
            [0, 0, 1, 10, 11]
        );
    }
}
