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

    /// An agent that says now this, now that, of a share: that it serves it, that it refuses it, or that the target does not answer.
    #[test]
    fn a_row_flaps_by_an_agents_word_at_a_bounded_rate(says in proptest::collection::vec((0usize..5, 0i64..8_000), 1..80)) {
        let (g, begin) = (Generation(1), at(0));
        let (mut flapping, mut current) = (Flapping::default(), Standing::new(begin, None));
        let (mut millis, mut writes) = (0, Vec::new());
        let later = |millis| begin + SignedDuration::from_millis(millis);
        let problem = |reason, text: &str| Some(Problem::new(reason, text));
        let seen = |word: usize| match word {
            0 => Observation::Seen { ready: Some(g), problem: None },
            1 | 2 => Observation::Seen { ready: None, problem: problem(Reason::AgentRefused, ["no", "never"][word - 1]) },
            _ => Observation::Seen { ready: Some(g), problem: problem(Reason::TargetUnreachable, ["no", "never"][word - 3]) },
        };
        let mut decide = |current: &mut Standing, word, now| {
            let decided = super::next(current, g, &seen(word), Deadlines::default(), now);
            if flapping.holds(current, &decided, now) {
                return Some(decided);
            }
            flapping.changed(current, &decided, now);
            *current = decided;
            None
        };
        for (word, pause) in &says {
            millis += pause;
            let before = current.clone();
            if let Some(held) = decide(&mut current, *word, later(millis)) {
                // The first ones are not late, and nothing that is worse.
                prop_assert!(writes.len() >= 3 && before.detail.is_some());
                prop_assert!(held.status == Status::Deployed || before.status == Status::Error);
            }
            if current != before && before.status != Status::New {
                writes.push(millis);
            }
        }
        // After three within a minute, one may get better, or another word, once in ten seconds, and each of these may get worse at once.
        for first in &writes {
            let within = writes.iter().filter(|at| (*first..first + 60_000).contains(*at)).count();
            prop_assert!(within <= 24, "{} in a minute", within);
        }
        // What the agent says in the end is shown within these.
        let (last, _) = says[says.len() - 1];
        let now = later(millis + 40_000);
        prop_assert!(decide(&mut current, last, now).is_none());
        prop_assert_eq!(super::next(&current, g, &seen(last), Deadlines::default(), now), current);
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

#[test]
fn an_error_of_a_row_that_flaps_stays_for_ten_seconds_and_others_end_at_once() {
    let g = Generation(1);
    let standing = |status, reason: Option<Reason>| Standing {
        status,
        since: at(20),
        observed_generation: None,
        detail: reason.map(|reason| Detail { problem: Problem::new(reason, "no"), since: at(20) }),
    };
    let (deployed, refused) =
        (standing(Status::Deployed, None), standing(Status::Error, Some(Reason::AgentRefused)));
    let serves = Observation::Seen { ready: Some(g), problem: None };
    let held = |flapping: &Flapping, current: &Standing, now| {
        let decided = next(current, g, &serves, Deadlines::default(), at(now));
        flapping.holds(current, &decided, at(now))
    };
    let mut flapping = Flapping::default();
    flapping.changed(&standing(Status::New, None), &refused, at(0));
    for (before, after, now) in [(&refused, &deployed, 5), (&deployed, &refused, 10)] {
        flapping.changed(before, after, at(now));
        assert!(!held(&flapping, &refused, 20));
    }
    flapping.changed(&refused, &deployed, at(15));
    flapping.changed(&deployed, &refused, at(20));
    let all = [19, 20, 29, 30].map(|now| held(&flapping, &refused, now));
    assert_eq!(all, [false, true, true, false], "the first is by a clock that was set back");
    // That it is restarted is no word of an agent, nor is anything else that is worse held back.
    let offline = standing(Status::Error, Some(Reason::AgentOffline));
    assert!(!held(&flapping, &offline, 25) && !flapping.holds(&refused, &offline, at(25)));
    let unreachable = standing(Status::Deployed, Some(Reason::TargetUnreachable));
    assert!(held(&flapping, &unreachable, 25) && !flapping.holds(&unreachable, &refused, at(25)));
    // Three changes in more than a minute.
    flapping.changed(&refused, &deployed, at(70));
    flapping.changed(&deployed, &refused, at(80));
    assert!(!held(&flapping, &refused, 85));
}
