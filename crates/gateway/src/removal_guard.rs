//! Holds back what a server would remove, if that is so much at once that it may be a mistake: its database is empty, old, or another
//! one.
//!
//! It is pure. Invariants: what is held back is served as before, and all else is applied. What is deleted one by one is not held back.

use std::collections::{BTreeMap, BTreeSet};

use wicketgate_model::{AgentId, Desired, DesiredDelta, ShareId, TunnelId};

/// So many tunnels are removed in any case.
const FEW: usize = 2;
/// More than one tunnel of so many is much.
const PART: usize = 5;

/// Removals that wait until a server confirms them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HeldRemovals {
    tunnels: BTreeSet<TunnelId>,
    /// Shares of these tunnels.
    shares: BTreeMap<ShareId, TunnelId>,
    /// They may serve these shares. They stay until the last of the tunnels is decided.
    agents: BTreeSet<AgentId>,
}

impl HeldRemovals {
    /// Takes what is doubtful out of the steps that lead from `now` to the state that a server has sent: very many removals, and those of
    /// tunnels that were doubtful `before` and were not decided.
    pub(crate) fn taken_from(steps: &mut DesiredDelta, now: &Desired, before: &BTreeSet<TunnelId>) -> Self {
        let mut tunnels: BTreeSet<_> =
            steps.removed_tunnels.iter().filter(|id| now.tunnels.contains_key(id)).copied().collect();
        if tunnels.len() <= FEW || tunnels.len() * PART <= now.tunnels.len() {
            tunnels.retain(|id| before.contains(id));
        }
        if tunnels.is_empty() {
            return Self::default();
        }
        let of_share = |id: &ShareId| now.shares.get(id).map(|share| share.tunnel);
        let shares: BTreeMap<_, _> = steps
            .removed_shares
            .iter()
            .filter_map(|id| Some((*id, of_share(id)?)))
            .filter(|(_, tunnel)| tunnels.contains(tunnel))
            .collect();
        steps.removed_tunnels.retain(|id| !tunnels.contains(id));
        steps.removed_shares.retain(|id| !shares.contains_key(id));
        let agents = std::mem::take(&mut steps.forgotten_agents).into_iter().collect();
        Self { tunnels, shares, agents }
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.tunnels.extend(other.tunnels);
        self.shares.extend(other.shares);
        self.agents.extend(other.agents);
    }

    pub(crate) fn tunnels(&self) -> &BTreeSet<TunnelId> {
        &self.tunnels
    }

    /// A delta says what these rows are to be: nothing of them waits any more.
    pub(crate) fn decided_by(&mut self, delta: &DesiredDelta) {
        for id in delta.tunnels.iter().map(|tunnel| &tunnel.id).chain(&delta.removed_tunnels) {
            self.tunnels.remove(id);
        }
        for id in delta.shares.iter().map(|share| &share.id).chain(&delta.removed_shares) {
            self.shares.remove(id);
        }
        for id in delta.agents.iter().map(|(id, _)| id).chain(&delta.forgotten_agents) {
            self.agents.remove(id);
        }
    }

    /// A server says that these tunnels were deleted. Returns what is to be removed now.
    pub(crate) fn confirmed(&mut self, tunnels: &[TunnelId]) -> DesiredDelta {
        let removed_tunnels: Vec<_> = tunnels.iter().filter(|id| self.tunnels.remove(id)).copied().collect();
        let is_last = self.tunnels.is_empty();
        let is_over = |tunnel: &TunnelId| is_last || removed_tunnels.contains(tunnel);
        let removed_shares: Vec<_> =
            self.shares.iter().filter(|(_, tunnel)| is_over(tunnel)).map(|(id, _)| *id).collect();
        self.shares.retain(|_, tunnel| !is_over(tunnel));
        let agents = if is_last { std::mem::take(&mut self.agents) } else { BTreeSet::new() };
        let forgotten_agents = agents.into_iter().collect();
        DesiredDelta { removed_tunnels, removed_shares, forgotten_agents, ..DesiredDelta::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::{collection::btree_map, prelude::*, sample::subsequence};
    use uuid::Uuid;
    use wicketgate_model::{
        AgentDesired, EnvironmentId, Generation, IngressPort, ShareDesired, ShareOptions, SignedAssignment,
        Touched, TunnelDesired,
    };

    use super::*;

    fn tunnel_id(n: u8) -> TunnelId {
        TunnelId::new(Uuid::from_u128(n.into()))
    }

    fn tunnel(n: u8, generation: u8) -> TunnelDesired {
        TunnelDesired {
            id: tunnel_id(n),
            generation: Generation::new(generation.into()),
            frontdoor: None,
            name: format!("tunnel-{n}").parse().unwrap(),
            slot: n.into(),
            peer_address: "203.0.113.1".parse().unwrap(),
            peer_cidr: "10.0.0.0/16".parse().unwrap(),
            peer_id: "peer.example.org".parse().unwrap(),
            load_balancer_ip: "100.64.0.1".parse().unwrap(),
            keys: Vec::new(),
            previous_until: Vec::new(),
            ike_proposals: Default::default(),
            esp_proposals: Default::default(),
            initiate: false,
            cut: None,
            enabled: true,
        }
    }

    /// A share of the tunnel with the same number.
    fn share(n: u8, generation: u8) -> ShareDesired {
        ShareDesired {
            id: ShareId::new(Uuid::from_u128(n.into())),
            generation: Generation::new(generation.into()),
            tunnel: tunnel_id(n),
            environment: EnvironmentId::new(Uuid::nil()),
            ingress_port: IngressPort::try_from(1).unwrap(),
            enabled: true,
            expires_at: None,
            options: ShareOptions::default(),
            assignment: SignedAssignment { body: String::new(), signature: Vec::new() },
        }
    }

    /// Tunnels, and whether they have a share and an agent.
    fn state(tunnels: impl IntoIterator<Item = (u8, (u8, bool))>) -> Desired {
        let mut state = Desired::default();
        for (n, (generation, has_more)) in tunnels {
            state.tunnels.insert(tunnel_id(n), Arc::new(tunnel(n, generation)));
            if has_more {
                let share = share(n, generation);
                state.shares.insert(share.id, Arc::new(share));
                state.agents.insert(AgentId::new(Uuid::from_u128(n.into())), AgentDesired::Barred);
            }
        }
        state
    }

    fn states() -> impl Strategy<Value = Desired> {
        btree_map(0_u8..20, (0_u8..3, any::<bool>()), 0..20).prop_map(state)
    }

    fn all(n: u8) -> impl Iterator<Item = (u8, (u8, bool))> {
        (0..n).map(|n| (n, (1, true)))
    }

    fn steps(now: &Desired, after: &Desired) -> DesiredDelta {
        after.since(now, &Touched::all([now, after]))
    }

    #[test]
    fn more_than_a_fifth_and_more_than_two_are_held_back() {
        for (before, after, held) in
            [(20, 0, 20), (20, 16, 0), (20, 15, 5), (2, 0, 0), (3, 0, 3), (10, 8, 0), (10, 7, 3)]
        {
            let (now, after) = (state(all(before)), state(all(after)));
            let mut steps = steps(&now, &after);
            let found = HeldRemovals::taken_from(&mut steps, &now, &BTreeSet::new());
            assert_eq!(found.tunnels().len(), held, "{before} {}", after.tunnels.len());
            assert_eq!(steps.removed_tunnels.is_empty(), held > 0 || now == after);
        }
    }

    #[test]
    fn what_was_doubtful_before_is_so_again_however_little_it_is() {
        let (now, after) = (state(all(20)), state(all(18)));
        let mut steps = steps(&now, &after);
        let found =
            HeldRemovals::taken_from(&mut steps, &now, &BTreeSet::from([tunnel_id(19), tunnel_id(3)]));
        assert_eq!(found.tunnels(), &BTreeSet::from([tunnel_id(19)]));
        assert_eq!(steps.removed_tunnels, [tunnel_id(18)]);
        assert_eq!(found.shares.len(), 1);
    }

    proptest! {
        #[test]
        fn what_is_held_back_is_as_before_and_all_else_as_sent(now in states(), after in states()) {
            let mut steps = steps(&now, &after);
            let whole = steps.clone();
            let held = HeldRemovals::taken_from(&mut steps, &now, &BTreeSet::new());
            if held.is_empty() {
                prop_assert_eq!(steps, whole);
                return Ok(());
            }
            let mut state = now.clone();
            state.apply(&steps);
            for (id, tunnel) in &now.tunnels {
                prop_assert_eq!(state.tunnels.get(id), after.tunnels.get(id).or(Some(tunnel)));
            }
            for (id, share) in now.shares.iter().filter(|(_, share)| held.tunnels.contains(&share.tunnel)) {
                prop_assert_eq!(state.shares.get(id), Some(share));
            }
            for (id, share) in &after.shares {
                prop_assert_eq!(state.shares.get(id), Some(share));
            }
            // A share of a tunnel that stays is removed.
            let left = state.shares.values().filter(|share| !after.shares.contains_key(&share.id));
            prop_assert!(left.clone().all(|share| held.tunnels.contains(&share.tunnel)));
        }

        #[test]
        fn when_all_are_confirmed_or_decided_the_state_is_as_sent(
            now in states(), after in states(), parts in subsequence((0_u8..20).collect::<Vec<_>>(), 0..20),
        ) {
            let mut first = steps(&now, &after);
            let mut held = HeldRemovals::taken_from(&mut first, &now, &BTreeSet::new());
            let mut state = now.clone();
            state.apply(&first);
            // Some are confirmed, others are deleted one by one, and the confirmation of one that is not held changes nothing.
            let some: Vec<_> = parts.iter().copied().map(tunnel_id).collect();
            state.apply(&held.confirmed(&some));
            if let Some(one) = held.tunnels().first().copied() {
                let shares = held.shares.iter().filter(|(_, tunnel)| **tunnel == one);
                let delta = DesiredDelta {
                    removed_tunnels: vec![one],
                    removed_shares: shares.map(|(id, _)| *id).collect(),
                    ..DesiredDelta::default()
                };
                held.decided_by(&delta);
                state.apply(&delta);
            }
            let rest: Vec<_> = held.tunnels().iter().copied().collect();
            state.apply(&held.confirmed(&rest));
            prop_assert!(held.is_empty());
            prop_assert_eq!(state, after);
        }
    }
}
