//! Buckets of traffic.

use crate::{
    database::on_each,
    site::{after, now, own_gateway},
};
use uuid::Uuid;
use wicketgate_model::{FailureReason, GatewayId, ShareId, TrafficDelta, TunnelId};
use wicketgate_store::{GatewayEpoch, MetricsWindow, Store, TrafficReport, TrafficScope};

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
            let report = TrafficReport::new(Uuid::now_v7(), after(second), &deltas);
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

#[test]
fn a_report_of_many_shares_is_recorded_whole_and_once() {
    on_each(|store| async move {
        let (gateway, tunnel) = (gateway(&store).await, TunnelId::new(Uuid::now_v7()));
        let shares: Vec<_> = (0..1234).map(|_| ShareId::new(Uuid::now_v7())).collect();
        let deltas: Vec<_> =
            shares.iter().map(|share| TrafficDelta { rx: 3, ..TrafficDelta::new(*share, tunnel) }).collect();
        let report = TrafficReport::new(Uuid::now_v7(), now(), &deltas);
        for _ in 0..2 {
            store.record_traffic(&gateway, &report).await.unwrap();
        }
        let another = TrafficReport::new(Uuid::now_v7(), now(), &deltas);
        store.record_traffic(&gateway, &another).await.unwrap();
        for share in shares {
            assert_eq!(received(&store, TrafficScope::Share(share)).await, 6);
        }
        assert_eq!(received(&store, TrafficScope::Tunnel(tunnel)).await, 1234 * 6);
    });
}

#[test]
fn reports_of_the_same_ten_seconds_are_recorded_as_one() {
    on_each(|store| async move {
        let (gateway, tunnel) = (gateway(&store).await, TunnelId::new(Uuid::now_v7()));
        let share = ShareId::new(Uuid::now_v7());
        let report = |second, rx, active| {
            let failures = [(FailureReason::NoAgent, rx)].into();
            let delta = TrafficDelta { rx, active, failures, ..TrafficDelta::new(share, tunnel) };
            TrafficReport::new(Uuid::now_v7(), after(second), &[delta])
        };
        let mut sum = report(0, 3, 7);
        assert!(sum.has_buckets_of(&report(9, 1, 1)) && !sum.has_buckets_of(&report(10, 1, 1)));
        sum.add(report(5, 4, 2));
        store.record_traffic(&gateway, &sum).await.unwrap();
        let window = MetricsWindow::new(900, None, now()).unwrap();
        let scope = TrafficScope::Share(share);
        let samples = store.traffic(scope, &window).await.unwrap();
        let [.., last] = &samples[..] else { panic!("expected samples") };
        assert_eq!((last.rx, last.failures, last.active), (7, 7, 7));
        let failures = store.failures(scope, &window).await.unwrap();
        assert_eq!(failures.last().unwrap()[&FailureReason::NoAgent], 7);
    });
}
