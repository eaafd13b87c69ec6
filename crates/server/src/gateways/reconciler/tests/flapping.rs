//! Agents that say now this, now that.

use super::*;

#[tokio::test]
async fn a_share_whose_agent_says_now_this_now_that_changes_at_a_bounded_rate() {
    let mut b = Bench::new().await;
    let id = b.create().await;
    b.settle().await;
    let mut statuses = vec![b.share(id).await.standing.status];
    let says = async |b: &mut Bench, serves: bool| {
        b.gateway.problem = (!serves).then(|| Problem::new(Reason::AgentRefused, "no"));
        b.gateway.receive();
        b.gateway.report(&b.reconciler).await;
        b.activate().await;
    };
    // For a minute.
    for n in 0..240 {
        b.now += SignedDuration::from_millis(250);
        says(&mut b, n % 2 == 1).await;
        statuses.push(b.share(id).await.standing.status);
    }
    statuses.dedup();
    // Neither the first ERROR nor the first DEPLOYED after it is late.
    assert_eq!(statuses[..4], [Status::Deployed, Status::Error, Status::Deployed, Status::Error]);
    assert!(statuses.len() <= 16, "{statuses:?}");
    // An agent that finds other words each time, or whose target does not answer now and then, has no more written.
    let mut writes = 0;
    for n in 0..240 {
        b.now += SignedDuration::from_millis(250);
        let text = format!("no {}", n / 2);
        b.gateway.problem = (n % 2 == 0).then(|| Problem::new(Reason::AgentRefused, text));
        let before = b.share(id).await.standing;
        b.gateway.report(&b.reconciler).await;
        b.activate().await;
        writes += usize::from(b.share(id).await.standing != before);
    }
    assert!((2..=24).contains(&writes), "{writes}");
    // What it says in the end is shown, without another report.
    b.now += SignedDuration::from_secs(20);
    says(&mut b, false).await;
    says(&mut b, true).await;
    b.now += SignedDuration::from_secs(10);
    b.activate().await;
    assert_eq!(b.share(id).await.standing.status, Status::Deployed);
}
