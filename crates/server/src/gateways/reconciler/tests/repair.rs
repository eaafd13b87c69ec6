//! What the next full read repairs: changes that were lost, made by hand, or undone by a failover.

use super::*;

#[tokio::test]
async fn a_lost_change_is_repaired_by_the_next_full_read() {
    let mut b = Bench::new().await;
    let (deleted, kept) = (b.create().await, b.create().await);
    b.settle().await;
    b.delete(deleted).await;
    let lost = b.create().await;
    let agents = b.store.agents(b.frontdoor, &wicketgate_store::ListRequest::default()).await.unwrap();
    b.store.bar_agent(b.frontdoor, agents.rows[0].id, &b.act()).await.unwrap();
    b.skip_changes().await;
    b.settle().await;
    assert_eq!(b.gateway.desired().shares.keys().copied().collect::<Vec<_>>(), [deleted, kept]);
    b.now += FULL_READ_EVERY;
    b.activate().await;
    let [delta] = &b.gateway.receive()[..] else { panic!("expected one delta") };
    assert_eq!((delta.shares.len(), delta.shares[0].id), (1, lost), "unchanged rows are not sent again");
    assert_eq!((&delta.removed_shares[..], delta.agents.len()), (&[deleted][..], 1));
    b.settle().await;
    assert_eq!(b.share(lost).await.standing.status, Status::Deployed);
    assert_eq!(b.share(deleted).await.standing.status, Status::Deleted);
}

#[tokio::test]
async fn a_share_that_was_changed_by_hand_is_repaired_by_the_next_full_read() {
    let mut b = Bench::new().await;
    let (port, target, kept) = (b.create().await, b.create().await, b.create().await);
    b.settle().await;
    let assignment = b.gateway.desired().shares[&kept].assignment.clone();
    b.edit(port, "ingress_port = 7777");
    b.edit(target, "target = '10.9.9.9:99'");
    b.now += FULL_READ_EVERY;
    b.activate().await;
    let [delta] = &b.gateway.receive()[..] else { panic!("expected one delta") };
    assert_eq!((delta.tunnels.len(), delta.shares.len()), (0, 2), "unchanged rows are not sent again");
    let served = &b.gateway.desired().shares;
    assert_eq!(i64::from(served[&port].ingress_port.get()), 7777);
    let signed = b.ca.certificate().verify(&served[&target].assignment).unwrap();
    assert_eq!(signed.target.to_string(), "10.9.9.9:99");
    assert_eq!(served[&kept].assignment, assignment, "an assignment is signed once");
    // The desired state and the state that was sent share each value.
    let desired = &b.reconciler.outbox.desired;
    assert_eq!(Arc::strong_count(&desired.tunnels[&b.tunnel]), 2);
    assert_eq!(Arc::strong_count(&desired.shares[&kept]), 2);
}

#[tokio::test]
async fn a_database_that_has_lost_transactions_is_read_again_at_once() {
    let mut b = Bench::new().await;
    let kept = b.create().await;
    b.settle().await;
    let created = b.create().await;
    b.settle().await;
    b.edit(kept, "generation = generation + 1, ingress_port = 7777, revision = revision + 10");
    b.sql("UPDATE revision SET value = value + 10");
    b.settle().await;
    assert_eq!(b.gateway.desired().shares.keys().copied().collect::<Vec<_>>(), [kept, created]);
    assert_eq!(i64::from(b.gateway.desired().shares[&kept].ingress_port.get()), 7777);

    b.edit(kept, "generation = generation - 1, ingress_port = 7778, revision = revision - 10");
    b.sql(&format!("DELETE FROM ipsec_share WHERE id = '{created}'"));
    b.sql("UPDATE revision SET value = value - 11");
    b.activate().await;
    let [delta] = &b.gateway.receive()[..] else { panic!("expected one delta") };
    assert_eq!(
        (delta.shares.len(), delta.shares[0].id, &delta.removed_shares[..]),
        (1, kept, &[created][..])
    );
    assert_eq!(i64::from(delta.shares[0].ingress_port.get()), 7778);
    // Later changes are seen again.
    let later = b.create().await;
    b.settle().await;
    assert_eq!(b.share(later).await.standing.status, Status::Deployed);
    assert_eq!(b.gateway.desired().shares.keys().copied().collect::<Vec<_>>(), [kept, later]);
}

#[tokio::test]
async fn a_link_that_the_database_has_lost_is_recorded_again() {
    let mut b = Bench::new().await;
    let share = b.create().await;
    b.sql("UPDATE gateway_link SET epoch = epoch - 1");
    b.now += 40.seconds();
    // Another server may have the gateway.
    let over_network = b.reconciler.reconcile(b.now).await;
    assert!(matches!(over_network, Err(StoreError::Superseded)), "{over_network:?}");
    b.reconciler.parts.kind = LinkKind::InProcess;
    b.settle().await;
    assert_eq!(b.share(share).await.standing.status, Status::Deployed);
}
