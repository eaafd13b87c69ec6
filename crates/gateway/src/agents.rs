//! The gateway's side of agents: the agent port, the roster of connected agents, and their carriers.
//!
//! The rest of the gateway assigns shares, asks for their readiness, and opens streams. Invariant: a stream goes
//! through an agent of the share's environment that has acknowledged the share and that the server names.

mod admission;
mod allowance;
mod announce;
mod balancer;
mod carrier_pool;
mod certificate_requests;
mod control;
mod dial_failure;
mod duplicate;
mod enrol;
mod handshake_limits;
mod open;
mod operator_check;
mod pool_size;
mod roster;
mod stream;

pub use dial_failure::DialFailure;
pub use roster::AgentStanding;
pub use stream::Stream;

use handshake_limits::{HandshakeLimits, Permit};
use roster::{Admission, Roster};
use std::{
    collections::BTreeSet,
    fmt, mem,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc, watch},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;
use wicketgate_link::{AgentShares, FromGateway};
use wicketgate_model::{AgentId, EnvironmentId, ShareDesired, ShareId, SignedGatewayList};
use wicketgate_system::{Mutex, TurnsToCompute, accept::Acceptor, essential};
use wicketgate_transport::{
    abort::Abort,
    keepalive::keepalive,
    tls::{Accepted, GatewayIdentity},
};

use crate::traffic_room::{CONNECTION_RATE, TrafficRoom};

/// For a handshake: a round trip and a half, and a loaded agent.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// An idle connection to a vanished host is detected within three times this.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Where agents connect, and what they may take there.
#[derive(Debug)]
pub struct AgentPort {
    pub(crate) listener: TcpListener,
    pub(crate) identity: GatewayIdentity,
    pub(crate) room: Arc<TrafficRoom>,
    /// Connections without an identity at one time.
    pub(crate) handshakes: usize,
}

impl AgentPort {
    /// With room for any number of carriers.
    pub fn new(listener: TcpListener, identity: GatewayIdentity) -> Self {
        Self {
            listener,
            identity,
            room: TrafficRoom::new(usize::MAX, CONNECTION_RATE),
            handshakes: handshake_limits::MOST,
        }
    }
}

/// The connected agents. Cheap to clone.
#[derive(Clone)]
pub struct Agents(Arc<Inner>);

struct Inner {
    roster: Mutex<Roster>,
    room: Arc<TrafficRoom>,
    /// The readiness of a share may have changed.
    changed: Notify,
    /// An agent has connected or disconnected.
    moved: Notify,
    /// The server has named agents.
    named: Notify,
    /// When the log was last told of an agent that it does not name.
    warned: Mutex<Option<std::time::Instant>>,
    /// Agents with an expired certificate that the log was told of.
    told_expired: Mutex<BTreeSet<AgentId>>,
    identity: GatewayIdentity,
    link: mpsc::Sender<FromGateway>,
    requests: certificate_requests::CertificateRequests,
    handshake_limits: HandshakeLimits,
    /// Handshakes that are many do not delay the streams of others.
    handshake_turns: TurnsToCompute,
    drain: CancellationToken,
    tasks: TaskTracker,
    /// Cuts all streams once what they have read is delivered.
    finish: Abort,
    handshakes: AtomicU64,
}

impl Agents {
    /// Accepts agents until `drain` is cancelled, in tasks of `tasks`. `links` counts the links to servers, each of which is told of
    /// all agents.
    pub fn start(
        port: AgentPort,
        (link, links): (mpsc::Sender<FromGateway>, watch::Receiver<u64>),
        drain: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        let AgentPort { listener, identity, room, handshakes } = port;
        let agents = Self(Arc::new(Inner {
            roster: Mutex::new(Roster::default()),
            room,
            changed: Notify::new(),
            moved: Notify::new(),
            named: Notify::new(),
            warned: Mutex::default(),
            told_expired: Mutex::default(),
            identity,
            link,
            requests: certificate_requests::CertificateRequests::default(),
            handshake_limits: HandshakeLimits::new(handshakes),
            handshake_turns: TurnsToCompute::for_half(),
            drain,
            tasks,
            finish: Abort::default(),
            handshakes: AtomicU64::new(0),
        }));
        agents.0.tasks.spawn(essential("accepts agents", agents.clone().accept(listener)));
        let drain = agents.0.drain.clone();
        let announce = essential("announces agents", agents.clone().announce(links));
        agents.0.tasks.spawn(drain.clone().run_until_cancelled_owned(announce));
        let close = essential("closes ports", agents.clone().close_unreachable());
        agents.0.tasks.spawn(drain.clone().run_until_cancelled_owned(close));
        agents
            .0
            .tasks
            .spawn(drain.run_until_cancelled_owned(essential("looks at agents", agents.clone().rest())));
        agents
    }

    /// Assigns the share to the agents of its environment, including those that connect later.
    pub fn assign(&self, share: &ShareDesired) {
        self.with(|roster| roster.assign(share));
    }

    pub fn withdraw(&self, share: ShareId) {
        self.with(|roster| roster.withdraw(share));
    }

    /// Passes the lists of environments' gateways on to their agents, including those that connect later.
    pub fn set_gateways(&self, lists: Vec<(EnvironmentId, SignedGatewayList)>) {
        self.with(|roster| {
            for (environment, list) in lists {
                roster.set_gateways(environment, list);
            }
        });
    }

    /// Has all streams read nothing more, and cuts each when what it has read is delivered.
    pub fn finish(&self) {
        self.0.finish.trigger();
    }

    /// The readiness of the share, as its agents have reported it.
    pub fn standing(&self, share: ShareId) -> AgentStanding {
        self.with(|roster| roster.standing(share))
    }

    /// Whether the port of the share is open: it may be closed while no agent can serve the share.
    pub(crate) fn is_open(&self, share: ShareId) -> watch::Receiver<bool> {
        self.with(|roster| roster.is_open(share))
    }

    /// What the connected ones of these agents have reported about their shares.
    pub fn shares(&self, agents: &[AgentId]) -> Vec<AgentShares> {
        // New streams need the roster, too, so it is locked for one agent at a time.
        agents.iter().filter_map(|agent| self.with(|roster| roster.agent_shares(*agent))).collect()
    }

    /// The shortest round-trip time to an agent of the share's environment, as last measured.
    pub fn nearest(&self, share: ShareId) -> Option<Duration> {
        self.with(|roster| roster.nearest(share))
    }

    /// Waits until the readiness of shares may have changed, and returns those that changed since the last call.
    /// Cancel-safe; for one caller.
    pub async fn changed(&self) -> BTreeSet<ShareId> {
        loop {
            let changed = self.with(|roster| mem::take(&mut roster.changed));
            if !changed.is_empty() {
                return changed;
            }
            self.0.changed.notified().await;
        }
    }

    /// The number of parked carriers.
    pub(crate) fn parked(&self) -> usize {
        self.with(|roster| roster.sessions()).iter().map(|session| session.carriers.len()).sum()
    }

    /// Control connections that agents have made since the start.
    pub(crate) fn connected(&self) -> u64 {
        self.with(|roster| roster.connections())
    }

    /// TLS handshakes that succeeded since the start.
    pub fn handshakes(&self) -> u64 {
        self.0.handshakes.load(Ordering::Relaxed)
    }

    /// The only access to the roster. Wakes the tasks that wait for its changes.
    fn with<T>(&self, act: impl FnOnce(&mut Roster) -> T) -> T {
        let mut roster = self.0.roster.lock();
        let result = act(&mut roster);
        roster.elect();
        let (changed, moved) = (!roster.changed.is_empty(), !roster.moved.is_empty());
        drop(roster);
        if changed {
            self.0.changed.notify_one();
        }
        if moved {
            self.0.moved.notify_one();
        }
        result
    }

    /// Closes ports of shares whose targets stay unreachable, and looks at agents that catch up, until it is dropped.
    async fn close_unreachable(self) {
        loop {
            sleep(roster::CLOSE_EVERY).await;
            let now = std::time::Instant::now();
            self.with(|roster| {
                roster.close_unreachable(now);
                roster.look_at_progress(now);
            });
        }
    }

    /// Ends the use of shares without streams, and forgets duplicates, until it is dropped.
    async fn rest(self) {
        loop {
            sleep(roster::REST_EVERY).await;
            let now = std::time::Instant::now();
            self.with(|roster| {
                roster.rest(now);
                roster.forget_duplicates(now);
                roster.announce_waiting_reports();
            });
        }
    }

    async fn accept(self, listener: TcpListener) {
        let mut listener = Acceptor::new(listener, "agents");
        while let Some((tcp, address)) = self.0.drain.run_until_cancelled(listener.next()).await {
            let permit = self.0.handshake_limits.enter(address.ip());
            let lost = permit.lost.clone();
            // Boxed: a handshake is large, and each enclosing future holds it twice.
            let connection = Box::pin(self.clone().connection(tcp, address, permit));
            self.0.tasks.spawn(lost.run_until_cancelled_owned(connection));
        }
    }

    async fn connection(self, tcp: TcpStream, address: SocketAddr, mut permit: Permit) {
        let _ = tcp.set_nodelay(true);
        let _ = keepalive(&tcp, KEEPALIVE);
        let handshake = self.0.handshake_turns.of(self.0.identity.accept(tcp));
        let handshake = timeout(HANDSHAKE_WITHIN, handshake);
        let Some(accepted) = self.0.drain.run_until_cancelled(handshake).await else { return };
        let accepted = match accepted {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(error)) => {
                self.tell_expired();
                return debug!(%address, error = ?error, "an agent's handshake failed");
            }
            Err(_) => return debug!(%address, "an agent's handshake took too long"),
        };
        self.0.handshakes.fetch_add(1, Ordering::Relaxed);
        match accepted {
            // The permit is kept: a client that enrols has no identity yet.
            Accepted::Enrol(control) => {
                self.enrol(control, address.ip()).await;
                drop(permit);
            }
            // Its control connection was admitted before.
            Accepted::Carrier(agent, _) if self.admits(&agent) != Admission::Admitted => {
                debug!(agent.id = %agent.identity.agent, "rejected a carrier of an agent that is not admitted");
            }
            // The permit is kept until the agent's hello. Until it is admitted, a newer connection may displace it.
            Accepted::Control(agent, control) => match self.admission(&agent).await {
                Admission::Admitted if permit.authenticated(agent.identity.agent) => {
                    self.control(agent, control, address.ip(), permit).await;
                }
                Admission::Admitted => {
                    debug!(agent.id = %agent.identity.agent, "rejected an agent with too many connections without a hello");
                }
                why => self.turn_away(agent, why, (control, address.ip())).await,
            },
            Accepted::Carrier(agent, carrier) => {
                drop(permit);
                self.park(agent.identity.agent, carrier);
            }
        }
    }
}

impl fmt::Debug for Agents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Agents(…)")
    }
}
