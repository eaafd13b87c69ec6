//! Two gateways of one location: each has a reconciler of its own, and tunnels of its own.

use super::{
    bench::{FakeGateway, settle},
    *,
};
use uuid::Uuid;
use wicketgate_model::GatewayId;

pub(super) fn second() -> GatewayId {
    GatewayId::new(Uuid::from_u128(7))
}

pub(super) fn desired(gateway: &FakeGateway) -> (Vec<TunnelId>, Vec<ShareId>) {
    let desired = &gateway.desired();
    (desired.tunnels.keys().copied().collect(), desired.shares.keys().copied().collect())
}

#[tokio::test]
async fn each_gateway_serves_its_own_tunnels_and_decides_their_statuses() {
    let mut b = Bench::new().await;
    let (first_tunnel, first_share) = (b.tunnel, b.create().await);
    let (mut reconciler, mut gateway) = b.join(second()).await;
    // The first has one tunnel: this one goes to the second.
    let second_tunnel = b.create_tunnel().await;
    b.tunnel = second_tunnel;
    let second_share = b.create().await;
    b.settle().await;
    assert_eq!(desired(&b.gateway), (vec![first_tunnel], vec![first_share]));
    assert_eq!(b.share(first_share).await.standing.status, Status::Deployed);
    assert_eq!(b.share(second_share).await.standing.status, Status::New);
    assert_eq!(b.tunnel_row(second_tunnel).await.standing.status, Status::New);
    settle((&mut reconciler, &mut gateway), b.now).await;
    assert_eq!(desired(&gateway), (vec![second_tunnel], vec![second_share]));
    assert_eq!(b.share(second_share).await.standing.status, Status::Deployed);
    assert_eq!(b.tunnel_row(second_tunnel).await.standing.status, Status::Deployed);

    // The first is never told of what changes at the second, also by a full read.
    let heard = b.gateway.heard;
    b.retarget(second_share).await;
    b.rename_tunnel(second_tunnel, "elsewhere").await;
    b.settle().await;
    assert_eq!(b.share(second_share).await.standing.status, Status::New);
    b.now += FULL_READ_EVERY;
    b.settle().await;
    assert_eq!((b.gateway.heard, desired(&b.gateway).1), (heard, vec![first_share]));
    settle((&mut reconciler, &mut gateway), b.now).await;
    assert_eq!(b.share(second_share).await.standing.status, Status::Deployed);

    // Both are told of agents.
    assert_eq!(gateway.desired().agents, b.gateway.desired().agents);
    b.delete(second_share).await;
    b.settle().await;
    assert_eq!(b.share(second_share).await.standing.status, Status::Deleting);
    settle((&mut reconciler, &mut gateway), b.now).await;
    assert_eq!(b.share(second_share).await.standing.status, Status::Deleted);
    assert_eq!((desired(&gateway).1, b.gateway.heard), (vec![], heard));
}

#[tokio::test]
async fn a_reconciler_whose_gateway_has_linked_elsewhere_writes_nothing() {
    let mut b = Bench::new().await;
    let share = b.create().await;
    b.activate().await;
    b.gateway.receive();
    b.gateway.report(&b.reconciler).await;
    let elsewhere = b.store.link_gateway(b.reconciler.parts.epoch.gateway(), b.now).await.unwrap();
    let written = b.reconciler.reconcile(b.now).await;
    assert!(matches!(written, Err(StoreError::Superseded)), "{written:?}");
    assert_eq!(b.share(share).await.standing.status, Status::New);
    b.reconciler.parts.epoch = elsewhere;
    b.activate().await;
    assert_eq!(b.share(share).await.standing.status, Status::Deployed);
}
