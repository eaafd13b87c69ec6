//! Rows in a real database, a gateway's end of a real link: activate, and look at the database.

use super::*;
use jiff::ToSpan as _;
use proptest::{prelude::*, sample::Index, test_runner::TestCaseError};
use std::collections::BTreeSet;
use uuid::Uuid;
use wicketgate_model::{
    AgentId, ConnectionState, DesiredDelta, EnrollmentId, EnvironmentId, FrontdoorId, LocationId,
    ObservedDelta, PreSharedKey, Problem, Reason, ShareObserved, TunnelObserved, ZId,
};
use wicketgate_session::link::{FromGateway, GatewayEnd, ServerEnd};
use wicketgate_store::{Act, Enrol, FrontdoorSpec, NewEnrollment, ShareRow, ShareSpec, TunnelSpec};

/// A server without its tasks: a test activates by hand, at times of its choice.
struct Bench {
    _dir: tempfile::TempDir,
    store: Store,
    frontdoor: FrontdoorId,
    environment: EnvironmentId,
    tunnel: TunnelId,
    ca: Arc<Ca>,
    reconciler: Reconciler,
    gateway: FakeGateway,
    now: Timestamp,
    names: u16,
}

/// A gateway that serves whatever it is told, at once. What it reports is up to the test.
struct FakeGateway {
    link: GatewayEnd,
    link_task: crate::link::Link,
    from_gateway: mpsc::Receiver<FromGateway>,
    desired: Desired,
    heard: u64,
    reported: bool,
    /// What stands in the way of shares.
    problem: Option<Problem>,
    /// What stands in the way of tunnels, and how their connections are.
    tunnels_problem: Option<Problem>,
    connection: Connection,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db").display().to_string()).await.unwrap();
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let ca = Arc::new(Ca::load_or_create(&dir.path().join("ca"), now).unwrap());
        let act = Act::new("test", now, Uuid::now_v7);
        let spec = FrontdoorSpec {
            organization: "default".into(),
            default_namespace: "default".parse().unwrap(),
            ipsec_shares_enabled: true,
        };
        let frontdoor = store.create_frontdoor(&spec, &act).await.unwrap().id;
        let enrollment = EnrollmentId::new(Uuid::now_v7());
        let new = NewEnrollment {
            id: enrollment,
            environment: None,
            secret_sha256: [1; 32],
            expires_at: now + 1.hour(),
        };
        store.create_enrollment(frontdoor, &new, &act).await.unwrap();
        let asked = Enrol {
            enrollment,
            secret_sha256: [1; 32],
            public_key_sha256: [2; 32],
            name: "dc-1".into(),
            z_id: ZId::from_random([3; 10]),
        };
        let environment = store.enrol(&asked, &act).await.unwrap().unwrap().environment;
        let tunnel = TunnelSpec {
            name: "customer-a".parse().unwrap(),
            location: "local".parse().unwrap(),
            peer_address: "203.0.113.1".parse().unwrap(),
            peer_cidr: "10.0.0.0/16".parse().unwrap(),
            peer_id: "203.0.113.1".parse().unwrap(),
            key: PreSharedKey::from_random([4; 32]),
            ike_proposals: None,
            esp_proposals: None,
            initiate: false,
            tags: Default::default(),
        };
        let pools = wicketgate_model::LoadBalancerPools::ipsec();
        let tunnel = store.create_tunnel(frontdoor, &tunnel, &pools, &act).await.unwrap().id;
        let (reconciler, gateway) = restarted(&store, &ca, now);
        Self { _dir: dir, store, frontdoor, environment, tunnel, ca, reconciler, gateway, now, names: 0 }
    }

    fn act(&self) -> Act {
        Act::new("test", self.now, Uuid::now_v7)
    }

    fn spec(&mut self) -> ShareSpec {
        self.names += 1;
        ShareSpec {
            tunnel: self.tunnel,
            environment: self.environment,
            name: format!("share-{}", self.names).parse().unwrap(),
            target: "10.1.2.3:80".parse().unwrap(),
            ingress_port: i64::from(self.names).try_into().unwrap(),
            options: Default::default(),
            tags: Default::default(),
        }
    }

    async fn create(&mut self) -> ShareId {
        let spec = self.spec();
        self.store.create_share(self.frontdoor, &spec, &self.act()).await.unwrap().id
    }

    async fn retarget(&mut self, id: ShareId) {
        let row = self.share(id).await;
        let spec =
            ShareSpec { target: format!("10.9.9.9:{}", row.generation).parse().unwrap(), ..row.spec() };
        self.store.replace_share(self.frontdoor, id, row.generation, &spec, &self.act()).await.unwrap();
    }

    async fn delete(&mut self, id: ShareId) {
        self.store.delete_share(self.frontdoor, id, &self.act()).await.unwrap();
    }

    async fn share(&self, id: ShareId) -> ShareRow {
        self.store.share(self.frontdoor, id).await.unwrap().unwrap()
    }

    async fn activate(&mut self) {
        self.reconciler.activate(self.now).await.unwrap();
    }

    /// Both sides say what they have to say, until nothing is left to say.
    async fn settle(&mut self) {
        for _ in 0..3 {
            self.activate().await;
            self.gateway.hear();
            self.gateway.report(&self.reconciler).await;
            self.activate().await;
        }
    }

    /// The server's process dies and starts anew; a gateway in the same process starts with it.
    fn restart(&mut self) {
        (self.reconciler, self.gateway) = restarted(&self.store, &self.ca, self.now);
    }
}

fn restarted(store: &Store, ca: &Arc<Ca>, now: Timestamp) -> (Reconciler, FakeGateway) {
    let location: LocationId = "local".parse().unwrap();
    let id = wicketgate_model::GatewayId::new(Uuid::now_v7());
    let (ServerEnd { send, receive, .. }, link) = wicketgate_session::link::in_process(id, location);
    let sight = Sight::new(Arc::new(Notify::new()), now);
    let (status, _) = watch::channel(Default::default());
    let metrics = crate::telemetry::Metrics::new(&mut prometheus_client::registry::Registry::default());
    let link_task = crate::link::Link {
        store: store.clone(),
        ca: Arc::clone(ca),
        sight: Arc::clone(&sight),
        status,
        metrics: Arc::clone(&metrics),
    };
    let reconciler =
        Reconciler::new(store.clone(), Arc::clone(ca), sight, metrics, send, Deadlines::default());
    let gateway = FakeGateway {
        link,
        link_task,
        from_gateway: receive,
        desired: Desired::default(),
        heard: 0,
        reported: false,
        problem: None,
        tunnels_problem: None,
        connection: Connection::down("2026-01-01T00:00:00Z".parse().unwrap()),
    };
    (reconciler, gateway)
}

impl FakeGateway {
    /// Takes what it was told.
    fn hear(&mut self) -> Vec<DesiredDelta> {
        let mut heard = Vec::new();
        while let Ok(ToGateway::Desired { sequence, delta }) = self.link.receive.try_recv() {
            assert_eq!(sequence, self.heard + 1, "deltas come in order");
            assert_eq!(delta.reset, sequence == 1, "the first is everything");
            self.heard = sequence;
            self.desired.apply(&delta);
            heard.push(delta);
        }
        heard
    }

    /// Reports all that it serves, or nothing before it was told anything.
    async fn report(&mut self, reconciler: &Reconciler) {
        if self.heard == 0 {
            return;
        }
        let before: BTreeSet<_> = reconciler.sight.lock().observed.shares.keys().copied().collect();
        let tunnels = self.desired.tunnels.values().map(|t| {
            let problem = self.tunnels_problem.clone();
            let ready = problem.is_none().then_some(t.generation);
            (t.id, TunnelObserved { ready, problem, connection: self.connection.clone() })
        });
        let shares = self.desired.shares.values().map(|s| {
            let ready = self.problem.is_none().then_some(s.generation);
            (s.id, ShareObserved { ready, problem: self.problem.clone() })
        });
        let delta = ObservedDelta {
            reset: !self.reported,
            tunnels: tunnels.collect(),
            shares: shares.collect(),
            gone_tunnels: Vec::new(),
            gone_shares: before.into_iter().filter(|id| !self.desired.shares.contains_key(id)).collect(),
        };
        self.reported = true;
        self.say(FromGateway::Observed { heard: self.heard, delta }).await;
    }

    async fn say(&mut self, message: FromGateway) {
        self.link.send.send(message).await.unwrap();
        let message = self.from_gateway.recv().await.unwrap();
        self.link_task.take(message).await;
    }
}

#[tokio::test]
async fn a_share_is_told_seen_and_deployed() {
    let mut b = Bench::new().await;
    let id = b.create().await;
    b.activate().await;
    let [delta] = &b.gateway.hear()[..] else { panic!("one delta") };
    assert_eq!((delta.tunnels.len(), delta.shares.len()), (1, 1));
    assert_eq!(b.share(id).await.standing.status, Status::New);
    b.gateway.report(&b.reconciler).await;
    b.activate().await;
    let row = b.share(id).await;
    assert_eq!(
        (row.standing.status, row.standing.observed_generation),
        (Status::Deployed, Some(row.generation))
    );
    // Nothing changed, so nothing more is told.
    b.activate().await;
    assert!(b.gateway.hear().is_empty());
}

#[tokio::test]
async fn the_newest_share_does_not_wait_for_all_the_others() {
    let mut b = Bench::new().await;
    let mut ids = Vec::new();
    for _ in 0..=SETTLED_AT_ONCE {
        ids.push(b.create().await);
    }
    b.activate().await;
    b.gateway.hear();
    b.gateway.report(&b.reconciler).await;
    assert_eq!(b.reconciler.activate(b.now).await.unwrap(), Left::More);
    let (oldest, newest) = (ids[0], ids[SETTLED_AT_ONCE]);
    assert_eq!(b.share(newest).await.standing.status, Status::Deployed);
    assert_eq!(b.share(oldest).await.standing.status, Status::New);
    assert_eq!(b.reconciler.activate(b.now).await.unwrap(), Left::Nothing);
    for id in ids {
        assert_eq!(b.share(id).await.standing.status, Status::Deployed);
    }
}

#[tokio::test]
async fn an_agent_is_told_what_the_server_signed() {
    let mut b = Bench::new().await;
    let id = b.create().await;
    b.activate().await;
    b.gateway.hear();
    let signed = &b.gateway.desired.shares[&id].assignment;
    let assignment = b.ca.certificate().verify(signed).unwrap();
    assert_eq!((assignment.share, assignment.environment), (id, b.environment));
    assert_eq!(assignment.target.to_string(), "10.1.2.3:80");
}

#[tokio::test]
async fn a_deleted_share_is_gone_only_when_the_gateway_has_heard_of_it() {
    let mut b = Bench::new().await;
    let id = b.create().await;
    b.settle().await;
    b.delete(id).await;
    b.activate().await;
    // The gateway reports what it saw before it heard: the share is still there.
    let heard = b.gateway.heard;
    b.gateway.report(&b.reconciler).await;
    assert_eq!(b.gateway.heard, heard);
    b.activate().await;
    assert_eq!(b.share(id).await.standing.status, Status::Deleting);
    b.gateway.hear();
    b.gateway.report(&b.reconciler).await;
    b.activate().await;
    assert_eq!(b.share(id).await.standing.status, Status::Deleted);
}

#[tokio::test]
async fn a_share_that_was_never_reported_is_not_taken_for_gone() {
    let mut b = Bench::new().await;
    b.settle().await;
    let id = b.create().await;
    b.activate().await;
    b.delete(id).await;
    b.activate().await;
    // Told twice, heard nothing yet: the gateway may be about to serve it.
    assert_eq!(b.share(id).await.standing.status, Status::Deleting);
    b.settle().await;
    assert_eq!(b.share(id).await.standing.status, Status::Deleted);
}

#[tokio::test]
async fn what_does_not_get_there_becomes_an_error_and_is_mended_by_itself() {
    let mut b = Bench::new().await;
    let id = b.create().await;
    b.gateway.problem = Some(Problem::new(Reason::AgentOffline, "no agent is connected"));
    b.settle().await;
    let row = b.share(id).await;
    assert_eq!(row.standing.status, Status::New);
    b.now += 31.seconds();
    b.activate().await;
    let row = b.share(id).await;
    assert_eq!(row.standing.status, Status::Error);
    assert_eq!(row.standing.detail.unwrap().problem.reason, Reason::AgentOffline);
    b.gateway.problem = None;
    b.gateway.report(&b.reconciler).await;
    b.activate().await;
    let row = b.share(id).await;
    assert_eq!((row.standing.status, row.standing.detail), (Status::Deployed, None));
}

#[tokio::test]
async fn after_a_restart_a_status_holds_for_a_moment_and_is_then_seen_or_lost() {
    let mut b = Bench::new().await;
    let id = b.create().await;
    b.settle().await;
    b.now += 1.hour();
    b.restart();
    b.activate().await;
    assert_eq!(b.share(id).await.standing.status, Status::Deployed);
    b.now += 4.seconds();
    b.activate().await;
    let row = b.share(id).await;
    assert_eq!(row.standing.status, Status::Error);
    assert_eq!(row.standing.detail.unwrap().problem.reason, Reason::GatewayOffline);
    b.settle().await;
    assert_eq!(b.share(id).await.standing.status, Status::Deployed);
}

#[tokio::test]
async fn a_restart_changes_no_connection_that_is_as_it_was() {
    let mut b = Bench::new().await;
    let up = Connection { state: ConnectionState::Up, ..Connection::down(b.now) };
    b.gateway.connection = up.clone();
    b.settle().await;
    let recorded = async |b: &Bench| b.store.tunnel(b.frontdoor, b.tunnel).await.unwrap().unwrap().connection;
    assert_eq!(recorded(&b).await, Some(up.clone()));
    // It stops in order, and its connections take their time to end.
    b.gateway.say(FromGateway::Draining).await;
    // By this test's clock.
    b.reconciler.sight.lock().silent_since = Some(b.now);
    b.now += 10.seconds();
    b.activate().await;
    assert_eq!(recorded(&b).await, Some(up.clone()));
    b.restart();
    // It has heard of the tunnel, and not looked at it yet.
    b.gateway.tunnels_problem = Some(Problem::new(Reason::Pending, "soon"));
    b.settle().await;
    assert_eq!(recorded(&b).await, Some(up.clone()));
    b.gateway.tunnels_problem = None;
    b.gateway.connection = up.clone();
    b.settle().await;
    assert_eq!(recorded(&b).await, Some(up));
    // One that says nothing may be dead, and its tunnels with it.
    b.restart();
    b.now += 10.seconds();
    b.activate().await;
    assert_eq!(recorded(&b).await.map(|c| c.state), Some(ConnectionState::Down));
}

#[tokio::test]
async fn what_does_not_fit_into_the_link_is_told_later() {
    let mut b = Bench::new().await;
    let mut shares = Vec::new();
    // More deltas than the link holds, while the gateway takes none.
    for _ in 0..100 {
        shares.push(b.create().await);
        b.activate().await;
    }
    b.settle().await;
    for id in shares {
        assert_eq!(b.share(id).await.standing.status, Status::Deployed);
    }
}

#[tokio::test]
async fn a_barred_agent_is_told() {
    let mut b = Bench::new().await;
    b.settle().await;
    let agents = b.store.agents(b.frontdoor, &wicketgate_store::ListRequest::default()).await.unwrap();
    let agent: AgentId = agents.rows[0].id;
    b.store.bar_agent(b.frontdoor, agent, &b.act()).await.unwrap();
    b.settle().await;
    assert!(b.gateway.desired.barred.contains(&agent));
    b.restart();
    b.settle().await;
    assert!(b.gateway.desired.barred.contains(&agent));
}

#[derive(Debug, Clone)]
enum Step {
    Create,
    Retarget(Index),
    Delete(Index),
    Activate,
    Hear,
    Report,
    Fail(bool),
    Pass(i64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Create),
        3 => any::<Index>().prop_map(Step::Retarget),
        2 => any::<Index>().prop_map(Step::Delete),
        4 => Just(Step::Activate),
        3 => Just(Step::Hear),
        3 => Just(Step::Report),
        1 => any::<bool>().prop_map(Step::Fail),
        1 => (1i64..40).prop_map(Step::Pass),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: once both sides have said all they have to say, every share that was
    /// not deleted is deployed as it was last written, and every deleted one is gone at the gateway.
    #[test]
    fn it_always_gets_there(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut b = Bench::new().await;
            let (mut live, mut deleted) = (Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Create => live.push(b.create().await),
                    Step::Retarget(which) if !live.is_empty() => b.retarget(*which.get(&live)).await,
                    Step::Delete(which) if !live.is_empty() => {
                        let id = live.swap_remove(which.index(live.len()));
                        b.delete(id).await;
                        deleted.push(id);
                    }
                    Step::Retarget(_) | Step::Delete(_) => {}
                    Step::Activate => b.activate().await,
                    Step::Hear => drop(b.gateway.hear()),
                    Step::Report => b.gateway.report(&b.reconciler).await,
                    Step::Fail(fails) => {
                        b.gateway.problem = fails.then(|| Problem::new(Reason::PortInUse, "somebody has it"));
                    }
                    Step::Pass(seconds) => b.now += seconds.seconds(),
                    Step::Restart => b.restart(),
                }
                for id in &live {
                    let row = b.share(*id).await;
                    let deployed = row.standing.status == Status::Deployed;
                    prop_assert!(!deployed || row.standing.observed_generation == Some(row.generation));
                }
            }
            b.gateway.problem = None;
            b.settle().await;
            for id in live {
                let row = b.share(id).await;
                prop_assert_eq!(row.standing.status, Status::Deployed);
                let served = &b.gateway.desired.shares[&id];
                prop_assert_eq!(served.generation, row.generation);
                prop_assert_eq!(b.ca.certificate().verify(&served.assignment).unwrap().target, row.target);
            }
            for id in deleted {
                prop_assert_eq!(b.share(id).await.standing.status, Status::Deleted);
                prop_assert!(!b.gateway.desired.shares.contains_key(&id));
            }
            Ok::<_, TestCaseError>(())
        })?;
    }
}
