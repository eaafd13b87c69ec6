//! The public addresses of peers, where tunnels of two Frontdoors want the same one.

use crate::{
    database::on_each,
    site::{ALL, after, changes, context, epoch, frontdoor, tunnel_spec},
};
use wicketgate_model::{
    Connection, ConnectionState, FrontdoorId, LoadBalancerPools, Peer, PeerAddress, Standing, Status,
    TunnelId,
};
use wicketgate_store::{
    Action, ExecutionStatus, Resource, Result, Revision, StatusUpdate, Store, StoreError, TunnelChange,
    TunnelRow, TunnelSpec, WriteContext, column,
};

/// The hours of a day, and those for which a proof lasts.
const DAY: i64 = 24;
const PROOF: i64 = 30 * DAY;

fn at(hours: i64) -> WriteContext {
    WriteContext { at: after(hours * 3600), ..context() }
}

fn by_operator(hours: i64) -> WriteContext {
    WriteContext { takes_peer_address: true, ..at(hours) }
}

fn address() -> PeerAddress {
    tunnel_spec(9).peer_address
}

async fn create(store: &Store, of: FrontdoorId, name: &str, context: &WriteContext) -> Result<TunnelRow> {
    let spec = TunnelSpec { name: name.parse().unwrap(), ..tunnel_spec(9) };
    store.create_tunnel(of, &spec, &LoadBalancerPools::ipsec(), context).await
}

async fn read(store: &Store, tunnel: &TunnelRow) -> TunnelRow {
    store.tunnel(tunnel.frontdoor, tunnel.id).await.unwrap().unwrap()
}

async fn change(
    store: &Store,
    tunnel: &TunnelRow,
    spec: TunnelSpec,
    context: &WriteContext,
) -> Result<TunnelRow> {
    let (expected, previous_until) = (read(store, tunnel).await.generation, context.at);
    let change = TunnelChange { expected, spec, previous_until, cuts: false, action: Action::Update };
    store.replace_tunnel(tunnel.frontdoor, tunnel.id, &change, &LoadBalancerPools::ipsec(), context).await
}

async fn delete(store: &Store, tunnel: &TunnelRow, hours: i64) {
    let deleting = store.delete_tunnel(tunnel.frontdoor, tunnel.id, &at(hours)).await.unwrap();
    let standing = Standing { status: Status::Deleted, since: after(hours * 3600), ..deleting.standing };
    let (resource, generation) = (Resource::Tunnel(tunnel.id), deleting.generation);
    store
        .update_statuses(&epoch(store).await, &[StatusUpdate { resource, generation, standing }])
        .await
        .unwrap();
}

async fn connect(store: &Store, tunnel: TunnelId, state: ConnectionState, from: PeerAddress, hours: i64) {
    let peer = Peer { address: from.get(), port: 500, id: None };
    let connection = Connection { state, peer: Some(peer), ..Connection::down(after(hours * 3600)) };
    store
        .record_connections(&epoch(store).await, &[(tunnel, connection)], after(hours * 3600))
        .await
        .unwrap();
}

/// As the caller of another Frontdoor is told it: without the tunnel that has the address.
fn is_refused(made: &Result<TunnelRow>) -> bool {
    matches!(made, Err(StoreError::Conflict { column, with: None }) if **column == column::tunnel::PEER_ADDRESS)
}

#[test]
fn an_unproved_address_gives_way_after_a_day_and_comes_back_when_it_is_free() {
    on_each(|store| async move {
        let (one, other) = (frontdoor(&store).await, frontdoor(&store).await);
        let squatter = create(&store, one, "a", &at(0)).await.unwrap();
        assert!(is_refused(&create(&store, other, "b", &at(DAY)).await));
        let before = changes(&store, Revision::default()).await.revision;
        let owner = create(&store, other, "b", &at(DAY + 1)).await.unwrap();
        let lost = read(&store, &squatter).await;
        assert_eq!(lost.peer_address_taken_at, Some(after((DAY + 1) * 3600)));
        assert_eq!(changes(&store, before).await.tunnels, 2, "the reconciler sees both");
        let records = store.executions(one, &ALL).await.unwrap().rows;
        let last = records.iter().max_by_key(|record| record.created_at).unwrap();
        assert_eq!(
            (last.actor.as_str(), last.action, last.status),
            ("server", Action::Update, ExecutionStatus::Success)
        );
        let theirs = store.executions(other, &ALL).await.unwrap().rows;
        assert!(theirs.iter().all(|record| record.process != last.process));

        // No write but one about the address brings it back, and the own tunnel that lost it is not the one that has it.
        for enabled in [false, true] {
            let spec = TunnelSpec { enabled, ..lost.spec.clone() };
            let changed = change(&store, &lost, spec, &at(DAY + 2)).await.unwrap();
            assert_eq!(changed.peer_address_taken_at, lost.peer_address_taken_at);
        }
        assert!(is_refused(&create(&store, one, "c", &at(DAY + 2)).await));
        store.return_peer_addresses(&at(DAY + 2)).await.unwrap();
        assert!(read(&store, &squatter).await.peer_address_taken_at.is_some());
        delete(&store, &owner, DAY + 3).await;
        let before = changes(&store, Revision::default()).await.revision;
        store.return_peer_addresses(&at(DAY + 3)).await.unwrap();
        assert_eq!(read(&store, &squatter).await.peer_address_taken_at, None);
        assert_eq!(changes(&store, before).await.tunnels, 1);
        store.prune(after((DAY + PROOF + 4) * 3600)).await.unwrap();
    });
}

#[test]
fn another_address_ends_the_loss() {
    on_each(|store| async move {
        let (one, other) = (frontdoor(&store).await, frontdoor(&store).await);
        let squatter = create(&store, one, "a", &at(0)).await.unwrap();
        create(&store, other, "b", &at(DAY + 1)).await.unwrap();
        let moved = TunnelSpec { peer_address: tunnel_spec(8).peer_address, ..squatter.spec.clone() };
        let moved = change(&store, &squatter, moved, &at(DAY + 2)).await.unwrap();
        assert_eq!(moved.peer_address_taken_at, None);
        // It claims as a new tunnel does.
        assert!(is_refused(&change(&store, &squatter, squatter.spec.clone(), &at(DAY + 2)).await));
        assert!(change(&store, &squatter, squatter.spec.clone(), &at(3 * DAY)).await.is_ok());
        let conflict = create(&store, one, "c", &at(9 * DAY)).await;
        assert!(
            matches!(&conflict, Err(StoreError::Conflict { with: Some(with), .. }) if with.id == squatter.id.to_string()),
            "{conflict:?}"
        );
    });
}

#[test]
fn a_connection_from_the_address_protects_it_for_30_days() {
    on_each(|store| async move {
        let (one, other) = (frontdoor(&store).await, frontdoor(&store).await);
        let tunnel = create(&store, one, "a", &at(0)).await.unwrap();
        let claim = async |hours| create(&store, other, "b", &at(hours)).await;
        // Neither a try nor a connection from elsewhere proves anything; both are only what a gateway could report.
        connect(&store, tunnel.id, ConnectionState::Connecting, address(), 1).await;
        connect(&store, tunnel.id, ConnectionState::Up, tunnel_spec(8).peer_address, 2).await;
        connect(&store, tunnel.id, ConnectionState::Up, address(), 3).await;
        assert!(is_refused(&claim(DAY + 1).await));
        // While it is up, and for 30 days after it was.
        assert!(is_refused(&claim(10 * PROOF).await));
        connect(&store, tunnel.id, ConnectionState::Down, address(), 10 * PROOF + 2).await;
        assert!(is_refused(&claim(11 * PROOF + 2).await));
        let taken = claim(11 * PROOF + 3).await.unwrap();
        assert!(read(&store, &tunnel).await.peer_address_taken_at.is_some());
        // The proof is of the Frontdoor: a tunnel that is made again keeps it.
        connect(&store, taken.id, ConnectionState::Up, address(), 11 * PROOF + 4).await;
        delete(&store, &taken, 11 * PROOF + 5).await;
        create(&store, other, "b", &at(11 * PROOF + 6)).await.unwrap();
        assert!(is_refused(&create(&store, one, "c", &at(11 * PROOF + 2 * DAY)).await));
    });
}

#[test]
fn a_tunnel_that_is_made_again_does_not_begin_again() {
    on_each(|store| async move {
        let (one, other) = (frontdoor(&store).await, frontdoor(&store).await);
        for hours in [0, 20] {
            let tunnel = create(&store, one, "a", &at(hours)).await.unwrap();
            delete(&store, &tunnel, hours + 19).await;
        }
        let tunnel = create(&store, one, "a", &at(40)).await.unwrap();
        // It gets another address for an hour.
        let elsewhere = TunnelSpec { peer_address: tunnel_spec(8).peer_address, ..tunnel.spec.clone() };
        change(&store, &tunnel, elsewhere, &at(41)).await.unwrap();
        change(&store, &tunnel, tunnel.spec.clone(), &at(42)).await.unwrap();
        create(&store, other, "b", &at(43)).await.unwrap();
        assert!(read(&store, &tunnel).await.peer_address_taken_at.is_some());
    });
}

#[test]
fn the_operator_decides_unless_the_tunnel_is_being_deleted_or_of_the_same_frontdoor() {
    on_each(|store| async move {
        let (one, other) = (frontdoor(&store).await, frontdoor(&store).await);
        let tunnel = create(&store, one, "a", &at(0)).await.unwrap();
        connect(&store, tunnel.id, ConnectionState::Up, address(), 1).await;
        assert!(create(&store, one, "b", &by_operator(1)).await.is_err());
        create(&store, other, "b", &by_operator(1)).await.unwrap();
        assert!(read(&store, &tunnel).await.peer_address_taken_at.is_some());
        // And back, by a change of the tunnel that has lost it.
        let back = change(&store, &tunnel, tunnel.spec.clone(), &by_operator(2)).await.unwrap();
        assert_eq!(back.peer_address_taken_at, None);
        store.delete_tunnel(one, tunnel.id, &at(3)).await.unwrap();
        assert!(is_refused(&create(&store, other, "c", &by_operator(3)).await));
        let third = frontdoor(&store).await;
        assert!(is_refused(&create(&store, third, "c", &by_operator(100 * DAY)).await));
    });
}

#[test]
fn of_claims_at_the_same_time_one_succeeds() {
    on_each(|store| async move {
        let owners = [frontdoor(&store).await, frontdoor(&store).await, frontdoor(&store).await];
        create(&store, owners[0], "a", &at(0)).await.unwrap();
        let late = at(2 * DAY);
        let (one, two) =
            tokio::join!(create(&store, owners[1], "b", &late), create(&store, owners[2], "b", &late));
        assert!(one.is_ok() != two.is_ok() && (is_refused(&one) || is_refused(&two)), "{one:?} {two:?}");
        let mut having = 0;
        for of in owners {
            let rows = store.tunnels(of, &ALL).await.unwrap().rows;
            having += rows.iter().filter(|row| row.peer_address_taken_at.is_none()).count();
        }
        assert_eq!(having, 1);
    });
}

#[test]
fn who_let_go_of_a_proved_address_gets_it_back_from_one_without_proof() {
    on_each(|store| async move {
        let (one, other) = (frontdoor(&store).await, frontdoor(&store).await);
        let site = create(&store, one, "a", &at(0)).await.unwrap();
        connect(&store, site.id, ConnectionState::Up, address(), 1).await;
        delete(&store, &site, 2).await;
        let quick = create(&store, other, "b", &at(2)).await.unwrap();
        create(&store, one, "c", &at(3)).await.unwrap();
        assert!(read(&store, &quick).await.peer_address_taken_at.is_some());
        assert!(is_refused(&create(&store, other, "d", &at(4)).await));
    });
}
