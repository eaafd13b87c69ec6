//! Digests of states that change.

use super::*;
use crate::message::tests;
use proptest::{collection::vec, prelude::*};
use std::sync::Arc;
use uuid::Uuid;

/// What happens to one of a few rows: it is removed, or gets this generation.
#[derive(Debug, Clone, Copy)]
enum Act {
    Tunnel(u8, Option<u64>),
    Share(u8, Option<u64>),
    Agent(u8, Option<u8>),
}

fn act() -> impl Strategy<Value = Act> {
    let generation = || proptest::option::weighted(0.7, 1u64..5);
    prop_oneof![
        (0u8..4, generation()).prop_map(|(n, to)| Act::Tunnel(n, to)),
        (0u8..6, generation()).prop_map(|(n, to)| Act::Share(n, to)),
        (0u8..4, proptest::option::weighted(0.7, 1u8..5)).prop_map(|(n, to)| Act::Agent(n, to)),
    ]
}

/// One that may name a row twice.
fn delta(acts: &[Act], reset: bool) -> DesiredDelta {
    let (one, mut delta) = (tests::desired(), DesiredDelta { reset, ..DesiredDelta::default() });
    let uuid = |n: u8| Uuid::from_u128(n.into());
    for act in acts {
        match *act {
            Act::Tunnel(n, Some(to)) => {
                let tunnel = (*one.tunnels[0]).clone();
                let (id, generation) = (TunnelId::new(uuid(n)), Generation::new(to));
                delta.tunnels.push(Arc::new(TunnelDesired { id, generation, ..tunnel }));
            }
            Act::Tunnel(n, None) => delta.removed_tunnels.push(TunnelId::new(uuid(n))),
            Act::Share(n, Some(to)) => {
                let share = (*one.shares[0]).clone();
                let (id, generation) = (ShareId::new(uuid(n)), Generation::new(to));
                delta.shares.push(Arc::new(ShareDesired { id, generation, ..share }));
            }
            Act::Share(n, None) => delta.removed_shares.push(ShareId::new(uuid(n))),
            Act::Agent(n, Some(to)) => {
                let enrolled =
                    AgentDesired::Enrolled { environment: EnvironmentId::new(uuid(1)), key_sha256: [to; 32] };
                delta.agents.push((AgentId::new(uuid(n)), enrolled));
            }
            Act::Agent(n, None) => delta.forgotten_agents.push(AgentId::new(uuid(n))),
        }
    }
    delta
}

proptest! {
    #[test]
    fn the_digest_of_changes_is_that_of_the_result(
        deltas in vec((vec(act(), 0..6), proptest::bool::weighted(0.1)), 1..12), asked in 0usize..12,
    ) {
        let mut state = DigestedState::default();
        let mut before: Option<(Desired, DesiredDigest)> = None;
        for (n, (acts, reset)) in deltas.iter().enumerate() {
            state.apply(&delta(acts, *reset));
            // Until then, nothing is hashed.
            if n < asked {
                continue;
            }
            let digest = state.digest();
            prop_assert_eq!(digest, DigestedState::from(state.state().clone()).digest());
            if let Some((earlier, its)) = before {
                prop_assert_eq!(digest == its, earlier == *state.state());
            }
            before = Some((state.state().clone(), digest));
        }
    }
}

#[test]
fn a_signature_does_not_count_and_a_body_does() {
    let mut delta = tests::desired();
    let digest = |delta: &DesiredDelta| {
        let mut state = DigestedState::default();
        state.apply(delta);
        state.digest()
    };
    let first = digest(&delta);
    Arc::make_mut(&mut delta.shares[0]).assignment.signature = vec![1, 2, 3];
    assert_eq!(digest(&delta), first);
    Arc::make_mut(&mut delta.shares[0]).assignment.body.push(' ');
    assert_ne!(digest(&delta), first);
}

#[test]
fn nothing_is_hashed_for_a_delta_without_a_digest() {
    let (mut state, mut delta) = (DigestedState::default(), tests::desired());
    delta.digest = None;
    state.apply(&delta);
    assert!(state.agrees_with(&delta) && state.sum.is_none());
    delta.digest = Some(DesiredDigest([0; 32]));
    assert!(!state.agrees_with(&delta));
    delta.digest = Some(state.digest());
    assert!(state.agrees_with(&delta));
}
