//! Several gateways of one database.

use crate::{
    database::{on_each, open, place},
    site::{
        ALL, Site, after, changes, changes_of, context, epoch, gateway as own, link, now, own_gateway,
        settled, tunnel_spec,
    },
    traffic::{gateway as linked_gateway, received, report},
};
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _};
use std::time::Duration;
use tempfile::TempDir;
use uuid::Uuid;
use wicketgate_model::{
    AgentReport, Connection, ConnectionState, EspMode, GatewayId, LoadBalancerPools, ShareId, Status,
    TrafficDelta, TunnelId,
};
use wicketgate_store::{
    AgentLink, GatewayEpoch, GatewayFacts, NewGateway, Result, Revision, ShareSpec, Store, StoreError,
    TrafficScope, TunnelSpec,
};

pub(crate) fn id(n: u128) -> GatewayId {
    GatewayId::new(Uuid::from_u128(n))
}

/// A gateway in a process of its own.
pub(crate) fn other(n: u128) -> NewGateway {
    NewGateway { in_process: false, ..own_gateway(id(n)) }
}

fn room_for(tunnels: u32) -> GatewayFacts {
    GatewayFacts {
        public_address: Some([192, 0, 2, 1].into()),
        esp: Some(EspMode::Kernel),
        namespaces: Some("wg-1".to_owned()),
        max_tunnels: Some(tunnels),
        agent_url: None,
        version: None,
    }
}

async fn known(store: &Store) -> Vec<(GatewayId, bool)> {
    store.gateways().await.unwrap().into_iter().map(|row| (row.id, row.in_process)).collect()
}

#[test]
fn only_the_gateway_in_the_servers_process_takes_the_place_of_the_one_before() {
    on_each(|store| async move {
        store.register_gateway(&other(1), after(1)).await.unwrap();
        store.register_gateway(&own_gateway(id(2)), after(2)).await.unwrap();
        assert_eq!(known(&store).await, [(id(1), false), (id(2), true)]);
        // Another data directory, at another location.
        let moved = NewGateway { location: "away".parse().unwrap(), ..own_gateway(id(3)) };
        store.register_gateway(&moved, after(3)).await.unwrap();
        store.register_gateway(&other(4), after(4)).await.unwrap();
        assert_eq!(known(&store).await, [(id(1), false), (id(3), true), (id(4), false)]);
        let rows = store.gateways().await.unwrap();
        assert_eq!((rows[1].location.as_ref(), rows[1].created_at), (Some(&moved.location), after(2)));
        // A restart.
        store.register_gateway(&moved, after(5)).await.unwrap();
        assert_eq!(store.gateways().await.unwrap(), rows);
    });
}

#[test]
fn a_tunnel_is_placed_at_the_gateway_with_the_fewest() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let create = async |n, location: &str| {
            let spec = TunnelSpec { location: location.parse().unwrap(), ..tunnel_spec(n) };
            let pools = LoadBalancerPools::ipsec();
            store.create_tunnel(site.frontdoor, &spec, &pools, &context()).await.unwrap()
        };
        let placed = async |id| store.tunnel(site.frontdoor, id).await.unwrap().unwrap().gateway;
        assert_eq!(placed(site.tunnel).await, Some(own()));
        store.register_gateway(&other(7), now()).await.unwrap();
        assert_eq!(placed(site.tunnel).await, Some(own()), "it stays");
        let second = create(2, "local").await;
        assert_eq!((second.gateway, placed(second.id).await), (Some(id(7)), Some(id(7))));
        assert_eq!(create(3, "local").await.gateway, Some(own()));
        assert_eq!(create(4, "local").await.gateway, Some(id(7)));
        let listed = store.tunnels(site.frontdoor, &ALL).await.unwrap().rows;
        assert_eq!(listed.iter().filter(|row| row.gateway == Some(id(7))).count(), 2);

        // A location gets its gateway later.
        let waiting = create(5, "away").await;
        assert_eq!((waiting.gateway, placed(waiting.id).await), (None, None));
        let away = NewGateway { location: "away".parse().unwrap(), ..other(8) };
        store.register_gateway(&away, now()).await.unwrap();
        assert_eq!(placed(waiting.id).await, Some(id(8)));
        assert_eq!(create(6, "away").await.gateway, Some(id(8)));
        // Another one takes nothing from it.
        store.register_gateway(&NewGateway { id: id(9), ..away }, now()).await.unwrap();
        assert_eq!(placed(waiting.id).await, Some(id(8)));
    });
}

#[test]
fn a_gateway_gets_no_more_tunnels_than_it_has_room_for_while_another_has_room() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        store.register_gateway(&other(7), now()).await.unwrap();
        let second = store.link_gateway(id(7), now()).await.unwrap();
        store.gateway_introduced(&second, &room_for(1)).await.unwrap();
        // As it was told, after another link, and after it has ended.
        let second = store.link_gateway(id(7), now()).await.unwrap();
        store.unlink_gateway(&second, now()).await.unwrap();
        assert_eq!(store.gateways().await.unwrap()[1].facts, room_for(1));
        let mut placed = Vec::new();
        for n in 2..=5 {
            let (spec, pools) = (tunnel_spec(n), LoadBalancerPools::ipsec());
            let made = store.create_tunnel(site.frontdoor, &spec, &pools, &context()).await.unwrap();
            placed.push(made.gateway);
        }
        assert_eq!(placed, [Some(id(7)), Some(own()), Some(own()), Some(own())]);
    });
}

#[test]
fn a_gateway_is_passed_its_own_rows_only() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let first = store.create_share(site.frontdoor, &site.share("a", 1), &context()).await.unwrap();
        store.register_gateway(&other(7), now()).await.unwrap();
        let empty = changes_of(&store, id(7), Revision::default()).await;
        assert_eq!((empty.tunnels, empty.shares.len(), empty.enrolled.len()), (0, 0, 1));
        let pools = LoadBalancerPools::ipsec();
        let tunnel = store.create_tunnel(site.frontdoor, &tunnel_spec(2), &pools, &context()).await.unwrap();
        assert_eq!(tunnel.gateway, Some(id(7)));
        let spec = ShareSpec { tunnel: tunnel.id, ..site.share("b", 1) };
        let second = store.create_share(site.frontdoor, &spec, &context()).await.unwrap();

        let of = async |gateway, since| {
            let seen = changes_of(&store, gateway, since).await;
            assert_eq!(seen.withdrawn, 0);
            (seen.tunnels, seen.shares)
        };
        for since in [Revision::default(), empty.revision] {
            assert_eq!(of(id(7), since).await, (1, vec![Status::New]));
        }
        assert_eq!(of(own(), Revision::default()).await, (1, vec![Status::New]));
        assert_eq!(of(own(), empty.revision).await, (0, vec![]));

        let since = changes_of(&store, id(7), Revision::default()).await.revision;
        store.delete_share(site.frontdoor, first.id, &context()).await.unwrap();
        assert_eq!(of(id(7), since).await, (0, vec![]));
        store.delete_share(site.frontdoor, second.id, &context()).await.unwrap();
        assert_eq!(of(id(7), since).await, (0, vec![Status::Deleting]));
        assert_eq!(of(own(), since).await, (0, vec![Status::Deleting]));
    });
}

/// What a server writes about a gateway.
#[derive(Debug, Clone, Copy)]
enum Report {
    Status,
    Connection,
    AgentConnected,
    Agent,
    Traffic,
    AgentDisconnected,
    Facts,
    Unlinked,
}

impl Report {
    const ALL: [Self; 8] = [
        Self::Status,
        Self::Connection,
        Self::AgentConnected,
        Self::Agent,
        Self::Traffic,
        Self::AgentDisconnected,
        Self::Facts,
        Self::Unlinked,
    ];

    async fn write(self, store: &Store, site: &Site, share: ShareId, epoch: &GatewayEpoch) -> Result<()> {
        let agent = site.enrolled.agent;
        match self {
            Self::Status => store.update_statuses(epoch, &[settled(share, 1, Status::Deployed)]).await,
            Self::Connection => {
                let up = Connection { state: ConnectionState::Up, ..Connection::down(after(5)) };
                store.record_connections(epoch, &[(site.tunnel, up)], after(5)).await
            }
            Self::AgentConnected => store.agent_connected(epoch, &link(agent), after(6)).await,
            Self::Agent => store.agent_reported(epoch, agent, &AgentReport::default(), after(7)).await,
            Self::Traffic => {
                let delta = TrafficDelta { rx: 7, ..TrafficDelta::new(share, site.tunnel) };
                let report = report(Uuid::now_v7(), 1, 0, vec![delta]);
                store.record_traffic(epoch, &report).await
            }
            Self::AgentDisconnected => store.agent_disconnected(epoch, agent, after(8)).await,
            Self::Facts => store.gateway_introduced(epoch, &room_for(1)).await,
            Self::Unlinked => store.unlink_gateway(epoch, after(9)).await,
        }
    }
}

/// All that reports change.
async fn shown(store: &Store, site: &Site, share: ShareId) -> String {
    let share_row = store.share(site.frontdoor, share).await.unwrap().unwrap();
    let tunnel = store.tunnel(site.frontdoor, site.tunnel).await.unwrap().unwrap();
    let agent = store.agent(site.frontdoor, site.enrolled.agent).await.unwrap().unwrap();
    format!(
        "{:?}",
        (
            (
                share_row.standing,
                tunnel.connection,
                store.connection_changes(site.tunnel, &ALL).await.unwrap().total
            ),
            (agent.connected_since, agent.last_seen, store.agent_report(agent.id).await.unwrap()),
            (received(store, TrafficScope::Share(share)).await, store.event_span().await.unwrap().newest),
            store.gateways().await.unwrap(),
        )
    )
}

#[test]
fn a_report_of_an_earlier_link_changes_nothing() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let share = store.create_share(site.frontdoor, &site.share("a", 1), &context()).await.unwrap().id;
        let mut held = site.epoch;
        for report in Report::ALL {
            // The gateway links again, and an agent connects, so that there is something to overwrite.
            let earlier = std::mem::replace(&mut held, epoch(&store).await);
            if matches!(report, Report::AgentDisconnected | Report::Unlinked) {
                Report::AgentConnected.write(&store, &site, share, &held).await.unwrap();
            }
            let before = shown(&store, &site, share).await;
            let refused = report.write(&store, &site, share, &earlier).await;
            assert!(matches!(refused, Err(StoreError::Superseded)), "{report:?}: {refused:?}");
            assert_eq!(shown(&store, &site, share).await, before, "{report:?}");
            report.write(&store, &site, share, &held).await.unwrap();
            assert_ne!(shown(&store, &site, share).await, before, "{report:?}");
        }
    });
}

#[test]
fn a_gateway_that_is_not_registered_cannot_link() {
    on_each(|store| async move {
        let refused = store.link_gateway(id(1), now()).await;
        assert!(matches!(refused, Err(StoreError::Missing)), "{refused:?}");
    });
}

#[test]
fn the_links_of_two_gateways_do_not_end_each_other() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        store.register_gateway(&other(7), now()).await.unwrap();
        let second = store.link_gateway(id(7), now()).await.unwrap();
        for epoch in [&site.epoch, &second] {
            store.agent_connected(epoch, &link(site.enrolled.agent), after(1)).await.unwrap();
        }
        let newest = store.event_span().await.unwrap().newest;
        store.unlink_gateway(&second, after(2)).await.unwrap();
        assert_eq!(store.event_span().await.unwrap().newest, newest);
        let environment =
            store.environment(site.frontdoor, site.enrolled.environment).await.unwrap().unwrap();
        assert!(environment.active, "the agent is connected to the other gateway");
        store.agent_disconnected(&site.epoch, site.enrolled.agent, after(3)).await.unwrap();
        let environment =
            store.environment(site.frontdoor, site.enrolled.environment).await.unwrap().unwrap();
        assert!(!environment.active);
    });
}

/// Transactions of other servers that have begun with the earlier epoch end before the link begins.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_an_earlier_link_is_committed_after_the_next_has_begun() {
    const ROUNDS: usize = 20;
    /// What a server writes beside other transactions: more of them would never leave the lock to the next link.
    const WRITERS: usize = 2;
    const PAUSE: Duration = Duration::from_millis(4);
    const BOUND: Duration = Duration::from_secs(30);
    let dir = TempDir::new().unwrap();
    let place = place(&dir);
    let store = open(&place, &dir).await.unwrap();
    let writing =
        if place.starts_with("postgres") { open(&place, &dir).await.unwrap() } else { store.clone() };
    let (mut held, share) = (linked_gateway(&store).await, ShareId::new(Uuid::now_v7()));
    for _ in 0..ROUNDS {
        let (earlier, before) = (held, received(&store, TrafficScope::Share(share)).await);
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                let store = writing.clone();
                tokio::spawn(async move {
                    let delta =
                        TrafficDelta { rx: 1, ..TrafficDelta::new(share, TunnelId::new(Uuid::now_v7())) };
                    let report = || report(Uuid::now_v7(), 1, 0, vec![delta.clone()]);
                    loop {
                        match store.record_traffic(&earlier, &report()).await {
                            Ok(()) => tokio::time::sleep(PAUSE).await,
                            Err(StoreError::Superseded) => return,
                            Err(error) => panic!("{error}"),
                        }
                    }
                })
            })
            .collect();
        let recorded = async {
            while received(&store, TrafficScope::Share(share)).await == before {
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(BOUND, recorded).await.expect("no report was recorded");
        held = store.link_gateway(earlier.gateway(), now()).await.unwrap();
        let at_begin = received(&store, TrafficScope::Share(share)).await;
        for writer in writers {
            writer.await.unwrap();
        }
        assert_eq!(received(&store, TrafficScope::Share(share)).await, at_begin);
    }
}

/// Writes what no version writes yet.
pub(crate) async fn run(place: &str, statement: &str) {
    let url = if place.contains("://") { place.to_owned() } else { format!("sqlite://{place}") };
    let mut db = AnyConnection::connect(&url).await.unwrap();
    db.execute(AssertSqlSafe(statement.to_owned())).await.unwrap();
    db.close().await.unwrap();
}

#[tokio::test]
async fn a_tunnel_at_two_gateways_shows_the_better_connection_and_one_history() {
    let dir = TempDir::new().unwrap();
    let place = place(&dir);
    let store = open(&place, &dir).await.unwrap();
    let site = Site::new(&store).await;
    store.register_gateway(&other(7), now()).await.unwrap();
    let second = store.link_gateway(id(7), now()).await.unwrap();
    let record = async |epoch: &GatewayEpoch, state, at| {
        let connection = Connection { state, ..Connection::down(after(at)) };
        store.record_connections(epoch, &[(site.tunnel, connection)], after(at)).await.unwrap();
    };
    let shown = async || {
        let row = store.tunnel(site.frontdoor, site.tunnel).await.unwrap().unwrap();
        let listed = store.tunnels(site.frontdoor, &ALL).await.unwrap().rows;
        let connection = row.connection.unwrap();
        assert_eq!(listed[0].connection.as_ref(), Some(&connection));
        (connection.state, connection.since)
    };
    use ConnectionState::{Connecting, Down, Idle, Up};
    record(&site.epoch, Down, 1).await;
    record(&second, Up, 2).await;
    assert_eq!(shown().await, (Down, after(1)), "the other gateway has no place");
    let insert = "INSERT INTO endpoint_place (tunnel, gateway, ordinal, placed_at, revision) VALUES ('TUNNEL', 'OTHER', 2, 0, 0)";
    run(&place, &insert.replace("TUNNEL", &site.tunnel.to_string()).replace("OTHER", &id(7).to_string()))
        .await;
    assert_eq!(shown().await, (Up, after(2)));
    record(&site.epoch, Up, 3).await;
    assert_eq!(shown().await, (Up, after(3)), "the first place is preferred");
    for (at, [first, other], better) in [
        (10, [Idle, Connecting], 11),
        (20, [Down, Idle], 21),
        (30, [Connecting, Idle], 30),
        (40, [Down, Down], 40),
    ] {
        record(&site.epoch, first, at).await;
        record(&second, other, at + 1).await;
        assert_eq!(shown().await.1, after(better), "{first:?} {other:?}");
    }
    let changes = store.connection_changes(site.tunnel, &ALL).await.unwrap().rows;
    let changes: Vec<_> = changes.iter().map(|change| (change.number, change.gateway, change.at)).collect();
    let (own, other) = (own(), id(7));
    let expected = [(1, other, after(2)), (2, own, after(3)), (3, own, after(10)), (4, other, after(11))];
    assert_eq!(changes, expected);
}

#[tokio::test]
async fn a_place_that_is_added_or_withdrawn_is_passed_to_its_gateway() {
    let dir = TempDir::new().unwrap();
    let place = place(&dir);
    let store = open(&place, &dir).await.unwrap();
    let site = Site::new(&store).await;
    store.create_share(site.frontdoor, &site.share("a", 1), &context()).await.unwrap();
    store.register_gateway(&other(7), now()).await.unwrap();
    let since = changes_of(&store, id(7), Revision::default()).await.revision;
    let write = async |of: &'static str| {
        // It takes a revision, which the place gets.
        store.register_gateway(&other(7), now()).await.unwrap();
        let statement = of.replace("NOW", "(SELECT value FROM revision)");
        run(
            &place,
            &statement.replace("TUNNEL", &site.tunnel.to_string()).replace("OTHER", &id(7).to_string()),
        )
        .await;
    };
    write("INSERT INTO endpoint_place (tunnel, gateway, ordinal, placed_at, revision) VALUES ('TUNNEL', 'OTHER', 2, 0, NOW)")
        .await;
    let placed = changes_of(&store, id(7), since).await;
    assert_eq!((placed.tunnels, placed.shares.len(), placed.withdrawn), (1, 1, 0));
    let own_rows = changes(&store, since).await;
    assert_eq!((own_rows.tunnels, own_rows.shares.len(), own_rows.withdrawn), (0, 0, 0));

    write("UPDATE endpoint_place SET withdrawn_at = 1, revision = NOW WHERE gateway = 'OTHER'").await;
    let withdrawn = changes_of(&store, id(7), placed.revision).await;
    assert_eq!((withdrawn.tunnels, withdrawn.shares.len(), withdrawn.withdrawn), (0, 0, 1));
    let asked = [site.tunnel, TunnelId::new(Uuid::nil())];
    assert_eq!(store.deleted_tunnels(id(7), &asked).await.unwrap(), [site.tunnel]);
    assert_eq!(store.deleted_tunnels(own(), &asked).await.unwrap(), []);
    // One that never had a place there, and has one elsewhere.
    store.register_gateway(&other(8), now()).await.unwrap();
    assert_eq!(store.deleted_tunnels(id(8), &asked).await.unwrap(), [site.tunnel]);
    let first = changes_of(&store, id(7), Revision::default()).await;
    assert_eq!((first.tunnels, first.shares.len(), first.withdrawn), (0, 0, 0));
    assert_eq!(changes(&store, placed.revision).await.withdrawn, 0);
}

#[test]
fn an_agent_with_two_links_is_shown_once_with_the_newest() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        store.register_gateway(&other(7), now()).await.unwrap();
        let second = store.link_gateway(id(7), now()).await.unwrap();
        let agent = site.enrolled.agent;
        let shown = async || {
            let row = store.agent(site.frontdoor, agent).await.unwrap().unwrap();
            let listed = store.agents(site.frontdoor, &ALL).await.unwrap();
            assert_eq!((listed.total, listed.rows.len()), (1, 1));
            assert_eq!(listed.rows[0].connected_since, row.connected_since);
            (row.version.unwrap(), row.connected_since, row.last_seen)
        };
        let of = |version: &str| AgentLink { version: version.to_owned(), ..link(agent) };
        store.agent_connected(&site.epoch, &of("1"), after(1)).await.unwrap();
        store.agent_connected(&second, &of("2"), after(2)).await.unwrap();
        assert_eq!(shown().await, ("2".to_owned(), Some(after(2)), None));
        store.agent_disconnected(&second, agent, after(3)).await.unwrap();
        assert_eq!(shown().await, ("1".to_owned(), Some(after(1)), None), "one is up");
        store.agent_disconnected(&site.epoch, agent, after(4)).await.unwrap();
        assert_eq!(shown().await, ("1".to_owned(), None, Some(after(4))));
        assert_eq!(store.counts().await.unwrap().agents_connected, 0);
    });
}
