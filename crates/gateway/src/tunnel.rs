//! One task per tunnel keeps what is as it is wished for: the IPsec side by its back end, the listeners of the
//! tunnel's shares itself. It compares, takes the steps that are missing, and tries again what failed.
//!
//! Invariant: a wake-up carries no data. The task reads the desired, whatever woke it.

mod inbox;
mod peer_log;
mod retry;

use std::{collections::BTreeMap, io, mem, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};
use wicketgate_model::{
    Connection, ConnectionState, Problem, Reason, ShareDesired, ShareId, TunnelDesired, TunnelId,
};

pub(crate) use inbox::TunnelInbox;
use inbox::{Change, ShareEntry};
use peer_log::PeerLog;
use retry::Retry;

use wicketgate_transport::abort::Abort;

use crate::{
    agents::Agents,
    counters::Counters,
    ipsec::{Backend, TunnelHandle},
    listener::{ConnectionContext, Limits, Listener},
    observations::{ListenerState, Observations},
    quota::ConnectionQuota,
};

/// How often what is is compared with the wish although nothing was heard: somebody may have removed it.
const CHECK_EVERY: Duration = Duration::from_secs(30);

/// What a tunnel's task works with.
#[derive(Debug, Clone)]
pub(crate) struct GatewayParts {
    pub(crate) backend: Arc<Backend>,
    pub(crate) agents: Agents,
    pub(crate) observations: Arc<Observations>,
    pub(crate) counters: Arc<Counters>,
    /// How many connections all tunnels have.
    pub(crate) taken: Arc<ConnectionQuota>,
    /// For tunnels, and how many there are in all.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) most_tunnels: usize,
    pub(crate) limits: Limits,
    pub(crate) tasks: TaskTracker,
    /// The gateway is stopping: the task ends, and leaves what is.
    pub(crate) stop: CancellationToken,
    /// Connections run here; they outlive the tunnel's own task.
    pub(crate) connections: TaskTracker,
    /// Ends them.
    pub(crate) abort: Abort,
}

/// See the module.
pub(crate) struct TunnelTask {
    id: TunnelId,
    inbox: Arc<TunnelInbox>,
    parts: GatewayParts,
    /// Without a place, nothing is set up, and what an earlier run set up is removed.
    place: Option<OwnedSemaphorePermit>,
    is_cleared: bool,
    taken: Arc<ConnectionQuota>,
    /// What the wish said when it was last read.
    shares: BTreeMap<ShareId, ShareEntry>,
    /// What the back end was last asked for, and when it is asked for it again.
    asked: Option<Arc<TunnelDesired>>,
    check_at: Instant,
    retry: Retry,
    /// The back end's tunnel, once it was there, and what stands in its way now.
    tunnel: Option<Arc<TunnelHandle>>,
    failure: Option<Problem>,
    listeners: BTreeMap<ShareId, Listener>,
    rebind: Retry,
    log: PeerLog,
}

impl TunnelTask {
    pub(crate) fn new(
        id: TunnelId,
        inbox: Arc<TunnelInbox>,
        parts: GatewayParts,
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            id,
            place,
            is_cleared: false,
            inbox,
            taken: Arc::default(),
            parts,
            shares: BTreeMap::new(),
            asked: None,
            check_at: Instant::now(),
            retry: Retry::default(),
            tunnel: None,
            failure: None,
            listeners: BTreeMap::new(),
            rebind: Retry::default(),
            log: PeerLog::default(),
        }
    }

    /// Runs until nothing is left of the tunnel, or the gateway stops.
    pub(crate) async fn run(mut self) {
        let stop = self.parts.stop.clone();
        stop.run_until_cancelled(async {
            loop {
                let (tunnel, changes) = self.inbox.read();
                self.take(changes).await;
                match tunnel {
                    Some(tunnel) if self.has_place() => self.serve(tunnel).await,
                    Some(tunnel) => {
                        self.say_it_is_full(&tunnel);
                        self.wait_for_a_place().await;
                        continue;
                    }
                    None if self.remove().await => return,
                    None => {}
                }
                self.wait().await;
            }
        })
        .await;
    }

    /// Waits for a reason to look again.
    async fn wait(&self) {
        let due = [Some(self.check_at), self.retry.at(), self.rebind.at()].into_iter().flatten().min();
        let changed = async {
            match &self.tunnel {
                Some(tunnel) => tunnel.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.inbox.woken() => {}
            () = changed => {}
            () = tokio::time::sleep_until(due.unwrap_or(self.check_at)) => {}
        }
    }

    /// Takes in the changes of the wish; what is not wished for any more is not listened for.
    async fn take(&mut self, changes: BTreeMap<ShareId, Change>) {
        for (id, change) in changes {
            match change {
                Some(entry) => {
                    self.shares.insert(id, entry);
                }
                None => {
                    self.shares.remove(&id);
                    if let Some(listener) = self.listeners.remove(&id) {
                        listener.close().await;
                    }
                    self.parts.observations.remove_share(id, self.id);
                }
            }
        }
    }

    fn has_place(&mut self) -> bool {
        if self.place.is_none() {
            self.place = Arc::clone(&self.parts.places).try_acquire_owned().ok();
        }
        self.place.is_some()
    }

    /// Waits for a place or a new desired, until it is time to try again to remove what is there: an earlier run may have had
    /// more places. Nobody would keep it as it is wished for, not even without the keys that are no more.
    async fn wait_for_a_place(&mut self) {
        if !self.is_cleared && self.retry.at().is_none_or(|at| at <= Instant::now()) {
            match self.parts.backend.remove(self.id).await {
                Ok(()) => {
                    self.is_cleared = true;
                    self.retry.worked();
                }
                Err(error) => {
                    warn!(tunnel.id = %self.id, %error, "tunnel without a place could not be removed yet");
                    self.retry.failed();
                }
            }
        }
        let again = self.retry.at();
        let places = Arc::clone(&self.parts.places);
        tokio::select! {
            place = places.acquire_owned() => self.place = place.ok(),
            () = self.inbox.woken() => {}
            () = tokio::time::sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
        }
    }

    fn say_it_is_full(&mut self, desired: &TunnelDesired) {
        let most = self.parts.most_tunnels;
        let full = format!(
            "the gateway holds {most} tunnels, and can't hold more: delete one, or give the gateway more memory, open \
             files, or --max-tunnels"
        );
        warn!(tunnel.id = %self.id, tunnel.name = %desired.name, most, "no room for a tunnel");
        self.refuse(desired, Problem::new(Reason::GatewayFull, full));
    }

    /// Shows what stands in the way of the tunnel, and with it of its shares.
    fn refuse(&mut self, desired: &TunnelDesired, problem: Problem) {
        let why = format!("the share's tunnel is not ready: {}", problem.message);
        self.show(desired, Some(problem));
        for id in self.shares.keys() {
            let problem = Some(Problem::new(Reason::TunnelNotReady, why.clone()));
            self.parts.observations.set_share(*id, ListenerState { tunnel: self.id, bound: None, problem });
        }
    }

    async fn serve(&mut self, desired: Arc<TunnelDesired>) {
        let now = Instant::now();
        // Compared as a whole: a key that expired is no new generation.
        let is_new = self.asked.as_ref() != Some(&desired);
        let is_due = self.retry.at().unwrap_or(self.check_at) <= now;
        if self.asked.is_none()
            && self.tunnel.is_none()
            && let Some(found) = self.parts.backend.found(&desired)
        {
            debug!(tunnel.id = %self.id, "tunnel was found standing");
            self.tunnel = Some(found);
            self.listen().await;
        }
        if is_new || is_due {
            self.check_at = now + CHECK_EVERY;
            match self.parts.backend.ensure(&desired).await {
                Ok(tunnel) => {
                    self.retry.worked();
                    self.failure = None;
                    self.use_tunnel(tunnel, &desired).await;
                }
                Err(problem) => {
                    warn!(tunnel.id = %self.id, problem = problem.message, "tunnel could not be set up");
                    self.retry.failed();
                    self.failure = Some(problem);
                }
            }
            self.asked = Some(Arc::clone(&desired));
        }
        let problem = self.failure.clone().or_else(|| self.tunnel.as_ref().and_then(|t| t.problem()));
        match problem {
            None => {
                self.show(&desired, None);
                self.listen().await;
            }
            Some(problem) => {
                self.rebind.worked();
                self.refuse(&desired, problem);
            }
        }
    }

    async fn use_tunnel(&mut self, tunnel: Arc<TunnelHandle>, desired: &TunnelDesired) {
        if self.tunnel.as_ref().is_none_or(|old| !Arc::ptr_eq(old, &tunnel)) {
            // Another namespace or address: listeners at the old one hear nothing any more.
            for listener in mem::take(&mut self.listeners).into_values() {
                listener.close().await;
            }
            info!(tunnel.id = %self.id, tunnel.name = %desired.name, "tunnel is ready");
        }
        self.tunnel = Some(tunnel);
    }

    /// Writes the tunnel's entry on the observations.
    fn show(&mut self, desired: &TunnelDesired, problem: Option<Problem>) {
        let connection = self.tunnel.as_ref().map(|tunnel| tunnel.connection().borrow().clone());
        self.parts.observations.update_tunnel(self.id, |seen| {
            if let Some(connection) = &connection {
                self.log.tell(self.id, &desired.name, &seen.connection, connection);
            }
            seen.ready = problem.is_none().then_some(desired.generation);
            seen.problem = problem;
            match connection {
                Some(connection) => seen.connection = connection,
                None if seen.connection.state == ConnectionState::Down => {}
                None => seen.connection = Connection::down(Timestamp::now()),
            }
        });
    }

    /// Binds what is not bound yet. A changed port is bound before the old one is released, unless shares exchange
    /// ports: then one has to let go first.
    async fn listen(&mut self) {
        let Some(tunnel) = self.tunnel.clone() else { return };
        let mut waiting = BTreeMap::new();
        for (id, (share, _)) in &self.shares {
            match self.listeners.get_mut(id) {
                Some(listener) if listener.port == share.ingress_port => {
                    listener.generation = share.generation
                }
                Some(_) | None => {
                    waiting.insert(*id, None);
                }
            }
        }
        loop {
            let before = waiting.len();
            for (id, problem) in mem::take(&mut waiting) {
                match self.bind(&tunnel, id) {
                    Some(Ok(listener)) => {
                        if let Some(old) = self.listeners.insert(id, listener) {
                            old.close().await;
                        }
                    }
                    Some(Err(error)) => {
                        waiting.insert(id, Some(error));
                    }
                    None => drop(problem),
                }
            }
            if waiting.is_empty() || (waiting.len() == before && !self.let_go(&waiting).await) {
                break;
            }
        }
        if waiting.is_empty() {
            self.rebind.worked();
        } else {
            self.rebind.failed();
        }
        for (id, (share, _)) in &self.shares {
            let bound = self.listeners.get(id).map(|listener| listener.generation);
            let problem = waiting.remove(id).flatten().map(|error| refused(share, &error));
            if let Some(problem) = &problem {
                warn!(share.id = %id, problem = problem.message, "share could not be bound");
            }
            self.parts.observations.set_share(*id, ListenerState { tunnel: self.id, bound, problem });
        }
    }

    fn bind(&self, tunnel: &TunnelHandle, id: ShareId) -> Option<io::Result<Listener>> {
        let (share, state) = self.shares.get(&id)?;
        let context = ConnectionContext {
            state: Arc::clone(state),
            counters: self.parts.counters.of(id, self.id),
            agents: self.parts.agents.clone(),
            limits: self.parts.limits,
            tunnel: Arc::clone(&self.taken),
            gateway: Arc::clone(&self.parts.taken),
            tasks: self.parts.tasks.clone(),
            connections: self.parts.connections.clone(),
        };
        let port = share.ingress_port;
        Some(
            tunnel
                .bind(port.get())
                .and_then(|socket| Listener::start(socket, port, share.generation, context)),
        )
    }

    /// Among shares that wait for each other's ports, makes one give up its old one.
    async fn let_go(&mut self, waiting: &BTreeMap<ShareId, Option<io::Error>>) -> bool {
        let wanted = |listener: &Listener| {
            waiting.keys().any(|id| self.shares.get(id).is_some_and(|(s, _)| s.ingress_port == listener.port))
        };
        let holder = waiting.keys().find(|id| self.listeners.get(id).is_some_and(wanted)).copied();
        let Some(listener) = holder.and_then(|id| self.listeners.remove(&id)) else { return false };
        listener.close().await;
        true
    }

    /// Removes the tunnel; `true` when nothing is left.
    async fn remove(&mut self) -> bool {
        for listener in mem::take(&mut self.listeners).into_values() {
            listener.close().await;
        }
        for id in mem::take(&mut self.shares).into_keys() {
            self.parts.observations.remove_share(id, self.id);
        }
        (self.tunnel, self.asked) = (None, None);
        self.rebind.worked();
        if self.retry.at().is_some_and(|at| at > Instant::now()) {
            return false;
        }
        self.check_at = Instant::now() + CHECK_EVERY;
        match self.parts.backend.remove(self.id).await {
            Ok(()) => {
                info!(tunnel.id = %self.id, "tunnel was removed");
                self.parts.observations.remove_tunnel(self.id);
                true
            }
            Err(error) => {
                warn!(tunnel.id = %self.id, %error, "tunnel could not be removed yet");
                let problem = Problem::new(Reason::TunnelFailed, error.to_string());
                self.parts.observations.update_tunnel(self.id, |seen| {
                    seen.ready = None;
                    seen.problem = Some(problem);
                });
                self.retry.failed();
                false
            }
        }
    }
}

fn refused(share: &ShareDesired, error: &io::Error) -> Problem {
    let port = share.ingress_port;
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            Problem::new(Reason::PortInUse, format!("another program holds port {port} of the load balancer"))
        }
        _ => Problem::new(Reason::ListenerFailed, format!("port {port} could not be bound: {error}")),
    }
}
