//! The gateway: receives the desired state from the server, and hands each part to the component that maintains it.

use std::{
    collections::BTreeSet,
    mem,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use jiff::Timestamp;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
    time::MissedTickBehavior,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};
use wicketgate_link::{FromGateway, GatewayEnd, GatewayHello, VERSIONS};
use wicketgate_system::{PatientThreads, descriptor_budget::DescriptorBudget, essential};
use wicketgate_transport::abort::Abort;

use crate::{
    agents::{AgentPort, Agents},
    capacity::Capacity,
    desired_applier::DesiredApplier,
    ipsec::Backend,
    observations::Observations,
    traffic_room::TrafficRoom,
    tunnel::GatewayParts,
};

/// How often traffic is reported. A crash loses at most this much.
const TRAFFIC_EVERY: Duration = Duration::from_secs(1);
/// How often the packets of unknown peers are counted: an operator who watches waits no longer than 5 s.
const UNKNOWN_PEERS_EVERY: Duration = Duration::from_secs(3);
/// How often it is looked whether an agent has reconnected after the gateway's start.
const AGENTS_LOOK_EVERY: Duration = Duration::from_millis(250);
/// Once so many looks in a row, two seconds, have found no new one, those that are missing are reported offline. Less than the time
/// for which a server keeps the status of a silent gateway's shares.
const AGENTS_QUIET: u32 = 8;
/// At most half a minute: agents that come and go must not hide for long that another one is missing.
const AGENTS_LOOKS: u32 = 120;
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
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    agent_address: SocketAddr,
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
    pub async fn start(config: GatewayConfig, link: GatewayEnd) -> anyhow::Result<Self> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (connections, abort) = (TaskTracker::new(), Abort::default());
        let backend = Arc::new(config.backend);
        let handshakes =
            PatientThreads::start("handshakes").context("cannot start the threads of handshakes")?;
        let agent_address =
            config.agent_listener.local_addr().context("cannot read the address of the agents' listener")?;
        let capacity = Capacity::find(&config.budget, backend.public_address().is_some(), config.max_tunnels);
        let hello = GatewayHello {
            versions: VERSIONS,
            esp: backend.esp(),
            public_address: backend.public_address(),
            max_tunnels: capacity.tunnels,
            namespaces: backend.namespaces(),
        };
        info!(esp = %hello.esp, public_address = hello.public_address.map(display), agents = %agent_address, "gateway started");
        backend.advise();
        let left_over = match backend.left_over().await {
            Ok(tunnels) => tunnels,
            Err(error) => {
                if let Err(error) = backend.rest().await {
                    warn!(%error, "the gateway's firewall rules could not be removed: run `wicketgate down`");
                }
                return Err(error).context("cannot list the tunnels of an earlier run");
            }
        };
        let (send, handshake) = link.open(hello);
        let room = TrafficRoom::new(capacity.traffic, config.connection_rate);
        let port = AgentPort {
            room: Arc::clone(&room),
            handshakes: usize::try_from(config.budget.handshakes)?,
            ..AgentPort::new(config.agent_listener, config.identity.computing_on(handshakes))
        };
        let agents = Agents::start(port, send.clone(), stop.clone(), tasks.clone());
        log_limits(&room, capacity.tunnels, config.connection_rate);
        let most = capacity.tunnels.and_then(|t| usize::try_from(t).ok()).unwrap_or(Semaphore::MAX_PERMITS);
        let parts = GatewayParts {
            backend: Arc::clone(&backend),
            agents: agents.clone(),
            observations: Arc::default(),
            counters: Arc::default(),
            spool: Arc::default(),
            room,
            tunnel_permits: Arc::new(Semaphore::new(most)),
            max_tunnels: most,
            tasks: tasks.clone(),
            stop: stop.clone(),
            connections: connections.clone(),
            abort: abort.clone(),
        };
        spawn_watches(&parts, &send);
        let applier = DesiredApplier::new(parts, send.clone());
        // Not cut by a stop: it hears until the end which traffic is recorded.
        tasks.spawn(essential("applies the desired state", applier.run(handshake, left_over)));
        let drain = config.drain;
        Ok(Self { agent_address, backend, link: send, tasks, stop, connections, agents, abort, drain })
    }

    /// The address that agents dial, with the port that the system chose if it was 0.
    pub fn agent_address(&self) -> SocketAddr {
        self.agent_address
    }

    /// What remote sites dial; `None` without IPsec.
    pub fn public_address(&self) -> Option<Ipv4Addr> {
        self.backend.public_address()
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

/// Starts the tasks that watch the host and report to the server.
fn spawn_watches(parts: &GatewayParts, link: &mpsc::Sender<FromGateway>) {
    let GatewayParts { observations, agents, tasks, stop, .. } = parts;
    let host = Arc::clone(&parts.backend);
    let watch_host = async move { host.watch_host().await };
    tasks.spawn(stop.clone().run_until_cancelled_owned(essential("watches the host", watch_host)));
    let expect_agents = {
        let (observations, agents) = (Arc::clone(observations), agents.clone());
        async move {
            let (mut connected, mut quiet) = (0, 0);
            for _ in 0..AGENTS_LOOKS {
                tokio::time::sleep(AGENTS_LOOK_EVERY).await;
                let before = mem::replace(&mut connected, agents.connected());
                quiet = if connected == before { quiet + 1 } else { 0 };
                if quiet == AGENTS_QUIET {
                    break;
                }
            }
            observations.agents_expected();
        }
    };
    tasks.spawn(stop.clone().run_until_cancelled_owned(expect_agents));
    let report = report(Arc::clone(observations), agents.clone(), link.clone());
    tasks.spawn(stop.clone().run_until_cancelled_owned(essential("reports what is observed", report)));
    let unknown_peers = report_unknown_peers(Arc::clone(&parts.backend), link.clone());
    tasks.spawn(stop.clone().run_until_cancelled_owned(unknown_peers));
    let unknown_agents = report_unknown_agents(agents.clone(), link.clone());
    tasks.spawn(stop.clone().run_until_cancelled_owned(unknown_agents));
    tasks.spawn(essential("reports the traffic", report_traffic(parts.clone(), link.clone())));
}

/// Reports who sends IKE and is no tunnel's peer.
async fn report_unknown_peers(backend: Arc<Backend>, send: mpsc::Sender<FromGateway>) {
    loop {
        tokio::time::sleep(UNKNOWN_PEERS_EVERY).await;
        if let Some(peers) = backend.unknown_peers().await
            && send.send(FromGateway::UnknownPeers(peers)).await.is_err()
        {
            return;
        }
    }
}

/// Reports which agents were refused because the server does not know them.
async fn report_unknown_agents(agents: Agents, send: mpsc::Sender<FromGateway>) {
    let mut told = Vec::new();
    loop {
        tokio::time::sleep(UNKNOWN_PEERS_EVERY).await;
        let unknown = agents.strangers();
        if unknown == told {
            continue;
        }
        told.clone_from(&unknown);
        if send.send(FromGateway::UnknownAgents(unknown)).await.is_err() {
            return;
        }
    }
}

/// Sends reports of the observations, as fast as the link takes them.
async fn report(observations: Arc<Observations>, agents: Agents, send: mpsc::Sender<FromGateway>) {
    loop {
        let changed = tokio::select! {
            () = observations.changed() => BTreeSet::new(),
            changed = agents.changed() => changed,
        };
        // Capacity of the link first: changes during the wait are in the same report.
        let Ok(place) = send.reserve().await else { return };
        let (heard, delta) = observations.report(&agents, changed);
        place.send(FromGateway::Observed { heard, delta });
    }
}

/// Reports traffic periodically, and once more at the end.
async fn report_traffic(parts: GatewayParts, send: mpsc::Sender<FromGateway>) {
    let GatewayParts { counters, spool, agents, abort, .. } = parts;
    let end = abort.token();
    let mut reported = None;
    let mut tick = tokio::time::interval(TRAFFIC_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let stopping = tokio::select! {
            _ = tick.tick() => false,
            () = spool.is_next_due() => false,
            () = end.cancelled() => true,
        };
        spool.add(counters.take(), Timestamp::now());
        let reports = if stopping { spool.rest() } else { spool.next().into_iter().collect() };
        for report in reports {
            if send.send(FromGateway::Traffic(report)).await.is_err() {
                return;
            }
        }
        let parked = agents.parked();
        // Without capacity, the next tick reports it.
        if reported != Some(parked)
            && let Ok(place) = send.try_reserve()
        {
            place.send(FromGateway::Carriers { parked });
            reported = Some(parked);
        }
        if stopping {
            return;
        }
    }
}
