//! A gateway without IPsec, driven over its link.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use uuid::Uuid;
use wicketgate_authority::Ca;
use wicketgate_gateway::{
    Backend, CONNECTION_RATE, Gateway, GatewayConfig, IpsecConfig, IpsecMode, LinkSource,
};
use wicketgate_lab::named;
use wicketgate_link::{self as link, DigestedState, FromGateway, LinkReceiver, Part, ServerHello, ToGateway};
use wicketgate_model::{
    DesiredDelta, EnvironmentId, Era, FrontdoorId, GatewayId, Generation, PreSharedKey, Reason, ShareDesired,
    ShareId, ShareObserved, SignedAssignment, TunnelDesired, TunnelId, TunnelObserved,
};
use wicketgate_system::descriptor_budget::DescriptorBudget;
use wicketgate_transport::{identity::Identity, key::PrivateKey, tls::GatewayIdentity};

mod serving {
    mod journal;
}

/// The longest wait for a report.
const WITHIN: Duration = Duration::from_secs(10);

struct LinkedGateway {
    _dir: tempfile::TempDir,
    gateway: Gateway,
    send: mpsc::Sender<ToGateway>,
    reports: LinkReceiver<FromGateway>,
    sequence: u64,
    heard: u64,
    shares: BTreeMap<ShareId, ShareObserved>,
    tunnels: BTreeMap<TunnelId, TunnelObserved>,
    load_balancer: Ipv4Addr,
}

impl LinkedGateway {
    async fn start(load_balancer: Ipv4Addr) -> Self {
        Self::start_with(load_balancer, None, CONNECTION_RATE).await
    }

    async fn start_with(
        load_balancer: Ipv4Addr,
        max_tunnels: Option<u32>,
        connection_rate: NonZeroU32,
    ) -> Self {
        Self::start_as(load_balancer, |config| GatewayConfig { max_tunnels, connection_rate, ..config }).await
    }

    async fn start_as(load_balancer: Ipv4Addr, change: impl FnOnce(GatewayConfig) -> GatewayConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let ca = Ca::generate(now).unwrap();
        let id = GatewayId::new(Uuid::now_v7());
        let key = PrivateKey::generate().unwrap();
        let certificate = ca.issue(&Identity::Gateway { gateway: id }, &key.public_point(), now).unwrap();
        let ipsec =
            IpsecConfig { mode: IpsecMode::Off, state_dir: dir.path().to_owned(), public_address: None };
        let config = GatewayConfig {
            budget: DescriptorBudget::find(),
            max_tunnels: None,
            connection_rate: CONNECTION_RATE,
            drain: Duration::from_secs(30),
            agent_url: None,
            journal: None,
            traffic_file: None,
            backend: Backend::start(ipsec).await.unwrap(),
            agent_listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            identity: GatewayIdentity::new(ca.certificate(), key, certificate).unwrap(),
        };
        let (link, end) = link::in_process_over_wire(id, "local".parse().unwrap());
        let hello = ServerHello { versions: link::VERSIONS, epoch: 1, era: Era::FIRST, servers: Vec::new() };
        let (send, handshake) = link.open(hello);
        let gateway = Gateway::start(change(config), LinkSource::InProcess(end.into())).await.unwrap();
        let (_, reports) = handshake.finish().await.unwrap();
        Self {
            _dir: dir,
            gateway,
            send,
            reports,
            sequence: 0,
            heard: 0,
            shares: BTreeMap::new(),
            tunnels: BTreeMap::new(),
            load_balancer,
        }
    }

    async fn send(&mut self, delta: DesiredDelta) {
        self.sequence += 1;
        self.send
            .send(ToGateway::Desired { sequence: self.sequence, part: Part::WHOLE, delta })
            .await
            .unwrap();
    }

    /// Receives reports until the gateway has applied the last delta and `done` holds.
    async fn until(&mut self, what: &str, done: impl Fn(&BTreeMap<ShareId, ShareObserved>) -> bool) {
        self.until_both(what, |_, shares| done(shares)).await;
    }

    async fn until_both(
        &mut self,
        what: &str,
        done: impl Fn(&BTreeMap<TunnelId, TunnelObserved>, &BTreeMap<ShareId, ShareObserved>) -> bool,
    ) {
        let wait = async {
            while self.heard < self.sequence || !done(&self.tunnels, &self.shares) {
                if let FromGateway::Observed { heard, delta, .. } = self.reports.recv().await.unwrap() {
                    self.heard = heard;
                    self.tunnels.extend(delta.tunnels);
                    for id in delta.gone_tunnels {
                        self.tunnels.remove(&id);
                    }
                    self.shares.extend(delta.shares);
                    for id in delta.gone_shares {
                        self.shares.remove(&id);
                    }
                }
            }
        };
        timeout(WITHIN, wait).await.unwrap_or_else(|_| panic!("{what}"));
    }

    fn tunnel(&self, n: u128) -> Arc<TunnelDesired> {
        Arc::new(TunnelDesired {
            id: TunnelId::new(Uuid::from_u128(n)),
            generation: Generation::FIRST,
            frontdoor: None,
            name: format!("tunnel-{n}").parse().unwrap(),
            slot: u16::try_from(n).unwrap(),
            peer_address: format!("203.0.113.{n}").parse().unwrap(),
            peer_cidr: "10.0.0.0/16".parse().unwrap(),
            peer_id: "peer.example.org".parse().unwrap(),
            load_balancer_ip: self.load_balancer,
            keys: vec![PreSharedKey::from_random([1; 32])],
            previous_until: Vec::new(),
            ike_proposals: Default::default(),
            esp_proposals: Default::default(),
            initiate: false,
            cut: None,
            enabled: true,
        })
    }

    async fn accepts(&self, port: u16) -> bool {
        let address = SocketAddr::from((self.load_balancer, port));
        let connected = timeout(WITHIN, TcpStream::connect(address)).await.unwrap();
        match connected.map_err(|error| error.kind()) {
            // Without an agent, a client is accepted and reset, which may be seen while it connects.
            Ok(_) | Err(ErrorKind::ConnectionReset) => true,
            Err(ErrorKind::ConnectionRefused) => false,
            Err(other) => panic!("connecting to {address}: {other}"),
        }
    }
}

fn share(n: u128, tunnel: u128, generation: u64, port: u16) -> Arc<ShareDesired> {
    Arc::new(ShareDesired {
        id: ShareId::new(Uuid::from_u128(n)),
        generation: Generation::new(generation),
        tunnel: TunnelId::new(Uuid::from_u128(tunnel)),
        environment: EnvironmentId::new(Uuid::nil()),
        ingress_port: i64::from(port).try_into().unwrap(),
        enabled: true,
        expires_at: None,
        assignment: SignedAssignment { body: String::new(), signature: Vec::new() },
        options: wicketgate_model::ShareOptions::default(),
    })
}

/// Whether the listener is bound, so that only the agent is missing.
fn is_bound(seen: &ShareObserved) -> bool {
    seen.problem.as_ref().is_some_and(|p| p.reason == Reason::AgentOffline)
}

#[tokio::test]
async fn shares_can_exchange_their_ports() {
    let mut linked = LinkedGateway::start(Ipv4Addr::new(127, 77, 1, 1)).await;
    let (a, b) = (share(1, 1, 1, 18_001), share(2, 1, 1, 18_002));
    let first = DesiredDelta {
        reset: true,
        tunnels: vec![linked.tunnel(1)],
        shares: vec![a, b],
        ..DesiredDelta::default()
    };
    linked.send(first).await;
    linked.until("both are bound", |s| s.len() == 2 && s.values().all(is_bound)).await;
    for generation in 2..6 {
        let (p, q) = if generation % 2 == 0 { (18_002, 18_001) } else { (18_001, 18_002) };
        let swap = DesiredDelta {
            shares: vec![share(1, 1, generation, p), share(2, 1, generation, q)],
            ..DesiredDelta::default()
        };
        linked.send(swap).await;
        linked.until("both are bound again", |s| s.values().all(is_bound)).await;
        assert!(linked.accepts(18_001).await && linked.accepts(18_002).await);
    }
    linked.gateway.stop(std::future::pending()).await;
}

#[tokio::test]
async fn connections_beyond_the_rate_wait_while_another_frontdoor_is_there() {
    let rate = NonZeroU32::new(10).unwrap();
    let mut linked = LinkedGateway::start_with(Ipv4Addr::new(127, 77, 1, 9), None, rate).await;
    let of = |n: u128| {
        let frontdoor = Some(FrontdoorId::new(Uuid::from_u128(n)));
        TunnelDesired { frontdoor, ..TunnelDesired::clone(&linked.tunnel(n)) }
    };
    let second = of(2);
    let first = DesiredDelta {
        reset: true,
        tunnels: vec![Arc::new(of(1)), Arc::new(second.clone())],
        shares: vec![share(1, 1, 1, 18_031), share(2, 2, 1, 18_032)],
        ..DesiredDelta::default()
    };
    linked.send(first).await;
    linked.until("both are bound", |s| s.len() == 2 && s.values().all(is_bound)).await;
    // Without an agent, a client is reset when it is its turn.
    let address = linked.load_balancer;
    let served = async |port: u16| {
        let mut client = TcpStream::connect((address, port)).await?;
        client.read(&mut [0]).await
    };
    let begin = Instant::now();
    for _ in 0..5 {
        assert!(timeout(WITHIN, served(18_031)).await.is_ok());
    }
    assert!(begin.elapsed() >= Duration::from_millis(350), "{:?}", begin.elapsed());
    // A disabled tunnel is no other one.
    let disabled = TunnelDesired { enabled: false, generation: Generation::new(2), ..second };
    linked.send(DesiredDelta { tunnels: vec![Arc::new(disabled)], ..DesiredDelta::default() }).await;
    linked.until("the second is disabled", |s| s.values().filter(|s| is_bound(s)).count() == 1).await;
    let begin = Instant::now();
    for _ in 0..40 {
        assert!(timeout(WITHIN, served(18_031)).await.is_ok());
    }
    assert!(begin.elapsed() < Duration::from_secs(3), "four seconds at the rate: {:?}", begin.elapsed());
    linked.gateway.stop(std::future::pending()).await;
}

#[tokio::test]
async fn a_taken_port_is_named_and_served_once_it_is_free() {
    let mut linked = LinkedGateway::start(Ipv4Addr::new(127, 77, 1, 2)).await;
    let other = std::net::TcpListener::bind((linked.load_balancer, 18_003)).unwrap();
    let first = DesiredDelta {
        reset: true,
        tunnels: vec![linked.tunnel(1)],
        shares: vec![share(1, 1, 1, 18_003)],
        ..DesiredDelta::default()
    };
    let begin = Instant::now();
    linked.send(first).await;
    let in_use = |seen: &ShareObserved| seen.problem.as_ref().is_some_and(|p| p.reason == Reason::PortInUse);
    linked.until("the port is in use", |s| s.values().any(in_use)).await;
    named("PortInUse", begin.elapsed());
    drop(other);
    linked.until("the port is bound", |s| s.values().all(is_bound)).await;
    linked.gateway.stop(std::future::pending()).await;
}

#[tokio::test]
async fn a_share_that_arrives_before_its_tunnel_is_served_once_the_tunnel_arrives() {
    let mut linked = LinkedGateway::start(Ipv4Addr::new(127, 77, 1, 3)).await;
    let shares = vec![share(1, 1, 1, 18_004)];
    linked.send(DesiredDelta { reset: true, shares, ..DesiredDelta::default() }).await;
    linked.until("it is observed", |s| s.len() == 1).await;
    let tunnels = vec![linked.tunnel(1)];
    linked.send(DesiredDelta { tunnels, ..DesiredDelta::default() }).await;
    linked.until("it is bound", |s| s.values().all(is_bound)).await;
    assert!(linked.accepts(18_004).await);
    let removed_shares = vec![ShareId::new(Uuid::from_u128(1))];
    linked.send(DesiredDelta { removed_shares, ..DesiredDelta::default() }).await;
    linked.until("it is gone", BTreeMap::is_empty).await;
    assert!(!linked.accepts(18_004).await);
    linked.gateway.stop(std::future::pending()).await;
}

#[tokio::test]
async fn a_share_expires_by_the_gateways_own_clock_without_a_server() {
    let mut linked = LinkedGateway::start(Ipv4Addr::new(127, 77, 1, 6)).await;
    let first = DesiredDelta {
        reset: true,
        tunnels: vec![linked.tunnel(1)],
        shares: vec![share(1, 1, 1, 18_006), share(2, 1, 1, 18_007)],
        ..DesiredDelta::default()
    };
    linked.send(first).await;
    linked.until("both are bound", |s| s.len() == 2 && s.values().all(is_bound)).await;
    // Not when the tunnel is looked at anyway, every four seconds.
    let end = Timestamp::now() + Duration::from_secs(3);
    let expiring = Arc::new(ShareDesired { expires_at: Some(end), ..(*share(1, 1, 2, 18_006)).clone() });
    linked.send(DesiredDelta { shares: vec![expiring], ..DesiredDelta::default() }).await;
    linked.until("it is known", |s| s.values().all(is_bound)).await;
    assert!(linked.accepts(18_006).await && Timestamp::now() < end);
    // The server ends.
    let (send, _gone) = mpsc::channel(1);
    drop(std::mem::replace(&mut linked.send, send));
    let closed = async {
        while linked.accepts(18_006).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(WITHIN, closed).await.unwrap();
    let late = Timestamp::now().duration_since(end);
    assert!(late.is_positive() && late < jiff::SignedDuration::from_secs(2), "closed {late} after its time");
    assert!(linked.accepts(18_007).await);
    let is_expired = |seen: &ShareObserved| {
        seen.ready.is_none() && seen.problem.as_ref().is_some_and(|p| p.reason == Reason::Expired)
    };
    linked.until("it is reported", |s| s.values().any(is_expired) && s.values().any(is_bound)).await;
    linked.gateway.stop(std::future::pending()).await;
}

#[tokio::test]
async fn a_share_whose_expiry_is_moved_is_served_again() {
    let mut linked = LinkedGateway::start(Ipv4Addr::new(127, 77, 1, 7)).await;
    let expires = |generation, seconds| {
        let expires_at = Some(Timestamp::now() + jiff::SignedDuration::from_secs(seconds));
        Arc::new(ShareDesired { expires_at, ..(*share(1, 1, generation, 18_008)).clone() })
    };
    let (tunnels, shares) = (vec![linked.tunnel(1)], vec![expires(1, -1)]);
    linked.send(DesiredDelta { reset: true, tunnels, shares, ..DesiredDelta::default() }).await;
    let is_expired =
        |seen: &ShareObserved| seen.problem.as_ref().is_some_and(|p| p.reason == Reason::Expired);
    linked.until("it has expired", |s| s.values().any(is_expired)).await;
    assert!(!linked.accepts(18_008).await);
    linked.send(DesiredDelta { shares: vec![expires(2, 3600)], ..DesiredDelta::default() }).await;
    linked.until("it is bound", |s| s.values().all(is_bound)).await;
    assert!(linked.accepts(18_008).await);
    linked.gateway.stop(std::future::pending()).await;
}

#[tokio::test]
async fn a_tunnel_above_the_limit_is_refused_and_served_once_another_is_removed() {
    let mut linked = LinkedGateway::start_with(Ipv4Addr::new(127, 77, 1, 5), Some(2), CONNECTION_RATE).await;
    let id = |n| TunnelId::new(Uuid::from_u128(n));
    let first = DesiredDelta {
        reset: true,
        tunnels: vec![linked.tunnel(1), linked.tunnel(2), linked.tunnel(3)],
        shares: vec![share(3, 3, 1, 18_005)],
        ..DesiredDelta::default()
    };
    let begin = Instant::now();
    linked.send(first).await;
    let is = |seen: &BTreeMap<TunnelId, TunnelObserved>, n, reason| {
        seen.get(&id(n)).is_some_and(|t| t.problem.as_ref().map(|p| p.reason) == reason)
    };
    linked
        .until_both("the last one is refused", |tunnels, shares| {
            is(tunnels, 1, None)
                && is(tunnels, 2, None)
                && is(tunnels, 3, Some(Reason::GatewayFull))
                && shares
                    .values()
                    .any(|s| s.problem.as_ref().is_some_and(|p| p.reason == Reason::TunnelNotReady))
        })
        .await;
    named("GatewayFull", begin.elapsed());
    named("TunnelNotReady", begin.elapsed());
    assert!(linked.tunnels[&id(3)].ready.is_none());
    assert!(!linked.accepts(18_005).await);
    linked.send(DesiredDelta { removed_tunnels: vec![id(1)], ..DesiredDelta::default() }).await;
    linked
        .until_both("it is served", |tunnels, shares| {
            !tunnels.contains_key(&id(1)) && is(tunnels, 3, None) && shares.values().all(is_bound)
        })
        .await;
    assert!(linked.accepts(18_005).await);
    // Another one is refused, and leaves nothing when it is removed while it waits.
    linked.send(DesiredDelta { tunnels: vec![linked.tunnel(4)], ..DesiredDelta::default() }).await;
    linked.until_both("another is refused", |tunnels, _| is(tunnels, 4, Some(Reason::GatewayFull))).await;
    linked.send(DesiredDelta { removed_tunnels: vec![id(4)], ..DesiredDelta::default() }).await;
    linked.until_both("it is gone", |tunnels, _| !tunnels.contains_key(&id(4))).await;
    linked.gateway.stop(std::future::pending()).await;
}

#[tokio::test]
async fn a_gateway_with_another_state_than_its_server_asks_for_everything() {
    let mut linked = LinkedGateway::start(Ipv4Addr::new(127, 77, 1, 8)).await;
    let mut server = DigestedState::default();
    let mut sent = |mut delta: DesiredDelta| {
        server.apply(&delta);
        delta.digest = Some(server.digest());
        (delta, server.state().snapshot())
    };
    let (tunnels, shares) = (vec![linked.tunnel(1)], vec![share(1, 1, 1, 18_041)]);
    let (first, _) = sent(DesiredDelta { reset: true, tunnels, shares, ..DesiredDelta::default() });
    linked.send(first).await;
    linked.until("it is bound", |s| s.len() == 1 && s.values().all(is_bound)).await;
    // The next delta is lost.
    sent(DesiredDelta { shares: vec![share(2, 1, 1, 18_042)], ..DesiredDelta::default() });
    let last = DesiredDelta { shares: vec![share(3, 1, 1, 18_043)], ..DesiredDelta::default() };
    let (last, everything) = sent(last);
    let digest = last.digest;
    linked.send(last).await;
    let asked = async { while linked.reports.recv().await.unwrap() != FromGateway::Resync {} };
    timeout(WITHIN, asked).await.unwrap();
    linked.send(DesiredDelta { digest, ..everything }).await;
    linked.until("all are bound", |s| s.len() == 3 && s.values().all(is_bound)).await;
    linked.gateway.stop(std::future::pending()).await;
}
