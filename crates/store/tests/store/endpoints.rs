//! Tunnels with two endpoints: their places, and the statuses that follow from what two gateways report.

use crate::{
    database::{keys_in, on_each, open, place},
    gateways::{id, other},
    site::{ALL, Site, after, changes, changes_of, context, gateway as own, now, tunnel_spec},
};
use proptest::{collection::vec, prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use tempfile::TempDir;
use wicketgate_model::{
    Connection, ConnectionState, Deadlines, EndpointView, GatewayId, Generation, LoadBalancerPools,
    Observation, Problem, Reason, Redundancy, ShareId, Standing, Status, TunnelId, combined, next,
};
use wicketgate_store::{
    Action, GatewayEpoch, Resource, Revision, RowReport, ShareSpec, Store, TunnelChange, TunnelRow,
    TunnelSpec,
};

/// A site whose location has two gateways, and a tunnel at both.
struct Pair {
    site: Site,
    tunnel: TunnelId,
    /// Of both gateways' links.
    epochs: [GatewayEpoch; 2],
}

impl Pair {
    async fn new(store: &Store) -> Self {
        let site = Site::new(store).await;
        store.register_gateway(&other(7), now()).await.unwrap();
        let second = store.link_gateway(id(7), now()).await.unwrap();
        let tunnel = create(store, &site, 2, true).await.id;
        let epochs = [site.epoch, second];
        Self { site, tunnel, epochs }
    }

    fn share(&self, name: &str, port: u16) -> ShareSpec {
        ShareSpec { tunnel: self.tunnel, ..self.site.share(name, port) }
    }

    async fn report(&self, store: &Store, gateway: usize, report: RowReport, second: i64) -> Standing {
        let epoch = &self.epochs[gateway];
        let decided = store.observe(epoch, &[report], Deadlines::default(), after(second)).await.unwrap();
        decided[0].standing.clone()
    }

    /// The gateway has the tunnel ready, and the site is connected to it, or not.
    async fn ready(&self, store: &Store, gateway: usize, tunnel: &TunnelRow, is_connected: bool) {
        let report = ready(Resource::Tunnel(tunnel.id), tunnel.generation);
        self.report(store, gateway, report, 1).await;
        self.connected(store, gateway, tunnel.id, is_connected).await;
    }

    async fn connected(&self, store: &Store, gateway: usize, tunnel: TunnelId, is_connected: bool) {
        let state = if is_connected { ConnectionState::Up } else { ConnectionState::Down };
        let connection = Connection { state, ..Connection::down(after(1)) };
        store.record_connections(&self.epochs[gateway], &[(tunnel, connection)], after(1)).await.unwrap();
    }
}

fn seen(ready: Option<Generation>, reason: Option<Reason>) -> Observation {
    Observation::Seen { ready, problem: reason.map(|reason| Problem::new(reason, "words")) }
}

fn ready(resource: Resource, generation: Generation) -> RowReport {
    RowReport { resource, generation, seen: seen(Some(generation), None) }
}

async fn create(store: &Store, site: &Site, n: u8, redundant: bool) -> TunnelRow {
    let spec = TunnelSpec { redundant, ..tunnel_spec(n) };
    store.create_tunnel(site.frontdoor, &spec, &LoadBalancerPools::ipsec(), &context()).await.unwrap()
}

async fn tunnel(store: &Store, site: &Site, id: TunnelId) -> TunnelRow {
    store.tunnel(site.frontdoor, id).await.unwrap().unwrap()
}

async fn set_redundant(store: &Store, site: &Site, id: TunnelId, redundant: bool) -> TunnelRow {
    let row = tunnel(store, site, id).await;
    let change = TunnelChange {
        expected: row.generation,
        spec: TunnelSpec { redundant, ..row.spec },
        previous_until: now(),
        cuts: false,
        action: Action::Update,
    };
    let pools = LoadBalancerPools::ipsec();
    store.replace_tunnel(site.frontdoor, id, &change, &pools, &context()).await.unwrap()
}

/// In the order of the places.
async fn places(store: &Store, id: TunnelId) -> Vec<GatewayId> {
    let endpoints = store.endpoints(&[id]).await.unwrap();
    endpoints.iter().map(|endpoint| endpoint.gateway).collect()
}

async fn repair(store: &Store) -> usize {
    let mut steps = 0;
    loop {
        match store.repair_places(now()).await.unwrap() {
            0 => return steps,
            taken => steps += taken,
        }
    }
}

fn reason(standing: &Standing) -> Option<Reason> {
    standing.detail.as_ref().map(|detail| detail.problem.reason)
}

#[test]
fn a_redundant_tunnel_is_placed_at_two_gateways_as_soon_as_there_are_two() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let waiting = create(&store, &site, 2, true).await;
        assert_eq!((waiting.redundancy, repair(&store).await), (Redundancy::NotMet, 0));
        let since = changes(&store, Revision::default()).await.revision;
        store.register_gateway(&other(7), now()).await.unwrap();
        assert_eq!((places(&store, waiting.id).await, repair(&store).await), (vec![own()], 1));
        assert_eq!(places(&store, waiting.id).await, [own(), id(7)]);
        assert_eq!(tunnel(&store, &site, waiting.id).await.generation, waiting.generation);
        // Both are told, and how its status is decided now.
        let first = changes(&store, since).await;
        let second = changes_of(&store, id(7), Revision::default()).await;
        assert_eq!((first.tunnels, first.several, second.tunnels, second.several), (1, 1, 1, 1));
        // The tunnel of before stays as it is.
        assert_eq!(places(&store, site.tunnel).await, [own()]);
        assert_eq!(tunnel(&store, &site, site.tunnel).await.redundancy, Redundancy::None);

        let new = create(&store, &site, 3, true).await;
        assert_eq!(places(&store, new.id).await, [id(7), own()], "the one with fewer tunnels comes first");
        assert_eq!((new.gateway, repair(&store).await), (Some(id(7)), 0));
        let listed = store.tunnels(site.frontdoor, &ALL).await.unwrap().rows;
        assert_eq!(listed.iter().filter(|row| row.redundancy == Redundancy::NotMet).count(), 2);
    });
}

#[test]
fn a_tunnel_leaves_a_draining_gateway_once_its_site_is_connected_elsewhere() {
    on_each(|store| async move {
        let pair = Pair::new(&store).await;
        store.register_gateway(&other(8), now()).await.unwrap();
        let third = store.link_gateway(id(8), now()).await.unwrap();
        let pair = Pair { epochs: [pair.epochs[0], third], ..pair };
        let single = pair.site.tunnel;
        store.set_draining(own(), true, &context()).await.unwrap();
        assert_eq!(repair(&store).await, 2, "both get a place at the third");
        assert_eq!(places(&store, single).await, [own(), id(8)]);
        assert_eq!(places(&store, pair.tunnel).await, [id(7), own(), id(8)]);
        let row = tunnel(&store, &pair.site, single).await;
        pair.ready(&store, 0, &row, true).await;
        pair.ready(&store, 1, &row, false).await;
        assert_eq!((row.gateway, repair(&store).await), (Some(own()), 0), "its site dials the old address");
        let share =
            store.create_share(pair.site.frontdoor, &pair.site.share("a", 1), &context()).await.unwrap();
        store.delete_share(pair.site.frontdoor, share.id, &context()).await.unwrap();
        let since = changes(&store, Revision::default()).await.revision;
        pair.connected(&store, 1, single, true).await;
        assert_eq!((repair(&store).await, places(&store, single).await), (1, vec![id(8)]));
        assert_eq!(tunnel(&store, &pair.site, single).await.gateway, Some(id(8)));
        // The old gateway hands over what is being deleted, too.
        let left = changes(&store, since).await;
        assert_eq!((left.withdrawn, left.elsewhere), (1, vec![share.id]));
        let taken = changes_of(&store, id(8), since).await;
        assert_eq!((taken.tunnels, taken.shares, taken.several), (1, vec![Status::Deleting], 0));
        assert_eq!(repair(&store).await, 0);
    });
}

#[test]
fn a_tunnel_that_ceases_to_be_redundant_keeps_the_gateway_that_its_site_uses() {
    on_each(|store| async move {
        let pair = Pair::new(&store).await;
        assert_eq!(places(&store, pair.tunnel).await, [id(7), own()]);
        let row = set_redundant(&store, &pair.site, pair.tunnel, false).await;
        assert_eq!(row.redundancy, Redundancy::None);
        assert_eq!(repair(&store).await, 0, "no site is connected: none is left");
        pair.ready(&store, 1, &row, false).await;
        pair.ready(&store, 0, &row, true).await;
        assert_eq!((repair(&store).await, places(&store, pair.tunnel).await), (1, vec![own()]));
        // With one place, its gateway's reports are not kept.
        assert!(store.endpoints(&[pair.tunnel]).await.unwrap()[0].ready.is_none());
        set_redundant(&store, &pair.site, pair.tunnel, true).await;
        assert_eq!((repair(&store).await, places(&store, pair.tunnel).await), (1, vec![own(), id(7)]));
    });
}

#[test]
fn a_share_that_moves_to_a_tunnel_elsewhere_is_told_to_the_gateway_that_it_leaves() {
    on_each(|store| async move {
        let pair = Pair::new(&store).await;
        let spec = pair.share("a", 1);
        let share = store.create_share(pair.site.frontdoor, &spec, &context()).await.unwrap();
        let report = ready(Resource::Share(share.id), share.generation);
        pair.report(&store, 1, report, 1).await;
        let since = changes_of(&store, id(7), Revision::default()).await.revision;
        let single = ShareSpec { tunnel: pair.site.tunnel, ..spec };
        let (frontdoor, act) = (pair.site.frontdoor, context());
        let moved = store.replace_share(frontdoor, share.id, share.generation, &single, &act).await.unwrap();
        let (left, kept) = (changes_of(&store, id(7), since).await, changes(&store, since).await);
        assert_eq!((left.shares.len(), left.elsewhere), (0, vec![share.id]));
        assert_eq!((kept.shares.len(), kept.elsewhere.len()), (1, 0));
        // A late report of the gateway that it has left says nothing.
        let late = RowReport {
            seen: seen(None, Some(Reason::AgentOffline)),
            ..ready(Resource::Share(share.id), moved.generation)
        };
        let standing = pair.report(&store, 1, late, 60).await;
        assert_eq!(standing.status, Status::New);
    });
}

#[test]
fn a_gateway_without_a_link_takes_the_redundancy_and_not_the_status() {
    on_each(|store| async move {
        let pair = Pair::new(&store).await;
        let share = store.create_share(pair.site.frontdoor, &pair.share("a", 1), &context()).await.unwrap();
        let row = tunnel(&store, &pair.site, pair.tunnel).await;
        for gateway in [0, 1] {
            pair.ready(&store, gateway, &row, true).await;
            pair.report(&store, gateway, ready(Resource::Share(share.id), share.generation), 1).await;
        }
        assert_eq!(tunnel(&store, &pair.site, pair.tunnel).await.redundancy, Redundancy::Met);
        store.unlink_gateway(&pair.epochs[1], after(10)).await.unwrap();
        let tell = async |second| {
            while store.tell_of_silent_gateways(Deadlines::default(), after(0), after(second)).await.unwrap()
            {
            }
        };
        let standings = async || {
            let row = tunnel(&store, &pair.site, pair.tunnel).await;
            let share = store.share(pair.site.frontdoor, share.id).await.unwrap().unwrap();
            (row.redundancy, [row.standing, share.standing].map(|s| (s.status, reason(&s))))
        };
        tell(39).await;
        assert_eq!(standings().await, (Redundancy::Met, [(Status::Deployed, None); 2]));
        tell(40).await;
        let lost = (Status::Deployed, Some(Reason::RedundancyLost));
        assert_eq!(standings().await, (Redundancy::NotMet, [lost; 2]));
        wicketgate_lab::named("RedundancyLost", after(40).duration_since(after(10)).unsigned_abs());
        // Nothing is told twice, and the next link's reports end it.
        let newest = store.event_span().await.unwrap().newest;
        tell(90).await;
        assert_eq!(store.event_span().await.unwrap().newest, newest);
        let again = store.link_gateway(id(7), after(100)).await.unwrap();
        let reports = [
            ready(Resource::Tunnel(pair.tunnel), row.generation),
            ready(Resource::Share(share.id), share.generation),
        ];
        store.observe(&again, &reports, Deadlines::default(), after(100)).await.unwrap();
        assert_eq!(standings().await, (Redundancy::Met, [(Status::Deployed, None); 2]));
    });
}

#[derive(Debug, Clone)]
enum Event {
    /// Of one of two gateways. The flag: as if its reporter did not know the newest generation.
    Report(usize, Observation, bool),
    Change,
    Delete,
}

/// Of a row with the generation 1; its numbers grow with the row's.
fn an_observation() -> impl Strategy<Value = Observation> {
    let reason = prop::sample::select(vec![
        Reason::Pending,
        Reason::AgentOffline,
        Reason::PeerDown,
        Reason::AgentDuplicated,
        Reason::Disabled,
    ]);
    prop_oneof![
        3 => Just(seen(Some(Generation::FIRST), None)),
        3 => (any::<bool>(), prop::option::of(reason))
            .prop_map(|(ready, reason)| seen(ready.then_some(Generation::FIRST), reason)),
        1 => Just(Observation::Looking { since: after(0) }),
        1 => Just(Observation::Unreachable { since: after(0), is_linked: true }),
        1 => Just(Observation::Gone),
    ]
}

fn an_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        10 => (0_usize..2, an_observation(), prop::bool::weighted(0.1))
            .prop_map(|(gateway, seen, is_old)| Event::Report(gateway, seen, is_old)),
        2 => Just(Event::Change),
        1 => Just(Event::Delete),
    ]
}

/// What is known of a share without a database.
struct Model {
    standing: Standing,
    generation: Generation,
    /// The last report of each gateway, with its generation.
    reports: [Option<(Generation, Observation)>; 2],
}

impl Model {
    fn report(&mut self, gateway: usize, generation: Generation, seen: Observation, second: i64) {
        if generation != self.generation || self.standing.status == Status::Deleted {
            return;
        }
        self.reports[gateway] = Some((generation, seen));
        // The tunnel's first place is at the second gateway.
        let views = [1, 0].map(|n| EndpointView {
            gateway: [own(), id(7)][n],
            seen: match &self.reports[n] {
                Some((of, seen)) if *of == generation => seen.clone(),
                Some((_, Observation::Seen { ready, .. })) => {
                    Observation::Seen { ready: *ready, problem: None }
                }
                Some((_, Observation::Gone)) | None => Observation::Seen { ready: None, problem: None },
                Some((_, seen)) => seen.clone(),
            },
        });
        let (seen, _) = combined(generation, &views);
        self.standing = next(&self.standing, generation, &seen, Deadlines::default(), after(second));
    }
}

async fn follows_the_model(store: &Store, pair: &Pair, n: u16, events: Vec<Event>) {
    let name = format!("share-{n}");
    let frontdoor = pair.site.frontdoor;
    let mut row = store.create_share(frontdoor, &pair.share(&name, n), &context()).await.unwrap();
    let mut model =
        Model { standing: row.standing.clone(), generation: row.generation, reports: [None, None] };
    for (event, second) in events.iter().zip(1..) {
        match event {
            Event::Report(gateway, seen, is_old) => {
                let seen = match seen.clone() {
                    Observation::Seen { ready, problem } => {
                        Observation::Seen { ready: ready.map(|_| row.generation), problem }
                    }
                    other => other,
                };
                let of = if *is_old { Generation::new(row.generation.get() - 1) } else { row.generation };
                let report =
                    RowReport { resource: Resource::Share(row.id), generation: of, seen: seen.clone() };
                let epoch = &pair.epochs[*gateway];
                let decided =
                    store.observe(epoch, &[report], Deadlines::default(), after(second)).await.unwrap();
                model.report(*gateway, of, seen, second);
                let decided: Vec<_> = decided.into_iter().map(|update| update.standing).collect();
                let expected = if *is_old { vec![] } else { vec![model.standing.clone()] };
                assert_eq!(decided, expected, "{events:?}");
            }
            Event::Change if model.standing.status.is_live() => {
                let spec =
                    ShareSpec { target: format!("10.9.9.9:{second}").parse().unwrap(), ..row.spec.clone() };
                row =
                    store.replace_share(frontdoor, row.id, row.generation, &spec, &context()).await.unwrap();
            }
            Event::Delete if model.standing.status.is_live() => {
                row = store.delete_share(frontdoor, row.id, &context()).await.unwrap();
            }
            Event::Change | Event::Delete => {}
        }
        let shown = store.share(frontdoor, row.id).await.unwrap().unwrap();
        if matches!(event, Event::Report(..)) {
            assert_eq!(shown.standing, model.standing, "{events:?}");
        } else {
            (model.standing, model.generation) = (shown.standing, shown.generation);
        }
    }
}

#[test]
fn two_gateways_decide_a_status_as_the_model_does_in_any_order() {
    on_each(|store| async move {
        let pair = Pair::new(&store).await;
        let mut runner = TestRunner::deterministic();
        for n in 1..=60 {
            let events = vec(an_event(), 1..14).new_tree(&mut runner).unwrap().current();
            follows_the_model(&store, &pair, n, events).await;
        }
    });
}

#[test]
fn two_servers_that_report_at_once_find_that_the_row_is_redundant() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let dir = TempDir::new().unwrap();
    runtime.block_on(async {
        let place = place(&dir);
        let store = open(&place, &dir).await.unwrap();
        let beside = Store::open(&place, &keys_in(&dir)).await.unwrap();
        let pair = Pair::new(&store).await;
        for n in 1..=20 {
            let spec = pair.share(&format!("s-{n}"), n);
            let share = store.create_share(pair.site.frontdoor, &spec, &context()).await.unwrap();
            let report = || ready(Resource::Share(share.id), share.generation);
            let not_yet = RowReport { seen: seen(None, Some(Reason::AgentOffline)), ..report() };
            for gateway in [0, 1] {
                pair.report(&store, gateway, not_yet.clone(), 1).await;
            }
            tokio::join!(pair.report(&store, 0, report(), 2), pair.report(&beside, 1, report(), 2));
            let row: ShareId = share.id;
            let row = store.share(pair.site.frontdoor, row).await.unwrap().unwrap();
            assert_eq!((row.standing.status, reason(&row.standing)), (Status::Deployed, None), "{n}");
        }
        beside.close().await;
        store.close().await;
    });
}
