use super::*;
use jiff::Timestamp;
use proptest::{collection::vec, prelude::*};
use uuid::Uuid;

const OLD: Generation = Generation::FIRST;

/// The row's.
fn newest() -> Generation {
    OLD.next()
}

fn id(n: u128) -> GatewayId {
    GatewayId::new(Uuid::from_u128(n))
}

fn seen(ready: Option<Generation>, reason: Option<Reason>) -> Observation {
    Observation::Seen { ready, problem: reason.map(|reason| Problem::new(reason, "words")) }
}

fn at(n: u128, seen: Observation) -> EndpointView {
    EndpointView { gateway: id(n), seen }
}

/// The reason of what is made of two endpoints, if it is seen, and whether it is ready.
fn of(first: Observation, second: Observation) -> (Option<bool>, Option<Reason>, Redundancy) {
    let (combined, redundancy) = combined(newest(), &[at(1, first), at(2, second)]);
    match combined {
        Observation::Seen { ready, problem } => {
            (Some(ready == Some(newest())), problem.map(|problem| problem.reason), redundancy)
        }
        _ => (None, None, redundancy),
    }
}

#[test]
fn one_endpoint_is_the_whole_row() {
    for seen in [Observation::Gone, seen(Some(newest()), None), seen(None, Some(Reason::AgentOffline))] {
        assert_eq!(combined(newest(), &[at(1, seen.clone())]), (seen, Redundancy::None));
    }
}

#[test]
fn one_of_two_that_serves_is_enough_and_says_what_the_other_lacks() {
    let ready = || seen(Some(newest()), None);
    assert_eq!(of(ready(), ready()), (Some(true), None, Redundancy::Met));
    let failed = seen(None, Some(Reason::TunnelFailed));
    let lost = (Some(true), Some(Reason::RedundancyLost), Redundancy::NotMet);
    assert_eq!(of(ready(), failed.clone()), lost);
    assert_eq!(of(failed.clone(), ready()), lost);
    assert_eq!(of(seen(Some(newest()), Some(Reason::PeerDown)), ready()), lost);
    let (Observation::Seen { problem: Some(problem), .. }, _) =
        combined(newest(), &[at(1, ready()), at(2, failed)])
    else {
        panic!("it is seen")
    };
    assert!(problem.message.contains(&id(2).to_string()) && problem.message.contains("TunnelFailed: words"));
    // What is being set up is not lost.
    for coming in [seen(Some(OLD), None), seen(None, Some(Reason::Pending)), Observation::Gone] {
        assert_eq!(of(ready(), coming), (Some(true), None, Redundancy::NotMet));
    }
    let warned = seen(Some(newest()), Some(Reason::AgentDuplicated));
    assert_eq!(of(ready(), warned.clone()), (Some(true), None, Redundancy::Met));
    assert_eq!(of(warned, ready()), (Some(true), Some(Reason::AgentDuplicated), Redundancy::Met));
}

#[test]
fn a_row_is_disabled_or_gone_only_at_all_endpoints() {
    let disabled = || seen(Some(newest()), Some(Reason::Disabled));
    assert_eq!(of(disabled(), disabled()), (Some(true), Some(Reason::Disabled), Redundancy::NotMet));
    for other in [Observation::Gone, seen(Some(OLD), None)] {
        assert_eq!(of(disabled(), other.clone()), (Some(false), None, Redundancy::NotMet), "{other:?}");
    }
    let gone = |other| combined(newest(), &[at(1, Observation::Gone), at(2, other)]).0 == Observation::Gone;
    assert!(gone(Observation::Gone));
    assert!(!gone(seen(Some(OLD), None)));
}

fn an_observation() -> impl Strategy<Value = Observation> {
    let since = Timestamp::UNIX_EPOCH;
    let reason = prop::sample::select(vec![
        Reason::Pending,
        Reason::TunnelFailed,
        Reason::PeerDown,
        Reason::AgentDuplicated,
        Reason::Disabled,
        Reason::Expired,
    ]);
    let ready = prop::sample::select(vec![None, Some(OLD), Some(newest())]);
    prop_oneof![
        6 => (ready, prop::option::of(reason)).prop_map(|(ready, reason)| seen(ready, reason)),
        1 => any::<bool>().prop_map(move |drains| Observation::Silent { since, drains }),
        1 => any::<bool>().prop_map(move |is_linked| Observation::Unreachable { since, is_linked }),
        1 => Just(Observation::Looking { since }),
        1 => Just(Observation::Gone),
    ]
}

/// What an endpoint is worth, by the rules of the module as a list.
#[derive(Debug, PartialEq, Eq)]
enum Worth {
    Serves,
    Impaired,
    Disabled,
    /// It is known why not.
    Lost,
    Coming,
    Gone,
}

fn worth(seen: &Observation) -> Worth {
    match seen {
        Observation::Gone => Worth::Gone,
        Observation::Looking { .. } | Observation::Unreachable { is_linked: true, .. } => Worth::Coming,
        Observation::Silent { .. } | Observation::Unreachable { is_linked: false, .. } => Worth::Lost,
        Observation::Seen { ready, problem } => {
            match (*ready == Some(newest()), problem.as_ref().map(|problem| problem.reason)) {
                (true, None | Some(Reason::AgentDuplicated)) => Worth::Serves,
                (true, Some(Reason::Disabled)) => Worth::Disabled,
                (true, Some(Reason::Pending)) | (false, None | Some(Reason::Pending)) => Worth::Coming,
                (true, Some(_)) => Worth::Impaired,
                (false, Some(_)) => Worth::Lost,
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn endpoints_are_combined_as_the_rules_say(all in vec(an_observation(), 2..4)) {
        let worths: Vec<_> = all.iter().map(worth).collect();
        let views: Vec<_> = (1..).zip(all.clone()).map(|(n, seen)| at(n, seen)).collect();
        let (combined, redundancy) = combined(newest(), &views);
        let every = |worth: Worth| worths.iter().all(|w| *w == worth);
        let any = |worth: Worth| worths.contains(&worth);
        prop_assert_eq!(redundancy == Redundancy::Met, every(Worth::Serves));
        prop_assert_eq!(combined == Observation::Gone, every(Worth::Gone));
        let (is_ready, reason) = match &combined {
            Observation::Seen { ready, problem } => {
                (*ready == Some(newest()), problem.as_ref().map(|problem| problem.reason))
            }
            _ => (false, None),
        };
        prop_assert_eq!(is_ready && reason == Some(Reason::Disabled), every(Worth::Disabled));
        let is_lost = any(Worth::Lost) || any(Worth::Impaired) || any(Worth::Disabled);
        prop_assert_eq!(reason == Some(Reason::RedundancyLost), any(Worth::Serves) && is_lost);
        if any(Worth::Serves) {
            prop_assert!(is_ready && reason.is_none_or(Reason::is_warning));
        } else {
            // It says no more than one of its endpoints.
            let unknown = Observation::Seen { ready: None, problem: None };
            prop_assert!(all.contains(&combined) || combined == unknown, "{:?}", combined);
        }
    }

    #[test]
    fn the_order_of_places_changes_no_status(all in vec(an_observation(), 2..4)) {
        let views: Vec<_> = (1..).zip(all).map(|(n, seen)| at(n, seen)).collect();
        let mut reversed = views.clone();
        reversed.reverse();
        let ((a, met), (b, also_met)) = (combined(newest(), &views), combined(newest(), &reversed));
        prop_assert_eq!(met, also_met);
        let kind = |seen: &Observation| match seen {
            Observation::Seen { ready, .. } => (*ready == Some(newest()), true),
            other => (false, *other == Observation::Gone),
        };
        prop_assert_eq!(kind(&a), kind(&b));
    }
}
