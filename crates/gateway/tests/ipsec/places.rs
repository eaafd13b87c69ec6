//! A gateway that is restarted with a limit below the number of its running tunnels.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use uuid::Uuid;
use wicketgate_authority::Ca;
use wicketgate_gateway::{CONNECTION_RATE, Gateway, GatewayConfig, LinkSource};
use wicketgate_link::{self as link, FromGateway, LinkReceiver, Part, ServerHello, ToGateway};
use wicketgate_model::{DesiredDelta, Era, GatewayId, Reason, TunnelId, TunnelObserved};
use wicketgate_transport::{identity::Identity, key::PrivateKey, tls::GatewayIdentity};

use super::world::{PUBLIC, SOON, World, charon_of, desired, is_root, key};

/// Starts a gateway for the world's tunnels that serves at most `most` of them.
async fn start(world: &World, most: u32) -> (Gateway, mpsc::Sender<ToGateway>, LinkReceiver<FromGateway>) {
    let now = Timestamp::now();
    let ca = Ca::generate(now).unwrap();
    let id = GatewayId::new(Uuid::now_v7());
    let key = PrivateKey::generate().unwrap();
    let certificate = ca.issue(&Identity::Gateway { gateway: id }, &key.public_point(), now).unwrap();
    let config = GatewayConfig {
        budget: wicketgate_system::descriptor_budget::DescriptorBudget::find(),
        max_tunnels: Some(most),
        connection_rate: CONNECTION_RATE,
        drain: Duration::ZERO,
        agent_url: None,
        journal: None,
        traffic_file: None,
        backend: world.backend().await,
        agent_listener: TcpListener::bind((PUBLIC, 0)).await.unwrap(),
        identity: GatewayIdentity::new(ca.certificate(), key, certificate).unwrap(),
    };
    let (link, end) = link::in_process_encoded(id, "local".parse().unwrap());
    let hello = ServerHello { versions: link::VERSIONS, epoch: 1, era: Era::FIRST, servers: Vec::new() };
    let (send, handshake) = link.open(hello);
    let gateway = Gateway::start(config, LinkSource::InProcess(end.into())).await.unwrap();
    let (_, reports) = handshake.finish().await.unwrap();
    (gateway, send, reports)
}

/// Receives reports until the condition holds for the tunnel.
async fn until(
    reports: &mut LinkReceiver<FromGateway>,
    id: TunnelId,
    what: &str,
    is: impl Fn(&TunnelObserved) -> bool,
) {
    let mut seen = BTreeMap::new();
    let wait = async {
        while !seen.get(&id).is_some_and(&is) {
            if let FromGateway::Observed { delta, .. } = reports.recv().await.unwrap() {
                seen.extend(delta.tunnels);
            }
        }
    };
    timeout(SOON, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[test]
fn a_tunnel_without_a_permit_is_removed_and_returns_with_one() {
    if !is_root() {
        return;
    }
    World::new("places", 0).run(|world| async move {
        let tunnels = [0, 1].map(|n| Arc::new(desired(n, &[&key(n)])));
        let ids = tunnels.each_ref().map(|tunnel| tunnel.id);
        let backend = world.backend().await;
        for tunnel in &tunnels {
            backend.ensure(tunnel).await.unwrap();
        }
        let charon = charon_of(&world, 0);
        drop(backend);

        let (gateway, send, mut reports) = start(&world, 1).await;
        let delta = DesiredDelta { reset: true, tunnels: tunnels.to_vec(), ..DesiredDelta::default() };
        send.send(ToGateway::Desired { sequence: 1, part: Part::WHOLE, delta }).await.unwrap();
        let is_full =
            |t: &TunnelObserved| t.problem.as_ref().is_some_and(|p| p.reason == Reason::GatewayFull);
        until(&mut reports, ids[1], "the second is refused", is_full).await;
        let is_of_it = |trace: &String| trace.ends_with("-1") || trace.ends_with("/1");
        let gone = || Ok((!world.traces().iter().any(is_of_it)).then_some(()));
        world.lab.until("nothing is left of what was refused", SOON, gone).unwrap();
        assert_eq!(charon_of(&world, 0), charon);

        let delta = DesiredDelta { removed_tunnels: vec![ids[0]], ..DesiredDelta::default() };
        send.send(ToGateway::Desired { sequence: 2, part: Part::WHOLE, delta }).await.unwrap();
        until(&mut reports, ids[1], "the second has the place", |t| t.ready.is_some()).await;
        assert!(world.traces().iter().any(is_of_it));
        gateway.stop(std::future::pending()).await;
        world.backend().await.purge().await.unwrap();
        assert_eq!(world.traces(), Vec::<String>::new());
    });
}
