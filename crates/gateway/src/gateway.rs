//! The gateway: receives the desired state from the server, and hands each part to the component that maintains it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};
use uuid::Uuid;
use wicketgate_link::{FromGateway, GatewayHello, Handshake, ToGateway, VERSIONS};
use wicketgate_model::TunnelId;
use wicketgate_system::{PatientThreads, descriptor_budget::DescriptorBudget, essential};
use wicketgate_transport::abort::Abort;

use crate::{
    agents::{AgentPort, Agents},
    capacity::Capacity,
    desired_applier::DesiredApplier,
    desired_journal::DesiredJournal,
    ipsec::Backend,
    traffic_room::TrafficRoom,
    traffic_spool::TrafficSpool,
    tunnel::GatewayParts,
    uplink::{Dialler, FromApplier, LinkSource, NewLink, Uplink},
    watches::spawn_watches,
};

/// Messages that may wait for the task that hands them on.
const OUTGOING: usize = 16;
/// After the drain time, for what connections have received and the kernel still delivers. A slow line takes it in less.
const DELIVER_WITHIN: Duration = Duration::from_secs(5);
/// How long a stopping gateway waits for aborted connections to end.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// How a gateway starts.
#[derive(Debug)]
pub struct GatewayConfig {
    pub backend: Backend,
    /// Where agents dial in.
    pub agent_listener: TcpListener,
    /// The gateway's certificate and the CA that agents' certificates come from.
    pub identity: wicketgate_transport::tls::GatewayIdentity,
    /// What this process's descriptors are for.
    pub budget: DescriptorBudget,
    /// The maximum of tunnels; `None`: as many as the machine has memory and file descriptors for.
    pub max_tunnels: Option<u32>,
    /// New connections a second of each Frontdoor while several have tunnels here: what is more waits.
    pub connection_rate: NonZeroU32,
    /// How long established connections may continue after a stop.
    pub drain: Duration,
    /// The URL that agents dial, if it is not the listener's.
    pub agent_url: Option<String>,
    /// Where the desired state is kept; `None`: the server that knows it is in this process.
    pub journal: Option<DesiredJournal>,
    /// The file in which traffic waits that no server has recorded; `None`: it waits in memory only.
    pub traffic_file: Option<PathBuf>,
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    agent_url: Option<String>,
    backend: Arc<Backend>,
    link: mpsc::Sender<FromGateway>,
    tasks: TaskTracker,
    /// Cancelled when the gateway stops accepting new work.
    stop: CancellationToken,
    connections: TaskTracker,
    agents: Agents,
    /// Ends all connections.
    abort: Abort,
    drain: Duration,
}

impl Gateway {
    /// Starts to serve what arrives over the link.
    ///
    /// # Errors
    ///
    /// The address of the agents' listener cannot be read, the tunnels of an earlier run cannot be listed, or no thread starts.
    pub async fn start(config: GatewayConfig, source: LinkSource) -> anyhow::Result<Self> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (connections, abort) = (TaskTracker::new(), Abort::default());
        let backend = Arc::new(config.backend);
        let handshakes =
            PatientThreads::start("handshakes").context("cannot start the threads of handshakes")?;
        let agent_address =
            config.agent_listener.local_addr().context("cannot read the address of the agents' listener")?;
        let capacity = Capacity::find(&config.budget, backend.public_address().is_some(), config.max_tunnels);
        let agent_url = config.agent_url.or_else(|| url_of(agent_address, backend.public_address()));
        let hello = GatewayHello {
            versions: VERSIONS,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            boot: Uuid::now_v7(),
            held: None,
            agent_url: agent_url.clone(),
            esp: backend.esp(),
            public_address: backend.public_address(),
            max_tunnels: capacity.tunnels,
            namespaces: backend.namespaces(),
        };
        info!(esp = %hello.esp, public_address = hello.public_address.map(display), agents = %agent_address, "gateway started");
        backend.advise();
        let left_over = left_over(&backend).await?;
        let (number, links) = watch::channel(0);
        let Joined { send, begin } = join(source, hello);
        let room = TrafficRoom::new(capacity.traffic, config.connection_rate);
        let port = AgentPort {
            room: Arc::clone(&room),
            handshakes: usize::try_from(config.budget.handshakes)?,
            ..AgentPort::new(config.agent_listener, config.identity.computing_on(handshakes))
        };
        let agents = Agents::start(port, (send.clone(), links.clone()), stop.clone(), tasks.clone());
        log_limits(&room, capacity.tunnels, config.connection_rate);
        let most = capacity.tunnels.and_then(|t| usize::try_from(t).ok()).unwrap_or(Semaphore::MAX_PERMITS);
        let parts = GatewayParts {
            backend: Arc::clone(&backend),
            agents: agents.clone(),
            observations: Arc::default(),
            counters: Arc::default(),
            spool: Arc::new(config.traffic_file.map_or_else(TrafficSpool::default, TrafficSpool::load)),
            room,
            tunnel_permits: Arc::new(Semaphore::new(most)),
            max_tunnels: most,
            tasks: tasks.clone(),
            stop: stop.clone(),
            connections: connections.clone(),
            abort: abort.clone(),
        };
        let over = CancellationToken::new();
        spawn_watches(&parts, &send, (&links, over.clone()));
        let (back, from_applier) = mpsc::channel(1);
        let (new_links, arrived) = mpsc::channel(1);
        begin.spawn(&parts, (from_applier, new_links), (number, over));
        let applier = DesiredApplier::new(parts, send.clone(), back);
        let applier = config.journal.into_iter().fold(applier, DesiredApplier::with_journal);
        // Not cut by a stop: it hears until the end which traffic is recorded.
        tasks.spawn(essential("applies the desired state", applier.run(arrived, left_over)));
        let drain = config.drain;
        Ok(Self { agent_url, backend, link: send, tasks, stop, connections, agents, abort, drain })
    }

    /// The URL that agents dial, if it was given, or follows from the address that the gateway listens on.
    pub fn agent_url(&self) -> Option<String> {
        self.agent_url.clone()
    }

    /// Stops serving: refuses new connections, waits for established ones until the drain time ends, and cuts the rest when
    /// what they have received is delivered; at once when `at_once` is ready. Namespaces and IKE daemons stay for the next start. Without tunnels, nothing is
    /// left.
    pub async fn stop(self, at_once: impl Future<Output = ()>) {
        self.stop.cancel();
        // A server that has ended too needs no notice.
        let _ = tokio::time::timeout(STOP_WITHIN, self.link.send(FromGateway::Draining)).await;
        self.tasks.close();
        self.connections.close();
        if !self.connections.is_empty() {
            info!(connections = self.connections.len(), "waiting for established connections to end");
        }
        let ended = async {
            let _ = tokio::time::timeout(self.drain, self.connections.wait()).await;
            if !self.connections.is_empty() {
                warn!(connections = self.connections.len(), "the drain time is over: connections are cut");
            }
            self.agents.finish();
            let _ = tokio::time::timeout(DELIVER_WITHIN, self.connections.wait()).await;
        };
        tokio::select! {
            () = ended => {}
            () = at_once => {}
        }
        if !self.connections.is_empty() {
            warn!(connections = self.connections.len(), "connections aborted");
        }
        self.abort.trigger();
        if tokio::time::timeout(STOP_WITHIN, self.connections.wait()).await.is_err() {
            warn!("some connections did not end in time");
        }
        drop(self.link);
        if tokio::time::timeout(STOP_WITHIN, self.tasks.wait()).await.is_err() {
            warn!("some tasks did not end in time");
        }
        match self.backend.rest().await {
            Ok(0) => info!("gateway stopped"),
            Ok(tunnels) => info!(tunnels, "gateway stopped; its tunnels stay until `wicketgate down`"),
            Err(error) => warn!(%error, "gateway stopped; its firewall rules could not be removed"),
        }
    }
}

/// The tunnels of an earlier run.
async fn left_over(backend: &Backend) -> anyhow::Result<Vec<TunnelId>> {
    match backend.left_over().await {
        Ok(tunnels) => Ok(tunnels),
        Err(error) => {
            if let Err(error) = backend.rest().await {
                warn!(%error, "the gateway's firewall rules could not be removed: run `wicketgate down`");
            }
            Err(error).context("cannot list the tunnels of an earlier run")
        }
    }
}

/// The URL for agents, if it can be derived from the address that the gateway listens on.
fn url_of(listen: SocketAddr, public: Option<Ipv4Addr>) -> Option<String> {
    let ip = if listen.ip().is_unspecified() { public?.into() } else { listen.ip() };
    Some(format!("https://{}", SocketAddr::new(ip, listen.port())))
}

fn log_limits(room: &TrafficRoom, tunnels: Option<u32>, connection_rate: NonZeroU32) {
    let limits = room.limits();
    info!(
        connections = limits.gateway,
        tunnel = limits.tunnel,
        share = limits.share,
        ports = room.most_listeners(),
        "limits of connections and of ports of shares, from the limit of open files"
    );
    info!(connection_rate, "new connections a second of each Frontdoor, while several have tunnels here");
    if let Some(tunnels) = tunnels {
        info!(tunnels, "maximum of tunnels");
    }
}

/// What components send to, and what brings links.
struct Joined {
    send: mpsc::Sender<FromGateway>,
    begin: Begin,
}

enum Begin {
    InProcess(Handshake<ToGateway>),
    Network { dialler: Dialler, hello: Box<GatewayHello>, outgoing: mpsc::Receiver<FromGateway> },
}

fn join(source: LinkSource, hello: GatewayHello) -> Joined {
    match source {
        LinkSource::InProcess(end) => {
            let (send, handshake) = end.open(hello);
            Joined { send, begin: Begin::InProcess(handshake) }
        }
        LinkSource::Network(dialler) => {
            let (send, outgoing) = mpsc::channel(OUTGOING);
            let begin = Begin::Network { dialler: *dialler, hello: Box::new(hello), outgoing };
            Joined { send, begin }
        }
    }
}

impl Begin {
    fn spawn(
        self,
        parts: &GatewayParts,
        (applier, links): (mpsc::Receiver<FromApplier>, mpsc::Sender<NewLink>),
        (number, over): (watch::Sender<u64>, CancellationToken),
    ) {
        match self {
            Self::InProcess(handshake) => {
                let only = async move {
                    match handshake.finish().await {
                        Ok((hello, messages)) => {
                            let _ = links.send(NewLink { era: hello.era, messages }).await;
                        }
                        Err(error) => error!(%error, "the link to the server cannot be opened"),
                    }
                    // Kept until the gateway stops: there is no other link.
                    let _kept = (applier, number);
                    std::future::pending::<()>().await;
                };
                parts.tasks.spawn(parts.stop.clone().run_until_cancelled_owned(only));
            }
            Self::Network { dialler, hello, outgoing } => {
                let uplink = Uplink {
                    dialler,
                    hello: *hello,
                    outgoing,
                    applier,
                    ready: None,
                    links,
                    number,
                    observations: Arc::clone(&parts.observations),
                    agents: parts.agents.clone(),
                    spool: Arc::clone(&parts.spool),
                    over,
                };
                parts.tasks.spawn(essential("links to servers", uplink.run()));
            }
        }
    }
}
