//! Which gateways an environment's agents dial.

use crate::{
    database::on_each,
    site::{Site, after, context, epoch, gateway as own, link, now, own_gateway, settled, tunnel_spec},
};
use uuid::Uuid;
use wicketgate_model::{GatewayId, LoadBalancerPools, Status};
use wicketgate_store::{GatewayFacts, NewGateway, ShareSpec, Store, TunnelSpec};

fn id(n: u128) -> GatewayId {
    GatewayId::new(Uuid::from_u128(n))
}

async fn told(store: &Store, gateway: GatewayId, url: &str) {
    let epoch = match gateway == own() {
        true => epoch(store).await,
        false => store.link_gateway(gateway, now()).await.unwrap(),
    };
    let facts = GatewayFacts {
        public_address: None,
        esp: None,
        namespaces: None,
        max_tunnels: None,
        agent_url: Some(url.to_owned()),
        version: None,
    };
    store.gateway_introduced(&epoch, &facts).await.unwrap();
}

/// The gateways of the only environment, and the version of that; `None`: there is no row.
async fn listed(store: &Store) -> Option<(Vec<GatewayId>, u64)> {
    assert!(!store.update_environment_gateways(now()).await.unwrap());
    let rows = store.environment_gateways(0).await.unwrap();
    assert!(rows.len() < 2);
    let row = rows.into_iter().next()?;
    assert!(row.gateways.iter().all(|gateway| gateway.url.starts_with("https://")));
    Some((row.gateways.iter().map(|gateway| gateway.id).collect(), row.version))
}

#[test]
fn an_environment_has_the_gateways_that_serve_it_and_its_version_grows_with_each_change() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        store.create_share(site.frontdoor, &site.share("a", 1), &context()).await.unwrap();
        told(&store, own(), "https://one:8443").await;
        assert_eq!(listed(&store).await, None, "there is one gateway");

        let away = NewGateway { location: "away".parse().unwrap(), in_process: false, ..own_gateway(id(7)) };
        store.register_gateway(&away, after(1)).await.unwrap();
        told(&store, id(7), "https://seven:8443").await;
        let (of, first) = listed(&store).await.unwrap();
        assert_eq!(of, [own()]);
        assert_eq!(listed(&store).await, Some((of, first)), "nothing has changed");
        assert!(store.environment_gateways(first).await.unwrap().is_empty());

        let spec = TunnelSpec { location: "away".parse().unwrap(), ..tunnel_spec(2) };
        let pools = LoadBalancerPools::ipsec();
        let tunnel = store.create_tunnel(site.frontdoor, &spec, &pools, &context()).await.unwrap();
        assert_eq!(listed(&store).await.unwrap().1, first, "a tunnel without a share is none of it");
        let spec = ShareSpec { tunnel: tunnel.id, ..site.share("b", 1) };
        let share = store.create_share(site.frontdoor, &spec, &context()).await.unwrap();
        let (of, second) = listed(&store).await.unwrap();
        assert!(of == [own(), id(7)] && second > first, "{of:?} {second}");

        // Another address is another list.
        told(&store, id(7), "https://seven:9443").await;
        let (of, third) = listed(&store).await.unwrap();
        assert!(of == [own(), id(7)] && third > second, "{of:?} {third}");
        // A share that is being deleted is served until its gateway has removed it.
        store.delete_share(site.frontdoor, share.id, &context()).await.unwrap();
        assert_eq!(listed(&store).await.unwrap().1, third);
        let seven = store.link_gateway(id(7), now()).await.unwrap();
        let deleted = settled(share.id, share.generation.next().get(), Status::Deleted);
        store.update_statuses(&seven, &[deleted]).await.unwrap();
        let (of, fourth) = listed(&store).await.unwrap();
        assert!(of == [own()] && fourth > third, "{of:?} {fourth}");
    });
}

#[test]
fn an_environment_is_reached_at_a_second_gateway_where_its_agents_are() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        told(&store, own(), "https://one:8443").await;
        for (n, location) in [(7, "away"), (8, "local"), (9, "local")] {
            let location = location.parse().unwrap();
            let other = NewGateway { location, in_process: false, ..own_gateway(id(n)) };
            store.register_gateway(&other, after(i64::try_from(n).unwrap())).await.unwrap();
            told(&store, id(n), "https://other:8443").await;
        }
        assert_eq!(listed(&store).await, None, "no agent was there");
        let epoch = epoch(&store).await;
        store.agent_connected(&epoch, &link(site.enrolled.agent), now()).await.unwrap();
        let (of, _) = listed(&store).await.unwrap();
        assert_eq!(of.len(), 2);
        assert!(!of.contains(&id(7)), "{of:?}");
    });
}
