//! A tunnel that two gateways serve: each reconciler reports what its gateway sees, and the status follows from both.

use super::{
    bench::{FakeGateway, settle},
    two_gateways::{desired, second},
    *,
};
use wicketgate_model::{ConnectionState, Problem, Reason, Redundancy};
use wicketgate_store::TunnelSpec;

fn failed() -> Option<Problem> {
    Some(Problem::new(Reason::TunnelFailed, "no room for a namespace"))
}

/// Of the tunnel and of the share.
async fn standings(b: &Bench, share: ShareId) -> [(Status, Option<Reason>); 2] {
    let (tunnel, share) = (b.tunnel_row(b.tunnel).await.standing, b.share(share).await.standing);
    [tunnel, share].map(|s| (s.status, s.detail.map(|detail| detail.problem.reason)))
}

/// Two gateways of one location, and a tunnel with a share at both.
async fn pair() -> (Bench, Reconciler, FakeGateway, ShareId) {
    let mut b = Bench::new().await;
    let (reconciler, gateway) = b.join(second()).await;
    b.tunnel = b.create_redundant().await;
    let share = b.create().await;
    (b, reconciler, gateway, share)
}

impl Bench {
    /// Creates a tunnel that two gateways are to serve.
    async fn create_redundant(&mut self) -> TunnelId {
        self.names += 1;
        let spec = TunnelSpec {
            name: format!("customer-{}", self.names).parse().unwrap(),
            peer_address: format!("203.0.113.{}", self.names).parse().unwrap(),
            redundant: true,
            ..self.tunnel_row(self.tunnel).await.spec
        };
        let pools = wicketgate_model::LoadBalancerPools::ipsec();
        self.store.create_tunnel(self.frontdoor, &spec, &pools, &self.act()).await.unwrap().id
    }
}

#[tokio::test]
async fn a_row_is_deployed_at_the_first_gateway_and_redundant_at_the_second() {
    let (mut b, mut reconciler, mut gateway, share) = pair().await;
    b.settle().await;
    assert_eq!(standings(&b, share).await, [(Status::Deployed, None); 2]);
    assert_eq!(b.tunnel_row(b.tunnel).await.redundancy, Redundancy::NotMet);
    settle((&mut reconciler, &mut gateway), b.now).await;
    assert_eq!(standings(&b, share).await, [(Status::Deployed, None); 2]);
    assert_eq!(b.tunnel_row(b.tunnel).await.redundancy, Redundancy::Met);
    assert!(desired(&b.gateway).1.contains(&share) && desired(&gateway).1.contains(&share));
    let (first, other) = (b.gateway.desired(), gateway.desired());
    assert_eq!(first.tunnels[&b.tunnel].load_balancer_ip, other.tunnels[&b.tunnel].load_balancer_ip);

    gateway.tunnels_problem = failed();
    gateway.problem = Some(Problem::new(Reason::TunnelNotReady, "its tunnel is not ready"));
    settle((&mut reconciler, &mut gateway), b.now).await;
    let lost = (Status::Deployed, Some(Reason::RedundancyLost));
    assert_eq!(standings(&b, share).await, [lost; 2]);
    let told = b.share(share).await.standing.detail.unwrap().problem.message;
    assert!(told.contains(&second().to_string()) && told.contains("TunnelNotReady"), "{told}");
    b.gateway.tunnels_problem = failed();
    b.gateway.problem = failed();
    b.settle().await;
    // The first place is at the second gateway, which had fewer tunnels.
    let none = [Reason::TunnelFailed, Reason::TunnelNotReady].map(|reason| (Status::Error, Some(reason)));
    assert_eq!(standings(&b, share).await, none);
    (gateway.problem, gateway.tunnels_problem) = (None, None);
    settle((&mut reconciler, &mut gateway), b.now).await;
    assert_eq!(standings(&b, share).await, [lost; 2], "either is enough");
}

#[tokio::test]
async fn a_share_is_deleted_when_both_gateways_have_removed_it() {
    let (mut b, mut reconciler, mut gateway, share) = pair().await;
    b.settle().await;
    settle((&mut reconciler, &mut gateway), b.now).await;
    b.delete(share).await;
    b.settle().await;
    assert_eq!(b.share(share).await.standing.status, Status::Deleting, "the other one still has it");
    settle((&mut reconciler, &mut gateway), b.now).await;
    assert_eq!(b.share(share).await.standing.status, Status::Deleted);
    // The first is told at its next look.
    b.now += SignedDuration::from_secs(2);
    b.settle().await;
    assert!(b.reconciler.shares.get(share).is_none() && reconciler.shares.get(share).is_none());
}

#[tokio::test]
async fn a_tunnel_that_is_redundant_no_longer_is_its_only_gateways() {
    let (mut b, mut reconciler, mut gateway, share) = pair().await;
    b.gateway.connection = Connection { state: ConnectionState::Up, ..Connection::down(b.now) };
    b.settle().await;
    settle((&mut reconciler, &mut gateway), b.now).await;
    let id = b.reconciler.parts.epoch.gateway();
    assert_eq!(b.store.endpoints(&[b.tunnel]).await.unwrap().len(), 2);
    // As the operator does who empties the second.
    b.store.set_draining(second(), true, &b.act()).await.unwrap();
    let row = b.tunnel_row(b.tunnel).await;
    let spec = TunnelSpec { redundant: false, ..row.spec };
    b.change_tunnel(b.tunnel, spec, SignedDuration::ZERO).await;
    b.settle().await;
    settle((&mut reconciler, &mut gateway), b.now).await;
    assert_eq!(b.store.repair_places(b.now).await.unwrap(), 1, "the site is connected to the first");
    let left = b.store.endpoints(&[b.tunnel]).await.unwrap();
    assert_eq!(left.iter().map(|endpoint| endpoint.gateway).collect::<Vec<_>>(), [id]);
    settle((&mut reconciler, &mut gateway), b.now).await;
    assert_eq!(desired(&gateway), (vec![], vec![]));
    b.settle().await;
    assert_eq!(standings(&b, share).await, [(Status::Deployed, None); 2]);
    b.gateway.problem = failed();
    b.settle().await;
    assert_eq!(standings(&b, share).await[1], (Status::Error, Some(Reason::TunnelFailed)));
}
