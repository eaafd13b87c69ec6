//! Buckets of traffic.

use crate::{
    database::on_each,
    site::{after, now},
};
use uuid::Uuid;
use wicketgate_model::{FailureReason, ShareId, TrafficDelta, TunnelId};
use wicketgate_store::{MetricsWindow, TrafficScope};

#[test]
fn traffic_adds_up_at_every_resolution() {
    on_each(|store| async move {
        let tunnel = TunnelId::new(Uuid::now_v7());
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
            store.record_traffic(after(second), &deltas).await.unwrap();
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
fn a_report_of_many_shares_is_recorded_whole() {
    on_each(|store| async move {
        let tunnel = TunnelId::new(Uuid::now_v7());
        let shares: Vec<_> = (0..333).map(|_| ShareId::new(Uuid::now_v7())).collect();
        let deltas: Vec<_> =
            shares.iter().map(|share| TrafficDelta { rx: 3, ..TrafficDelta::new(*share, tunnel) }).collect();
        store.record_traffic(now(), &deltas).await.unwrap();
        store.record_traffic(now(), &deltas).await.unwrap();
        let window = MetricsWindow::new(900, None, now()).unwrap();
        let received = async |scope| {
            store.traffic(scope, &window).await.unwrap().iter().map(|sample| sample.rx).sum::<u64>()
        };
        for share in shares {
            assert_eq!(received(TrafficScope::Share(share)).await, 6);
        }
        assert_eq!(received(TrafficScope::Tunnel(tunnel)).await, 333 * 6);
    });
}
