//! Fixtures: an authority, a gateway's end, a server that answers enrolments, agents, targets.

use jiff::Timestamp;
use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;
use wicketgate_agent::{Config, NoCode, ProxyRule, allow::AllowList};
use wicketgate_authority::Ca;
use wicketgate_gateway::agents::{AgentPort, AgentStanding, Agents, DialFailure};
use wicketgate_link::{CertificateAnswer, FromGateway};
use wicketgate_model::{
    AgentDesired, AgentId, AgentReport, Assignment, EnrolGrant, EnrolRefusal, EnrollmentId, EnvironmentId,
    Era, FrontdoorId, GatewayId, Generation, IngressPort, ShareDesired, ShareId, SignedAssignment, TunnelId,
    ZId,
};
use wicketgate_transport::{
    abort::Abort,
    carrier::EarlyData,
    code::{EnrolmentCode, secret_hash},
    identity::{AgentIdentity, Identity},
    key::PrivateKey,
    relay::{Broken, Counters},
    reset_on_drop::ResetOnDrop,
    tls::GatewayIdentity,
};

/// The longest wait for one event. Only a failed test waits that long.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    timeout(SOON, wait).await.unwrap_or_else(|_| panic!("timed out waiting for {what}"))
}

pub(crate) struct Lab {
    pub(crate) gateway: GatewayId,
    pub(crate) ca: Arc<Ca>,
    pub(crate) agents: Agents,
    pub(crate) address: SocketAddr,
    pub(crate) environment: EnvironmentId,
    pub(crate) code: EnrolmentCode,
    pub(crate) seen: Arc<Seen>,
    /// Stops the gateway.
    pub(crate) drain: CancellationToken,
}

/// The messages that the server received.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) enrolled: Mutex<Vec<AgentId>>,
    /// What the server says of them.
    pub(crate) named: Mutex<Vec<(AgentId, AgentDesired)>>,
    pub(crate) connected: Mutex<Vec<AgentId>>,
    pub(crate) renewed: AtomicUsize,
    pub(crate) reports: Mutex<Vec<AgentReport>>,
}

/// The identity of a gateway of the authority.
pub(crate) fn gateway_identity(ca: &Ca) -> GatewayIdentity {
    identity_of(ca, GatewayId::new(Uuid::nil()))
}

fn identity_of(ca: &Ca, gateway: GatewayId) -> GatewayIdentity {
    let key = PrivateKey::generate().unwrap();
    let gateway = Identity::Gateway { gateway };
    let certificate = ca.issue(&gateway, &key.public_point(), Timestamp::now()).unwrap();
    GatewayIdentity::new(ca.certificate(), key, certificate).unwrap()
}

pub(crate) fn environment() -> EnvironmentId {
    EnvironmentId::new(Uuid::from_u128(7))
}

impl Lab {
    pub(crate) async fn new() -> Self {
        let ca = Arc::new(Ca::generate(Timestamp::now()).unwrap());
        let code = EnrolmentCode::generate(EnrollmentId::new(Uuid::from_u128(1)), ca.fingerprint()).unwrap();
        Self::at(ca, code, (GatewayId::new(Uuid::nil()), "127.0.0.1:0".parse().unwrap())).await
    }

    /// Another gateway of the same server, which knows the agents that have enrolled.
    pub(crate) async fn another(&self, n: u128, address: SocketAddr) -> Self {
        let gateway = GatewayId::new(Uuid::from_u128(n));
        let other = Self::at(Arc::clone(&self.ca), self.code.clone(), (gateway, address)).await;
        other.agents.name(&self.seen.named.lock().unwrap(), &[]);
        other
    }

    async fn at(ca: Arc<Ca>, code: EnrolmentCode, (gateway, address): (GatewayId, SocketAddr)) -> Self {
        let identity = identity_of(&ca, gateway);
        let (send, receive) = mpsc::channel(64);
        let (seen, drain) = (Arc::new(Seen::default()), CancellationToken::new());
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let agents = {
            let port = AgentPort::new(listener, identity);
            Agents::start(port, (send, watch::channel(0).1), drain.clone(), TaskTracker::new())
        };
        let answers = agents.clone();
        tokio::spawn(server(Arc::clone(&ca), code.clone(), receive, answers, Arc::clone(&seen)));
        Self { gateway, ca, agents, address, environment: environment(), code, seen, drain }
    }

    pub(crate) fn config(&self, state: &Path, code: Option<&EnrolmentCode>, allow: &[&str]) -> Config {
        Config {
            server: format!("https://{}", self.address).parse().unwrap(),
            code: code.cloned().ok_or(NoCode::NotGiven),
            state_dir: state.to_owned(),
            // Targets are on loopback.
            allow: watch::channel(allow_list(if allow.is_empty() { &["*:*"] } else { allow })).1,
            name: "lab".to_owned(),
            take_over: false,
            proxy: ProxyRule::Never,
            status_listen: None,
        }
    }

    pub(crate) fn start(&self, state: &Path, code: Option<&EnrolmentCode>, allow: &[&str]) -> RunningAgent {
        RunningAgent::new(self.config(state, code, allow))
    }

    pub(crate) fn share(&self, n: u128, generation: u64, target: SocketAddr) -> ShareDesired {
        self.signed(&self.assignment(n, generation, target))
    }

    pub(crate) fn assignment(&self, n: u128, generation: u64, target: SocketAddr) -> Assignment {
        Assignment {
            environment: self.environment,
            share: share_id(n),
            era: Era::FIRST,
            generation: Generation::new(generation),
            target: target.to_string().parse().unwrap(),
            health_check: None,
            name: None,
            expires_at: None,
        }
    }

    pub(crate) fn signed(&self, assignment: &Assignment) -> ShareDesired {
        let signed = self.ca.sign_assignment(assignment).unwrap();
        desired(assignment, signed, self.environment)
    }

    pub(crate) async fn standing(
        &self,
        n: u128,
        what: &str,
        fits: impl Fn(&AgentStanding) -> bool,
    ) -> AgentStanding {
        let wait = async {
            loop {
                let standing = self.agents.standing(share_id(n));
                if fits(&standing) {
                    return standing;
                }
                self.agents.changed().await;
            }
        };
        timeout(SOON, wait).await.unwrap_or_else(|_| {
            panic!("timed out waiting for {what}: {:?}", self.agents.standing(share_id(n)))
        })
    }

    pub(crate) async fn ready(&self, n: u128, generation: u64) -> AgentStanding {
        self.standing(n, "ready", |s| s.ready == Some(Generation::new(generation))).await
    }

    /// The `n`th report of an agent that the server was told.
    pub(crate) async fn report(&self, n: usize) -> AgentReport {
        let told = async {
            loop {
                if let Some(report) = self.seen.reports.lock().unwrap().get(n - 1) {
                    return report.clone();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon("a report", told).await
    }

    /// A client's connection through the gateway to the share's target.
    pub(crate) async fn connect(&self, n: u128) -> Result<Client, DialFailure> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (inner, from) = accepted.unwrap();
        let mut inner = ResetOnDrop::new(inner);
        let stream = self.agents.open(share_id(n), from, EarlyData::new(Vec::new(), inner.tcp())).await?;
        let bytes = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
        let counted = Arc::clone(&bytes);
        let relay = tokio::spawn(async move {
            let counters = Counters::of_bytes(&counted.0, &counted.1);
            stream.relay(inner, counters, None).await
        });
        Ok(Client { tcp: client.unwrap(), relay, bytes })
    }
}

pub(crate) struct Client {
    pub(crate) tcp: TcpStream,
    pub(crate) relay: JoinHandle<Result<(), Broken>>,
    pub(crate) bytes: Arc<(AtomicU64, AtomicU64)>,
}

impl Client {
    pub(crate) async fn end(self) -> Result<(), Broken> {
        drop(self.tcp);
        soon("the relay to end", self.relay).await.unwrap()
    }
}

pub(crate) struct RunningAgent {
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<anyhow::Result<()>>,
}

impl RunningAgent {
    pub(crate) fn new(config: Config) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(wicketgate_agent::run(config, stop.clone(), Abort::default()));
        Self { stop, task }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        soon("the agent to stop", self.task).await.unwrap().unwrap();
    }
}

pub(crate) fn allow_list(rules: &[&str]) -> Arc<AllowList> {
    Arc::new(AllowList::new(rules.iter().map(|r| r.parse().unwrap()).collect()))
}

pub(crate) fn share_id(n: u128) -> ShareId {
    ShareId::new(Uuid::from_u128(n))
}

pub(crate) fn desired(
    a: &Assignment,
    assignment: SignedAssignment,
    environment: EnvironmentId,
) -> ShareDesired {
    ShareDesired {
        id: a.share,
        generation: a.generation,
        tunnel: TunnelId::new(Uuid::nil()),
        environment,
        ingress_port: IngressPort::try_from(1).unwrap(),
        enabled: true,
        expires_at: None,
        options: wicketgate_model::ShareOptions::default(),
        assignment,
    }
}

/// What the server says of an agent that has enrolled with this key.
pub(crate) fn enrolled(public_point: &[u8]) -> AgentDesired {
    AgentDesired::Enrolled { environment: environment(), key_sha256: secret_hash(public_point) }
}

async fn server(
    ca: Arc<Ca>,
    code: EnrolmentCode,
    mut link: mpsc::Receiver<FromGateway>,
    agents: Agents,
    seen: Arc<Seen>,
) {
    let frontdoor = FrontdoorId::new(Uuid::nil());
    let mut used: Option<Vec<u8>> = None;
    let mut is_new = true;
    let issue = |agent, point: &[u8]| {
        let identity = Identity::Agent(AgentIdentity { frontdoor, environment: environment(), agent });
        ca.issue(&identity, point, Timestamp::now()).unwrap()
    };
    while let Some(message) = link.recv().await {
        match message {
            FromGateway::Enrol { request, ask, .. } => {
                let right =
                    ask.enrollment == code.id() && secret_hash(&ask.secret) == secret_hash(code.secret());
                let answer = if !right {
                    CertificateAnswer::Refused(EnrolRefusal::WrongCode)
                } else if used.as_ref().is_some_and(|key| *key != ask.public_key) {
                    CertificateAnswer::Refused(EnrolRefusal::Used)
                } else {
                    let agent = AgentId::new(Uuid::from_u128(100));
                    seen.enrolled.lock().unwrap().push(agent);
                    used = Some(ask.public_key.clone());
                    let named = (agent, enrolled(&ask.public_key));
                    seen.named.lock().unwrap().push(named);
                    agents.name(&[named], &[]);
                    CertificateAnswer::Granted(EnrolGrant {
                        agent,
                        environment: environment(),
                        frontdoor,
                        z_id: ZId::from_random([1; 10]),
                        certificate: issue(agent, &ask.public_key),
                        ca_certificate: ca.certificate().der().to_vec(),
                    })
                };
                agents.enrolled(request, answer);
            }
            FromGateway::Renew { request, ask } => {
                let certificate = issue(ask.agent, &ask.public_key);
                agents.renewed(request, CertificateAnswer::Granted(certificate));
                seen.renewed.fetch_add(1, Ordering::Relaxed);
            }
            FromGateway::ConnectedAgents { agents, is_all, .. } => {
                assert_eq!(is_all, std::mem::take(&mut is_new), "only the first one of a link names all");
                for about in agents {
                    assert_eq!((about.environment, about.name.as_str()), (environment(), "lab"));
                    seen.connected.lock().unwrap().push(about.agent);
                }
            }
            FromGateway::AgentReported { report, .. } => seen.reports.lock().unwrap().push(*report),
            FromGateway::AgentDisconnected(agent) => {
                seen.connected.lock().unwrap().retain(|a| *a != agent);
            }
            _ => {}
        }
    }
}

/// A target that echoes, and ends when its client has ended.
pub(crate) async fn echo() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, accepted) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&accepted);
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let (mut read, mut write) = tcp.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    (address, accepted)
}

/// Sends the bytes, shuts down the sending side, and reads to the end.
pub(crate) async fn exchange(tcp: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
    let (mut read, mut write) = tcp.split();
    let send = async {
        write.write_all(bytes).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let (_, n) = tokio::join!(send, read.read_to_end(&mut got));
    n.unwrap();
    got
}

/// An address without a listener.
pub(crate) async fn unused_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}
