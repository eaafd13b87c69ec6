//! The gateway: receives the desired state from the server, and hands each part to the component that maintains it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
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
use tracing::{error, info, warn};
use wicketgate_link::{FromGateway, GatewayEnd, GatewayHello, LinkReceiver, RequestId, ToGateway, VERSIONS};
use wicketgate_model::{Desired, DesiredDelta, ShareDesired, ShareId, Touched, TunnelDesired, TunnelId};
use wicketgate_transport::abort::Abort;

use crate::{
    agents::Agents,
    capacity::Capacity,
    check::check,
    counters::Counters,
    ipsec::Backend,
    listener::{Limits, ShareState},
    observations::Observations,
    tunnel::{GatewayParts, TunnelInbox, TunnelTask},
};

/// How often traffic is reported. A crash loses at most this much.
const TRAFFIC_EVERY: Duration = Duration::from_secs(1);
/// How long agents may take to reconnect after the gateway's start before they are reported offline. Less than the time
/// for which a server keeps the status of a silent gateway's shares.
const AGENTS_BACK_WITHIN: Duration = Duration::from_secs(2);
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
    /// The maximum of tunnels; `None`: as many as the machine has memory and file descriptors for.
    pub max_tunnels: Option<u32>,
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
    /// Ends all connections.
    abort: Abort,
    drain: Duration,
}

impl Gateway {
    /// Starts to serve what arrives over the link.
    ///
    /// # Errors
    ///
    /// The link is closed, or the tunnels of an earlier run cannot be listed.
    pub async fn start(config: GatewayConfig, link: GatewayEnd) -> anyhow::Result<Self> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (connections, abort) = (TaskTracker::new(), Abort::default());
        let backend = Arc::new(config.backend);
        let agent_address =
            config.agent_listener.local_addr().context("cannot read the address of the agents' listener")?;
        let agents = Agents::start(
            config.agent_listener,
            config.identity,
            link.send.clone(),
            stop.clone(),
            tasks.clone(),
        );
        let capacity = Capacity::find(backend.public_address().is_some(), config.max_tunnels);
        let hello = GatewayHello {
            versions: VERSIONS,
            esp: backend.esp(),
            public_address: backend.public_address(),
            max_tunnels: capacity.tunnels,
        };
        info!(esp = %hello.esp, public_address = ?hello.public_address, agents = %agent_address, "gateway started");
        backend.advise();
        link.send.send(FromGateway::Hello(hello)).await.context("the server's end of the link is gone")?;

        let left_over = backend.left_over().await.context("cannot list the tunnels of an earlier run")?;
        let limits = Limits::of(capacity.connections);
        info!(
            connections = limits.gateway,
            tunnel = limits.tunnel,
            share = limits.share,
            "limits of connections, from the limit of open files"
        );
        if let Some(tunnels) = capacity.tunnels {
            info!(tunnels, "maximum of tunnels");
        }
        let most = capacity.tunnels.and_then(|t| usize::try_from(t).ok()).unwrap_or(Semaphore::MAX_PERMITS);
        let observations = Arc::new(Observations::default());
        let counters = Arc::new(Counters::default());
        let parts = GatewayParts {
            backend: Arc::clone(&backend),
            agents: agents.clone(),
            observations: Arc::clone(&observations),
            counters: Arc::clone(&counters),
            quota: Arc::default(),
            tunnel_permits: Arc::new(Semaphore::new(most)),
            max_tunnels: most,
            limits,
            tasks: tasks.clone(),
            stop: stop.clone(),
            connections: connections.clone(),
            abort: abort.clone(),
        };
        let applier = DesiredApplier {
            parts,
            link: link.send.clone(),
            desired: Desired::default(),
            tunnels: BTreeMap::new(),
            share_states: BTreeMap::new(),
        };
        tasks.spawn(stop.clone().run_until_cancelled_owned(applier.run(link.receive, left_over)));
        tasks.spawn(stop.clone().run_until_cancelled_owned({
            let observations = Arc::clone(&observations);
            async move {
                tokio::time::sleep(AGENTS_BACK_WITHIN).await;
                observations.agents_expected();
            }
        }));
        tasks.spawn(stop.clone().run_until_cancelled_owned(report(
            observations,
            agents.clone(),
            link.send.clone(),
        )));
        tasks.spawn(report_traffic(counters, agents, link.send.clone(), abort.token().clone()));
        let drain = config.drain;
        Ok(Self { agent_address, backend, link: link.send, tasks, stop, connections, abort, drain })
    }

    /// The address that agents dial, with the port that the system chose if it was 0.
    pub fn agent_address(&self) -> SocketAddr {
        self.agent_address
    }

    /// What remote sites dial; `None` without IPsec.
    pub fn public_address(&self) -> Option<Ipv4Addr> {
        self.backend.public_address()
    }

    /// Stops serving: refuses new connections, waits for established ones until the drain time ends or `at_once` is
    /// ready, and aborts the rest. Namespaces and IKE daemons stay for the next start. Without tunnels, nothing is
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
        tokio::select! {
            () = self.connections.wait() => {}
            () = tokio::time::sleep(self.drain) => {}
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
async fn report_traffic(
    counters: Arc<Counters>,
    agents: Agents,
    send: mpsc::Sender<FromGateway>,
    end: CancellationToken,
) {
    let mut told = None;
    let mut tick = tokio::time::interval(TRAFFIC_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let stopping = tokio::select! {
            _ = tick.tick() => false,
            () = end.cancelled() => true,
        };
        // Counters are taken only once the link has capacity for them.
        let Ok(place) = send.reserve().await else { return };
        let carried = counters.take();
        if !carried.is_empty() {
            place.send(FromGateway::Traffic(carried));
        }
        let parked = agents.parked();
        // Without capacity, the next tick reports it.
        if told != Some(parked)
            && let Ok(place) = send.try_reserve()
        {
            place.send(FromGateway::Carriers { parked });
            told = Some(parked);
        }
        if stopping {
            return;
        }
    }
}

/// Applies the desired state that arrives over the link.
struct DesiredApplier {
    parts: GatewayParts,
    /// For answers.
    link: mpsc::Sender<FromGateway>,
    desired: Desired,
    tunnels: BTreeMap<TunnelId, Arc<TunnelInbox>>,
    share_states: BTreeMap<ShareId, Arc<ShareState>>,
}

impl DesiredApplier {
    async fn run(mut self, mut receive: LinkReceiver<ToGateway>, left_over: Vec<TunnelId>) {
        let mut left_over = Some(left_over);
        while let Some(message) = receive.recv().await {
            match message {
                ToGateway::Hello(versions) => {
                    if let Err(error) = VERSIONS.common(versions) {
                        error!(%error, "the link to the server is refused");
                        break;
                    }
                }
                ToGateway::Desired { sequence, delta } => {
                    let reset = delta.reset;
                    let steps = if reset { self.steps_to(&delta) } else { delta };
                    self.apply(&steps);
                    if let Some(found) = reset.then(|| left_over.take()).flatten() {
                        self.remove_left_over(found);
                    }
                    self.parts.observations.heard(sequence, reset);
                }
                ToGateway::Check { request, share } => self.check(request, share),
                ToGateway::Agents { request, agents } => {
                    let agents = self.parts.agents.shares(&agents);
                    // A full link means that the server is busy; it stops waiting by itself.
                    let _ = self.link.try_send(FromGateway::Agents { request, agents });
                }
                ToGateway::Enrolled { request, answer } => self.parts.agents.enrolled(request, answer),
                ToGateway::Renewed { request, answer } => self.parts.agents.renewed(request, answer),
            }
        }
        // The data plane does not need the control plane: it keeps serving.
        warn!("the link to the server ended; the gateway keeps serving its last desired state");
        std::future::pending::<()>().await;
    }

    fn check(&self, request: RequestId, share: ShareId) {
        let (observations, agents) = (Arc::clone(&self.parts.observations), self.parts.agents.clone());
        let (stop, link) = (self.parts.stop.clone(), self.link.clone());
        self.parts.tasks.spawn(stop.run_until_cancelled_owned(async move {
            let check = check(&observations, &agents, share).await;
            let _ = link.send(FromGateway::Checked { request, check }).await;
        }));
    }

    /// Turns a complete desired state into the difference to the current one.
    fn steps_to(&self, reset: &DesiredDelta) -> DesiredDelta {
        let mut after = Desired::default();
        after.apply(reset);
        let touched = Touched {
            tunnels: self.desired.tunnels.keys().chain(after.tunnels.keys()).copied().collect(),
            shares: self.desired.shares.keys().chain(after.shares.keys()).copied().collect(),
        };
        after.since(&self.desired, &touched)
    }

    fn apply(&mut self, steps: &DesiredDelta) {
        for agent in &steps.barred {
            self.parts.agents.bar(*agent);
        }
        for agent in &steps.unbarred {
            self.parts.agents.unbar(*agent);
        }
        let new: Vec<_> =
            steps.tunnels.iter().filter_map(|t| self.set_tunnel(t.id, Some(Arc::clone(t)))).collect();
        for share in &steps.shares {
            self.set_share(share);
        }
        // Spawned after their shares are known: a tunnel of an earlier run listens before its daemon has answered.
        for task in new {
            self.parts.tasks.spawn(task.run());
        }
        for id in &steps.removed_shares {
            self.parts.agents.withdraw(*id);
            if let Some(state) = self.share_states.remove(id) {
                state.abort();
            }
            match self.desired.shares.get(id).map(|old| (old.tunnel, self.tunnels.get(&old.tunnel))) {
                Some((_, Some(inbox))) => inbox.set_share(*id, None),
                Some((tunnel, None)) => self.parts.observations.remove_share(*id, tunnel),
                None => {}
            }
        }
        for id in &steps.removed_tunnels {
            if let Some(inbox) = self.tunnels.remove(id) {
                inbox.set_tunnel(None);
            }
        }
        self.desired.apply(steps);
    }

    /// Returns the task of a new tunnel, to be spawned.
    fn set_tunnel(&mut self, id: TunnelId, tunnel: Option<Arc<TunnelDesired>>) -> Option<TunnelTask> {
        self.parts.observations.expect_tunnel(id, Timestamp::now());
        if let Some(inbox) = self.tunnels.get(&id) {
            inbox.set_tunnel(tunnel);
            return None;
        }
        // Permits are taken in the order in which tunnels arrive: after a restart, the oldest first. A tunnel that is
        // only to be removed needs none.
        let place =
            tunnel.as_ref().and_then(|_| Arc::clone(&self.parts.tunnel_permits).try_acquire_owned().ok());
        // The inbox is filled before the task starts: an empty one means that the tunnel is to be removed.
        let inbox = Arc::new(TunnelInbox::default());
        inbox.set_tunnel(tunnel);
        let task = TunnelTask::new(id, Arc::clone(&inbox), self.parts.clone(), place);
        self.tunnels.insert(id, inbox);
        // Shares that arrived before their tunnel.
        for share in self.desired.shares.values().filter(|share| share.tunnel == id) {
            self.serve(share);
        }
        Some(task)
    }

    fn set_share(&mut self, share: &Arc<ShareDesired>) {
        self.parts.observations.expect_share(share.id, share.tunnel);
        self.parts.agents.assign(share);
        let abort = &self.parts.abort;
        let state = self.share_states.entry(share.id).or_insert_with(|| ShareState::new(share.id, abort));
        // Before the observations can report this generation as served.
        state.set_options(&share.options);
        if let Some(old) = self.desired.shares.get(&share.id).filter(|old| old.tunnel != share.tunnel)
            && let Some(inbox) = self.tunnels.get(&old.tunnel)
        {
            // Its connections continue: they end with the share, or by themselves.
            inbox.set_share(share.id, None);
        }
        self.serve(share);
    }

    /// Hands a share to its tunnel's task. A share that arrives before its tunnel waits for it.
    fn serve(&self, share: &Arc<ShareDesired>) {
        if let (Some(inbox), Some(state)) =
            (self.tunnels.get(&share.tunnel), self.share_states.get(&share.id))
        {
            inbox.set_share(share.id, Some((Arc::clone(share), Arc::clone(state))));
        }
    }

    /// Removes tunnels of an earlier run that are no longer desired.
    fn remove_left_over(&mut self, found: Vec<TunnelId>) {
        for id in found {
            if !self.tunnels.contains_key(&id) {
                info!(tunnel.id = %id, "removing a tunnel of an earlier run");
                if let Some(task) = self.set_tunnel(id, None) {
                    self.parts.tasks.spawn(task.run());
                }
                self.tunnels.remove(&id);
            }
        }
    }
}
