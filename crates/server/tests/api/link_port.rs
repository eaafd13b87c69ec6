//! Gateways that join and link over a network, at a whole server on loopback.

use crate::{
    harness::{TOKEN, hello},
    serving::{BOUND, config},
};
use prometheus_client::registry::Registry;
use std::{fs, net::SocketAddr, time::Instant};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{sleep, timeout},
};
use uuid::Uuid;
use wicketgate_authority::Ca;
use wicketgate_link::{
    FromGateway, HandshakeError, LinkBroken, LinkReceiver, LinkRefusal, Part, Pending, ServerHello,
    ToGateway, gateway_pump,
};
use wicketgate_model::{EspMode, GatewayId, JoinGrant, JoinRefusal, JoinRequest, JoinTokenId, ObservedDelta};
use wicketgate_server::{GatewayLinks, LinkListener, Server};
use wicketgate_store::{GatewayStatus, ListedGateway, NewJoinToken, SecretKeyFile, Store, WriteContext};
use wicketgate_transport::{
    code::{JoinToken, secret_hash},
    control::JoinAnswer,
    key::PrivateKey,
    tls::{GatewayIdentity, LinkTls, connect_join},
    trust::CaCertificate,
};

struct Installation {
    dir: TempDir,
    server: Server,
    /// Of the same database, as another program has it.
    store: Store,
    ca: std::sync::Arc<Ca>,
    port: SocketAddr,
}

/// A gateway's end of an open link.
struct Linked {
    hello: ServerHello,
    send: tokio::sync::mpsc::Sender<FromGateway>,
    messages: LinkReceiver<ToGateway>,
    pump: JoinHandle<Result<(), LinkBroken>>,
}

fn context() -> WriteContext {
    WriteContext::new("admin", jiff::Timestamp::now(), Uuid::now_v7)
}

impl Installation {
    async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("admin.token"), format!("{TOKEN}\n")).unwrap();
        let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap();
        let prepared = Server::prepare(config(dir.path(), api)).await.unwrap();
        let ca = prepared.ca();
        let links = GatewayLinks::Port(LinkListener { listener, address: port.to_string() });
        let server = prepared.start(links, None, Registry::default()).await.unwrap();
        let place = dir.path().join(Server::SQLITE).display().to_string();
        let keys = SecretKeyFile::created_at(dir.path().join("secret-key"));
        let store = Store::open(&place, &keys).await.unwrap();
        Self { dir, server, store, ca, port }
    }

    async fn token(&self, gateway: Option<GatewayId>) -> JoinToken {
        let token = JoinToken::generate(JoinTokenId::new(Uuid::now_v7()), self.ca.fingerprint()).unwrap();
        let new = NewJoinToken {
            id: token.id(),
            secret_sha256: secret_hash(token.secret()),
            location: "us-east-1".parse().unwrap(),
            gateway,
        };
        self.store.create_join_token(&new, &context()).await.unwrap();
        token
    }

    /// The key of a machine.
    fn key(&self, machine: &str) -> PrivateKey {
        PrivateKey::load_or_create(&self.dir.path().join(machine)).unwrap()
    }

    async fn join(&self, token: &JoinToken, machine: &str) -> Result<JoinGrant, JoinRefusal> {
        let tcp = TcpStream::connect(self.port).await.unwrap();
        let mut control = connect_join(token.ca(), tcp).await.unwrap();
        let request = JoinRequest {
            token: token.id(),
            secret: token.secret().to_vec(),
            public_key: self.key(machine).public_point(),
        };
        control.send(&request).await.unwrap();
        match timeout(BOUND, control.receive()).await.unwrap().unwrap() {
            JoinAnswer::Joined(grant) => Ok(grant),
            JoinAnswer::Refused { refusal } => Err(refusal),
            JoinAnswer::Unavailable => panic!("it is unavailable"),
        }
    }

    async fn link(&self, grant: &JoinGrant, machine: &str) -> Result<Linked, HandshakeError> {
        let ca = CaCertificate::from_der(grant.ca_certificate.clone()).unwrap();
        let identity = GatewayIdentity::new(&ca, self.key(machine), grant.certificate.clone()).unwrap();
        let tcp = TcpStream::connect(self.port).await.unwrap();
        let (_, stream) = LinkTls::new(&ca, &identity).unwrap().connect(tcp).await.unwrap();
        let (end, pump) = gateway_pump(stream);
        let pump = tokio::spawn(pump.run());
        let (send, handshake) = end.open(hello(EspMode::Kernel));
        let (hello, messages) = timeout(BOUND, handshake.finish()).await.unwrap()?;
        Ok(Linked { hello, send, messages, pump })
    }

    async fn listed(&self, id: GatewayId) -> ListedGateway {
        self.store.listed_gateway(id).await.unwrap().unwrap()
    }

    async fn until(&self, what: &str, is: impl AsyncFn() -> bool) {
        let begin = Instant::now();
        while !is().await {
            assert!(begin.elapsed() < BOUND, "{what}");
            sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

impl Linked {
    /// The first delta, answered.
    async fn receives_everything(&mut self) {
        let first = timeout(BOUND, self.messages.recv()).await.unwrap().unwrap();
        let ToGateway::Desired { sequence, delta, .. } = first else { panic!("{first:?}") };
        assert!(delta.reset && delta.tunnels.is_empty());
        let delta = ObservedDelta { reset: true, ..ObservedDelta::default() };
        let report = FromGateway::Observed { heard: sequence, part: Part::WHOLE, delta };
        self.send.send(report).await.unwrap();
    }

    async fn ended(self) {
        timeout(BOUND, self.pump).await.unwrap().unwrap().unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_joins_links_renews_and_is_removed() {
    let installation = Installation::start().await;
    let token = installation.token(None).await;
    let grant = installation.join(&token, "a").await.unwrap();
    assert_eq!(grant.location.as_str(), "us-east-1");
    assert_eq!(grant.servers, [installation.port.to_string()]);
    let id = grant.gateway;
    assert_eq!(installation.listed(id).await.status(), GatewayStatus::Offline);

    let mut first = installation.link(&grant, "a").await.unwrap();
    assert_eq!((first.hello.epoch, first.hello.servers.clone()), (1, vec![installation.port.to_string()]));
    first.receives_everything().await;
    installation
        .until("it is told", async || {
            let row = installation.listed(id).await;
            row.status() == GatewayStatus::Online && row.facts.max_tunnels == Some(200)
        })
        .await;
    let request = Pending::<()>::new(1).call().unwrap().id();
    for (machine, is_granted) in [("a", true), ("b", false)] {
        let point = installation.key(machine).public_point();
        first.send.send(FromGateway::RenewOwn { request, public_key: point }).await.unwrap();
        let answer = timeout(BOUND, first.messages.recv()).await.unwrap().unwrap();
        let ToGateway::RenewedOwn { certificate, .. } = answer else { panic!("{answer:?}") };
        assert_eq!(certificate.is_some_and(|new| new != grant.certificate), is_granted);
    }

    // A link that a server has not noticed to be dead ends with the next one.
    let second = installation.link(&grant, "a").await.unwrap();
    assert_eq!(second.hello.epoch, 2);
    first.ended().await;
    drop(second.send);
    second.pump.await.unwrap().unwrap();
    drop(second.messages);
    installation
        .until("its end is recorded", async || {
            installation.listed(id).await.status() == GatewayStatus::Offline
        })
        .await;

    let third = installation.link(&grant, "a").await.unwrap();
    assert_eq!(installation.store.delete_gateway(id, &context()).await.unwrap(), Ok(()));
    third.ended().await;
    let refused = installation.link(&grant, "a").await.err();
    assert_eq!(refused, Some(HandshakeError::Refused(LinkRefusal::Ended)));
    installation.server.stop().await;
    installation.store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_machine_takes_the_place_of_a_gateway() {
    let installation = Installation::start().await;
    let first = installation.join(&installation.token(None).await, "old").await.unwrap();
    let link = installation.link(&first, "old").await.unwrap();
    let token = installation.token(Some(first.gateway)).await;
    let second = installation.join(&token, "new").await.unwrap();
    assert_eq!(second.gateway, first.gateway);
    link.ended().await;
    let refused = installation.link(&first, "old").await.err();
    assert_eq!(refused, Some(HandshakeError::Refused(LinkRefusal::Ended)));
    let link = installation.link(&second, "new").await.unwrap();
    assert_eq!(installation.join(&token, "old").await.err(), Some(JoinRefusal::Used));
    // A server that stops ends its links.
    installation.server.stop().await;
    link.ended().await;
    installation.store.close().await;
}
