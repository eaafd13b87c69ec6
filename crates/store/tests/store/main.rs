//! The store on SQLite and, where it is installed, on PostgreSQL: the same tests, the same answers.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod api_accounts;
mod database;
mod events;
mod lists;
mod outage;
mod tls;

use database::on_each;
use jiff::{SignedDuration, Timestamp};
use std::os::unix::fs::PermissionsExt;
use uuid::Uuid;
use wicketgate_model::{
    AgentId, Connection, Detail, EnrolRefusal, EnrollmentId, FrontdoorId, Generation, IngressPort,
    LoadBalancerPools, PreSharedKey, Problem, Reason, ShareId, ShareOptions, Standing, Status, TrafficDelta,
    TunnelId, ZId,
};
use wicketgate_store::{
    Action, Change, EnrolAttempt, EnrolledAgent, FrontdoorSpec, ListRequest, MetricsWindow, NewEnrollment,
    PageRequest, Reach, Resource, Revision, ShareSpec, StatusUpdate, Store, StoreError, Tags, TrafficScope,
    TunnelChange, TunnelSpec, WriteContext,
};

static ALL: ListRequest = ListRequest {
    page: PageRequest { number: 0, size: 1000 },
    sort: Vec::new(),
    filters: Vec::new(),
    kept_since: None,
};

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn after(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

fn context() -> WriteContext {
    WriteContext::new("admin", now(), Uuid::now_v7)
}

fn tunnel_spec(n: u8) -> TunnelSpec {
    TunnelSpec {
        name: format!("site-{n}").parse().unwrap(),
        location: "local".parse().unwrap(),
        peer_address: format!("203.0.113.{n}").parse().unwrap(),
        peer_cidr: "172.31.0.0/16".parse().unwrap(),
        peer_id: format!("203.0.113.{n}").parse().unwrap(),
        key: PreSharedKey::from_random([n; 32]),
        ike_proposals: None,
        esp_proposals: None,
        initiate: false,
        tags: Tags::new(),
    }
}

async fn frontdoor(store: &Store) -> FrontdoorId {
    let spec = FrontdoorSpec {
        organization: "default".to_owned(),
        default_namespace: "default".parse().unwrap(),
        ipsec_shares_enabled: true,
    };
    store.create_frontdoor(&spec, &context()).await.unwrap().id
}

async fn enrolled(store: &Store, frontdoor: FrontdoorId, n: u8) -> EnrolledAgent {
    let id = EnrollmentId::new(Uuid::now_v7());
    let new = NewEnrollment { id, environment: None, secret_sha256: [n; 32], expires_at: after(3600) };
    store.create_enrollment(frontdoor, &new, &context()).await.unwrap();
    store.enrol(&asked(id, n, n), &context()).await.unwrap().unwrap()
}

fn asked(enrollment: EnrollmentId, secret: u8, key: u8) -> EnrolAttempt {
    EnrolAttempt {
        enrollment,
        secret_sha256: [secret; 32],
        public_key_sha256: [key; 32],
        name: "dc-1.example.org".to_owned(),
        z_id: ZId::from_random(*Uuid::now_v7().as_bytes().last_chunk().unwrap()),
    }
}

#[derive(Debug, Default)]
struct Changes {
    revision: Revision,
    tunnels: usize,
    /// How they stand.
    shares: Vec<Status>,
    barred: Vec<AgentId>,
}

async fn changes(store: &Store, since: Revision) -> Changes {
    let mut seen = Changes::default();
    let take = |change| match change {
        Change::Tunnel(_) => seen.tunnels += 1,
        Change::Share(share) => seen.shares.push(share.standing.status),
        Change::Barred(agent) => seen.barred.push(agent),
        Change::Unbarred(_) => {}
    };
    let revision = store.changes(since, take).await.unwrap();
    Changes { revision, ..seen }
}

struct Site {
    frontdoor: FrontdoorId,
    tunnel: TunnelId,
    enrolled: EnrolledAgent,
}

impl Site {
    async fn new(store: &Store) -> Self {
        let frontdoor = frontdoor(store).await;
        let pools = LoadBalancerPools::ipsec();
        let tunnel = store.create_tunnel(frontdoor, &tunnel_spec(1), &pools, &context()).await.unwrap();
        Self { frontdoor, tunnel: tunnel.id, enrolled: enrolled(store, frontdoor, 1).await }
    }

    fn share(&self, name: &str, port: u16) -> ShareSpec {
        ShareSpec {
            tunnel: self.tunnel,
            environment: self.enrolled.environment,
            name: name.parse().unwrap(),
            target: "10.20.100.1:8443".parse().unwrap(),
            ingress_port: IngressPort::try_from(i64::from(port)).unwrap(),
            options: ShareOptions::default(),
            tags: Tags::new(),
        }
    }
}

fn settled(id: ShareId, generation: u64, status: Status) -> StatusUpdate {
    let problem = Problem::new(Reason::AgentOffline, "no agent is connected");
    StatusUpdate {
        resource: Resource::Share(id),
        generation: Generation::new(generation),
        standing: Standing {
            status,
            since: after(1),
            observed_generation: Some(Generation::new(generation)),
            detail: (status == Status::Error).then(|| Detail { problem, since: after(1) }),
        },
    }
}

#[test]
fn one_of_many_gets_a_port() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let tries: Vec<_> = (0..32)
            .map(|n| {
                let (store, spec) = (store.clone(), site.share(&format!("share-{n}"), 8443));
                let frontdoor = site.frontdoor;
                tokio::spawn(async move { store.create_share(frontdoor, &spec, &context()).await })
            })
            .collect();
        let mut won = Vec::new();
        let mut lost = Vec::new();
        for each in tries {
            match each.await.unwrap() {
                Ok(share) => won.push(share.id.to_string()),
                Err(StoreError::Conflict { property: "ingressPort", with }) => lost.extend(with),
                Err(e) => panic!("{e:?}"),
            }
        }
        assert_eq!((won.len(), lost.len()), (1, 31));
        assert!(lost.iter().all(|id| *id == won[0]));
        // What lost left nothing: no row, no execution.
        let executions = store.executions(site.frontdoor, &ALL).await.unwrap();
        let creates = executions.rows.iter().filter(|e| e.resource.starts_with("shr-")).count();
        assert_eq!(creates, 1);
    });
}

#[test]
fn names_ports_and_peers_are_taken_until_deleted() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let create = |spec| {
            let (store, frontdoor) = (&store, site.frontdoor);
            async move { store.create_share(frontdoor, &spec, &context()).await }
        };
        let first = create(site.share("a", 1)).await.unwrap();
        let id = Some(first.id.to_string());
        assert!(
            matches!(create(site.share("a", 2)).await, Err(StoreError::Conflict { property: "name", with }) if with == id)
        );
        store.delete_share(site.frontdoor, first.id, &context()).await.unwrap();
        // The gateway may still serve it.
        assert!(matches!(create(site.share("a", 2)).await, Err(StoreError::Conflict { .. })));
        assert!(matches!(
            store.delete_share(site.frontdoor, first.id, &context()).await,
            Err(StoreError::NotLive(Status::Deleting))
        ));
        store.update_statuses(&[settled(first.id, 2, Status::Deleted)]).await.unwrap();
        create(site.share("a", 1)).await.unwrap();
        let gone = store.share(site.frontdoor, first.id).await.unwrap().unwrap();
        assert_eq!((gone.standing.status, gone.deleted_at), (Status::Deleted, Some(after(1))));
        assert_eq!(store.shares(site.frontdoor, &ALL).await.unwrap().total, 1);

        let pools = LoadBalancerPools::ipsec();
        let mut same_peer = tunnel_spec(2);
        same_peer.peer_address = tunnel_spec(1).peer_address;
        let taken = store.create_tunnel(site.frontdoor, &same_peer, &pools, &context()).await;
        let own = Some(site.tunnel.to_string());
        assert!(matches!(taken, Err(StoreError::Conflict { property: "peerPublicIp", with }) if with == own));
        // Another Frontdoor learns that the address is taken, and not by whom.
        let other = frontdoor(&store).await;
        let taken = store.create_tunnel(other, &same_peer, &pools, &context()).await;
        assert!(matches!(taken, Err(StoreError::Conflict { property: "peerPublicIp", with: None })));
    });
}

#[test]
fn a_slot_is_the_lowest_that_is_free() {
    on_each(|store| async move {
        let frontdoor = frontdoor(&store).await;
        let pools = LoadBalancerPools::ipsec();
        let mut ids = Vec::new();
        for n in 1..=3 {
            let tunnel = store.create_tunnel(frontdoor, &tunnel_spec(n), &pools, &context()).await.unwrap();
            assert_eq!(u8::try_from(tunnel.slot).unwrap(), n - 1);
            ids.push(tunnel.id);
        }
        for id in &ids[..2] {
            let tunnel = store.delete_tunnel(frontdoor, *id, &context()).await.unwrap();
            let standing = Standing { status: Status::Deleted, ..tunnel.standing };
            let settlement =
                StatusUpdate { resource: Resource::Tunnel(*id), generation: tunnel.generation, standing };
            store.update_statuses(&[settlement]).await.unwrap();
        }
        for (n, slot) in [(4, 0), (5, 1), (6, 3)] {
            let tunnel = store.create_tunnel(frontdoor, &tunnel_spec(n), &pools, &context()).await.unwrap();
            assert_eq!(tunnel.slot, slot);
            assert_eq!(pools.address(slot, tunnel.peer_cidr), Some(tunnel.load_balancer_ip));
        }
    });
}

#[test]
fn a_new_key_leaves_the_old_one_for_a_while() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let pools = LoadBalancerPools::ipsec();
        let mut spec = tunnel_spec(1);
        spec.key = PreSharedKey::from_random([9; 32]);
        spec.peer_cidr = "100.64.0.0/10".parse().unwrap();
        let change = |expected| {
            let change = TunnelChange {
                expected: Generation::new(expected),
                spec: spec.clone(),
                previous_until: after(60),
                action: Action::Update,
            };
            let (store, pools) = (&store, &pools);
            async move { store.replace_tunnel(site.frontdoor, site.tunnel, &change, pools, &context()).await }
        };
        let tunnel = change(1).await.unwrap();
        let previous: Vec<_> = tunnel.previous_keys.valid(after(59)).cloned().collect();
        assert_eq!(previous, [(tunnel_spec(1).key, after(60))]);
        assert_eq!(tunnel.generation, Generation::new(2));
        // The site's network came to cover the load balancer's old address.
        assert_eq!(tunnel.load_balancer_ip.to_string(), "10.255.0.1");
        assert!(matches!(change(1).await, Err(StoreError::Stale)));
        assert_eq!(change(2).await.unwrap().previous_keys, tunnel.previous_keys);
        let connection = Connection::down(after(5));
        store.record_connections(&[(site.tunnel, connection.clone())], after(5)).await.unwrap();
        let read = store.tunnel(site.frontdoor, site.tunnel).await.unwrap().unwrap();
        assert_eq!(read.connection, Some(connection));
    });
}

#[test]
fn a_settlement_counts_for_its_generation_only() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let share = store.create_share(site.frontdoor, &site.share("a", 1), &context()).await.unwrap();
        let status = async || store.share(site.frontdoor, share.id).await.unwrap().unwrap().standing.status;
        store.update_statuses(&[settled(share.id, 1, Status::Error)]).await.unwrap();
        assert_eq!(status().await, Status::Error);
        store
            .replace_share(site.frontdoor, share.id, share.generation, &site.share("a", 2), &context())
            .await
            .unwrap();
        store.update_statuses(&[settled(share.id, 1, Status::Deployed)]).await.unwrap();
        assert_eq!(status().await, Status::New);
        store.update_statuses(&[settled(share.id, 2, Status::Deployed)]).await.unwrap();
        assert_eq!(status().await, Status::Deployed);
        store.delete_share(site.frontdoor, share.id, &context()).await.unwrap();
        for generation in [2, 3] {
            store.update_statuses(&[settled(share.id, generation, Status::Deployed)]).await.unwrap();
            assert_eq!(status().await, Status::Deleting);
        }
        store.update_statuses(&[settled(share.id, 3, Status::Deleted)]).await.unwrap();
        store.update_statuses(&[settled(share.id, 3, Status::Error)]).await.unwrap();
        assert_eq!(status().await, Status::Deleted);
        let executions = store.executions(site.frontdoor, &ALL).await.unwrap().rows;
        let of_share: Vec<_> = executions
            .iter()
            .filter(|e| e.resource == share.id.to_string())
            .map(|e| (e.action.as_str(), e.status.as_str(), e.message.as_deref()))
            .collect();
        assert_eq!(
            of_share,
            [
                ("CREATE", "FAILED", Some("AgentOffline: no agent is connected")),
                ("UPDATE", "SUCCESS", None),
                ("DELETE", "SUCCESS", None),
            ]
        );
    });
}

#[test]
fn changes_are_all_that_was_written_since() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let share = store.create_share(site.frontdoor, &site.share("a", 1), &context()).await.unwrap();
        let all = changes(&store, Revision::default()).await;
        assert_eq!((all.tunnels, all.shares.len(), all.barred.len()), (1, 1, 0));
        let none = changes(&store, all.revision).await;
        assert_eq!((none.tunnels, none.shares.len(), none.revision), (0, 0, all.revision));
        store.update_statuses(&[settled(share.id, 1, Status::Deployed)]).await.unwrap();
        assert_eq!(changes(&store, all.revision).await.shares.len(), 0);

        store.delete_environment(site.frontdoor, site.enrolled.environment, &context()).await.unwrap();
        store.update_statuses(&[settled(share.id, 2, Status::Deleted)]).await.unwrap();
        let since = changes(&store, all.revision).await;
        assert_eq!(since.barred, [site.enrolled.agent]);
        assert_eq!(since.shares, [Status::Deleted]);
        let again = changes(&store, Revision::default()).await;
        assert_eq!((again.shares.len(), again.barred.len()), (0, 1));
        assert!(store.environment(site.frontdoor, site.enrolled.environment).await.unwrap().is_none());
    });
}

#[test]
fn nothing_live_may_be_named_or_taken_away() {
    on_each(|store| async move {
        let site = Site::new(&store).await;
        let share = store.create_share(site.frontdoor, &site.share("a", 1), &context()).await.unwrap();
        let used = store.delete_tunnel(site.frontdoor, site.tunnel, &context()).await;
        let is_first = |first: &str| first == share.id.to_string();
        assert!(matches!(used, Err(StoreError::HasShares { count: 1, first }) if is_first(&first)));
        let other = frontdoor(&store).await;
        let foreign = store.create_share(other, &site.share("a", 1), &context()).await;
        assert!(matches!(foreign, Err(StoreError::Reference { property: "ipsecTunnelId" })));
        assert!(matches!(store.share(other, share.id).await, Ok(None)));
        assert!(matches!(store.delete_share(other, share.id, &context()).await, Err(StoreError::Missing)));
        store.delete_share(site.frontdoor, share.id, &context()).await.unwrap();
        store.delete_tunnel(site.frontdoor, site.tunnel, &context()).await.unwrap();
        let late = store.create_share(site.frontdoor, &site.share("b", 2), &context()).await;
        assert!(matches!(late, Err(StoreError::Reference { property: "ipsecTunnelId" })));
    });
}

#[test]
fn a_deleted_frontdoor_gains_nothing() {
    on_each(|store| async move {
        let frontdoor = frontdoor(&store).await;
        let id = EnrollmentId::new(Uuid::now_v7());
        let new =
            |id| NewEnrollment { id, environment: None, secret_sha256: [1; 32], expires_at: after(3600) };
        store.create_enrollment(frontdoor, &new(id), &context()).await.unwrap();
        store.delete_frontdoor(frontdoor, &context()).await.unwrap();
        let enrolled = store.enrol(&asked(id, 1, 1), &context()).await;
        assert!(matches!(enrolled, Err(StoreError::NoFrontdoor(f)) if f == frontdoor), "{enrolled:?}");
        let code =
            store.create_enrollment(frontdoor, &new(EnrollmentId::new(Uuid::now_v7())), &context()).await;
        assert!(matches!(code, Err(StoreError::NoFrontdoor(_))));
    });
}

#[test]
fn a_code_enrols_one_agent() {
    on_each(|store| async move {
        let frontdoor = frontdoor(&store).await;
        let code = async |environment| {
            let id = EnrollmentId::new(Uuid::now_v7());
            let new = NewEnrollment { id, environment, secret_sha256: [1; 32], expires_at: after(3600) };
            store.create_enrollment(frontdoor, &new, &context()).await.map(|()| id)
        };
        let enrol = async |id, secret, key, at| {
            store.enrol(&asked(id, secret, key), &WriteContext { at, ..context() }).await.unwrap()
        };
        let first = code(None).await.unwrap();
        assert_eq!(enrol(first, 2, 1, now()).await, Err(EnrolRefusal::WrongCode));
        // Anybody may ask: without a code that gets something, nothing is written.
        let before = changes(&store, Revision::default()).await.revision;
        assert_eq!(enrol(EnrollmentId::new(Uuid::now_v7()), 1, 1, now()).await, Err(EnrolRefusal::WrongCode));
        assert_eq!(enrol(first, 1, 1, after(3600)).await, Err(EnrolRefusal::Expired));
        assert_eq!(changes(&store, Revision::default()).await.revision, before);
        let agent = enrol(first, 1, 1, now()).await.unwrap();
        // The answer was lost: the same agent asks again, even late. Another one gets nothing.
        assert_eq!(enrol(first, 1, 1, after(7200)).await, Ok(agent.clone()));
        assert_eq!(enrol(first, 1, 2, now()).await, Err(EnrolRefusal::Used));
        let row = store.environment_by_z_id(frontdoor, &agent.z_id).await.unwrap().unwrap();
        assert_eq!((row.name.as_str(), row.active), ("dc-1", false));
        store.agent_connected(agent.agent, "dc-1", "0.1.0", [10, 0, 0, 1].into(), after(2)).await.unwrap();
        assert!(store.environment(frontdoor, agent.environment).await.unwrap().unwrap().active);

        let late = code(None).await.unwrap();
        assert_eq!(enrol(late, 1, 3, after(3600)).await, Err(EnrolRefusal::Expired));
        let guessed = code(None).await.unwrap();
        for _ in 0..5 {
            assert_eq!(enrol(guessed, 2, 3, now()).await, Err(EnrolRefusal::WrongCode));
        }
        assert_eq!(enrol(guessed, 1, 3, now()).await, Err(EnrolRefusal::TooManyTries));
        let replica = code(Some(agent.environment)).await.unwrap();
        let second = enrol(replica, 1, 4, now()).await.unwrap();
        assert_eq!((second.environment, second.z_id), (agent.environment, agent.z_id));
        assert_ne!(second.agent, agent.agent);
        store.bar_agent(frontdoor, agent.agent, &context()).await.unwrap();
        assert_eq!(enrol(first, 1, 1, now()).await, Err(EnrolRefusal::Barred));
        assert_eq!(store.agent_with_key(agent.agent, &[1; 32]).await.unwrap(), None);
        // As long as the agent lives its key is known, however old the code.
        store.prune(after(365 * 24 * 3600)).await.unwrap();
        let whose = store.agent_with_key(second.agent, &[4; 32]).await.unwrap();
        assert_eq!(whose, Some((frontdoor, agent.environment)));
        assert_eq!(store.agent_with_key(second.agent, &[1; 32]).await.unwrap(), None);
        assert!(!store.environment(frontdoor, agent.environment).await.unwrap().unwrap().active);
    });
}

#[test]
fn traffic_adds_up_at_every_resolution() {
    on_each(|store| async move {
        let tunnel = TunnelId::new(Uuid::now_v7());
        let (a, b) = (ShareId::new(Uuid::now_v7()), ShareId::new(Uuid::now_v7()));
        let delta = |share, rx, active| TrafficDelta {
            rx,
            tx: 2 * rx,
            connections: 1,
            active,
            ..TrafficDelta::new(share, tunnel)
        };
        for (second, deltas) in [
            (-3000, vec![delta(a, 7, 4)]),
            (-5, vec![delta(a, 10, 1), delta(b, 1, 2)]),
            (0, vec![delta(a, 3, 1)]),
        ] {
            store.record_traffic(after(second), &deltas).await.unwrap();
        }
        for period in [3600, 12 * 3600, 7 * 86_400] {
            let window = MetricsWindow::new(period, None, now()).unwrap();
            let sum = async |scope| {
                let samples = store.traffic(scope, &window).await.unwrap();
                assert_eq!(samples.len(), (period / window.step) as usize);
                assert!(samples.is_sorted_by_key(|s| s.timestamp));
                let total = |of: fn(&wicketgate_store::Sample) -> u64| samples.iter().map(of).sum::<u64>();
                (total(|s| s.rx), total(|s| s.tx), samples.iter().map(|s| s.active).max())
            };
            assert_eq!(sum(TrafficScope::Share(a)).await, (20, 40, Some(4)));
            assert_eq!(sum(TrafficScope::Share(b)).await, (1, 2, Some(2)));
            assert_eq!(sum(TrafficScope::Tunnel(tunnel)).await, (21, 42, Some(4)));
        }
        store.prune(after(7 * 3600)).await.unwrap();
        let old = MetricsWindow::new(86_400, None, after(7 * 3600)).unwrap();
        let kept = store.traffic(TrafficScope::Share(a), &old).await.unwrap();
        assert_eq!(kept.iter().map(|s| s.rx).sum::<u64>(), 20);
    });
}

#[test]
fn the_first_frontdoor_is_made_once() {
    on_each(|store| async move {
        let spec = FrontdoorSpec {
            organization: "default".to_owned(),
            default_namespace: "default".parse().unwrap(),
            ipsec_shares_enabled: true,
        };
        let first = store.ensure_first_frontdoor(&spec, &context()).await.unwrap().unwrap();
        assert!(store.ensure_first_frontdoor(&spec, &context()).await.unwrap().is_none());
        assert_eq!(
            store.frontdoors(&Reach::Organization("default".to_owned()), &ALL).await.unwrap().total,
            1
        );
        assert_eq!(store.frontdoors(&Reach::Organization("other".to_owned()), &ALL).await.unwrap().total, 0);
        store.delete_frontdoor(first.id, &context()).await.unwrap();
        assert!(store.frontdoor(first.id).await.unwrap().is_none());
        assert!(store.ensure_first_frontdoor(&spec, &context()).await.unwrap().is_none());
    });
}

#[tokio::test]
async fn a_sqlite_database_is_private_and_outlives_the_process() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("data with #signs?").join("wicketgate.db");
    let place = path.to_str().unwrap();
    let store = Store::open(place).await.unwrap();
    let site = Site::new(&store).await;
    let mode = |p: &std::path::Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for file in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
    store.close().await;
    let again = Store::open(place).await.unwrap();
    assert!(again.tunnel(site.frontdoor, site.tunnel).await.unwrap().is_some());
    again.close().await;
}
