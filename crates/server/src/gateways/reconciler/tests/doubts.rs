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

#[tokio::test]
async fn what_nobody_knows_is_removed_once_an_operator_has_confirmed_as_many() {
    let mut b = Bench::new().await;
    b.settle().await;
    let unknown = [TunnelId::new(Uuid::from_u128(98)), TunnelId::new(Uuid::from_u128(99))];
    b.gateway.send(FromGateway::Doubtful { tunnels: unknown.to_vec() }).await;
    b.activate().await;
    let gateway = b.reconciler.parts.epoch.gateway();
    let held = b.store.listed_gateway(gateway).await.unwrap().unwrap().held_removals;
    assert_eq!(held, Some(2));
    assert!(!b.store.confirm_removal(gateway, 3, &b.act()).await.unwrap(), "another number");
    b.activate().await;
    assert_eq!(confirmed(&mut b), None);
    assert!(b.store.confirm_removal(gateway, 2, &b.act()).await.unwrap());
    b.activate().await;
    assert_eq!(confirmed(&mut b), Some(unknown.to_vec()));
    let held = b.store.listed_gateway(gateway).await.unwrap().unwrap().held_removals;
    assert_eq!(held, None);
    assert!(!b.store.confirm_removal(gateway, 2, &b.act()).await.unwrap(), "it is confirmed once");
}

/// What the gateway was told to remove.
fn confirmed(b: &mut Bench) -> Option<Vec<TunnelId>> {
    std::iter::from_fn(|| b.gateway.deltas.try_recv()).find_map(|told| match told {
        ToGateway::RemovalConfirmed { tunnels } => Some(tunnels),
        _ => None,
    })
}
