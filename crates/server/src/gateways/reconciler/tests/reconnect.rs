//! A gateway that finds another server, and holds what the one before has sent.

use super::bench::Bench;
use jiff::SignedDuration;
use uuid::Uuid;
use wicketgate_link::{ConnectedAgent, FromGateway, Part};
use wicketgate_model::{AgentId, DesiredDelta, Era, ShareId, Status};

/// The only delta that the gateway is sent next.
async fn next(b: &mut Bench) -> DesiredDelta {
    b.activate().await;
    let deltas = b.gateway.receive();
    assert_eq!(deltas.len(), 1);
    deltas.into_iter().next().unwrap()
}

fn ids(delta: &DesiredDelta) -> Vec<ShareId> {
    let mut ids: Vec<_> = delta.shares.iter().map(|share| share.id).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn a_gateway_that_holds_the_desired_state_is_sent_nothing_of_it() {
    let mut b = Bench::new().await;
    let ids = [b.create().await, b.create().await];
    b.settle().await;
    for _ in 0..2 {
        b.reconnect().await;
        let delta = next(&mut b).await;
        assert!(delta.is_empty() && delta.digest.is_some(), "{delta:?}");
        b.settle().await;
    }
    // Nothing was signed for it, and what is sent afterwards is.
    b.retarget(ids[0]).await;
    b.settle().await;
    for id in ids {
        let share = &b.gateway.desired().shares[&id];
        assert!(b.ca.certificate().verify(&share.assignment).is_ok());
        assert_eq!(b.share(id).await.standing.status, Status::Deployed);
    }
    let unsigned = b.reconciler.outbox.desired.shares.values().filter(|share| !share.assignment.is_signed());
    assert_eq!(unsigned.map(|share| share.id).collect::<Vec<_>>(), [ids[1]]);
}

#[tokio::test]
async fn a_gateway_is_sent_what_it_has_missed() {
    let mut b = Bench::new().await;
    let [kept, changed, deleted] = [b.create().await, b.create().await, b.create().await];
    b.settle().await;
    b.retarget(changed).await;
    b.delete(deleted).await;
    let new = b.create().await;
    // The server before has sent it, and the gateway has not heard of it.
    b.activate().await;
    b.reconnect().await;
    let delta = next(&mut b).await;
    assert_eq!((delta.reset, ids(&delta)), (false, vec![changed, new]));
    assert_eq!((delta.removed_shares.as_slice(), delta.tunnels.len()), (&[deleted][..], 0));
    b.settle().await;
    for id in [kept, changed, new] {
        assert_eq!(b.share(id).await.standing.status, Status::Deployed);
    }
    assert_eq!(b.share(deleted).await.standing.status, Status::Deleted);
    assert_eq!(b.gateway.desired().shares.len(), 3);
}

#[tokio::test]
async fn what_the_time_has_changed_is_sent_too() {
    let mut b = Bench::new().await;
    for _ in 0..20 {
        b.create().await;
    }
    b.rotate_key(b.tunnel, SignedDuration::from_hours(1)).await;
    b.settle().await;
    let end = |b: &Bench, id| b.gateway.desired().shares[&id].assignment.body.clone();
    let all: Vec<_> = b.gateway.desired().shares.keys().copied().collect();
    let before: Vec<_> = all.iter().map(|id| end(&b, *id)).collect();
    b.now += SignedDuration::from_hours(5 * 24);
    b.reconnect().await;
    let delta = next(&mut b).await;
    assert!(!delta.reset);
    let renewed: Vec<_> = all.iter().zip(&before).filter(|(id, old)| end(&b, **id) != **old).collect();
    assert!(!renewed.is_empty() && renewed.len() < all.len(), "half of them: {}", renewed.len());
    assert_eq!(ids(&delta), renewed.iter().map(|(id, _)| **id).collect::<Vec<_>>());
    // Its previous key has expired.
    assert_eq!(delta.tunnels.iter().map(|tunnel| tunnel.keys.len()).collect::<Vec<_>>(), [1]);
    b.activate().await;
    assert!(b.gateway.receive().is_empty(), "the digests agree");
}

#[tokio::test]
async fn a_gateway_with_another_state_asks_for_everything() {
    let mut b = Bench::new().await;
    let [lost, changed] = [b.create().await, b.create().await];
    b.settle().await;
    b.gateway.lose(lost);
    b.reconnect().await;
    b.retarget(changed).await;
    let delta = next(&mut b).await;
    assert_eq!((delta.reset, ids(&delta)), (false, vec![changed]));
    b.gateway.report(&b.reconciler).await;
    let delta = next(&mut b).await;
    assert_eq!((delta.reset, delta.shares.len()), (true, 2));
    b.settle().await;
    assert_eq!(b.share(lost).await.standing.status, Status::Deployed);
}

#[tokio::test]
async fn a_short_answer_says_nothing_about_a_later_delta() {
    let mut b = Bench::new().await;
    let [changed, kept] = [b.create().await, b.create().await];
    b.settle().await;
    b.reconnect().await;
    assert!(next(&mut b).await.is_empty());
    b.retarget(changed).await;
    b.rotate_key(b.tunnel, SignedDuration::ZERO).await;
    // It is under way when the gateway answers the first one.
    b.activate().await;
    b.gateway.report(&b.reconciler).await;
    b.activate().await;
    assert_ne!(b.share(changed).await.standing.status, Status::Deployed);
    assert_ne!(b.tunnel_row(b.tunnel).await.standing.status, Status::Deployed);
    assert_eq!(b.share(kept).await.standing.status, Status::Deployed);
    b.settle().await;
    assert_eq!(b.share(changed).await.standing.status, Status::Deployed);
    assert_eq!(b.tunnel_row(b.tunnel).await.standing.status, Status::Deployed);
}

#[tokio::test]
async fn a_gateway_of_another_era_or_of_a_later_revision_is_sent_everything() {
    let mut b = Bench::new().await;
    let id = b.create().await;
    b.settle().await;
    b.retarget(id).await;
    b.reconnect_with(|held| held.era = Era::new(7)).await;
    assert!(next(&mut b).await.reset);
    b.retarget(id).await;
    b.reconnect_with(|held| held.revision += 1000).await;
    assert!(next(&mut b).await.reset);
    b.settle().await;
    assert_eq!(b.share(id).await.standing.status, Status::Deployed);
}

#[tokio::test]
async fn an_agent_that_a_new_link_does_not_name_is_gone() {
    let mut b = Bench::new().await;
    let id = |n| AgentId::new(Uuid::from_u128(n));
    let environment = b.environment;
    let agent = |n| ConnectedAgent {
        agent: id(n),
        environment,
        version: "0.1.0".to_owned(),
        name: format!("dc-{n}"),
        address: [192, 0, 2, 7].into(),
    };
    for (named, is_all, connected) in
        [(&[1, 2][..], true, &[1, 2][..]), (&[3], false, &[1, 2, 3]), (&[2, 4], true, &[2, 4])]
    {
        let agents = named.iter().map(|n| agent(*n)).collect();
        b.gateway.send(FromGateway::ConnectedAgents { agents, is_all, part: Part::WHOLE }).await;
        let connected = connected.iter().map(|n| id(*n)).collect();
        assert_eq!(b.reconciler.parts.view.lock().connected, connected);
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_read_after_a_start_is_not_taken_from_a_gateway_that_serves_it() {
    let mut b = Bench::new().await;
    let (broken, kept) = (b.create().await, b.create().await);
    b.settle().await;
    let target = b.share(broken).await.spec.target.to_string();
    b.edit(broken, "target = ''");
    b.reconnect().await;
    let delta = next(&mut b).await;
    assert!(delta.reset && delta.is_partial && delta.digest.is_none(), "{delta:?}");
    assert_eq!(ids(&delta), [kept]);
    b.settle().await;
    // Once it can be read, the gateway is told all.
    b.edit(broken, &format!("target = '{target}'"));
    b.now += super::FULL_READ_EVERY;
    let delta = next(&mut b).await;
    assert!(delta.reset && !delta.is_partial && delta.digest.is_some(), "{delta:?}");
    let mut all = [broken, kept];
    all.sort_unstable();
    assert_eq!(ids(&delta), all);
}
