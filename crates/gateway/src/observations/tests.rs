//! What reports say.

use super::*;
use serde_json::json;
use uuid::Uuid;
use wicketgate_link::{FromGateway, Part, Parted as _, ROWS_OF_PART, codec};

fn tunnel(n: u128) -> TunnelId {
    TunnelId::new(Uuid::from_u128(n))
}

fn share(n: u128) -> ShareId {
    ShareId::new(Uuid::from_u128(n))
}

/// Of shares that an agent serves.
fn served(_: ShareId) -> AgentStanding {
    AgentStanding { ready: Some(Generation::FIRST), problem: None, catches_up: false }
}

/// A gateway that serves these shares on these tunnels, which are connected, and has told it.
fn serving(tunnels: u128, shares: u128) -> Observations {
    let observations = Observations::default();
    let start = Timestamp::UNIX_EPOCH;
    let connection = connected();
    for n in 0..tunnels {
        observations.expect_tunnel(tunnel(n), start);
        observations.update_tunnel(tunnel(n), |seen| {
            let connection = connection.clone();
            *seen = TunnelObserved { ready: Some(Generation::FIRST), problem: None, connection };
        });
    }
    for n in 0..shares {
        let tunnel = tunnel(n % tunnels);
        observations.expect_share(share(n), tunnel);
        let bound = Some(Generation::FIRST);
        observations.set_share(share(n), ListenerState { tunnel, bound, problem: None });
    }
    observations.agents_expected();
    observations.heard(1, Answer::Everything);
    let (heard, all) = observations.report_with(served, BTreeSet::new());
    assert_eq!((heard, all.reset, all.as_desired), (1, true, false));
    assert_eq!((all.tunnels.len() as u128, all.shares.len() as u128), (tunnels, shares));
    observations
}

/// The connection of a tunnel with a typical device.
fn connected() -> Connection {
    let at = "2026-11-30T12:34:56.123456Z";
    let times = json!({"establishedAt": at, "rekeyAt": at});
    let child = json!({
        "selectors": {"gateway": ["100.64.0.117/32"], "peer": ["192.168.117.0/24"]},
        "algorithms": "AES_GCM_16-256/ECP_384", "since": at, "rekeyAt": at, "rekeys": 217,
        "bytesIn": 123_456_789_012_u64, "bytesOut": 123_456_789_012_u64,
    });
    let connection = json!({
        "state": "UP", "since": at, "algorithms": {"ike": "AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384", "esp": "AES_GCM_16-256"},
        "peer": {"address": "203.0.113.117", "port": 4500, "id": "site-117.example.org"},
        "nat": {"gateway": true, "peer": true}, "ikeSa": times, "childSa": times, "childSas": [child],
        "bytesIn": 123_456_789_012_u64, "bytesOut": 123_456_789_012_u64, "rekeys": {"ike": 27, "child": 217},
    });
    serde_json::from_value(connection).unwrap()
}

fn desired(tunnels: u128, shares: u128) -> DesiredGenerations {
    DesiredGenerations {
        tunnels: (0..tunnels).map(|n| (tunnel(n), Generation::FIRST)).collect(),
        shares: (0..shares).map(|n| (share(n), Generation::FIRST)).collect(),
    }
}

#[test]
fn the_answer_to_a_new_link_names_what_is_not_as_desired() {
    let observations = serving(4, 6);
    let mut wanted = desired(4, 6);
    // A tunnel that is not connected, one whose new generation is not ready, and one that is being removed.
    observations.update_tunnel(tunnel(0), |seen| seen.connection = Connection::down(Timestamp::MAX));
    observations.update_tunnel(tunnel(1), |seen| seen.connection = Connection::down(Timestamp::MAX));
    wanted.tunnels.insert(tunnel(1), Generation::new(2));
    wanted.tunnels.remove(&tunnel(3));
    // The same of shares, and one whose agent is gone.
    wanted.shares.insert(share(1), Generation::new(2));
    wanted.shares.remove(&share(2));
    let offline = Problem::new(Reason::AgentOffline, "no agent is connected");
    let agents = |id| match id {
        _ if id == share(3) => AgentStanding { problem: Some(offline.clone()), ..served(id) },
        _ => served(id),
    };
    observations.heard(1, Answer::Exceptions(wanted));
    // And before the report, one is removed, and one is told again.
    observations.remove_share(share(4), tunnel(0));
    let (_, told) = observations.report_with(agents, BTreeSet::from([share(5)]));
    assert!(told.reset && told.as_desired);
    let tunnels: Vec<_> = told.tunnels.iter().map(|(id, _)| *id).collect();
    assert_eq!(tunnels, [tunnel(1), tunnel(2), tunnel(3)]);
    let shares: Vec<_> = told.shares.iter().map(|(id, _)| *id).collect();
    assert_eq!(shares, [share(1), share(2), share(3), share(5)]);
    assert_eq!(told.gone_shares, [share(4)]);
    // Once only.
    observations.heard(2, Answer::Changes);
    assert_eq!(observations.report_with(agents, BTreeSet::new()), (2, ObservedDelta::default()));
}

#[test]
fn ten_thousand_shares_on_sixty_connected_tunnels_are_told_in_less_than_64_kib() {
    let observations = serving(60, 10_000);
    observations.heard(1, Answer::Exceptions(desired(60, 10_000)));
    let (heard, delta) = observations.report_with(served, BTreeSet::new());
    assert_eq!((delta.tunnels.len(), delta.shares.len()), (60, 0));
    let parts = FromGateway::Observed { heard, part: Part::WHOLE, delta }.cut(ROWS_OF_PART);
    let bytes: usize = parts.iter().map(|part| codec::encode(part).unwrap().len()).sum();
    // The server's part is `a_gateway_that_holds_ten_thousand_shares_is_sent_a_few_hundred_bytes`.
    assert!(bytes < 63 << 10, "{bytes}");
}

#[test]
fn a_disabled_share_is_as_desired_without_an_agent_and_another_is_not() {
    let tunnel = TunnelId::new(Uuid::nil());
    let offline = Problem::new(Reason::AgentOffline, "no agent of the environment is connected");
    let seen = |problem: Option<Problem>| {
        let listener = ListenerState { tunnel, bound: Some(Generation::FIRST), problem };
        share_observed(
            &listener,
            AgentStanding { ready: None, problem: Some(offline.clone()), catches_up: false },
        )
    };
    let disabled = seen(Some(Problem::disabled()));
    assert_eq!((disabled.ready, disabled.problem), (Some(Generation::FIRST), Some(Problem::disabled())));
    let enabled = seen(None);
    assert_eq!((enabled.ready, enabled.problem), (None, Some(offline.clone())));
}

#[test]
fn a_removed_row_is_named_until_the_disk_has_its_removal() {
    let observations = serving(2, 2);
    let of = |observations: &Observations| observations.report_with(served, BTreeSet::new()).1;
    observations.keep_until_synced(7, &[tunnel(1)], &[share(1)]);
    // Before anything of it has ended, it is named: the answer to the delta does not take its absence for the end.
    let told = of(&observations);
    assert_eq!((told.tunnels.len(), told.shares.len()), (1, 1));
    observations.remove_share(share(1), tunnel(1));
    observations.remove_tunnel(tunnel(1));
    let told = of(&observations);
    assert_eq!((told.gone_tunnels, told.gone_shares), (Vec::new(), Vec::new()));
    assert!(told.tunnels[0].1.ready.is_none() && told.shares[0].1.problem.is_some());
    // A new link is told of it, too, and an older number is not enough.
    observations.synced(6);
    observations.heard(1, Answer::Everything);
    let told = of(&observations);
    assert_eq!((told.tunnels.len(), told.shares.len()), (2, 2));
    observations.synced(7);
    let told = of(&observations);
    assert_eq!((told.gone_tunnels, told.gone_shares), (vec![tunnel(1)], vec![share(1)]));
}

#[test]
fn a_removal_that_the_disk_has_first_is_as_without_a_disk() {
    let observations = serving(1, 1);
    observations.keep_until_synced(1, &[], &[share(0)]);
    observations.synced(1);
    observations.remove_share(share(0), tunnel(0));
    let (_, told) = observations.report_with(served, BTreeSet::new());
    assert_eq!((told.shares.len(), told.gone_shares), (0, vec![share(0)]));
}

#[test]
fn a_row_that_returns_before_its_removal_is_written_is_a_new_one() {
    let observations = serving(1, 1);
    observations.keep_until_synced(1, &[], &[share(0)]);
    observations.remove_share(share(0), tunnel(0));
    observations.expect_share(share(0), tunnel(0));
    observations.synced(1);
    let (bound, problem) = observations.listener(share(0));
    assert!(
        bound.is_none() && problem.is_some_and(|problem| problem.message.contains("setting the share up"))
    );
}
