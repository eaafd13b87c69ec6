//! Messages that are cut and joined.

use super::*;
use crate::{AgentShareState, AgentShares, ConnectedAgent, codec, message::tests, wire::MAX_BODY};
use jiff::Timestamp;
use proptest::{collection::vec, prelude::*};
use uuid::Uuid;
use wicketgate_model::{
    AgentDesired, AgentId, EnvironmentId, FailureReason, ShareId, TrafficDelta, TunnelId,
};

/// With so many rows of each kind.
fn desired(counts: [usize; 6]) -> DesiredDelta {
    let one = tests::desired();
    let uuid = |n: usize| Uuid::from_u128(n as u128);
    let [tunnels, shares, removed_tunnels, removed_shares, agents, forgotten] = counts;
    DesiredDelta {
        tunnels: vec![Arc::clone(&one.tunnels[0]); tunnels],
        shares: vec![Arc::clone(&one.shares[0]); shares],
        removed_tunnels: (0..removed_tunnels).map(|n| TunnelId::new(uuid(n))).collect(),
        removed_shares: (0..removed_shares).map(|n| ShareId::new(uuid(n))).collect(),
        agents: (0..agents).map(|n| (AgentId::new(uuid(n)), AgentDesired::Barred)).collect(),
        forgotten_agents: (0..forgotten).map(|n| AgentId::new(uuid(n))).collect(),
        ..one
    }
}

fn observed([tunnels, shares, gone_tunnels, gone_shares]: [usize; 4]) -> ObservedDelta {
    let one = tests::observed();
    let uuid = |n: usize| Uuid::from_u128(n as u128);
    ObservedDelta {
        tunnels: vec![one.tunnels[0].clone(); tunnels],
        shares: vec![one.shares[0].clone(); shares],
        gone_tunnels: (0..gone_tunnels).map(|n| TunnelId::new(uuid(n))).collect(),
        gone_shares: (0..gone_shares).map(|n| ShareId::new(uuid(n))).collect(),
        ..one
    }
}

fn agent(n: usize) -> ConnectedAgent {
    ConnectedAgent {
        agent: AgentId::new(Uuid::from_u128(n as u128)),
        environment: EnvironmentId::new(Uuid::nil()),
        version: "0.1.0".to_owned(),
        name: "dc-1".to_owned(),
        address: [192, 0, 2, 1].into(),
    }
}

fn report(number: u64, shares: usize) -> SpooledTraffic {
    let delta = |n| TrafficDelta {
        rx: u64::MAX,
        ..TrafficDelta::new(ShareId::new(Uuid::from_u128(n as u128)), TunnelId::new(Uuid::nil()))
    };
    let (spool, at) = (Uuid::nil(), Timestamp::UNIX_EPOCH);
    SpooledTraffic { spool, number, at, deltas: (0..shares).map(delta).collect() }
}

fn counts<const N: usize>() -> impl Strategy<Value = [usize; N]> {
    vec(prop_oneof![Just(0), 0usize..9, Just(30)], N).prop_map(|counts| counts.try_into().unwrap())
}

/// Joins parts of a message that arrive with other messages between them, and returns how many parts there were.
fn passes<M: Parted + Clone + PartialEq + std::fmt::Debug>(message: &M, other: &M, rows: usize) -> usize {
    let parts = message.clone().cut(rows);
    let (count, mut joiner) = (parts.len(), Joiner::default());
    for (n, part) in parts.into_iter().enumerate() {
        assert_eq!(joiner.take(other.clone()), Ok(Some(other.clone())), "a short message does not wait");
        let whole = joiner.take(part).unwrap();
        assert_eq!(whole.as_ref(), (n + 1 == count).then_some(message), "only the last part completes it");
    }
    count
}

proptest! {
    #[test]
    fn parts_have_few_rows_and_make_the_message(
        (to, from) in (counts::<6>(), counts::<4>()), count in 0usize..20, rows in 1usize..12,
    ) {
        let message = ToGateway::Desired { sequence: 7, part: Part::WHOLE, delta: desired(to) };
        let other = ToGateway::TrafficRecorded { spool: Uuid::nil(), number: 1 };
        let parts = passes(&message, &other, rows);
        prop_assert_eq!(parts, to.iter().sum::<usize>().div_ceil(rows).max(1));

        let message = FromGateway::Observed { heard: 7, part: Part::WHOLE, delta: observed(from) };
        let parts = passes(&message, &FromGateway::Draining, rows);
        prop_assert_eq!(parts, from.iter().sum::<usize>().div_ceil(rows).max(1));

        let agents = (0..count).map(agent).collect();
        let connected = FromGateway::ConnectedAgents { agents, is_all: true, part: Part::WHOLE };
        let asked = (0..count).map(|n| AgentShares { agent: agent(n).agent, ..tests::agent_shares() }).collect();
        let answer = FromGateway::Agents { request: tests::request(), agents: asked, part: Part::WHOLE };
        let traffic = FromGateway::Traffic { report: report(7, count).into(), part: Part::WHOLE };
        for message in [connected, answer, traffic] {
            let parts = passes(&message, &FromGateway::Draining, rows);
            prop_assert_eq!(parts, count.div_ceil(rows).max(1));
        }
    }
}

#[test]
fn a_part_that_is_missing_or_of_another_message_is_refused() {
    let message =
        |sequence| ToGateway::Desired { sequence, part: Part::WHOLE, delta: desired([0, 5, 0, 0, 0, 0]) };
    let parts = |sequence| message(sequence).cut(2);
    for order in [vec![(7, 1)], vec![(7, 0), (7, 2)], vec![(7, 0), (7, 0)], vec![(7, 0), (8, 1)]] {
        let mut joiner = Joiner::default();
        let (last, before) = order.split_last().unwrap();
        for (sequence, n) in before {
            assert_eq!(joiner.take(parts(*sequence)[*n].clone()), Ok(None));
        }
        assert_eq!(joiner.take(parts(last.0)[last.1].clone()), Err(MissingPart), "{order:?}");
    }
}

#[test]
fn parts_of_two_messages_are_not_joined() {
    let agents = |is_all| FromGateway::ConnectedAgents {
        agents: (0..5).map(agent).collect(),
        is_all,
        part: Part::WHOLE,
    };
    let traffic = |number| FromGateway::Traffic { report: report(number, 5).into(), part: Part::WHOLE };
    let observed = |heard| FromGateway::Observed { heard, part: Part::WHOLE, delta: observed([5, 0, 0, 0]) };
    for (one, other) in [
        (agents(true), agents(false)),
        (traffic(1), traffic(2)),
        (observed(1), observed(2)),
        (observed(1), traffic(1)),
    ] {
        let mut joiner = Joiner::default();
        assert_eq!(joiner.take(one.cut(2)[0].clone()), Ok(None));
        assert_eq!(joiner.take(other.cut(2)[1].clone()), Err(MissingPart));
    }
}

#[test]
fn a_message_has_no_end_of_parts() {
    let agents = |number| FromGateway::ConnectedAgents {
        agents: Vec::new(),
        is_all: true,
        part: Part { number, is_last: false },
    };
    let mut joiner = Joiner::default();
    for number in 0..PARTS {
        assert_eq!(joiner.take(agents(number)), Ok(None));
    }
    assert_eq!(joiner.take(agents(PARTS)), Err(MissingPart));
}

/// The lengths of a message's parts on the wire.
fn lengths<M: Parted + Serialize>(message: M) -> Vec<usize> {
    message.cut(ROWS_OF_PART).iter().map(|part| codec::encode(part).unwrap().len()).collect()
}

#[test]
fn rows_that_are_long_are_fewer_in_a_part() {
    let message = |bytes, rows| {
        let why = AgentShareState::Refused("x".repeat(bytes));
        let shares = vec![(ShareId::new(Uuid::nil()), why)];
        let agents = vec![AgentShares { shares, ..tests::agent_shares() }; rows];
        FromGateway::Agents { request: tests::request(), agents, part: Part::WHOLE }
    };
    for (bytes, rows, parts) in [(10_000, 1000, 20..22), (100_000, 10, 2..3), (600_000, 3, 3..4)] {
        let sizes = lengths(message(bytes, rows));
        assert!(parts.contains(&sizes.len()), "{sizes:?}");
        assert!(sizes.iter().all(|size| *size < MAX_BODY), "{sizes:?}");
        passes(&message(bytes, rows), &FromGateway::Draining, ROWS_OF_PART);
    }
}

#[test]
fn the_traffic_of_very_many_shares_is_cut() {
    let mut report = report(7, 100_000);
    for delta in &mut report.deltas {
        delta.failures =
            [FailureReason::NoAgent, FailureReason::ShareFull].map(|reason| (reason, u64::MAX)).into();
        let address = |n: u8| format!("2001:db8:1234:5678:9abc:def0:1234:{n}").parse().unwrap();
        delta.refused_sources = (0..8).map(address).collect();
    }
    let whole = FromGateway::Traffic { report: report.into(), part: Part::WHOLE };
    assert!(codec::encode(&whole).unwrap().len() > 50 * MAX_BODY);
    let sizes = lengths(whole);
    assert!(sizes.len() < 500 && sizes.iter().all(|size| *size < MAX_BODY), "{}", sizes.len());
}

#[test]
fn a_part_of_large_shares_is_smaller_than_a_megabyte() {
    let sources: Vec<_> = (0..64).map(|n| format!("10.100.{n}.0/24").parse().unwrap()).collect();
    let mut share = (*tests::desired().shares[0]).clone();
    share.options.allowed_sources = Some(sources.try_into().unwrap());
    share.assignment.body = "x".repeat(500);
    share.assignment.signature = vec![255; 72];
    let delta = DesiredDelta { shares: vec![share.into(); 1000], ..DesiredDelta::default() };
    let message = ToGateway::Desired { sequence: 1, part: Part::WHOLE, delta };
    let sizes = lengths(message);
    assert!(sizes.len() == 5 && sizes.iter().all(|size| *size < MAX_BODY), "{sizes:?}");
}
