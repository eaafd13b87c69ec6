//! Buckets of traffic.

use crate::{
    database::{on_each, open, place},
    site::{after, now, own_gateway},
};
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _};
use std::collections::BTreeMap;
use tempfile::TempDir;
use uuid::Uuid;
use wicketgate_model::{FailureReason, GatewayId, ShareId, SpooledTraffic, TrafficDelta, TunnelId};
use wicketgate_store::{GatewayEpoch, MetricsWindow, Store, StoreError, TrafficReport, TrafficScope};

/// A gateway that has linked.
pub(crate) async fn gateway(store: &Store) -> GatewayEpoch {
    let gateway = GatewayId::new(Uuid::now_v7());
    store.register_gateway(&own_gateway(gateway), now()).await.unwrap();
    store.link_gateway(gateway, now()).await.unwrap()
}

/// Of a share on a tunnel.
pub(crate) async fn received(store: &Store, scope: TrafficScope) -> u64 {
    let window = MetricsWindow::new(900, None, now()).unwrap();
    store.traffic(scope, &window).await.unwrap().iter().map(|sample| sample.rx).sum()
}

#[test]
fn traffic_adds_up_at_every_resolution() {
    on_each(|store| async move {
        let (gateway, tunnel) = (gateway(&store).await, TunnelId::new(Uuid::now_v7()));
        let (a, b) = (ShareId::new(Uuid::now_v7()), ShareId::new(Uuid::now_v7()));
        let delta = |share, rx, active| TrafficDelta {
            rx,
            tx: 2 * rx,
            connections: 1,
            active,
            failures: [(FailureReason::NoAgent, rx), (FailureReason::ShareFull, 1)].into(),
            ..TrafficDelta::new(share, tunnel)
        };
        for (second, deltas) in [
            (-3000, vec![delta(a, 7, 4)]),
            (-5, vec![delta(a, 10, 1), delta(b, 1, 2)]),
            (0, vec![delta(a, 3, 1)]),
        ] {
            let report = report(Uuid::now_v7(), 1, second, deltas);
            store.record_traffic(&gateway, &report).await.unwrap();
        }
        for period in [3600, 12 * 3600, 7 * 86_400] {
            let window = MetricsWindow::new(period, None, now()).unwrap();
            let sum = async |scope| {
                let samples = store.traffic(scope, &window).await.unwrap();
                assert_eq!(samples.len(), (period / window.step) as usize);
                assert!(samples.is_sorted_by_key(|s| s.timestamp));
                let total = |of: fn(&wicketgate_store::Sample) -> u64| samples.iter().map(of).sum::<u64>();
                (total(|s| s.rx), total(|s| s.tx), samples.iter().map(|s| s.active).max())
            };
            assert_eq!(sum(TrafficScope::Share(a)).await, (20, 40, Some(4)));
            assert_eq!(sum(TrafficScope::Share(b)).await, (1, 2, Some(2)));
            assert_eq!(sum(TrafficScope::Tunnel(tunnel)).await, (21, 42, Some(4)));
            let failures = async |scope| {
                let samples = store.failures(scope, &window).await.unwrap();
                assert_eq!(samples.len(), (period / window.step) as usize);
                let of =
                    |reason| samples.iter().map(|s| s.get(&reason).copied().unwrap_or_default()).sum::<u64>();
                (of(FailureReason::NoAgent), of(FailureReason::ShareFull))
            };
            assert_eq!(failures(TrafficScope::Share(a)).await, (20, 3));
            assert_eq!(failures(TrafficScope::Tunnel(tunnel)).await, (21, 4));
        }
        store.prune(after(7 * 3600)).await.unwrap();
        let old = MetricsWindow::new(86_400, None, after(7 * 3600)).unwrap();
        let kept = store.traffic(TrafficScope::Share(a), &old).await.unwrap();
        assert_eq!(kept.iter().map(|s| s.rx).sum::<u64>(), 20);
        let kept = store.failures(TrafficScope::Share(a), &old).await.unwrap();
        assert_eq!(kept.iter().filter_map(|s| s.get(&FailureReason::NoAgent)).sum::<u64>(), 20);
    });
}

/// The spool of a gateway whose reports the test numbers.
const SPOOL: Uuid = Uuid::from_u128(77);

/// What a gateway carried, `second`s from now.
pub(crate) fn report(spool: Uuid, number: u64, second: i64, deltas: Vec<TrafficDelta>) -> TrafficReport {
    TrafficReport::new(&SpooledTraffic { spool, number, at: after(second), deltas }, after(second))
}

#[test]
fn a_report_of_many_shares_is_recorded_whole_and_once() {
    on_each(|store| async move {
        let (gateway, tunnel) = (gateway(&store).await, TunnelId::new(Uuid::now_v7()));
        let shares: Vec<_> = (0..1234).map(|_| ShareId::new(Uuid::now_v7())).collect();
        let deltas: Vec<_> =
            shares.iter().map(|share| TrafficDelta { rx: 3, ..TrafficDelta::new(*share, tunnel) }).collect();
        // The last of them is of the gateway's next run, and one before comes late.
        let sent = [(SPOOL, 1), (SPOOL, 1), (SPOOL, 2), (SPOOL, 1), (SPOOL, 2), (Uuid::now_v7(), 1)];
        for (spool, number) in sent {
            store.record_traffic(&gateway, &report(spool, number, 0, deltas.clone())).await.unwrap();
        }
        for share in shares {
            assert_eq!(received(&store, TrafficScope::Share(share)).await, 3 * 3);
        }
        assert_eq!(received(&store, TrafficScope::Tunnel(tunnel)).await, 1234 * 3 * 3);
    });
}

#[test]
fn traffic_is_not_of_the_future_whatever_the_gateways_clock_says() {
    on_each(|store| async move {
        let (gateway, share) = (gateway(&store).await, ShareId::new(Uuid::now_v7()));
        let deltas = vec![TrafficDelta { rx: 3, ..TrafficDelta::new(share, TunnelId::new(Uuid::now_v7())) }];
        let sent = SpooledTraffic { spool: SPOOL, number: 1, at: after(86_400), deltas };
        store.record_traffic(&gateway, &TrafficReport::new(&sent, now())).await.unwrap();
        assert_eq!(received(&store, TrafficScope::Share(share)).await, 3);
    });
}

#[tokio::test]
async fn another_server_completes_a_report_that_was_recorded_in_part() {
    let dir = TempDir::new().unwrap();
    let place = place(&dir);
    let store = open(&place, &dir).await.unwrap();
    let is_shared = place.starts_with("postgres");
    let other = if is_shared { open(&place, &dir).await.unwrap() } else { store.clone() };
    let url = if is_shared { place } else { format!("sqlite://{place}") };
    let rename = async |from: &str, to: &str| {
        let mut db = AnyConnection::connect(&url).await.unwrap();
        db.execute(AssertSqlSafe(format!("ALTER TABLE {from} RENAME TO {to}"))).await.unwrap();
        db.close().await.unwrap();
    };
    let (gateway, tunnel) = (gateway(&store).await, TunnelId::new(Uuid::now_v7()));
    let mut shares: Vec<_> = (0..1234).map(|_| ShareId::new(Uuid::now_v7())).collect();
    shares.sort_unstable();
    let (first, failing) = (shares[0], shares[700]);
    let delta = |share: &ShareId| {
        let failures = if *share == failing { [(FailureReason::NoAgent, 1)].into() } else { BTreeMap::new() };
        TrafficDelta { rx: 3, failures, ..TrafficDelta::new(*share, tunnel) }
    };
    let sent = || report(SPOOL, 1, 0, shares.iter().map(delta).collect());

    // The second part cannot be recorded.
    rename("traffic_failure", "lost").await;
    store.record_traffic(&gateway, &sent()).await.unwrap_err();
    rename("lost", "traffic_failure").await;
    let of = async |share| received(&store, TrafficScope::Share(share)).await;
    assert_eq!((of(first).await, of(failing).await), (3, 0));

    // The gateway has found another server, and sends the report again.
    let held = other.link_gateway(gateway.gateway(), now()).await.unwrap();
    let refused = store.record_traffic(&gateway, &sent()).await;
    assert!(matches!(refused, Err(StoreError::Superseded)), "{refused:?}");
    for _ in 0..2 {
        other.record_traffic(&held, &sent()).await.unwrap();
    }
    for share in &shares {
        assert_eq!(of(*share).await, 3);
    }
    assert_eq!(received(&store, TrafficScope::Tunnel(tunnel)).await, 1234 * 3);
    let window = MetricsWindow::new(900, None, now()).unwrap();
    let failures = store.failures(TrafficScope::Tunnel(tunnel), &window).await.unwrap();
    assert_eq!(failures.iter().filter_map(|sample| sample.get(&FailureReason::NoAgent)).sum::<u64>(), 1);
}
