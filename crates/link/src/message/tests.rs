//! Every message with all fields set passes through the codec unchanged.

use super::*;
use crate::{Pending, VERSIONS, codec};
use std::collections::BTreeMap;
use wicketgate_model::{
    AgentDesired, AgentFinding, Connection, DialTimes, EnrollmentId, FailureReason, FindingResult,
    FrontdoorId, PreSharedKey, Reason, ShareDesired, ShareObserved, ShareOptions, SignedAssignment,
    TrafficDelta, TunnelDesired, TunnelId, TunnelObserved, ZId,
};

const KEY: &str = "a pre-shared key that nobody guesses";

fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

pub(crate) fn request() -> RequestId {
    Pending::<()>::new(1).call().unwrap().id()
}

fn problem() -> Problem {
    Problem::new(Reason::PortInUse, "the port is \"taken\"")
}

fn tunnel() -> TunnelDesired {
    TunnelDesired {
        id: TunnelId::new(uuid(1)),
        generation: Generation::new(3),
        frontdoor: Some(FrontdoorId::new(uuid(9))),
        name: "customer-a".parse().unwrap(),
        slot: 7,
        peer_address: "203.0.113.1".parse().unwrap(),
        peer_cidr: "172.31.0.0/16".parse().unwrap(),
        peer_id: "site-a.example".parse().unwrap(),
        load_balancer_ip: [100, 64, 0, 1].into(),
        keys: vec![KEY.parse().unwrap(), KEY.repeat(2).parse().unwrap()],
        previous_until: vec![Timestamp::UNIX_EPOCH],
        ike_proposals: Default::default(),
        esp_proposals: Default::default(),
        initiate: true,
        cut: Some(Generation::FIRST),
        enabled: false,
    }
}

fn held() -> HeldState {
    let read_at = Timestamp::UNIX_EPOCH;
    HeldState {
        era: Era::new(2),
        revision: 1233,
        read_at,
        digest: DesiredDigest([4; 32]),
        tunnels: 1,
        shares: 2,
    }
}

pub(crate) fn desired() -> DesiredDelta {
    let share = ShareDesired {
        id: ShareId::new(uuid(2)),
        generation: Generation::FIRST,
        tunnel: TunnelId::new(uuid(1)),
        environment: EnvironmentId::new(uuid(3)),
        ingress_port: 8443.try_into().unwrap(),
        enabled: false,
        expires_at: Some(Timestamp::UNIX_EPOCH),
        options: ShareOptions {
            allowed_sources: Some(vec!["172.31.1.0/24".parse().unwrap()].try_into().unwrap()),
            max_connections: Some(9.try_into().unwrap()),
            close_when_unserved: true,
            ..ShareOptions::default()
        },
        assignment: SignedAssignment { body: "{}".into(), signature: vec![0, 255] },
    };
    DesiredDelta {
        revision: 1234,
        read_at: Timestamp::MAX,
        digest: Some(DesiredDigest([3; 32])),
        reset: true,
        is_partial: true,
        tunnels: vec![Arc::new(tunnel())],
        shares: vec![Arc::new(share)],
        removed_tunnels: vec![TunnelId::new(uuid(4))],
        removed_shares: vec![ShareId::new(uuid(5))],
        agents: vec![
            (AgentId::new(uuid(6)), AgentDesired::Barred),
            (
                AgentId::new(uuid(8)),
                AgentDesired::Enrolled { environment: EnvironmentId::new(uuid(9)), key_sha256: [7; 32] },
            ),
        ],
        forgotten_agents: vec![AgentId::new(uuid(7))],
    }
}

pub(crate) fn observed() -> ObservedDelta {
    let tunnel = TunnelObserved {
        ready: Some(Generation::FIRST),
        problem: Some(problem()),
        connection: Connection::down(Timestamp::UNIX_EPOCH),
    };
    ObservedDelta {
        reset: true,
        as_desired: true,
        tunnels: vec![(TunnelId::new(uuid(1)), tunnel)],
        shares: vec![(ShareId::new(uuid(2)), ShareObserved { ready: None, problem: None })],
        gone_tunnels: vec![TunnelId::new(uuid(3))],
        gone_shares: vec![ShareId::new(uuid(4))],
    }
}

fn check(dialled: Result<AgentId, Problem>) -> ShareCheck {
    ShareCheck {
        tunnel: TunnelCheck { problem: Some(problem()), connection: None },
        refused: Some(problem()),
        closed: true,
        bound: Some(Generation::FIRST),
        listener_problem: Some(problem()),
        acknowledged: None,
        agent_problem: None,
        listener_took: Duration::from_nanos(1),
        agent_took: Some(Duration::from_millis(2)),
        dialled,
        failure: Some(FailureReason::DialTimeout),
        dial_took: Duration::from_secs(3),
        took: Duration::from_secs(4),
    }
}

pub(crate) fn agent_shares() -> AgentShares {
    let states = [
        AgentShareState::Serving,
        AgentShareState::Pending,
        AgentShareState::Refused("not allowed".into()),
        AgentShareState::Unreachable("connection refused".into()),
    ];
    let shares = (1..).map(|n| ShareId::new(uuid(n))).zip(states).collect();
    AgentShares { agent: AgentId::new(uuid(1)), shares, unanswered_since: None, clock_seconds_ahead: None }
}

fn report() -> AgentReport {
    let finding = AgentFinding {
        check: "clock".into(),
        subject: "the clock of this host".into(),
        result: FindingResult::Skip,
        message: "not told".into(),
    };
    AgentReport {
        os: "Debian".into(),
        open_files: Some(1024),
        name_servers: vec!["10.0.0.2".into()],
        findings: vec![finding],
    }
}

fn to_gateway() -> Vec<ToGateway> {
    let (request, agent) = (request(), AgentId::new(uuid(6)));
    let grant = EnrolGrant {
        agent,
        environment: EnvironmentId::new(uuid(3)),
        frontdoor: FrontdoorId::new(uuid(8)),
        z_id: ZId::from_random([1; 10]),
        certificate: vec![1, 2],
        ca_certificate: vec![3],
    };
    vec![
        ToGateway::Hello(ServerHello {
            versions: VERSIONS,
            epoch: 3,
            era: Era::new(2),
            servers: vec!["https://192.0.2.1:8444".to_owned()],
        }),
        ToGateway::Desired { sequence: 1, part: Part { number: 1, is_last: false }, delta: desired() },
        ToGateway::Desired { sequence: u64::MAX, part: Part::WHOLE, delta: DesiredDelta::default() },
        ToGateway::Check { request, share: ShareId::new(uuid(2)) },
        ToGateway::CloseConnections { request, share: ShareId::new(uuid(2)), source: None },
        ToGateway::CloseConnections {
            request,
            share: ShareId::new(uuid(2)),
            source: Some([10, 0, 0, 7].into()),
        },
        ToGateway::Reset { request, tunnel: tunnel().id, scope: ResetScope::Child, mode: ResetMode::Restart },
        ToGateway::IkeLog { request, tunnel: tunnel().id, after: 7 },
        ToGateway::Agents { request, agents: vec![agent] },
        ToGateway::Enrolled { request, answer: CertificateAnswer::Granted(grant) },
        ToGateway::Enrolled { request, answer: CertificateAnswer::Refused(EnrolRefusal::Used) },
        ToGateway::Enrolled { request, answer: CertificateAnswer::Unavailable },
        ToGateway::Renewed { request, answer: CertificateAnswer::Granted(vec![0, 9]) },
        ToGateway::RenewedOwn { request, certificate: Some(vec![0, 9]) },
        ToGateway::RenewedOwn { request, certificate: None },
        ToGateway::Servers(vec!["server-1.example:8444".to_owned()]),
        ToGateway::Refused(LinkRefusal::Unknown),
        ToGateway::Refused(LinkRefusal::Ended),
        ToGateway::TrafficRecorded { spool: uuid(11), number: u64::MAX },
        ToGateway::RemovalConfirmed { tunnels: vec![TunnelId::new(uuid(1))] },
    ]
}

fn from_gateway() -> Vec<FromGateway> {
    let (request, agent) = (request(), AgentId::new(uuid(6)));
    let failures = BTreeMap::from([(FailureReason::ShareFull, 2)]);
    let mut dials = DialTimes { micros: 5, ..DialTimes::default() };
    dials.counts[0] = 1;
    let carried = TrafficDelta {
        rx: u64::MAX,
        failures,
        dials,
        ..TrafficDelta::new(ShareId::new(uuid(2)), TunnelId::new(uuid(1)))
    };
    let hello = |esp| GatewayHello {
        versions: VERSIONS,
        version: "0.1.0".to_owned(),
        boot: uuid(12),
        held: Some(held()),
        agent_url: Some("https://203.0.113.9:8443".to_owned()),
        esp,
        public_address: Some([198, 51, 100, 7].into()),
        max_tunnels: Some(200),
        namespaces: Some("wicketgate-8812".to_owned()),
    };
    let connected = ConnectedAgent {
        agent,
        environment: EnvironmentId::new(uuid(3)),
        version: "0.1.0".into(),
        name: "dc-1".into(),
        address: "2001:db8::1".parse().unwrap(),
    };
    vec![
        FromGateway::Hello(hello(EspMode::Kernel)),
        FromGateway::Hello(hello(EspMode::Userland)),
        FromGateway::Hello(hello(EspMode::Off)),
        FromGateway::Observed { heard: 2, part: Part { number: 7, is_last: true }, delta: observed() },
        FromGateway::Resync,
        FromGateway::Doubtful { tunnels: vec![TunnelId::new(uuid(1))] },
        FromGateway::ConnectedAgents { agents: vec![connected], is_all: true, part: Part::WHOLE },
        FromGateway::AgentDisconnected(agent),
        FromGateway::AgentReported { agent, report: Box::new(report()) },
        FromGateway::Traffic {
            report: Arc::new(SpooledTraffic {
                spool: uuid(11),
                number: 7,
                at: Timestamp::UNIX_EPOCH,
                deltas: vec![carried],
            }),
            part: Part::WHOLE,
        },
        FromGateway::Carriers { parked: 8 },
        FromGateway::UnknownPeers(vec![unknown_peer()]),
        FromGateway::UnknownAgents(vec![unknown_agent()]),
        FromGateway::Draining,
        FromGateway::Enrol { request, ask: enrol(), source: Some([192, 0, 2, 9].into()) },
        FromGateway::RenewOwn { request, public_key: vec![4; 65] },
        FromGateway::Renew { request, ask: RenewRequest { agent, public_key: vec![4] } },
        FromGateway::Checked { request, check: Box::new(check(Ok(agent))) },
        FromGateway::Checked { request, check: Box::new(check(Err(problem()))) },
        FromGateway::ConnectionsClosed { request, closed: 3 },
        FromGateway::Reset { request, outcome: Ok("rekeyed".to_owned()) },
        FromGateway::Reset { request, outcome: Err("no answer".to_owned()) },
        FromGateway::IkeLog { request, lines: vec![ike_log_line()] },
        FromGateway::Agents {
            request,
            agents: vec![agent_shares()],
            part: Part { number: 1, is_last: false },
        },
    ]
}

fn ike_log_line() -> IkeLogLine {
    let (at, group, text) =
        (Timestamp::UNIX_EPOCH, "IKE".to_owned(), "IKE_SA tunnel[1] established".to_owned());
    IkeLogLine { number: 8, at, group, ike_sa: Some(1), text }
}

fn unknown_peer() -> UnknownPeer {
    let at = jiff::Timestamp::UNIX_EPOCH;
    let address = Ipv4Addr::new(192, 0, 2, 77);
    UnknownPeer { address, port: 500, packets: 3, first_seen_at: at, last_seen_at: at }
}

fn unknown_agent() -> UnknownAgent {
    let at = jiff::Timestamp::UNIX_EPOCH;
    UnknownAgent {
        agent: AgentId::new(uuid(1)),
        environment: EnvironmentId::new(uuid(2)),
        frontdoor: FrontdoorId::new(uuid(3)),
        key_sha256: [4; 32],
        name: "dc-1".into(),
        address: [192, 0, 2, 77].into(),
        first_seen_at: at,
        last_seen_at: at,
    }
}

fn enrol() -> EnrolRequest {
    EnrolRequest {
        enrollment: EnrollmentId::new(uuid(9)),
        secret: vec![201, 202, 203],
        public_key: vec![4; 65],
        name: "dc-1".into(),
    }
}

#[test]
fn every_message_survives_the_codec() {
    for message in to_gateway() {
        // A new message without an example does not compile here.
        match message {
            ToGateway::Hello(_)
            | ToGateway::Desired { .. }
            | ToGateway::Check { .. }
            | ToGateway::CloseConnections { .. }
            | ToGateway::IkeLog { .. }
            | ToGateway::Reset { .. }
            | ToGateway::Agents { .. }
            | ToGateway::Enrolled { .. }
            | ToGateway::Renewed { .. }
            | ToGateway::RenewedOwn { .. }
            | ToGateway::Servers(_)
            | ToGateway::Refused(_)
            | ToGateway::RemovalConfirmed { .. }
            | ToGateway::TrafficRecorded { .. } => {}
        }
        let bytes = codec::encode(&message).unwrap();
        assert_eq!(codec::decode::<ToGateway>(&bytes).unwrap(), message);
    }
    for message in from_gateway() {
        match message {
            FromGateway::Hello(_)
            | FromGateway::Observed { .. }
            | FromGateway::Resync
            | FromGateway::Doubtful { .. }
            | FromGateway::ConnectedAgents { .. }
            | FromGateway::AgentDisconnected(_)
            | FromGateway::AgentReported { .. }
            | FromGateway::Traffic { .. }
            | FromGateway::Carriers { .. }
            | FromGateway::UnknownPeers(_)
            | FromGateway::UnknownAgents(_)
            | FromGateway::Draining
            | FromGateway::Enrol { .. }
            | FromGateway::RenewOwn { .. }
            | FromGateway::Renew { .. }
            | FromGateway::Checked { .. }
            | FromGateway::ConnectionsClosed { .. }
            | FromGateway::IkeLog { .. }
            | FromGateway::Reset { .. }
            | FromGateway::Agents { .. } => {}
        }
        let bytes = codec::encode(&message).unwrap();
        assert_eq!(codec::decode::<FromGateway>(&bytes).unwrap(), message);
    }
    assert!(codec::decode::<FromGateway>(b"{\"Draining\":").is_err());
}

#[test]
fn secrets_are_sent_and_never_shown() {
    let key: PreSharedKey = KEY.parse().unwrap();
    let sent = ToGateway::Desired { sequence: 1, part: Part::WHOLE, delta: desired() };
    assert!(String::from_utf8(codec::encode(&sent).unwrap()).unwrap().contains(key.expose()));
    assert!(!format!("{sent:?}").contains(KEY));
    let asked = FromGateway::Enrol { request: request(), ask: enrol(), source: None };
    let shown = format!("{asked:?}");
    assert!(shown.contains("EnrolRequest") && !shown.contains("201"), "{shown}");
}
