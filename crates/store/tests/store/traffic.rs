//! Buckets of traffic.

use crate::{
    database::on_each,
    site::{after, now},
};
use uuid::Uuid;
use wicketgate_model::{ShareId, TrafficDelta, TunnelId};
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
        }
        store.prune(after(7 * 3600)).await.unwrap();
        let old = MetricsWindow::new(86_400, None, after(7 * 3600)).unwrap();
        let kept = store.traffic(TrafficScope::Share(a), &old).await.unwrap();
        assert_eq!(kept.iter().map(|s| s.rx).sum::<u64>(), 20);
    });
}
