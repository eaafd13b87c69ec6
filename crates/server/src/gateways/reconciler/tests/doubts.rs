//! A gateway asks which of very many tunnels were deleted.

use super::*;
use uuid::Uuid;
use wicketgate_link::ToGateway;

#[tokio::test]
async fn a_gateway_is_told_which_tunnels_were_deleted_and_nothing_of_those_that_nobody_knows() {
    let mut b = Bench::new().await;
    let (kept, deleting) = (b.tunnel, b.create_tunnel().await);
    b.settle().await;
    assert!(b.delete_tunnel(deleting).await);
    let unknown = TunnelId::new(Uuid::from_u128(99));
    b.gateway.send(FromGateway::Doubtful { tunnels: vec![kept, deleting, unknown] }).await;
    b.activate().await;
    let told = std::iter::from_fn(|| b.gateway.deltas.try_recv())
        .find(|told| !matches!(told, ToGateway::Desired { .. }));
    assert_eq!(told, Some(ToGateway::RemovalConfirmed { tunnels: vec![deleting] }));
    assert!(b.reconciler.parts.view.lock().doubtful.is_empty(), "it is answered once");
    // Nothing is known of this one, and nothing is said.
    b.gateway.send(FromGateway::Doubtful { tunnels: vec![unknown] }).await;
    b.activate().await;
    let mut told = std::iter::from_fn(|| b.gateway.deltas.try_recv());
    assert!(told.all(|told| matches!(told, ToGateway::Desired { .. })));
}
