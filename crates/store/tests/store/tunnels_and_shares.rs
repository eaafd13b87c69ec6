//! Tunnels and shares: uniqueness, use and changes.

use crate::{
    database::on_each,
    site::{ALL, Site, after, context, epoch, frontdoor, settled, tunnel_spec},
};
use wicketgate_model::{Connection, Generation, LoadBalancerPools, PreSharedKey, Standing, Status};
use wicketgate_store::column::{share, tunnel};
use wicketgate_store::{Action, NamedRow, Resource, StatusUpdate, StoreError, TunnelChange};

#[test]
fn one_of_many_concurrent_writers_gets_a_port() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let tries: Vec<_> = (0..32)
            .map(|n| {
                let (store, spec) = (store.clone(), site.share(&format!("share-{n}"), 8443));
                let frontdoor = site.frontdoor;
                tokio::spawn(async move { store.create_share(frontdoor, &spec, &context()).await })
            })
            .collect();
        let mut won = Vec::new();
        let mut lost = Vec::new();
        for each in tries {
            match each.await.unwrap() {
                Ok(share) => won.push(share.id.to_string()),
                Err(StoreError::Conflict { column, with }) if *column == share::INGRESS_PORT => {
                    lost.extend(with)
                }
                Err(e) => panic!("{e:?}"),
            }
        }
        assert_eq!((won.len(), lost.len()), (1, 31));
        assert!(lost.iter().all(|of| of.id == won[0]));
        // The failed writes leave no row and no execution.
        let executions = store.executions(site.frontdoor, &ALL).await.unwrap();
        let creates = executions.rows.iter().filter(|e| e.resource.starts_with("shr-")).count();
        assert_eq!(creates, 1);
    });
}

#[test]
fn names_ports_and_peers_are_taken_until_deleted() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let create = |spec| {
            let (store, frontdoor) = (&store, site.frontdoor);
            async move { store.create_share(frontdoor, &spec, &context()).await }
        };
        let first = create(site.share("a", 1)).await.unwrap();
        let named = Some(first.named());
        assert!(
            matches!(create(site.share("a", 2)).await, Err(StoreError::Conflict { column, with }) if *column == share::NAME && with == named)
        );
        store.delete_share(site.frontdoor, first.id, &context()).await.unwrap();
        // The gateway may still serve the share that is being deleted.
        assert!(matches!(create(site.share("a", 2)).await, Err(StoreError::Conflict { .. })));
        assert!(matches!(
            store.delete_share(site.frontdoor, first.id, &context()).await,
            Err(StoreError::NotLive(Status::Deleting))
        ));
        store.update_statuses(&site.epoch, &[settled(first.id, 2, Status::Deleted)]).await.unwrap();
        create(site.share("a", 1)).await.unwrap();
        let gone = store.share(site.frontdoor, first.id).await.unwrap().unwrap();
        assert_eq!((gone.standing.status, gone.deleted_at), (Status::Deleted, Some(after(1))));
        assert_eq!(store.shares(site.frontdoor, &ALL).await.unwrap().total, 1);

        let pools = LoadBalancerPools::ipsec();
        let mut same_peer = tunnel_spec(2);
        same_peer.peer_address = tunnel_spec(1).peer_address;
        let taken = store.create_tunnel(site.frontdoor, &same_peer, &pools, &context()).await;
        let own = Some(NamedRow::new(&site.tunnel, &tunnel_spec(1).name));
        assert!(
            matches!(taken, Err(StoreError::Conflict { column, with }) if *column == tunnel::PEER_ADDRESS && with == own)
        );
        // Another Frontdoor learns that the address is taken, but not by which tunnel.
        let other = frontdoor(&store).await;
        let taken = store.create_tunnel(other, &same_peer, &pools, &context()).await;
        assert!(
            matches!(taken, Err(StoreError::Conflict { column, with: None }) if *column == tunnel::PEER_ADDRESS)
        );
    });
}

#[test]
fn a_slot_is_the_lowest_free_one() {
    on_each(|store| async move {
        let (frontdoor, epoch) = (frontdoor(&store).await, epoch(&store).await);
        let pools = LoadBalancerPools::ipsec();
        let mut ids = Vec::new();
        for n in 1..=3 {
            let tunnel = store.create_tunnel(frontdoor, &tunnel_spec(n), &pools, &context()).await.unwrap();
            assert_eq!(u8::try_from(tunnel.slot).unwrap(), n - 1);
            ids.push(tunnel.id);
        }
        for id in &ids[..2] {
            let tunnel = store.delete_tunnel(frontdoor, *id, &context()).await.unwrap();
            let standing = Standing { status: Status::Deleted, ..tunnel.standing };
            let settlement =
                StatusUpdate { resource: Resource::Tunnel(*id), generation: tunnel.generation, standing };
            store.update_statuses(&epoch, &[settlement]).await.unwrap();
        }
        for (n, slot) in [(4, 0), (5, 1), (6, 3)] {
            let tunnel = store.create_tunnel(frontdoor, &tunnel_spec(n), &pools, &context()).await.unwrap();
            assert_eq!(tunnel.slot, slot);
            assert_eq!(pools.address(slot, tunnel.spec.peer_cidr), Some(tunnel.load_balancer_ip));
        }
    });
}

#[test]
fn a_new_key_keeps_the_previous_one_for_a_while() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let pools = LoadBalancerPools::ipsec();
        let mut spec = tunnel_spec(1);
        spec.pre_shared_key = Some(PreSharedKey::from_random([9; 32]));
        spec.peer_cidr = "100.64.0.0/10".parse().unwrap();
        let change = |expected| {
            let change = TunnelChange {
                cuts: false,
                expected: Generation::new(expected),
                spec: spec.clone(),
                previous_until: after(60),
                action: Action::Update,
            };
            let (store, pools) = (&store, &pools);
            async move { store.replace_tunnel(site.frontdoor, site.tunnel, &change, pools, &context()).await }
        };
        let tunnel = change(1).await.unwrap();
        let previous: Vec<_> = tunnel.previous_keys.valid(after(59)).cloned().collect();
        assert_eq!(previous, [(tunnel_spec(1).pre_shared_key.unwrap(), after(60))]);
        assert_eq!(tunnel.generation, Generation::new(2));
        // The site's new network contains the previous load balancer address, so the tunnel gets another one.
        assert_eq!(tunnel.load_balancer_ip.to_string(), "10.255.0.1");
        assert!(matches!(change(1).await, Err(StoreError::Stale)));
        assert_eq!(change(2).await.unwrap().previous_keys, tunnel.previous_keys);
        let connection = Connection::down(after(5));
        store.record_connections(&site.epoch, &[(site.tunnel, connection.clone())], after(5)).await.unwrap();
        let read = store.tunnel(site.frontdoor, site.tunnel).await.unwrap().unwrap();
        assert_eq!(read.connection, Some(connection));
    });
}

#[test]
fn references_must_be_live_and_referenced_tunnels_cannot_be_deleted() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let share = store.create_share(site.frontdoor, &site.share("a", 1), &context()).await.unwrap();
        let used = store.delete_tunnel(site.frontdoor, site.tunnel, &context()).await;
        let named = share.named();
        assert!(matches!(used, Err(StoreError::HasShares { count: 1, first }) if first == named));
        let other = frontdoor(&store).await;
        let foreign = store.create_share(other, &site.share("a", 1), &context()).await;
        assert!(matches!(foreign, Err(StoreError::Reference { column }) if *column == share::TUNNEL));
        assert!(matches!(store.share(other, share.id).await, Ok(None)));
        assert!(matches!(store.delete_share(other, share.id, &context()).await, Err(StoreError::Missing)));
        store.delete_share(site.frontdoor, share.id, &context()).await.unwrap();
        store.delete_tunnel(site.frontdoor, site.tunnel, &context()).await.unwrap();
        let late = store.create_share(site.frontdoor, &site.share("b", 2), &context()).await;
        assert!(matches!(late, Err(StoreError::Reference { column }) if *column == share::TUNNEL));
    });
}
