//! A gateway that keeps its desired state on its disk.

use std::path::Path;

use wicketgate_gateway::{DesiredJournal, state_keys};

use super::super::*;

async fn start(load_balancer: Ipv4Addr, state: &Path) -> LinkedGateway {
    let keys = state_keys(&state.join("key"), true).unwrap();
    let journal = Some(DesiredJournal::open(state.join("journal/desired"), "gateway-1@authority-1", keys));
    LinkedGateway::start_as(load_balancer, |config| GatewayConfig { journal, ..config }).await
}

/// These tunnels, each with a share at a port of its own.
fn everything(linked: &LinkedGateway, tunnels: &[u128]) -> DesiredDelta {
    DesiredDelta {
        reset: true,
        tunnels: tunnels.iter().map(|n| linked.tunnel(*n)).collect(),
        shares: tunnels.iter().map(|n| share(*n, *n, 1, port(*n))).collect(),
        ..DesiredDelta::default()
    }
}

fn port(n: u128) -> u16 {
    18_050 + u16::try_from(n).unwrap()
}

fn ids(tunnels: &[u128]) -> Vec<TunnelId> {
    tunnels.iter().map(|n| TunnelId::new(Uuid::from_u128(*n))).collect()
}

#[tokio::test]
async fn a_gateway_that_starts_again_serves_before_its_server_says_anything() {
    let (dir, load_balancer) = (tempfile::tempdir().unwrap(), Ipv4Addr::new(127, 77, 1, 20));
    std::fs::create_dir(dir.path().join("journal")).unwrap();
    let mut linked = start(load_balancer, dir.path()).await;
    let first = everything(&linked, &[1, 2]);
    linked.send(first).await;
    linked.until("both are bound", |s| s.len() == 2 && s.values().all(is_bound)).await;
    let removed_shares = vec![ShareId::new(Uuid::from_u128(2))];
    linked.send(DesiredDelta { removed_shares, ..DesiredDelta::default() }).await;
    linked.until("it is gone", |s| s.len() == 1).await;
    linked.gateway.stop(std::future::pending()).await;

    let mut again = start(load_balancer, dir.path()).await;
    let served = async {
        while !again.accepts(port(1)).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(WITHIN, served).await.unwrap();
    assert!(!again.accepts(port(2)).await, "what was removed is served again");
    // The server has something else, and is heard.
    let other = everything(&again, &[1, 3]);
    again.send(other).await;
    again.until("both are bound", |s| s.len() == 2 && s.values().all(is_bound)).await;
    again.gateway.stop(std::future::pending()).await;
}

#[tokio::test]
async fn a_removed_share_is_reported_until_the_disk_has_it_and_others_do_not_wait() {
    let dir = tempfile::tempdir().unwrap();
    let mut linked = start(Ipv4Addr::new(127, 77, 1, 21), dir.path()).await;
    let first = everything(&linked, &[1, 2]);
    linked.send(first).await;
    linked.until("both are bound", |s| s.len() == 2 && s.values().all(is_bound)).await;
    let removed = ShareId::new(Uuid::from_u128(2));
    linked.send(DesiredDelta { removed_shares: vec![removed], ..DesiredDelta::default() }).await;
    let waits = |seen: &ShareObserved| {
        seen.problem.as_ref().is_some_and(|problem| problem.message.contains("not on the gateway's disk yet"))
    };
    linked.until("its end waits for the disk", |s| s.len() == 2 && s.get(&removed).is_some_and(waits)).await;
    assert!(!linked.accepts(port(2)).await, "it is not served any more");
    let shares = vec![share(3, 1, 1, port(3))];
    linked.send(DesiredDelta { shares, ..DesiredDelta::default() }).await;
    linked.until("another is bound", |s| s.values().filter(|seen| is_bound(seen)).count() == 2).await;
    std::fs::create_dir(dir.path().join("journal")).unwrap();
    linked.until("it is gone", |s| !s.contains_key(&removed)).await;
    linked.gateway.stop(std::future::pending()).await;
}

#[tokio::test]
async fn very_many_removals_wait_until_the_server_confirms_them() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("journal")).unwrap();
    let mut linked = start(Ipv4Addr::new(127, 77, 1, 22), dir.path()).await;
    let first = everything(&linked, &[1, 2, 3, 4]);
    linked.send(first).await;
    linked.until("all are bound", |s| s.len() == 4 && s.values().all(is_bound)).await;
    // A server with another database.
    let other = everything(&linked, &[5]);
    linked.send(other).await;
    assert_eq!(asked(&mut linked).await, ids(&[1, 2, 3, 4]));
    linked.until("the new one is bound, too", |s| s.len() == 5 && s.values().all(is_bound)).await;
    assert!(linked.accepts(port(1)).await && linked.accepts(port(5)).await);
    let tunnels = ids(&[1, 2, 9]);
    linked.send.send(ToGateway::RemovalConfirmed { tunnels }).await.unwrap();
    linked.until("two are gone", |s| s.len() == 3 && s.values().all(is_bound)).await;
    assert!(!linked.accepts(port(1)).await && linked.accepts(port(3)).await);
    // One that is deleted by itself needs no confirmation, and one that is wanted again stays.
    let tunnels = vec![linked.tunnel(4)];
    let (removed_tunnels, removed_shares) = (ids(&[3]), vec![ShareId::new(Uuid::from_u128(3))]);
    linked.send(DesiredDelta { tunnels, removed_tunnels, removed_shares, ..DesiredDelta::default() }).await;
    linked.until_both("one more is gone", |t, _| t.keys().copied().collect::<Vec<_>>() == ids(&[4, 5])).await;
    linked.gateway.stop(std::future::pending()).await;
}

/// Of which tunnels it asks whether they were deleted.
async fn asked(linked: &mut LinkedGateway) -> Vec<TunnelId> {
    let asked = async {
        loop {
            if let FromGateway::Doubtful { tunnels } = linked.reports.recv().await.unwrap() {
                return tunnels;
            }
        }
    };
    timeout(WITHIN, asked).await.unwrap()
}

#[tokio::test]
async fn what_was_held_back_is_so_after_a_restart_although_it_is_little() {
    let (dir, load_balancer) = (tempfile::tempdir().unwrap(), Ipv4Addr::new(127, 77, 1, 23));
    std::fs::create_dir(dir.path().join("journal")).unwrap();
    let mut linked = start(load_balancer, dir.path()).await;
    let first = everything(&linked, &[1, 2, 3, 4]);
    linked.send(first).await;
    linked.until("all are bound", |s| s.len() == 4 && s.values().all(is_bound)).await;
    let other = everything(&linked, &[4]);
    linked.send(other).await;
    assert_eq!(asked(&mut linked).await, ids(&[1, 2, 3]));
    linked.send.send(ToGateway::RemovalConfirmed { tunnels: ids(&[1]) }).await.unwrap();
    linked.until("one is gone", |s| s.len() == 3).await;
    linked.gateway.stop(std::future::pending()).await;

    let mut again = start(load_balancer, dir.path()).await;
    let other = everything(&again, &[4]);
    again.send(other).await;
    assert_eq!(asked(&mut again).await, ids(&[2, 3]));
    again.until("they are served", |s| s.len() == 3 && s.values().all(is_bound)).await;
    // One of them is wanted after all: it is not doubtful any more, and goes as others do.
    let other = everything(&again, &[3, 4]);
    again.send(other).await;
    assert_eq!(asked(&mut again).await, ids(&[2]));
    let removed = DesiredDelta {
        removed_tunnels: ids(&[3]),
        removed_shares: vec![ShareId::new(Uuid::from_u128(3))],
        ..DesiredDelta::default()
    };
    again.send(removed).await;
    again.until("it is gone", |s| s.len() == 2).await;
    again.gateway.stop(std::future::pending()).await;
}

#[tokio::test]
async fn a_server_that_cannot_read_all_of_its_rows_takes_nothing_away() {
    let (dir, load_balancer) = (tempfile::tempdir().unwrap(), Ipv4Addr::new(127, 77, 1, 24));
    std::fs::create_dir(dir.path().join("journal")).unwrap();
    let mut linked = start(load_balancer, dir.path()).await;
    let first = everything(&linked, &[1, 2]);
    linked.send(first).await;
    linked.until("both are bound", |s| s.len() == 2 && s.values().all(is_bound)).await;
    let some = DesiredDelta { is_partial: true, ..everything(&linked, &[2, 3]) };
    linked.send(some).await;
    linked.until("a new one is bound, too", |s| s.len() == 3 && s.values().all(is_bound)).await;
    let all = everything(&linked, &[2, 3]);
    linked.send(all).await;
    linked.until("one is gone", |s| s.len() == 2 && s.values().all(is_bound)).await;
    linked.gateway.stop(std::future::pending()).await;
}
