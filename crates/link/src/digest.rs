//! The digest of a desired state, which tells whether a gateway has what its server thinks it has.
//!
//! It is the sum, modulo 2^256, of the SHA-256 of all rows. So it does not depend on their order, and a change of a row costs two hashes.
//! A row is hashed as JSON, in the order of its fields, with the body of its assignment and without the signature: each server signs
//! anew, and signatures of the same body differ. Rows with other fields, of another version, have another digest, and are sent again.

use crate::HeldState;
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use wicketgate_model::{
    AgentDesired, AgentId, Desired, DesiredDelta, DesiredDigest, EnvironmentId, Era, Generation, IngressPort,
    ShareDesired, ShareId, ShareOptions, SignedAssignment, TunnelDesired, TunnelId,
};

/// A desired state as it was received or sent, with its digest once that is asked for.
#[derive(Debug, Default)]
pub struct DigestedState {
    state: Desired,
    sum: Option<Sum>,
    /// Of the last delta.
    revision: u64,
    read_at: Timestamp,
}

/// The least significant part first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum([u64; 4]);

impl DigestedState {
    pub fn state(&self) -> &Desired {
        &self.state
    }

    pub fn apply(&mut self, delta: &DesiredDelta) {
        match &mut self.sum {
            _ if delta.reset => self.sum = None,
            Some(sum) => sum.follow(&self.state, delta),
            None => {}
        }
        self.state.apply(delta);
        (self.revision, self.read_at) = (delta.revision, delta.read_at);
    }

    /// What the gateway's next link is told of it.
    pub fn held(&mut self, era: Era) -> HeldState {
        let (digest, Self { revision, read_at, .. }) = (self.digest(), &*self);
        let (tunnels, shares) = (self.state.tunnels.len(), self.state.shares.len());
        HeldState { era, revision: *revision, read_at: *read_at, digest, tunnels, shares }
    }

    /// The first call hashes all rows, some microseconds each; later ones those that have changed.
    pub fn digest(&mut self) -> DesiredDigest {
        self.sum.get_or_insert_with(|| Sum::of(&self.state)).digest()
    }

    /// Whether it is the state that the sender of the delta, which was applied, has. In one process, it is not looked at.
    pub fn agrees_with(&mut self, delta: &DesiredDelta) -> bool {
        delta.digest.is_none_or(|digest| digest == self.digest())
    }
}

impl From<Desired> for DigestedState {
    fn from(state: Desired) -> Self {
        Self { state, ..Self::default() }
    }
}

impl Sum {
    fn of(state: &Desired) -> Self {
        let mut sum = Self::default();
        state.tunnels.values().for_each(|tunnel| sum.add(&Row::of_tunnel(tunnel)));
        state.shares.values().for_each(|share| sum.add(&Row::of_share(share)));
        state.agents.iter().for_each(|(id, agent)| sum.add(&Row::Agent(*id, *agent)));
        sum
    }

    /// Of the state after the delta; this one is that of `before`.
    fn follow(&mut self, before: &Desired, delta: &DesiredDelta) {
        // A row may be named twice.
        let tunnels: BTreeSet<_> = delta
            .tunnels
            .iter()
            .map(|tunnel| tunnel.id)
            .chain(delta.removed_tunnels.iter().copied())
            .collect();
        for tunnel in tunnels.iter().filter_map(|id| before.tunnels.get(id)) {
            self.subtract(&Row::of_tunnel(tunnel));
        }
        let shares: BTreeSet<_> =
            delta.shares.iter().map(|share| share.id).chain(delta.removed_shares.iter().copied()).collect();
        for share in shares.iter().filter_map(|id| before.shares.get(id)) {
            self.subtract(&Row::of_share(share));
        }
        let agents: BTreeSet<_> =
            delta.agents.iter().map(|(id, _)| *id).chain(delta.forgotten_agents.iter().copied()).collect();
        for id in agents {
            if let Some(agent) = before.agents.get(&id) {
                self.subtract(&Row::Agent(id, *agent));
            }
        }
        let added = DesiredDelta { reset: true, digest: None, ..delta.clone() };
        let mut after = Desired::default();
        after.apply(&added);
        self.add_all(Self::of(&after));
    }

    fn add(&mut self, row: &Row<'_>) {
        self.add_all(row.hash());
    }

    fn add_all(&mut self, Self(other): Self) {
        let mut carry = false;
        for (part, other) in self.0.iter_mut().zip(other) {
            let (sum, first) = part.overflowing_add(other);
            let (sum, second) = sum.overflowing_add(carry.into());
            (*part, carry) = (sum, first | second);
        }
    }

    fn subtract(&mut self, row: &Row<'_>) {
        // Of two's complement.
        let Self(hash) = row.hash();
        self.add_all(Self(hash.map(|part| !part)));
        self.add_all(Self([1, 0, 0, 0]));
    }

    fn digest(self) -> DesiredDigest {
        let mut bytes = [0; 32];
        for (to, part) in bytes.chunks_exact_mut(8).zip(self.0) {
            to.copy_from_slice(&part.to_le_bytes());
        }
        DesiredDigest(bytes)
    }
}

/// What is hashed of a row.
#[derive(Serialize)]
enum Row<'a> {
    Tunnel(&'a TunnelDesired),
    Share {
        id: ShareId,
        generation: Generation,
        tunnel: TunnelId,
        environment: EnvironmentId,
        ingress_port: IngressPort,
        enabled: bool,
        expires_at: Option<Timestamp>,
        options: &'a ShareOptions,
        assignment: &'a str,
    },
    Agent(AgentId, AgentDesired),
}

impl<'a> Row<'a> {
    fn of_tunnel(tunnel: &'a TunnelDesired) -> Self {
        Self::Tunnel(tunnel)
    }

    fn of_share(share: &'a ShareDesired) -> Self {
        let ShareDesired {
            id,
            generation,
            tunnel,
            environment,
            ingress_port,
            enabled,
            expires_at,
            options,
            assignment: SignedAssignment { body, signature: _ },
        } = share;
        Self::Share {
            id: *id,
            generation: *generation,
            tunnel: *tunnel,
            environment: *environment,
            ingress_port: *ingress_port,
            enabled: *enabled,
            expires_at: *expires_at,
            options,
            assignment: body,
        }
    }

    fn hash(&self) -> Sum {
        let mut hasher = Sha256::new();
        // Rows have names of fields as keys: nothing in them cannot be written.
        let _ = serde_json::to_writer(&mut hasher, self);
        let hash: [u8; 32] = hasher.finalize().into();
        let mut parts = [0; 4];
        for (part, bytes) in parts.iter_mut().zip(hash.as_chunks().0) {
            *part = u64::from_le_bytes(*bytes);
        }
        Sum(parts)
    }
}

#[cfg(test)]
mod tests;
