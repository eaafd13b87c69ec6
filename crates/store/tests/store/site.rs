//! Fixtures: a Frontdoor with a tunnel and an agent.

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;
use wicketgate_model::{
    AgentDesired, AgentId, Detail, EnrollmentId, FrontdoorId, GatewayId, Generation, IngressPort,
    LoadBalancerPools, PreSharedKey, Problem, Reason, ShareId, Standing, Status, TunnelId, ZId,
};
use wicketgate_store::{
    AgentLink, Change, EnrolAttempt, EnrolledAgent, FrontdoorSpec, GatewayEpoch, ListRequest, NewEnrollment,
    NewGateway, PageRequest, Resource, Revision, ShareSpec, StatusUpdate, Store, TunnelSpec, WriteContext,
};

pub(crate) static ALL: ListRequest = ListRequest {
    page: PageRequest { number: 0, size: 1000 },
    sort: Vec::new(),
    filters: Vec::new(),
    kept_since: None,
    known: None,
};

pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

pub(crate) fn after(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

pub(crate) fn context() -> WriteContext {
    WriteContext::new("admin", now(), Uuid::now_v7)
}

pub(crate) fn tunnel_spec(n: u8) -> TunnelSpec {
    TunnelSpec::new(
        format!("site-{n}").parse().unwrap(),
        "local".parse().unwrap(),
        format!("203.0.113.{n}").parse().unwrap(),
        "172.31.0.0/16".parse().unwrap(),
        PreSharedKey::from_random([n; 32]),
    )
}

pub(crate) fn gateway() -> GatewayId {
    GatewayId::new(Uuid::nil())
}

/// The gateway in the server's process.
pub(crate) fn own_gateway(id: GatewayId) -> NewGateway {
    NewGateway { id, location: "local".parse().unwrap(), in_process: true }
}

/// Begins another link of its.
pub(crate) async fn epoch(store: &Store) -> GatewayEpoch {
    store.link_gateway(gateway(), now()).await.unwrap()
}

pub(crate) fn link(agent: AgentId) -> AgentLink {
    let (name, version) = ("dc-1".to_owned(), "0.1.0".to_owned());
    AgentLink { agent, name, version, address: [10, 0, 0, 1].into() }
}

pub(crate) async fn frontdoor(store: &Store) -> FrontdoorId {
    let spec = FrontdoorSpec {
        organization: "default".to_owned(),
        default_namespace: "default".parse().unwrap(),
        ipsec_shares_enabled: true,
        quotas: Default::default(),
    };
    store.register_gateway(&own_gateway(gateway()), now()).await.unwrap();
    store.create_frontdoor(&spec, &context()).await.unwrap().id
}

pub(crate) async fn enrolled(store: &Store, frontdoor: FrontdoorId, n: u8) -> EnrolledAgent {
    let id = EnrollmentId::new(Uuid::now_v7());
    let new = NewEnrollment { id, environment: None, secret_sha256: [n; 32], expires_at: after(3600) };
    store.create_enrollment(frontdoor, &new, &context()).await.unwrap();
    store.enrol(&asked(id, n, n), &context()).await.unwrap().unwrap()
}

pub(crate) fn asked(enrollment: EnrollmentId, secret: u8, key: u8) -> EnrolAttempt {
    EnrolAttempt {
        enrollment,
        secret_sha256: [secret; 32],
        public_key_sha256: [key; 32],
        name: "dc-1.example.org".to_owned(),
        z_id: ZId::from_random(*Uuid::now_v7().as_bytes().last_chunk().unwrap()),
    }
}

#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) revision: Revision,
    pub(crate) tunnels: usize,
    pub(crate) withdrawn: usize,
    /// Tunnels that have several places.
    pub(crate) several: usize,
    pub(crate) elsewhere: Vec<ShareId>,
    /// The statuses of the changed shares.
    pub(crate) shares: Vec<Status>,
    pub(crate) barred: Vec<AgentId>,
    /// Agents that may connect, with their keys.
    pub(crate) enrolled: Vec<(AgentId, [u8; 32])>,
}

pub(crate) async fn changes(store: &Store, since: Revision) -> Changes {
    changes_of(store, gateway(), since).await
}

pub(crate) async fn changes_of(store: &Store, gateway: GatewayId, since: Revision) -> Changes {
    let mut seen = Changes::default();
    let take = |change| match change {
        Change::Tunnel(_) => seen.tunnels += 1,
        Change::Share(share) => seen.shares.push(share.standing.status),
        Change::Withdrawn(_) => seen.withdrawn += 1,
        Change::Places { are_several, .. } => seen.several += usize::from(are_several),
        Change::Elsewhere(share) => seen.elsewhere.push(share),
        Change::Unreadable => {}
        Change::Agent(agent, AgentDesired::Barred) => seen.barred.push(agent),
        Change::Agent(agent, AgentDesired::Enrolled { key_sha256, .. }) => {
            seen.enrolled.push((agent, key_sha256));
        }
    };
    let revision = store.changes_of(gateway, since, take).await.unwrap();
    Changes { revision, ..seen }
}

pub(crate) struct Site {
    pub(crate) frontdoor: FrontdoorId,
    pub(crate) tunnel: TunnelId,
    pub(crate) enrolled: EnrolledAgent,
    /// Of its gateway's link.
    pub(crate) epoch: GatewayEpoch,
}

impl Site {
    pub(crate) async fn new(store: &Store) -> Self {
        let frontdoor = frontdoor(store).await;
        let pools = LoadBalancerPools::ipsec();
        let tunnel = store.create_tunnel(frontdoor, &tunnel_spec(1), &pools, &context()).await.unwrap();
        let (enrolled, epoch) = (enrolled(store, frontdoor, 1).await, epoch(store).await);
        Self { frontdoor, tunnel: tunnel.id, enrolled, epoch }
    }

    pub(crate) fn share(&self, name: &str, port: u16) -> ShareSpec {
        ShareSpec::new(
            self.tunnel,
            self.enrolled.environment,
            name.parse().unwrap(),
            "10.20.100.1:8443".parse().unwrap(),
            IngressPort::try_from(i64::from(port)).unwrap(),
        )
    }
}

pub(crate) fn settled(id: ShareId, generation: u64, status: Status) -> StatusUpdate {
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
