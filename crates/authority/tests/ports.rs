//! The certificates of the authority open the ports that their roles need, and no other.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use jiff::Timestamp;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use uuid::Uuid;
use wicketgate_authority::Ca;
use wicketgate_model::{AgentId, EnvironmentId, FrontdoorId, GatewayId, ServerId};
use wicketgate_transport::{
    identity::{AgentIdentity, Identity},
    key::PrivateKey,
    tls::{Accepted, AgentTls, GatewayIdentity, LinkAccepted, LinkTls, ServerIdentity},
};

async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (a, b) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (a.unwrap(), b.unwrap().0)
}

#[tokio::test]
async fn an_agent_reaches_a_gateway_and_a_gateway_reaches_a_server() {
    let now = Timestamp::now();
    let ca = Ca::generate(now).unwrap();
    let certificate = |identity: Identity| {
        let key = PrivateKey::generate().unwrap();
        let leaf = ca.issue(&identity, &key.public_point(), now).unwrap();
        (key, leaf)
    };
    let agent = AgentIdentity {
        frontdoor: FrontdoorId::new(Uuid::nil()),
        environment: EnvironmentId::new(Uuid::nil()),
        agent: AgentId::new(Uuid::nil()),
    };
    let (key, leaf) = certificate(Identity::Agent(agent));
    let agent = AgentTls::new(ca.certificate(), key, leaf).unwrap();
    let id = GatewayId::new(Uuid::from_u128(1));
    let (key, leaf) = certificate(Identity::Gateway { gateway: id });
    let gateway = GatewayIdentity::new(ca.certificate(), key, leaf).unwrap();
    let own_id = ServerId::new(Uuid::from_u128(2));
    let (key, leaf) = certificate(Identity::Server { server: own_id });
    let server = ServerIdentity::new(ca.certificate(), key, leaf).unwrap();

    let (a, b) = connected().await;
    let (control, accepted) = tokio::join!(agent.connect_control(a), gateway.accept(b));
    assert!(control.is_ok() && matches!(accepted, Ok(Accepted::Control(..))), "{accepted:?}");

    let (a, b) = connected().await;
    let link = LinkTls::new(ca.certificate(), &gateway).unwrap();
    let (dialled, accepted) = tokio::join!(link.connect(a), server.accept(b));
    let (dialled, mut near) = dialled.unwrap();
    let Ok(LinkAccepted::Link(accepted, mut far)) = accepted else { panic!("{accepted:?}") };
    assert_eq!((dialled, accepted.gateway), (own_id, id));
    near.write_all(b"hello").await.unwrap();
    let mut bytes = [0; 5];
    far.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"hello");
}
