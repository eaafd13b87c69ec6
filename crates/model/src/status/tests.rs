use super::*;
use proptest::{option, prelude::*};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn generation() -> impl Strategy<Value = Generation> {
    (1u64..4).prop_map(Generation)
}

fn problem() -> impl Strategy<Value = Problem> {
    proptest::sample::select(&Reason::ALL[..]).prop_map(|r| Problem::new(r, "why"))
}

fn seen() -> impl Strategy<Value = Observation> {
    prop_oneof![
        (0i64..100, any::<bool>()).prop_map(|(s, drains)| Observation::Silent { since: at(s), drains }),
        (0i64..100).prop_map(|s| Observation::Looking { since: at(s) }),
        (0i64..200, any::<bool>())
            .prop_map(|(s, is_linked)| Observation::Unreachable { since: at(s), is_linked }),
        (option::of(generation()), option::of(problem()))
            .prop_map(|(ready, problem)| Observation::Seen { ready, problem }),
        Just(Observation::Gone),
    ]
}

fn standing() -> impl Strategy<Value = Standing> {
    (
        proptest::sample::select(&Status::ALL[..]),
        0i64..100,
        option::of(generation()),
        option::of((problem(), 0i64..100)),
    )
        .prop_map(|(status, since, observed_generation, detail)| Standing {
            status,
            since: at(since),
            observed_generation,
            detail: detail.map(|(problem, since)| Detail { problem, since: at(since) }),
        })
}

proptest! {
    #[test]
    fn the_rules_of_statuses_hold(current in standing(), g in generation(), seen in seen(), now in 100i64..200) {
        let now = at(now);
        let next = super::next(&current, g, &seen, Deadlines::default(), now);
        // DELETED is final, DELETING leads only to DELETED, and no status but DISABLED becomes NEW without a write.
        if current.status == Status::Deleted { prop_assert_eq!(&next, &current); }
        if current.status == Status::Deleting { prop_assert!(!next.status.is_live()); }
        if next.status == Status::New { prop_assert!(matches!(current.status, Status::New | Status::Disabled)); }
        // A status becomes DISABLED only if a gateway reports it, of the current generation.
        if next.status == Status::Disabled && current.status != Status::Disabled {
            let is_seen = matches!(&seen, Observation::Seen { ready, problem: Some(problem) }
                if *ready == Some(g) && problem.reason == Reason::Disabled);
            prop_assert!(is_seen);
        }
        if next.status == Status::Deleted && current.status != Status::Deleted {
            prop_assert_eq!(&seen, &Observation::Gone);
            prop_assert_eq!(current.status, Status::Deleting);
        }
        // A status becomes DEPLOYED only if a gateway reports the current generation as ready.
        if next.status == Status::Deployed && current.status != Status::Deployed {
            let is_seen = matches!(&seen, Observation::Seen { ready, .. } if *ready == Some(g));
            prop_assert!(is_seen);
        }
        // Every status except DEPLOYED has a detail with the reason.
        let is_kept = current.status == Status::Disabled || matches!(seen, Observation::Unreachable { .. });
        let has_detail = !is_kept || current.detail.is_some();
        if next.status != Status::Deployed && current.status != Status::Deleted && has_detail {
            prop_assert!(next.detail.is_some());
        }
        // `since` is the time of the last change of the status.
        prop_assert_eq!(next.since, if next.status == current.status { current.since } else { now });
    }

    #[test]
    fn a_second_decision_is_the_same(current in standing(), g in generation(), seen in seen(), now in 100i64..200) {
        let once = super::next(&current, g, &seen, Deadlines::default(), at(now));
        let twice = super::next(&once, g, &seen, Deadlines::default(), at(now));
        prop_assert_eq!(once, twice);
    }
}

#[test]
fn a_disabled_row_stays_so_until_a_gateway_reports_otherwise() {
    let g = Generation::FIRST;
    let step = |from: &Standing, seen, second| next(from, g, &seen, Deadlines::default(), at(second));
    let seen = |ready, problem| Observation::Seen { ready, problem };
    let new = Standing::new(at(0), None);
    let disabled = step(&new, seen(Some(g), Some(Problem::disabled())), 1);
    assert_eq!((disabled.status, disabled.since, disabled.serves()), (Status::Disabled, at(1), false));
    assert_eq!(disabled.detail.as_ref().map(|d| d.problem.clone()), Some(Problem::disabled()));
    // An old generation that was disabled is none.
    assert_eq!(step(&new, seen(Some(Generation::new(0)), Some(Problem::disabled())), 1).status, Status::New);
    let away = Observation::Silent { since: at(2), drains: false };
    assert_eq!(step(&disabled, away, 1000), disabled);
    assert_eq!(step(&disabled, Observation::Looking { since: at(2) }, 4).status, Status::Disabled);
    // Its tunnel is enabled again, and is not ready at once.
    let not_ready = Problem::new(Reason::TunnelNotReady, "not yet");
    let again = step(&disabled, seen(None, Some(not_ready.clone())), 1000);
    assert_eq!((again.status, again.since), (Status::New, at(1000)));
    assert_eq!(step(&again, seen(None, Some(not_ready)), 1030).status, Status::Error);
    assert_eq!(step(&disabled, seen(Some(g), None), 1000).status, Status::Deployed);
}

#[test]
fn what_a_gateway_without_a_link_serves_keeps_its_status_and_says_so() {
    let g = Generation::FIRST;
    let away = Observation::Unreachable { since: at(10), is_linked: false };
    let step = |from: &Standing, second| next(from, g, &away, Deadlines::default(), at(second));
    let new = Standing::new(at(0), None);
    let seen = Observation::Seen { ready: Some(g), problem: None };
    let deployed = next(&new, g, &seen, Deadlines::default(), at(1));
    assert_eq!(step(&deployed, 39), deployed, "it may find another server");
    let told = step(&deployed, 40);
    assert_eq!((told.status, told.since, told.serves()), (Status::Deployed, at(1), false));
    let detail = told.detail.clone().unwrap();
    assert_eq!((detail.problem.reason, detail.since), (Reason::GatewayUnreachable, at(40)));
    assert!(detail.problem.message.contains("was serving before"), "{}", detail.problem.message);
    assert_eq!(step(&told, 4000), told);
    assert_eq!(next(&told, g, &seen, Deadlines::default(), at(4001)).detail, None);
    // A change that came too late for the gateway.
    let changed = Standing::new(at(20), Some(g));
    assert_eq!(step(&changed, 39), changed);
    assert_eq!(step(&changed, 45).status, Status::New);
    let late = step(&changed, 50);
    assert_eq!(
        (late.status, late.detail.unwrap().problem.reason),
        (Status::Error, Reason::GatewayUnreachable)
    );
    // It has linked, and has the time of a change to say what it has.
    let linked = Observation::Unreachable { since: at(45), is_linked: true };
    assert_eq!(next(&changed, g, &linked, Deadlines::default(), at(74)), changed);
    assert_eq!(next(&changed, g, &linked, Deadlines::default(), at(75)).status, Status::Error);
    // What stays true without a gateway is not hidden.
    let expired = Problem::new(Reason::Expired, "over");
    let expired = Standing { detail: Some(Detail { problem: expired, since: at(2) }), ..deployed.clone() };
    assert_eq!(step(&expired, 1000), expired);
    let deleting = Standing { status: Status::Deleting, ..deployed };
    assert_eq!(step(&deleting, 100).status, Status::Deleting);
}

#[test]
fn an_expired_share_is_an_error_at_once_and_recovers() {
    let g = Generation::FIRST;
    let step = |from: &Standing, seen, second| next(from, g, &seen, Deadlines::default(), at(second));
    let expired = || Observation::Seen { ready: None, problem: Some(Problem::new(Reason::Expired, "over")) };
    let deployed = Observation::Seen { ready: Some(g), problem: None };
    let new = Standing::new(at(0), None);
    let error = step(&new, expired(), 1);
    assert_eq!(
        (error.status, error.detail.clone().map(|d| d.problem.reason)),
        (Status::Error, Some(Reason::Expired))
    );
    let served = step(&error, deployed, 2);
    assert_eq!((served.status, step(&served, expired(), 3).status), (Status::Deployed, Status::Error));
    let disabled = Standing { status: Status::Disabled, detail: None, ..served };
    assert_eq!(step(&disabled, expired(), 4).status, Status::Error);
}

#[test]
fn a_share_passes_through_its_statuses() {
    let g = Generation::FIRST;
    let step = |from: &Standing, seen, second| next(from, g, &seen, Deadlines::default(), at(second));
    let offline =
        || Observation::Seen { ready: None, problem: Some(Problem::new(Reason::AgentOffline, "no agent")) };
    let new = Standing::new(at(0), None);
    let waiting = step(&new, offline(), 29);
    assert_eq!(waiting.status, Status::New);
    let error = step(&waiting, offline(), 30);
    assert_eq!((error.status, error.since), (Status::Error, at(30)));
    assert_eq!(
        error.detail.as_ref().map(|d| (d.problem.reason, d.since)),
        Some((Reason::AgentOffline, at(29)))
    );
    let deployed = step(&error, Observation::Seen { ready: Some(g), problem: None }, 40);
    assert_eq!((deployed.status, deployed.detail.clone()), (Status::Deployed, None));
    assert_eq!(
        step(&deployed, Observation::Silent { since: at(41), drains: false }, 43).status,
        Status::Deployed
    );
    assert_eq!(
        step(&deployed, Observation::Silent { since: at(41), drains: false }, 44).status,
        Status::Error
    );
    assert_eq!(step(&deployed, offline(), 41).status, Status::Error);
    let deleting = Standing { status: Status::Deleting, ..deployed };
    assert_eq!(
        step(&deleting, Observation::Seen { ready: Some(g), problem: None }, 50).status,
        Status::Deleting
    );
    assert_eq!(step(&deleting, Observation::Gone, 50).status, Status::Deleted);
}
