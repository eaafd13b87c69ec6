//! Several servers on one database.

use crate::{database::open, site::now};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use uuid::Uuid;
use wicketgate_model::{GatewayId, ServerId};
use wicketgate_store::{Claim, Claimed, NewGateway, ServerFacts, Store};

/// A server counts as dead after ten seconds.
const BOUND: Duration = Duration::from_secs(30);

fn facts(address: &str) -> ServerFacts {
    let link_address = Some(address.to_owned());
    ServerFacts { link_address, version: "0.1.0".to_owned(), started_at: now() }
}

async fn ids(store: &Store) -> Vec<ServerId> {
    store.live_servers().await.unwrap().into_iter().map(|row| row.id).collect()
}

#[tokio::test]
async fn a_server_that_is_silent_loses_its_links_and_its_claims() {
    let dir = TempDir::new().unwrap();
    let Some(place) = wicketgate_lab::postgres::fresh().unwrap() else { return };
    let first = open(&place, &dir).await.unwrap();
    let second = open(&place, &dir).await.unwrap();
    first.beat(&facts("a.example:8444"), now()).await.unwrap();
    second.beat(&facts("b.example:8444"), now()).await.unwrap();
    first.beat(&facts("a.example:8444"), now()).await.unwrap();
    assert_eq!(ids(&first).await, [first.server_id(), second.server_id()]);

    let gateway = GatewayId::new(Uuid::now_v7());
    let new = NewGateway { id: gateway, location: "local".parse().unwrap(), in_process: false };
    first.register_gateway(&new, now()).await.unwrap();
    first.link_gateway(gateway, now()).await.unwrap();
    let claim = |token: u128| Claim {
        principal: "a".to_owned(),
        key: "k".to_owned(),
        fingerprint: "f".to_owned(),
        token: Uuid::from_u128(token),
    };
    assert_eq!(first.claim(&claim(1), now()).await.unwrap(), Claimed::Fresh);
    assert_eq!(second.claim(&claim(2), now()).await.unwrap(), Claimed::Running, "its server lives");
    let is_linked = async || {
        let gateways = second.listed_gateways(&Default::default()).await.unwrap();
        gateways.rows.first().is_some_and(|row| row.lost_at.is_none())
    };
    assert!(is_linked().await);

    let begin = Instant::now();
    while ids(&second).await.contains(&first.server_id()) {
        assert!(begin.elapsed() < BOUND, "it does not die");
        second.beat(&facts("b.example:8444"), now()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    second.beat(&facts("b.example:8444"), now()).await.unwrap();
    assert!(begin.elapsed() > Duration::from_secs(8), "{:?}", begin.elapsed());
    assert!(!is_linked().await);
    assert_eq!(second.claim(&claim(3), now()).await.unwrap(), Claimed::Fresh, "nobody carries it out");

    // It was only slow: it lives again, and has to ask for its links.
    first.beat(&facts("a.example:8444"), now()).await.unwrap();
    second.beat(&facts("b.example:8444"), now()).await.unwrap();
    assert_eq!(ids(&second).await.len(), 2);
    assert!(!is_linked().await);
    let late = first.link_gateway(gateway, now()).await.unwrap();
    assert!(is_linked().await);
    // A server that stops says so.
    first.unlink_gateway(&late, now()).await.unwrap();
    first.leave().await.unwrap();
    second.beat(&facts("b.example:8444"), now()).await.unwrap();
    assert_eq!(ids(&second).await, [second.server_id()]);
    first.close().await;
    second.close().await;
}
