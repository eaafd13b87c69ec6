//! What is judged by the progress of the gateway, and not by a fixed time.

use super::Bench;
use jiff::ToSpan as _;
use wicketgate_model::{ObservedDelta, Problem, Reason, ShareObserved, Status};

#[tokio::test]
async fn a_deployed_share_waits_for_its_turn_while_the_gateway_looks_at_others() {
    let mut b = Bench::new().await;
    let ids = [b.create().await, b.create().await, b.create().await];
    b.settle().await;
    let generation = b.share(ids[0]).await.generation;
    let served = ShareObserved { ready: Some(generation), problem: None };
    let waits = ShareObserved { ready: None, problem: Some(Problem::new(Reason::Pending, "not its turn")) };
    let observed = async |b: &mut Bench, shares| {
        let delta = ObservedDelta { shares, ..ObservedDelta::default() };
        b.reconciler.parts.view.observe(b.gateway.heard, delta, b.now);
        b.activate().await;
        let mut statuses = Vec::new();
        for id in ids {
            statuses.push(b.share(id).await.standing.status);
        }
        statuses
    };
    // Their agent is back, and acknowledges one after another.
    let all = observed(&mut b, ids.map(|id| (id, waits.clone())).to_vec()).await;
    assert_eq!(all, [Status::Deployed; 3]);
    for id in &ids[..2] {
        b.now += 2.seconds();
        assert_eq!(observed(&mut b, vec![(*id, served.clone())]).await, [Status::Deployed; 3]);
    }
    b.now += 2.seconds();
    assert_eq!(observed(&mut b, Vec::new()).await, [Status::Deployed; 3]);
    b.now += 2.seconds();
    let expected = [Status::Deployed, Status::Deployed, Status::Error];
    assert_eq!(observed(&mut b, Vec::new()).await, expected, "no other has come since");
}

#[tokio::test]
async fn a_gateway_is_not_silent_before_it_is_told_what_to_serve() {
    let mut b = Bench::new().await;
    let id = b.create().await;
    b.settle().await;
    b.restart_together().await;
    // It takes as long to read all rows.
    b.now += 2.seconds();
    b.activate().await;
    for (after, status) in [(2, Status::Deployed), (2, Status::Error)] {
        b.now += after.seconds();
        b.activate().await;
        assert_eq!(b.share(id).await.standing.status, status);
    }
}
