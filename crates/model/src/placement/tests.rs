use super::*;
use proptest::{collection::vec, prelude::*, sample::subsequence};
use uuid::Uuid;

fn id(n: u128) -> GatewayId {
    GatewayId::new(Uuid::from_u128(n))
}

/// A gateway with some tunnels and room for ten.
fn with(n: u128, tunnels: u64) -> GatewayLoad {
    GatewayLoad { id: id(n), tunnels, max_tunnels: Some(10), is_draining: false }
}

fn draining(gateway: GatewayLoad) -> GatewayLoad {
    GatewayLoad { is_draining: true, ..gateway }
}

#[test]
fn a_tunnel_goes_to_the_gateway_with_the_fewest() {
    assert_eq!(place(&[with(1, 3), with(2, 2), with(3, 2)], &[], 1), [id(2)]);
    assert_eq!(place(&[with(1, 3), with(2, 2), with(3, 2)], &[], 2), [id(2), id(3)]);
    assert_eq!(place(&[with(1, 3)], &[], 2), [id(1)]);
    assert_eq!(place(&[], &[id(1)], 2), []);
}

#[test]
fn a_tunnel_moves_only_from_a_gateway_that_drains_or_is_gone() {
    assert_eq!(place(&[with(1, 9), with(2, 0)], &[id(1)], 1), [id(1)]);
    assert_eq!(place(&[with(1, 11), with(2, 0)], &[id(1)], 1), [id(1)], "it has more than it can hold");
    assert_eq!(place(&[draining(with(1, 9)), with(2, 0)], &[id(1)], 1), [id(2)]);
    assert_eq!(place(&[with(2, 0)], &[id(1)], 1), [id(2)]);
    assert_eq!(place(&[with(1, 5), with(2, 5), with(3, 0)], &[id(2), id(1)], 2), [id(2), id(1)]);
}

#[test]
fn a_tunnel_without_room_anywhere_is_served_all_the_same() {
    assert_eq!(place(&[with(1, 12), with(2, 11)], &[], 2), [id(2)], "a second gateway would need room");
    assert_eq!(place(&[draining(with(1, 1)), with(2, 10)], &[id(1)], 1), [id(1)]);
    assert_eq!(place(&[draining(with(1, 1)), with(2, 10)], &[], 1), [id(2)]);
    assert_eq!(place(&[draining(with(1, 1))], &[], 1), [id(1)]);
}

/// All lists of different gateways with so many at most.
fn lists(gateways: &[GatewayLoad], most: usize) -> Vec<Vec<GatewayLoad>> {
    let mut all = vec![Vec::new()];
    let mut longest = all.clone();
    for _ in 0..most {
        let longer = |list: &Vec<GatewayLoad>| {
            let others: Vec<_> = gateways.iter().filter(|gateway| !list.contains(gateway)).copied().collect();
            others.into_iter().map(|other| [list.clone(), vec![other]].concat()).collect::<Vec<_>>()
        };
        longest = longest.iter().flat_map(longer).collect();
        all.extend(longest.clone());
    }
    all
}

/// The rules, as costs of every possible list: the earlier ones are worse.
fn reference(gateways: &[GatewayLoad], current: &[GatewayId], wanted: usize) -> Vec<GatewayId> {
    let stays = |g: &GatewayLoad| current.contains(&g.id) && !g.is_draining;
    let staying = gateways.iter().filter(|g| stays(g)).count().min(wanted);
    let cost = |list: &Vec<GatewayLoad>| {
        let has_none = list.is_empty() && wanted > 0 && !gateways.is_empty();
        let left = staying - list.iter().filter(|g| stays(g)).count().min(staying);
        let is_unfit = |g: &&GatewayLoad| !stays(g) && !g.takes_more();
        let unfit = list.iter().filter(is_unfit).count();
        let moved =
            list.iter().filter(is_unfit).map(|g| current.iter().position(|id| *id == g.id).unwrap_or(9));
        // A gateway that serves it comes before those that do not, in the order that there is.
        let order = list.iter().map(|g| match current.iter().position(|id| *id == g.id) {
            Some(at) if stays(g) => (0, at as u64, g.id),
            _ => (1, 0, g.id),
        });
        let loads =
            list.iter().map(|g| if stays(g) { (false, 0, id(0)) } else { (g.is_draining, g.tunnels, g.id) });
        (
            (has_none, left, unfit, wanted - list.len()),
            moved.collect::<Vec<_>>(),
            order.map(|(new, at, _)| (new, at)).collect::<Vec<_>>(),
            loads.collect::<Vec<_>>(),
        )
    };
    let best = lists(gateways, wanted).into_iter().min_by_key(cost).unwrap_or_default();
    best.into_iter().map(|gateway| gateway.id).collect()
}

prop_compose! {
    fn a_location()(
        of in vec((0_u64..4, prop::option::of(0_u32..4), any::<bool>()), 0..5)
    ) -> Vec<GatewayLoad> {
        let gateway = |(n, (tunnels, max_tunnels, is_draining))| {
            GatewayLoad { id: id(n), tunnels, max_tunnels, is_draining }
        };
        (1..).zip(of).map(gateway).collect()
    }
}

/// Some that are there, and one that is gone.
fn current() -> impl Strategy<Value = Vec<GatewayId>> {
    subsequence((1..=6).map(id).collect::<Vec<_>>(), 0..3).prop_shuffle()
}

fn endpoint(n: u128, is_ready: bool, is_connected: bool) -> PlacedEndpoint {
    PlacedEndpoint { gateway: id(n), is_ready, is_connected }
}

#[test]
fn a_place_is_withdrawn_only_when_the_site_is_connected_where_it_stays() {
    let gateways = [draining(with(1, 5)), with(2, 0), with(3, 1)];
    let step = |current: &[PlacedEndpoint], wanted| placement_step(&gateways, current, wanted);
    assert_eq!(step(&[endpoint(1, true, true)], 1), Some(PlacementStep::Add(id(2))));
    assert_eq!(step(&[endpoint(1, true, true), endpoint(2, false, false)], 1), None);
    assert_eq!(step(&[endpoint(1, true, true), endpoint(2, true, false)], 1), None, "it is not told yet");
    let left = Some(PlacementStep::Withdraw(id(1)));
    assert_eq!(step(&[endpoint(1, true, true), endpoint(2, true, true)], 1), left);
    // A redundant tunnel has another gateway meanwhile.
    assert_eq!(step(&[endpoint(1, true, true), endpoint(3, true, true)], 2), Some(PlacementStep::Add(id(2))));
    let three = |ready| [endpoint(1, true, true), endpoint(3, true, true), endpoint(2, ready, false)];
    assert_eq!((step(&three(false), 2), step(&three(true), 2)), (None, left));
    // The one that the site uses stays.
    let (used, other) = (endpoint(3, true, true), endpoint(2, true, false));
    assert_eq!(step(&[other, used], 1), Some(PlacementStep::Withdraw(id(2))));
    assert_eq!(
        step(&[endpoint(9, true, true), other], 1),
        Some(PlacementStep::Withdraw(id(9))),
        "it is gone"
    );
}

/// Takes all steps, with the site connected everywhere.
fn settled(gateways: &[GatewayLoad], current: &[GatewayId], wanted: usize) -> Vec<GatewayId> {
    let mut places = current.to_vec();
    for _ in 0..20 {
        let endpoints: Vec<_> = places
            .iter()
            .map(|gateway| PlacedEndpoint { gateway: *gateway, is_ready: true, is_connected: true })
            .collect();
        match placement_step(gateways, &endpoints, wanted) {
            Some(PlacementStep::Add(new)) => places.push(new),
            Some(PlacementStep::Withdraw(old)) => places.retain(|id| *id != old),
            None => return places,
        }
    }
    panic!("it does not settle: {places:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_order_in_which_gateways_are_told_does_not_matter(
        gateways in a_location().prop_shuffle(), current in current(), wanted in 0_usize..3
    ) {
        let mut sorted = gateways.clone();
        sorted.sort_by_key(|gateway| gateway.id);
        prop_assert_eq!(place(&gateways, &current, wanted), place(&sorted, &current, wanted));
    }

    #[test]
    fn no_tunnel_is_placed_twice_at_a_gateway_or_moves_more_than_it_must(
        gateways in a_location(), current in current(), wanted in 1_usize..3
    ) {
        let placed = place(&gateways, &current, wanted);
        let mut different = placed.clone();
        different.sort_unstable();
        different.dedup();
        prop_assert_eq!(different.len(), placed.len());
        let stays = |id: &&GatewayId| gateways.iter().any(|g| g.id == **id && !g.is_draining);
        let staying = current.iter().filter(stays).take(wanted).filter(|id| placed.contains(id)).count();
        prop_assert_eq!(staying, current.iter().filter(stays).count().min(wanted));
    }

    #[test]
    fn steps_end_at_the_places_that_were_chosen(
        gateways in a_location(), current in current(), wanted in 1_usize..3
    ) {
        let mut placed = settled(&gateways, &current, wanted);
        let mut chosen = place(&gateways, &current, wanted);
        placed.sort_unstable();
        chosen.sort_unstable();
        if !chosen.is_empty() {
            prop_assert_eq!(placed, chosen);
        }
    }

    #[test]
    fn a_place_is_the_best_of_all(gateways in a_location(), current in current(), wanted in 0_usize..3) {
        prop_assert_eq!(place(&gateways, &current, wanted), reference(&gateways, &current, wanted));
    }

    #[test]
    fn a_place_that_was_chosen_stays(gateways in a_location(), current in current(), wanted in 1_usize..3) {
        let placed = place(&gateways, &current, wanted);
        let again = place(&gateways, &placed, wanted);
        prop_assert_eq!(&again[..placed.len()], &placed[..]);
        prop_assert_eq!(placed.is_empty(), gateways.is_empty());
    }
}
