//! Several gateways of one database.

use crate::{
    database::on_each,
    site::{after, own_gateway},
};
use uuid::Uuid;
use wicketgate_model::GatewayId;
use wicketgate_store::{NewGateway, Store};

fn id(n: u128) -> GatewayId {
    GatewayId::new(Uuid::from_u128(n))
}

/// A gateway in a process of its own.
fn other(n: u128) -> NewGateway {
    NewGateway { in_process: false, ..own_gateway(id(n)) }
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
