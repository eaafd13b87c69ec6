//! A reconciler that the test runs, and a fake gateway at the other end of a real link.

use crate::gateways::{GatewayRpc, LinkedGateway, ReportKind, link::GatewayLink, reconciler::*};
use futures_util::FutureExt as _;
use jiff::ToSpan as _;
use std::process::Command;
use uuid::Uuid;
use wicketgate_link::{
    DigestedState, FromGateway, GatewayHello, HeldState, LinkKind, LinkReceiver, Part, ServerHello, VERSIONS,
};
use wicketgate_model::{
    Desired, DesiredDelta, EnrollmentId, EnvironmentId, EspMode, FrontdoorId, GatewayId, LoadBalancerPools,
    LocationId, ObservedDelta, PreSharedKey, Problem, ShareObserved, TunnelObserved, ZId,
};
use wicketgate_store::{
    Action, EnrolAttempt, FrontdoorSpec, NewEnrollment, NewGateway, SecretKeyFile, ShareRow, ShareSpec,
    TunnelChange, TunnelRow, TunnelSpec, WriteContext,
};

/// A server without its tasks: the test runs each activation, at times of its choice.
pub(super) struct Bench {
    dir: tempfile::TempDir,
    pub(super) store: Store,
    pub(super) frontdoor: FrontdoorId,
    pub(super) environment: EnvironmentId,
    pub(super) tunnel: TunnelId,
    pub(super) ca: Arc<Ca>,
    pub(super) reconciler: Reconciler,
    pub(super) gateway: FakeGateway,
    pub(super) now: Timestamp,
    pub(super) names: u16,
}

/// A gateway that serves everything at once. The test decides what it reports.
pub(super) struct FakeGateway {
    reports: mpsc::Sender<FromGateway>,
    pub(super) deltas: LinkReceiver<ToGateway>,
    pub(super) link_task: GatewayLink,
    pub(super) from_gateway: LinkReceiver<FromGateway>,
    received: DigestedState,
    /// It had another link before.
    is_holding: bool,
    is_partial: bool,
    /// Its state is not what it was sent; whether it has said so.
    disagrees: Option<bool>,
    pub(super) heard: u64,
    pub(super) reported: bool,
    /// The problem of all shares.
    pub(super) problem: Option<Problem>,
    /// The problem and the connection of all tunnels.
    pub(super) tunnels_problem: Option<Problem>,
    pub(super) connection: Connection,
}

impl Bench {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(
            &dir.path().join("db").display().to_string(),
            &SecretKeyFile::created_at(dir.path().join("secret-key")),
        )
        .await
        .unwrap();
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let ca = Arc::new(Ca::generate(now).unwrap());
        let act = WriteContext::new("test", now, Uuid::now_v7);
        let spec = FrontdoorSpec {
            organization: "default".into(),
            default_namespace: "default".parse().unwrap(),
            ipsec_shares_enabled: true,
            quotas: Default::default(),
        };
        let own = NewGateway { id: gateway_id(), location: "local".parse().unwrap(), in_process: true };
        store.register_gateway(&own, now).await.unwrap();
        let frontdoor = store.create_frontdoor(&spec, &act).await.unwrap().id;
        let enrollment = EnrollmentId::new(Uuid::now_v7());
        let new = NewEnrollment {
            id: enrollment,
            environment: None,
            secret_sha256: [1; 32],
            expires_at: now + 1.hour(),
        };
        store.create_enrollment(frontdoor, &new, &act).await.unwrap();
        let asked = EnrolAttempt {
            enrollment,
            secret_sha256: [1; 32],
            public_key_sha256: [2; 32],
            name: "dc-1".into(),
            z_id: ZId::from_random([3; 10]),
        };
        let environment = store.enrol(&asked, &act).await.unwrap().unwrap().environment;
        let (reconciler, gateway) = linked(&store, &ca, (gateway_id(), now), None).await;
        let tunnel = TunnelId::new(Uuid::nil());
        let mut bench =
            Self { dir, store, frontdoor, environment, tunnel, ca, reconciler, gateway, now, names: 0 };
        bench.tunnel = bench.create_tunnel().await;
        bench
    }

    pub(super) fn act(&self) -> WriteContext {
        WriteContext::new("test", self.now, Uuid::now_v7)
    }

    pub(super) fn spec(&mut self) -> ShareSpec {
        self.names += 1;
        ShareSpec::new(
            self.tunnel,
            self.environment,
            format!("share-{}", self.names).parse().unwrap(),
            "10.1.2.3:80".parse().unwrap(),
            i64::from(self.names).try_into().unwrap(),
        )
    }

    pub(super) async fn create_tunnel(&mut self) -> TunnelId {
        self.names += 1;
        let spec = TunnelSpec::new(
            format!("customer-{}", self.names).parse().unwrap(),
            "local".parse().unwrap(),
            format!("203.0.113.{}", self.names).parse().unwrap(),
            "10.0.0.0/16".parse().unwrap(),
            PreSharedKey::from_random([4; 32]),
        );
        let pools = LoadBalancerPools::ipsec();
        self.store.create_tunnel(self.frontdoor, &spec, &pools, &self.act()).await.unwrap().id
    }

    /// A tunnel of another Frontdoor gets the address of this one's peer.
    pub(super) async fn take_address(&mut self, of: TunnelId) -> TunnelRow {
        let spec = FrontdoorSpec {
            organization: "other".into(),
            default_namespace: "default".parse().unwrap(),
            ipsec_shares_enabled: true,
            quotas: Default::default(),
        };
        let other = self.store.create_frontdoor(&spec, &self.act()).await.unwrap().id;
        let act = WriteContext { takes_peer_address: true, ..self.act() };
        let spec = self.tunnel_row(of).await.spec;
        self.store.create_tunnel(other, &spec, &LoadBalancerPools::ipsec(), &act).await.unwrap()
    }

    /// Gives the tunnel a new key, and keeps the previous one valid for a time.
    pub(super) async fn rotate_key(&mut self, id: TunnelId, grace: SignedDuration) {
        self.names += 1;
        let key = format!("key number {} of this test", self.names).parse().unwrap();
        let spec = self.tunnel_row(id).await.spec;
        let spec = TunnelSpec { pre_shared_key: Some(key), initiate: !spec.initiate, ..spec };
        self.change_tunnel(id, spec, grace).await;
    }

    pub(super) async fn rename_tunnel(&mut self, id: TunnelId, name: &str) {
        let spec = self.tunnel_row(id).await.spec;
        let spec = TunnelSpec { name: name.parse().unwrap(), ..spec };
        self.change_tunnel(id, spec, SignedDuration::ZERO).await;
    }

    pub(super) async fn change_tunnel(&mut self, id: TunnelId, spec: TunnelSpec, grace: SignedDuration) {
        let change = TunnelChange {
            cuts: false,
            expected: self.tunnel_row(id).await.generation,
            spec,
            previous_until: self.now + grace,
            action: Action::Update,
        };
        let pools = LoadBalancerPools::ipsec();
        self.store.replace_tunnel(self.frontdoor, id, &change, &pools, &self.act()).await.unwrap();
    }

    /// Deletes the tunnel; `false` if shares still use it.
    pub(super) async fn delete_tunnel(&mut self, id: TunnelId) -> bool {
        match self.store.delete_tunnel(self.frontdoor, id, &self.act()).await {
            Ok(_) => true,
            Err(StoreError::HasShares { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    }

    pub(super) async fn tunnel_row(&self, id: TunnelId) -> TunnelRow {
        self.store.tunnel(self.frontdoor, id).await.unwrap().unwrap()
    }

    pub(super) async fn create(&mut self) -> ShareId {
        let spec = self.spec();
        self.store.create_share(self.frontdoor, &spec, &self.act()).await.unwrap().id
    }

    pub(super) async fn retarget(&mut self, id: ShareId) {
        let row = self.share(id).await;
        let spec =
            ShareSpec { target: format!("10.9.9.9:{}", row.generation).parse().unwrap(), ..row.spec.clone() };
        self.store.replace_share(self.frontdoor, id, row.generation, &spec, &self.act()).await.unwrap();
    }

    pub(super) async fn delete(&mut self, id: ShareId) {
        self.store.delete_share(self.frontdoor, id, &self.act()).await.unwrap();
    }

    /// Changes a share's row directly, as in a database shell, without a new revision or generation.
    pub(super) fn edit(&self, id: ShareId, change: &str) {
        self.sql(&format!("UPDATE ipsec_share SET {change} WHERE id = '{id}'"));
    }

    /// Carries out a statement behind the store's back.
    pub(super) fn sql(&self, statement: &str) {
        let script = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], timeout=10)\n\
                      db.execute(sys.argv[2]); db.commit()";
        let run = Command::new("python3")
            .args(["-c", script])
            .arg(self.dir.path().join("db"))
            .arg(statement)
            .status();
        assert!(run.unwrap().success());
    }

    pub(super) async fn share(&self, id: ShareId) -> ShareRow {
        self.store.share(self.frontdoor, id).await.unwrap().unwrap()
    }

    pub(super) async fn activate(&mut self) {
        self.reconciler.reconcile(self.now).await.unwrap();
    }

    /// Lets both sides exchange messages until none is left.
    pub(super) async fn settle(&mut self) {
        settle((&mut self.reconciler, &mut self.gateway), self.now).await;
    }

    /// The reconciler is made to miss what was written.
    pub(super) async fn skip_changes(&mut self) {
        let since = self.reconciler.revision;
        self.reconciler.revision = self.store.changes_of(gateway_id(), since, |_| {}).await.unwrap();
    }

    /// Another gateway of the location, with a reconciler of its own, that has just linked.
    pub(super) async fn join(&self, id: GatewayId) -> (Reconciler, FakeGateway) {
        let other = NewGateway { id, location: "local".parse().unwrap(), in_process: false };
        self.store.register_gateway(&other, self.now).await.unwrap();
        linked(&self.store, &self.ca, (id, self.now), None).await
    }

    /// Restarts the server's process, and with it the gateway in the same process.
    pub(super) async fn restart(&mut self) {
        (self.reconciler, self.gateway) = linked(&self.store, &self.ca, (gateway_id(), self.now), None).await;
    }

    /// The gateway loses its link, with what is under way, and finds another server.
    pub(super) async fn reconnect(&mut self) {
        self.reconnect_with(|_| {}).await;
    }

    /// As [`Bench::reconnect`], with another hello.
    pub(super) async fn reconnect_with(&mut self, change: impl FnOnce(&mut HeldState)) {
        let is_holding = self.gateway.is_holding || self.gateway.heard > 0;
        let mut held = self.gateway.received.held(Era::FIRST);
        change(&mut held);
        let held = is_holding.then_some(held);
        let (reconciler, gateway) = linked(&self.store, &self.ca, (gateway_id(), self.now), held).await;
        let before = mem::replace(&mut self.gateway, gateway);
        self.gateway.received = before.received;
        self.gateway.is_holding = is_holding;
        self.gateway.problem = before.problem;
        self.gateway.tunnels_problem = before.tunnels_problem;
        self.gateway.connection = before.connection;
        self.reconciler = reconciler;
    }
}

/// Lets both ends of a link exchange messages until none is left.
pub(super) async fn settle((reconciler, gateway): (&mut Reconciler, &mut FakeGateway), now: Timestamp) {
    for _ in 0..3 {
        reconciler.reconcile(now).await.unwrap();
        gateway.receive();
        gateway.report(reconciler).await;
        reconciler.reconcile(now).await.unwrap();
    }
}

fn gateway_id() -> GatewayId {
    GatewayId::new(Uuid::nil())
}

fn server_hello() -> ServerHello {
    ServerHello { versions: VERSIONS, epoch: 1, era: Era::FIRST, servers: Vec::new() }
}

pub(super) fn hello() -> GatewayHello {
    GatewayHello {
        versions: VERSIONS,
        version: "0.1.0".to_owned(),
        boot: Uuid::nil(),
        held: None,
        agent_url: None,
        esp: EspMode::Off,
        public_address: None,
        max_tunnels: None,
        namespaces: None,
    }
}

/// Both ends of a gateway's link that has just begun.
async fn linked(
    store: &Store,
    ca: &Arc<Ca>,
    (id, now): (GatewayId, Timestamp),
    held: Option<HeldState>,
) -> (Reconciler, FakeGateway) {
    let (location, view): (LocationId, _) = ("local".parse().unwrap(), SharedView::new(now));
    let epoch = store.link_gateway(id, now).await.unwrap();
    let (server_end, gateway_end) = wicketgate_link::in_process_encoded(id, location.clone());
    let (send, at_server) = server_end.open(server_hello());
    let (reports, at_gateway) = gateway_end.open(hello());
    let (_, from_gateway) = at_server.finish().now_or_never().unwrap().unwrap();
    let (_, deltas) = at_gateway.finish().now_or_never().unwrap().unwrap();
    let metrics = crate::telemetry::ServerMetrics::new(&mut prometheus_client::registry::Registry::default());
    let gateway = LinkedGateway { location, view: Arc::clone(&view), rpc: GatewayRpc::new(send.clone()) };
    let link_task = GatewayLink {
        store: store.clone(),
        ca: Arc::clone(ca),
        failures: Arc::default(),
        epoch,
        gateway,
        metrics: Arc::clone(&metrics),
        send: send.clone(),
        key_sha256: None,
    };
    let reconciler = Reconciler::new(ReconcilerParts {
        era: Era::FIRST,
        store: store.clone(),
        ca: Arc::clone(ca),
        epoch,
        view,
        metrics,
        send,
        kind: LinkKind::Network,
        held,
        deadlines: Deadlines::default(),
    });
    let gateway = FakeGateway {
        reports,
        deltas,
        link_task,
        from_gateway,
        received: DigestedState::default(),
        is_holding: false,
        is_partial: false,
        disagrees: None,
        heard: 0,
        reported: false,
        problem: None,
        tunnels_problem: None,
        connection: Connection::down("2026-01-01T00:00:00Z".parse().unwrap()),
    };
    (reconciler, gateway)
}

impl FakeGateway {
    pub(super) fn desired(&self) -> &Desired {
        self.received.state()
    }

    /// It forgets a share, by a fault.
    pub(super) fn lose(&mut self, share: ShareId) {
        let HeldState { revision, read_at, .. } = self.received.held(Era::FIRST);
        let removed_shares = vec![share];
        self.received.apply(&DesiredDelta { revision, read_at, removed_shares, ..DesiredDelta::default() });
    }

    /// Receives the pending deltas and applies them.
    pub(super) fn receive(&mut self) -> Vec<DesiredDelta> {
        let mut heard = Vec::new();
        while let Some(message) = self.deltas.try_recv() {
            let ToGateway::Desired { sequence, delta, .. } = message else { continue };
            assert_eq!(sequence, self.heard + 1, "deltas must arrive in order");
            let was_partial = mem::replace(&mut self.is_partial, delta.is_partial);
            let may_reset = sequence == 1 || self.disagrees == Some(true) || was_partial;
            let must_reset = sequence == 1 && !self.is_holding;
            assert!((may_reset || !delta.reset) && (delta.reset || !must_reset), "{sequence}");
            self.heard = sequence;
            self.received.apply(&delta);
            let agrees = self.received.agrees_with(&delta);
            assert!(agrees || !delta.reset, "a snapshot has the digest of its rows");
            self.disagrees = (!agrees).then(|| self.disagrees.unwrap_or_default());
            heard.push(delta);
        }
        heard
    }

    /// Reports everything that it serves. Reports nothing before the first delta.
    pub(super) async fn report(&mut self, reconciler: &Reconciler) {
        if self.heard == 0 {
            return;
        }
        if self.disagrees == Some(false) {
            self.disagrees = Some(true);
            self.send(FromGateway::Resync).await;
        }
        let desired = self.received.state();
        let (mut gone_tunnels, mut gone_shares) = {
            let view = reconciler.parts.view.lock();
            let observed = &view.observed;
            let tunnels: Vec<_> = observed.tunnels.keys().copied().collect();
            (tunnels, observed.shares.keys().copied().collect::<Vec<_>>())
        };
        gone_tunnels.retain(|id| !desired.tunnels.contains_key(id));
        gone_shares.retain(|id| !desired.shares.contains_key(id));
        // As a gateway does over a network.
        let as_desired = !self.reported && self.disagrees.is_none();
        let is_down = self.connection == Connection::down(self.connection.since);
        let names_tunnels = !as_desired || !is_down || self.tunnels_problem.is_some();
        let names_shares = !as_desired || self.problem.is_some();
        let tunnels = desired.tunnels.values().filter(|_| names_tunnels).map(|t| {
            let problem = self.tunnels_problem.clone();
            let ready = problem.is_none().then_some(t.generation);
            (t.id, TunnelObserved { ready, problem, connection: self.connection.clone() })
        });
        let shares = desired.shares.values().filter(|_| names_shares).map(|s| {
            let ready = self.problem.is_none().then_some(s.generation);
            (s.id, ShareObserved { ready, problem: self.problem.clone() })
        });
        let delta = ObservedDelta {
            reset: !self.reported,
            as_desired,
            tunnels: tunnels.collect(),
            shares: shares.collect(),
            gone_tunnels,
            gone_shares,
        };
        self.reported = true;
        self.send(FromGateway::Observed { heard: self.heard, part: Part::WHOLE, delta }).await;
    }

    /// Announces that it stops. Its next report is complete again.
    pub(super) async fn drain(&mut self, reconciler: &Reconciler, now: Timestamp) {
        self.send(FromGateway::Draining).await;
        // Uses the test's clock.
        reconciler.parts.view.lock().silent_since = Some(now);
        self.reported = false;
    }

    pub(super) async fn send(&mut self, message: FromGateway) {
        self.reports.send(message).await.unwrap();
        let message = self.from_gateway.recv().await.unwrap();
        self.link_task.take(message, Timestamp::now());
        for kind in ReportKind::ALL {
            while let Some(record) = self.link_task.gateway.view.backlog.take(kind) {
                self.link_task.write(&record).await;
            }
        }
    }
}
