//! One task per tunnel keeps what is as it is wished for: the IPsec side by its back end, the listeners of the
//! tunnel's shares itself. It compares, takes the steps that are missing, and tries again what failed.
//!
//! Invariant: a wake-up carries no data. The task reads the wish, whatever woke it.

use std::{
    collections::BTreeMap,
    io, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{sync::Notify, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};
use wicketgate_model::{
    Connection, Generation, IngressPort, Problem, Reason, ShareDesired, ShareId, TunnelDesired, TunnelId,
};

use crate::{
    agents::Agents,
    board::{Board, ListenerSeen},
    counters::Counters,
    ipsec::{Backend, Tunnel},
    listener::{Listener, Served},
};

/// After a failed step, the next try comes after a second, then twice as late each time, to this.
const RETRY_LONGEST: Duration = Duration::from_secs(15);
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// How often what is is compared with the wish although nothing was heard: somebody may have removed it.
const CHECK_EVERY: Duration = Duration::from_secs(30);

/// What one tunnel should be, as far as it was heard. Written by the gateway, read by the tunnel's task.
#[derive(Debug, Default)]
pub(crate) struct Wish {
    inner: Mutex<WishInner>,
    woken: Notify,
}

#[derive(Debug, Default)]
struct WishInner {
    tunnel: Option<Arc<TunnelDesired>>,
    /// Changes that the task has not taken yet.
    shares: BTreeMap<ShareId, ShareWish>,
}

#[derive(Debug)]
pub(crate) enum ShareWish {
    Serve(Arc<ShareDesired>),
    /// Another tunnel serves it now: connections that it has go on.
    Moved,
    /// Its connections end, too.
    Deleted,
}

impl Wish {
    /// `None`: nothing of the tunnel is to be left.
    pub(crate) fn set_tunnel(&self, tunnel: Option<Arc<TunnelDesired>>) {
        self.lock().tunnel = tunnel;
        self.woken.notify_one();
    }

    pub(crate) fn set_share(&self, id: ShareId, wish: ShareWish) {
        self.lock().shares.insert(id, wish);
        self.woken.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, WishInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a tunnel's task works with.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) backend: Arc<Backend>,
    pub(crate) agents: Agents,
    pub(crate) board: Arc<Board>,
    pub(crate) counters: Arc<Counters>,
    /// Connections run here; it outlives the tunnel's own task.
    pub(crate) tasks: TaskTracker,
    /// The gateway is stopping: the task ends, and leaves what is.
    pub(crate) stop: CancellationToken,
}

/// See the module.
pub(crate) struct TunnelTask {
    id: TunnelId,
    wish: Arc<Wish>,
    around: Surroundings,
    /// What the wish said when it was last read.
    shares: BTreeMap<ShareId, Arc<ShareDesired>>,
    /// The back end's tunnel, once it was ready, and the generation that it was made from.
    ready: Option<(Arc<Tunnel>, Generation)>,
    listeners: BTreeMap<ShareId, Listener>,
    retry: Option<(Instant, Duration)>,
}

impl TunnelTask {
    pub(crate) fn new(id: TunnelId, wish: Arc<Wish>, around: Surroundings) -> Self {
        Self {
            id,
            wish,
            around,
            shares: BTreeMap::new(),
            ready: None,
            listeners: BTreeMap::new(),
            retry: None,
        }
    }

    /// Runs until nothing is left of the tunnel, or the gateway stops.
    pub(crate) async fn run(mut self) {
        let stop = self.around.stop.clone();
        stop.run_until_cancelled(async {
            let mut check = true;
            loop {
                let (tunnel, changes) = {
                    let mut wish = self.wish.lock();
                    (wish.tunnel.clone(), mem::take(&mut wish.shares))
                };
                self.take(changes);
                match tunnel {
                    Some(tunnel) => self.serve(&tunnel, check).await,
                    None => {
                        if self.remove().await {
                            return;
                        }
                    }
                }
                check = self.wait().await;
            }
        })
        .await;
    }

    /// Waits for a reason to look again; `true` when the back end should be asked even if the wish is the same.
    async fn wait(&self) -> bool {
        let due = self.retry.map_or_else(|| Instant::now() + CHECK_EVERY, |(at, _)| at);
        let changed = async {
            match &self.ready {
                Some((tunnel, _)) => tunnel.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.wish.woken.notified() => false,
            () = changed => false,
            () = tokio::time::sleep_until(due) => true,
        }
    }

    /// Takes in the changes of the wish; what is not wished for any more ends here.
    fn take(&mut self, changes: BTreeMap<ShareId, ShareWish>) {
        for (id, wish) in changes {
            match wish {
                ShareWish::Serve(share) => {
                    self.shares.insert(id, share);
                }
                ShareWish::Moved | ShareWish::Deleted => {
                    self.shares.remove(&id);
                    if let Some(listener) = self.listeners.remove(&id)
                        && matches!(wish, ShareWish::Deleted)
                    {
                        listener.served.cut();
                    }
                    self.around.board.remove_share(id, self.id);
                }
            }
        }
    }

    async fn serve(&mut self, tunnel: &Arc<TunnelDesired>, check: bool) {
        let fresh = self.ready.as_ref().is_some_and(|(_, generation)| *generation == tunnel.generation);
        if check || !fresh {
            match self.around.backend.ensure(tunnel).await {
                Ok(made) => self.made(made, tunnel),
                Err(problem) => {
                    warn!(tunnel.id = %self.id, problem = problem.message, "tunnel could not be set up");
                    self.try_later();
                    self.show(Some(problem));
                    return;
                }
            }
        }
        let failing = self.ready.as_ref().and_then(|(tunnel, _)| tunnel.problem());
        self.show(failing);
        self.listen();
    }

    fn made(&mut self, made: Arc<Tunnel>, tunnel: &TunnelDesired) {
        let same = self.ready.as_ref().is_some_and(|(old, _)| Arc::ptr_eq(old, &made));
        if !same {
            // Another namespace: listeners in the old one hear nothing any more.
            self.listeners.clear();
            info!(tunnel.id = %self.id, tunnel.name = %tunnel.name, "tunnel is ready");
        }
        self.ready = Some((made, tunnel.generation));
        self.retry = None;
    }

    /// Writes the tunnel's entry on the board.
    fn show(&self, problem: Option<Problem>) {
        let (ready, connection) = match &self.ready {
            Some((tunnel, generation)) => {
                (problem.is_none().then_some(*generation), Some(tunnel.connection().borrow().clone()))
            }
            None => (None, None),
        };
        self.around.board.update_tunnel(self.id, |seen| {
            seen.ready = ready;
            seen.problem = problem;
            seen.connection = connection.unwrap_or_else(|| match seen.connection.state {
                wicketgate_model::ConnectionState::Down => seen.connection.clone(),
                _ => Connection::down(Timestamp::now()),
            });
        });
    }

    /// Binds what is not bound yet. A changed port is bound before the old one is released.
    fn listen(&mut self) {
        let Some((tunnel, _)) = &self.ready else { return };
        for (id, share) in &self.shares {
            let mut seen = ListenerSeen { tunnel: self.id, bound: Some(share.generation), problem: None };
            match self.listeners.get_mut(id) {
                Some(listener) if listener.port == share.ingress_port => {
                    listener.generation = share.generation
                }
                old => {
                    let served = old.as_ref().map(|l| Arc::clone(&l.served)).unwrap_or_else(|| {
                        let counters = self.around.counters.of(*id, self.id);
                        Served::new(*id, counters, &self.around.stop)
                    });
                    match bind(tunnel, share, served, &self.around) {
                        Ok(listener) => {
                            self.listeners.insert(*id, listener);
                        }
                        Err(problem) => {
                            seen.bound = old.map(|l| l.generation);
                            seen.problem = Some(problem);
                        }
                    }
                }
            }
            if let Some(problem) = &seen.problem {
                warn!(share.id = %id, problem = problem.message, "share could not be bound");
            }
            self.around.board.set_share(*id, seen);
        }
        if self.listeners.len() < self.shares.len() {
            self.try_later();
        }
    }

    /// Removes the tunnel; `true` when nothing is left.
    async fn remove(&mut self) -> bool {
        for listener in mem::take(&mut self.listeners).into_values() {
            listener.served.cut();
        }
        for id in mem::take(&mut self.shares).into_keys() {
            self.around.board.remove_share(id, self.id);
        }
        self.ready = None;
        match self.around.backend.remove(self.id).await {
            Ok(()) => {
                info!(tunnel.id = %self.id, "tunnel was removed");
                self.around.board.remove_tunnel(self.id);
                true
            }
            Err(error) => {
                warn!(tunnel.id = %self.id, %error, "tunnel could not be removed yet");
                let problem = Problem::new(Reason::TunnelFailed, error.to_string());
                self.around.board.update_tunnel(self.id, |seen| {
                    seen.ready = None;
                    seen.problem = Some(problem);
                });
                self.try_later();
                false
            }
        }
    }

    fn try_later(&mut self) {
        let pause = self.retry.map_or(RETRY_FIRST, |(_, last)| (last * 2).min(RETRY_LONGEST));
        self.retry = Some((Instant::now() + pause, pause));
    }
}

fn bind(
    tunnel: &Tunnel,
    share: &ShareDesired,
    served: Arc<Served>,
    around: &Surroundings,
) -> Result<Listener, Problem> {
    let port: IngressPort = share.ingress_port;
    tunnel
        .bind(port.get())
        .and_then(|socket| {
            Listener::start(socket, port, share.generation, served, around.agents.clone(), &around.tasks)
        })
        .map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => Problem::new(
                Reason::PortInUse,
                format!("another program holds port {port} of the load balancer"),
            ),
            _ => Problem::new(Reason::ListenerFailed, format!("port {port} could not be bound: {error}")),
        })
}
