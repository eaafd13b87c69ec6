//! Histories that can have happened, and some that cannot; and a reference that tries every order.

use super::*;
use ShareCall::{Create, Delete, Read, Update};
use ShareOutcome::{Done, Exists, Found, Missing, Unknown};
use proptest::{collection::vec, prelude::*};

fn operation(call: ShareCall, outcome: ShareOutcome, (start, end): (Moment, Moment)) -> ShareOperation {
    ShareOperation { share: 1, call, outcome, start, end }
}

fn is_possible(history: &[(ShareCall, ShareOutcome, (Moment, Moment))]) -> bool {
    let all: Vec<_> = history.iter().map(|(call, outcome, when)| operation(*call, *outcome, *when)).collect();
    check_register(&all).is_ok()
}

#[test]
fn operations_that_follow_one_another_have_one_order() {
    let life = [
        (Read, Missing, (0, 1)),
        (Create(1), Done, (2, 3)),
        (Create(2), Exists, (4, 5)),
        (Read, Found(1), (6, 7)),
        (Update(2), Done, (8, 9)),
        (Read, Found(2), (10, 11)),
        (Delete, Done, (12, 13)),
        (Delete, Missing, (14, 15)),
        (Update(3), Missing, (16, 17)),
        (Read, Missing, (18, 19)),
    ];
    assert!(is_possible(&life));
    assert!(is_possible(&[]));
    for n in 0..life.len() - 1 {
        let mut swapped = life;
        (swapped[n].2, swapped[n + 1].2) = (life[n + 1].2, life[n].2);
        // A refusal may follow either way of what changes nothing.
        let changes_nothing = |n: usize| matches!(life[n].1, Exists | Found(_) | Missing);
        let are_alike = changes_nothing(n) && changes_nothing(n + 1);
        assert_eq!(is_possible(&swapped), are_alike, "{n}");
    }
}

#[test]
fn what_cannot_have_happened_is_found() {
    let made = (Create(1), Done, (0, 1));
    // An acknowledged write is lost.
    assert!(!is_possible(&[made, (Read, Missing, (2, 3))]));
    assert!(!is_possible(&[made, (Update(2), Done, (2, 3)), (Read, Found(1), (4, 5))]));
    // A value that was not written.
    assert!(!is_possible(&[made, (Read, Found(9), (2, 3))]));
    // It was deleted, and is there again.
    assert!(!is_possible(&[made, (Delete, Done, (2, 3)), (Read, Found(1), (4, 5))]));
    // Both of two that were created at the same time.
    assert!(!is_possible(&[(Create(1), Done, (0, 5)), (Create(2), Done, (0, 5))]));
    // A reader goes back, while a write runs.
    let write = (Update(2), Done, (2, 9));
    assert!(!is_possible(&[made, write, (Read, Found(2), (3, 4)), (Read, Found(1), (5, 6))]));
    assert!(is_possible(&[made, write, (Read, Found(1), (3, 4)), (Read, Found(2), (5, 6))]));
}

#[test]
fn an_unknown_write_is_made_late_or_never_and_not_twice() {
    let made = (Create(1), Done, (0, 1));
    let unknown = (Update(2), Unknown, (2, 3));
    assert!(is_possible(&[made, unknown, (Read, Found(1), (4, 5))]));
    assert!(is_possible(&[made, unknown, (Read, Found(1), (4, 5)), (Read, Found(2), (60, 70))]));
    assert!(!is_possible(&[made, unknown, (Read, Found(2), (4, 5)), (Read, Found(1), (6, 7))]));
    let (second, third) = ((Update(3), Done, (6, 7)), (Read, Found(2), (8, 9)));
    assert!(is_possible(&[made, unknown, second, third]));
    assert!(!is_possible(&[made, unknown, (Read, Found(2), (4, 5)), second, third]));
    // Not before its start.
    assert!(!is_possible(&[made, (Read, Found(2), (2, 3)), (Update(2), Unknown, (4, 5))]));
}

#[test]
fn a_counterexample_names_the_share_and_what_is_impossible() {
    let mut lost = [
        operation(Create(1), Done, (0, 1)),
        operation(Update(2), Done, (2, 3)),
        operation(Read, Found(1), (4, 5)),
    ];
    lost.iter_mut().for_each(|operation| operation.share = 7);
    let mut history = vec![operation(Create(1), Done, (0, 9)), operation(Read, Missing, (0, 9))];
    history.extend(lost);
    let found = check_register(&history).unwrap_err();
    assert_eq!((found.share, found.value), (7, Some(2)));
    assert_eq!((found.order.as_slice(), found.next.as_slice()), (&lost[..2], &lost[2..]));
    assert!(found.to_string().contains("4..5 Read: Found(1)"), "{found}");
}

#[test]
fn many_concurrent_operations_are_checked_soon() {
    // Without its memory, the search would try every order of the writes of each round.
    let mut history = vec![operation(Create(0), Done, (0, 1))];
    for round in 1..40 {
        let when = (round * 10, round * 10 + 5);
        history.extend((0..6).map(|n| operation(Update(round * 100 + n), Done, when)));
    }
    assert!(check_register(&history).is_ok());
    history.push(operation(Read, Found(3905), (500, 501)));
    assert!(check_register(&history).is_ok());
    history.push(operation(Read, Found(3904), (502, 503)));
    assert!(check_register(&history).is_err());
}

#[test]
fn a_key_belongs_to_one_share_at_a_time() {
    let holding = |key, share, from, until| Holding { key, share, from, until };
    let one_after_another = [
        holding("a", 1, 0, Some(5)),
        holding("a", 2, 5, None),
        holding("b", 1, 6, None),
        holding("b", 1, 7, Some(8)),
    ];
    assert_eq!(check_unique(&one_after_another), Ok(()));
    let long = holding("a", 1, 0, Some(9));
    let clash = holding("a", 3, 8, None);
    let found = check_unique(&[clash.clone(), holding("a", 1, 1, Some(2)), long.clone()]).unwrap_err();
    assert_eq!(*found, [long, clash]);
    // Of a write whose end comes after the start of the next, nothing is certain.
    assert_eq!(check_unique(&[holding("a", 1, 4, Some(2)), holding("a", 2, 0, None)]), Ok(()));
}

/// Tries every order of every choice of the unknown ones.
fn reference(left: &[ShareOperation], value: Option<u64>) -> bool {
    if left.iter().all(|operation| operation.outcome == Unknown) {
        return true;
    }
    (0..left.len()).any(|n| {
        let mut others = left.to_vec();
        let next = others.remove(n);
        // Unknown ones may be left out: they precede nothing.
        let is_first = others.iter().all(|other| other.outcome == Unknown || other.end >= next.start);
        is_first && next.after(value).is_some_and(|value| reference(&others, value))
    })
}

fn any_operation() -> impl Strategy<Value = ShareOperation> {
    let value = 1_u64..3;
    let call = prop_oneof![
        (value.clone(), prop_oneof![3 => Just(Done), 1 => Just(Exists), 1 => Just(Unknown)])
            .prop_map(|(value, outcome)| (Create(value), outcome)),
        prop_oneof![3 => value.clone().prop_map(Found), 1 => Just(Missing)]
            .prop_map(|outcome| (Read, outcome)),
        (value, prop_oneof![3 => Just(Done), 1 => Just(Missing), 1 => Just(Unknown)])
            .prop_map(|(value, outcome)| (Update(value), outcome)),
        prop_oneof![Just(Done), Just(Missing), Just(Unknown)].prop_map(|outcome| (Delete, outcome)),
    ];
    (call, 0_u64..12, 0_u64..8)
        .prop_map(|((call, outcome), start, length)| operation(call, outcome, (start, start + length)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn the_search_agrees_with_a_reference(history in vec(any_operation(), 0..7)) {
        prop_assert_eq!(check_register(&history).is_ok(), reference(&history, None));
    }

    /// Each operation is carried out at a moment of its own, and its client sees it longer.
    #[test]
    fn what_has_happened_is_possible(
        calls in vec((0_usize..4, 1_u64..4, 0_u64..30, 0_u64..30, prop::bool::weighted(0.85)), 0..40),
    ) {
        let mut value = None;
        let carried_out = (100..).step_by(10).zip(calls).map(|(moment, (call, new, before, after, is_seen))| {
            let call = [Create(new), Read, Update(new), Delete][call];
            let outcome = match (call, value) {
                (Create(_), Some(_)) => Exists,
                (Read, Some(is)) => Found(is),
                (Read | Update(_) | Delete, None) => Missing,
                _ => Done,
            };
            value = operation(call, outcome, (0, 0)).after(value).unwrap();
            let outcome = if is_seen || call == Read { outcome } else { Unknown };
            operation(call, outcome, (moment - before, moment + after))
        });
        let history: Vec<_> = carried_out.collect();
        prop_assert!(check_register(&history).is_ok());
    }
}
