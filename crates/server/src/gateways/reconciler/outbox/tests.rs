//! What a link costs.

use super::*;
use uuid::Uuid;
use wicketgate_link::{FromGateway, GatewayHello, ServerHello, VERSIONS, codec};
use wicketgate_model::{
    EnvironmentId, Era, EspMode, Generation, PreSharedKey, ShareOptions, SignedAssignment,
};

const SHARES: u128 = 10_000;
const TUNNELS: u128 = 60;

fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn tunnel(n: u128) -> TunnelDesired {
    TunnelDesired {
        id: TunnelId::new(uuid(n)),
        generation: Generation::FIRST,
        frontdoor: None,
        name: format!("customer-{n}").parse().unwrap(),
        slot: u16::try_from(n).unwrap(),
        peer_address: format!("203.0.113.{n}").parse().unwrap(),
        peer_cidr: "10.0.0.0/16".parse().unwrap(),
        peer_id: "peer.example.org".parse().unwrap(),
        load_balancer_ip: [100, 64, 0, 1].into(),
        keys: vec![PreSharedKey::from_random([1; 32])],
        previous_until: Vec::new(),
        ike_proposals: Default::default(),
        esp_proposals: Default::default(),
        initiate: false,
        cut: None,
        enabled: true,
    }
}

fn share(n: u128) -> ShareDesired {
    ShareDesired {
        id: ShareId::new(uuid(n)),
        generation: Generation::FIRST,
        tunnel: TunnelId::new(uuid(n % TUNNELS)),
        environment: EnvironmentId::new(uuid(1)),
        ingress_port: 8443.try_into().unwrap(),
        enabled: true,
        expires_at: None,
        options: ShareOptions::default(),
        assignment: SignedAssignment::unsigned(format!("the assignment of share {n}")),
    }
}

/// Of a server that has just read all rows.
fn outbox(kind: LinkKind) -> (Outbox, mpsc::Receiver<ToGateway>) {
    let (send, receive) = mpsc::channel(4);
    let mut outbox = Outbox::new(send, kind);
    (0..TUNNELS).for_each(|n| outbox.set_tunnel(TunnelId::new(uuid(n)), Some(tunnel(n))));
    (0..SHARES).for_each(|n| outbox.set_share(ShareId::new(uuid(n)), Some(share(n))));
    (outbox, receive)
}

fn delta(outbox: &mut Outbox, receive: &mut mpsc::Receiver<ToGateway>) -> (ToGateway, DesiredDelta) {
    outbox.send(Revision::of_number(7).unwrap(), Timestamp::UNIX_EPOCH).unwrap();
    let message = receive.try_recv().unwrap();
    let ToGateway::Desired { delta, .. } = &message else { panic!("{message:?}") };
    (message.clone(), delta.clone())
}

#[tokio::test]
async fn a_gateway_that_holds_ten_thousand_shares_is_sent_a_few_hundred_bytes() {
    let ca = Ca::generate(Timestamp::now()).unwrap();
    let (mut first, mut receive) = outbox(LinkKind::Network);
    let mut gateway = DigestedState::default();
    let (all, everything) = delta(&mut first, &mut receive);
    gateway.apply(&everything);
    assert!(gateway.agrees_with(&everything) && codec::encode(&all).unwrap().len() > 1 << 20);

    let (mut second, mut receive) = outbox(LinkKind::Network);
    let held = gateway.held(Era::FIRST);
    assert!(second.resume(held.digest));
    second.sign(&ca).await;
    let (message, nothing) = delta(&mut second, &mut receive);
    gateway.apply(&nothing);
    assert!(nothing.is_empty() && gateway.agrees_with(&nothing));
    assert!(second.desired.shares.values().all(|share| !share.assignment.is_signed()), "for nothing");
    let server = ServerHello {
        versions: VERSIONS,
        epoch: 12_345,
        era: Era::FIRST,
        servers: vec!["https://server-1.example.org:8444".to_owned(); 3],
    };
    let gateway = GatewayHello {
        versions: VERSIONS,
        version: "0.1.0".to_owned(),
        boot: uuid(u128::MAX),
        held: Some(held),
        agent_url: Some("https://gateway-1.example.org:8443".to_owned()),
        esp: EspMode::Kernel,
        public_address: Some([203, 0, 113, 200].into()),
        max_tunnels: Some(1000),
        namespaces: Some("wicketgate-8812".to_owned()),
    };
    let [server, gateway] =
        [codec::encode(&ToGateway::Hello(server)), codec::encode(&FromGateway::Hello(gateway))];
    let bytes = server.unwrap().len() + gateway.unwrap().len() + codec::encode(&message).unwrap().len();
    // The gateway's answer is `ten_thousand_shares_on_sixty_connected_tunnels_are_told_in_less_than_64_kib`.
    assert!(bytes < 1 << 10, "{bytes}");
}

#[tokio::test]
async fn in_one_process_a_share_is_in_memory_once_and_is_not_hashed() {
    let ca = Ca::generate(Timestamp::now()).unwrap();
    let (mut outbox, mut receive) = outbox(LinkKind::InProcess);
    outbox.sign(&ca).await;
    let (message, everything) = delta(&mut outbox, &mut receive);
    drop(message);
    assert_eq!(everything.digest, None);
    for share in &everything.shares {
        assert!(share.assignment.is_signed());
        // What is kept to be sent, what was sent, and what the gateway gets.
        assert_eq!(Arc::strong_count(share), 3);
    }
    assert!(outbox.unanswered.is_empty());
    // Nor after all rows were read again.
    (0..SHARES).for_each(|n| outbox.set_share(ShareId::new(uuid(n)), Some(share(n))));
    outbox.sign(&ca).await;
    assert!(outbox.send(Revision::of_number(7).unwrap(), Timestamp::UNIX_EPOCH).is_none());
    assert!(everything.shares.iter().all(|share| Arc::strong_count(share) == 3));
}
