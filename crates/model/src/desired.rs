//! What a gateway should serve, and the difference between two such states.

use crate::{
    AgentId, EnvironmentId, EspProposals, FrontdoorId, Generation, IkeProposals, IngressPort, PeerAddress,
    PeerCidr, PeerId, PreSharedKey, ResourceName, ShareId, ShareOptions, SignedAssignment, TunnelId,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

/// A tunnel as its gateway should have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelDesired {
    pub id: TunnelId,
    pub generation: Generation,
    /// Whose it is, which shares the gateway's connections with others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frontdoor: Option<FrontdoorId>,
    /// For logs only.
    pub name: ResourceName,
    /// A small number, unique among the live tunnels of the gateway's location: what the gateway numbers its
    /// links and interfaces with.
    pub slot: u16,
    pub peer_address: PeerAddress,
    pub peer_cidr: PeerCidr,
    pub peer_id: PeerId,
    /// The address that the remote site connects to.
    pub load_balancer_ip: Ipv4Addr,
    /// The keys that the peer may use, the newest first.
    pub keys: Vec<PreSharedKey>,
    /// From then on, by the gateway's own clock, a key is not valid: one for each key but the first. Without any, as an older server
    /// sends them, keys are valid until others are sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous_until: Vec<Timestamp>,
    #[serde(default)]
    pub ike_proposals: IkeProposals,
    #[serde(default)]
    pub esp_proposals: EspProposals,
    /// The gateway initiates the connection, and again whenever it is down; otherwise it waits for the peer.
    #[serde(default)]
    pub initiate: bool,
    /// SAs of before this generation are ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<Generation>,
    /// If not, no SA is kept or accepted, and no share of the tunnel is served.
    #[serde(default = "enabled")]
    pub enabled: bool,
}

impl TunnelDesired {
    /// Without the keys that are not valid any more.
    pub fn with_valid_keys(self: &Arc<Self>, now: Timestamp) -> Arc<Self> {
        if self.previous_until.iter().all(|until| *until > now) {
            return Arc::clone(self);
        }
        let mut tunnel = Self::clone(self);
        let ends = self.previous_until.iter().copied().map(Some).chain(std::iter::repeat(None));
        let previous = self.keys.iter().skip(1).zip(ends);
        let left: Vec<_> = previous.filter(|(_, until)| until.is_none_or(|until| until > now)).collect();
        tunnel.keys.truncate(1);
        tunnel.keys.extend(left.iter().map(|(key, _)| (*key).clone()));
        tunnel.previous_until = left.iter().filter_map(|(_, until)| *until).collect();
        Arc::new(tunnel)
    }

    /// When the next key becomes invalid.
    pub fn next_key_end(&self) -> Option<Timestamp> {
        self.previous_until.iter().min().copied()
    }
}

/// A share as its gateway should serve it. Its target is in the assignment, which only agents act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShareDesired {
    pub id: ShareId,
    pub generation: Generation,
    pub tunnel: TunnelId,
    pub environment: EnvironmentId,
    pub ingress_port: IngressPort,
    /// If not, its port is closed.
    #[serde(default = "enabled")]
    pub enabled: bool,
    /// From then on, by the gateway's own clock, its port is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    #[serde(default)]
    pub options: ShareOptions,
    pub assignment: SignedAssignment,
}

/// What an older server sends, which does not name it.
fn enabled() -> bool {
    true
}

/// What a gateway knows of an agent, by the id in its certificate. It serves no agent that it was not told of: that the
/// authority once signed a certificate is not enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub enum AgentDesired {
    /// It may connect, for this environment and with the key that it has enrolled with.
    Enrolled { environment: EnvironmentId, key_sha256: [u8; 32] },
    /// It was removed, and is told so.
    Barred,
}

/// Everything that one gateway should serve.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    pub tunnels: BTreeMap<TunnelId, Arc<TunnelDesired>>,
    pub shares: BTreeMap<ShareId, Arc<ShareDesired>>,
    pub agents: BTreeMap<AgentId, AgentDesired>,
}

/// A checksum of a whole [`Desired`], as `link` computes it. Two states with the same digest are the same but for signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredDigest(pub [u8; 32]);

/// The steps from one [`Desired`] to another. Applying a delta twice is the same as once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DesiredDelta {
    /// Of the database: with this delta, the receiver has all changes up to it.
    pub revision: u64,
    /// When the sender last read all rows. What changes with the time is as it was then, or later.
    #[serde(default)]
    pub read_at: Timestamp,
    /// Of the receiver's state with this delta. `None`: it is not checked, since the two ends are in one process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<DesiredDigest>,
    /// The first message of a link: the receiver discards its previous state.
    pub reset: bool,
    /// Of one with `reset`: the sender could not read all of its rows. What is not named is kept as it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_partial: bool,
    pub tunnels: Vec<Arc<TunnelDesired>>,
    pub shares: Vec<Arc<ShareDesired>>,
    pub removed_tunnels: Vec<TunnelId>,
    pub removed_shares: Vec<ShareId>,
    pub agents: Vec<(AgentId, AgentDesired)>,
    pub forgotten_agents: Vec<AgentId>,
}

impl DesiredDelta {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        let (revision, read_at, digest) = (self.revision, self.read_at, self.digest);
        *self == Self { revision, read_at, digest, ..Self::default() }
    }
}

impl Desired {
    /// The delta from `sent`, which the receiver has, to `self`, if only `touched` may have changed in between. A gateway
    /// has many shares, of which few change at a time. The sender adds revision, time and digest.
    pub fn since(&self, sent: &Self, touched: &Touched) -> DesiredDelta {
        let (tunnels, removed_tunnels) = changes(&self.tunnels, &sent.tunnels, &touched.tunnels);
        let (shares, removed_shares) = changes(&self.shares, &sent.shares, &touched.shares);
        let (agents, forgotten_agents) = changes(&self.agents, &sent.agents, &touched.agents);
        DesiredDelta {
            revision: 0,
            read_at: Timestamp::default(),
            digest: None,
            reset: false,
            is_partial: false,
            tunnels: tunnels.into_iter().map(|(_, tunnel)| tunnel).collect(),
            shares: shares.into_iter().map(|(_, share)| share).collect(),
            removed_tunnels,
            removed_shares,
            agents,
            forgotten_agents,
        }
    }

    /// The complete state, for a new link.
    pub fn snapshot(&self) -> DesiredDelta {
        DesiredDelta { reset: true, ..self.since(&Self::default(), &Touched::all([self])) }
    }

    pub fn apply(&mut self, delta: &DesiredDelta) {
        if delta.reset {
            *self = Self::default();
        }
        self.tunnels.extend(delta.tunnels.iter().map(|t| (t.id, Arc::clone(t))));
        self.shares.extend(delta.shares.iter().map(|s| (s.id, Arc::clone(s))));
        for id in &delta.removed_tunnels {
            self.tunnels.remove(id);
        }
        for id in &delta.removed_shares {
            self.shares.remove(id);
        }
        self.agents.extend(delta.agents.iter().copied());
        for id in &delta.forgotten_agents {
            self.agents.remove(id);
        }
    }
}

/// The ids of rows that may differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    pub tunnels: BTreeSet<TunnelId>,
    pub shares: BTreeSet<ShareId>,
    pub agents: BTreeSet<AgentId>,
}

impl Touched {
    /// All rows of these states.
    pub fn all<const N: usize>(states: [&Desired; N]) -> Self {
        Self {
            tunnels: states.iter().flat_map(|state| state.tunnels.keys()).copied().collect(),
            shares: states.iter().flat_map(|state| state.shares.keys()).copied().collect(),
            agents: states.iter().flat_map(|state| state.agents.keys()).copied().collect(),
        }
    }
}

/// Among `keys`: the values of `new` that are not the same in `old`, and the keys that only `old` has.
fn changes<K: Ord + Copy, V: PartialEq + Clone>(
    new: &BTreeMap<K, V>,
    old: &BTreeMap<K, V>,
    keys: &BTreeSet<K>,
) -> (Vec<(K, V)>, Vec<K>) {
    let (mut changed, mut removed) = (Vec::new(), Vec::new());
    for key in keys {
        match (new.get(key), old.get(key)) {
            (Some(new), old) if old != Some(new) => changed.push((*key, new.clone())),
            (None, Some(_)) => removed.push(*key),
            (Some(_) | None, _) => {}
        }
    }
    (changed, removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::btree_map, prelude::*};
    use uuid::Uuid;

    fn share(n: u8, generation: u8) -> ShareDesired {
        ShareDesired {
            id: ShareId::new(Uuid::from_u128(n.into())),
            generation: Generation::new(generation.into()),
            tunnel: TunnelId::new(Uuid::nil()),
            environment: EnvironmentId::new(Uuid::nil()),
            ingress_port: IngressPort::try_from(i64::from(n) + 1).unwrap(),
            enabled: true,
            expires_at: None,
            options: ShareOptions::default(),
            assignment: SignedAssignment { body: String::new(), signature: Vec::new() },
        }
    }

    fn tunnel(previous_until: &[Timestamp]) -> Arc<TunnelDesired> {
        let keys: Vec<_> =
            (0..=previous_until.len()).map(|n| "abcdefghijklmnop"[n..].to_owned().repeat(3)).collect();
        let tunnel = serde_json::json!({
            "id": TunnelId::new(Uuid::nil()), "generation": 1, "name": "site", "slot": 1, "peerAddress": "203.0.113.1",
            "peerCidr": "10.0.0.0/16", "peerId": "peer.example.org", "loadBalancerIp": "100.64.0.1", "keys": keys,
            "previousUntil": previous_until,
        });
        serde_json::from_value(tunnel).unwrap()
    }

    #[test]
    fn a_previous_key_ends_at_its_own_time_and_the_first_one_never() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let all = tunnel(&[at(20), at(10), at(30)]);
        assert_eq!((all.keys.len(), all.next_key_end()), (4, Some(at(10))));
        assert!(Arc::ptr_eq(&all.with_valid_keys(at(9)), &all), "nothing is copied while nothing ends");
        let first = all.with_valid_keys(at(10));
        assert_eq!(first.keys, [all.keys[0].clone(), all.keys[1].clone(), all.keys[3].clone()]);
        assert_eq!((&first.previous_until[..], first.next_key_end()), (&[at(20), at(30)][..], Some(at(20))));
        // Step by step, and at once.
        assert_eq!(first.with_valid_keys(at(29)), all.with_valid_keys(at(29)));
        let last = all.with_valid_keys(at(30));
        assert_eq!((&last.keys[..], last.next_key_end()), (&all.keys[..1], None));
        // An older server names no ends.
        let unknown = Arc::new(TunnelDesired { previous_until: Vec::new(), ..TunnelDesired::clone(&all) });
        assert_eq!(unknown.with_valid_keys(Timestamp::MAX).keys, all.keys);
    }

    fn desired() -> impl Strategy<Value = Desired> {
        let agent = |key: u8| match key {
            0 => AgentDesired::Barred,
            key => {
                AgentDesired::Enrolled { environment: EnvironmentId::new(Uuid::nil()), key_sha256: [key; 32] }
            }
        };
        (btree_map(0u8..6, 0u8..3, 0..6), btree_map(0u8..4, 0u8..3, 0..4)).prop_map(
            move |(shares, agents)| Desired {
                tunnels: BTreeMap::new(),
                shares: shares.into_iter().map(|(n, g)| share(n, g)).map(|s| (s.id, Arc::new(s))).collect(),
                agents: agents
                    .into_iter()
                    .map(|(n, key)| (AgentId::new(Uuid::from_u128(n.into())), agent(key)))
                    .collect(),
            },
        )
    }

    proptest! {
        #[test]
        fn a_delta_leads_from_one_to_the_other(old in desired(), new in desired()) {
            let touched = Touched::all([&old, &new]);
            let delta = new.since(&old, &touched);
            let mut received = old.clone();
            received.apply(&delta);
            prop_assert_eq!(&received, &new);
            received.apply(&delta);
            prop_assert_eq!(&received, &new);
            prop_assert!(new.since(&received, &touched).is_empty());
        }

        #[test]
        fn a_snapshot_replaces_the_previous_state(old in desired(), new in desired()) {
            let mut received = old;
            received.apply(&new.snapshot());
            prop_assert_eq!(received, new);
        }
    }
}
