//! A tunnel that is set up, as the rest of the gateway sees it: where to bind listeners, and what its engine reports.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use jiff::Timestamp;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{Notify, watch};
use wicketgate_model::{Connection, ConnectionError, ConnectionFault, ConnectionWarning, Problem, Reason};
use wicketgate_transport::reset_on_drop;

use super::{LatestClient, Namespace, Unserved};

/// The kernel's default limit of connections that wait to be accepted is 4,096.
pub(crate) const BACKLOG: i32 = 1024;

/// A tunnel that is set up. Whether its peer is there is its [`Connection`].
#[derive(Debug)]
pub struct TunnelHandle {
    /// `None`: the namespace of this process.
    namespace: Option<Namespace>,
    load_balancer: Ipv4Addr,
    reports: Arc<Reports>,
}

impl TunnelHandle {
    /// A tunnel of which nothing is reported yet.
    pub(crate) fn new(namespace: Option<Namespace>, load_balancer: Ipv4Addr) -> Self {
        let reports = Reports {
            connection: watch::Sender::new(Connection::down(jiff::Timestamp::now())),
            problem: watch::Sender::new(None),
            dropped: watch::Sender::new(None),
            unserved: watch::Sender::new(Vec::new()),
            path: watch::Sender::new(None),
            latest_client: Arc::default(),
            engine_starts: AtomicUsize::new(0),
            changed: Notify::new(),
        };
        Self { namespace, load_balancer, reports: Arc::new(reports) }
    }

    /// The same tunnel with another address.
    pub(super) fn moved_to(&self, load_balancer: Ipv4Addr) -> Self {
        Self { namespace: self.namespace.clone(), load_balancer, reports: Arc::clone(&self.reports) }
    }

    /// Whether it is in `namespace`.
    pub(super) fn is_in(&self, namespace: &Namespace) -> bool {
        self.namespace.as_ref().is_some_and(|own| own.is_same(namespace))
    }

    /// Listens on `port` of the load balancer, inside the tunnel. The listener is non-blocking and works in any thread.
    /// It receives nothing after the tunnel was removed.
    ///
    /// # Errors
    /// As for any listener; `AddrInUse` where another one has the port.
    pub fn bind(&self, port: u16) -> io::Result<TcpListener> {
        let bind = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&SocketAddrV4::new(self.load_balancer, port).into())?;
            // Before it listens: Linux has each connection inherit the options, which saves two calls for each.
            reset_on_drop::prepare_listener(&socket)?;
            socket.set_tcp_nodelay(true)?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        };
        self.inside(bind)
    }

    pub fn load_balancer(&self) -> Ipv4Addr {
        self.load_balancer
    }

    /// The peer, as the IKE daemon sees it.
    pub fn connection(&self) -> watch::Receiver<Connection> {
        self.reports.connection.subscribe()
    }

    /// Why the tunnel cannot answer its peer now: its daemon died and is not back yet.
    pub fn problem(&self) -> Option<Problem> {
        self.reports.problem.borrow().clone()
    }

    /// As [`TunnelHandle::problem`], or that the host drops the tunnel's packets.
    pub(crate) fn obstacle(&self) -> Option<Problem> {
        self.problem().or_else(|| Some(Problem::new(Reason::TunnelFailed, self.dropped()?.to_string())))
    }

    /// Runs `work` on a thread in the tunnel's namespace, and waits for it.
    pub(super) fn inside<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        match &self.namespace {
            Some(namespace) => namespace.run(work),
            None => work(),
        }
    }

    /// Why the host drops the tunnel's packets; `None`: it does not.
    pub(crate) fn dropped(&self) -> Option<ConnectionError> {
        self.reports.dropped.borrow().clone()
    }

    pub(crate) fn set_dropped(&self, why: Option<(String, String)>) {
        let since = self.dropped().map(|before| before.since);
        let dropped = why.map(|(cause, cure)| ConnectionError {
            reason: ConnectionFault::GatewayFailed,
            cause,
            cure,
            since: since.unwrap_or_else(Timestamp::now),
        });
        self.reports.set(&self.reports.dropped, dropped);
    }

    /// Who used ports that no listener had, when it was last looked at.
    pub(crate) fn unserved(&self) -> Vec<Unserved> {
        self.reports.unserved.borrow().clone()
    }

    pub(super) fn set_unserved(&self, unserved: Vec<Unserved>) {
        self.reports.set(&self.reports.unserved, unserved);
    }

    /// What the path to the peer does to packets, if that is a fault.
    pub(crate) fn path_warning(&self) -> Option<ConnectionWarning> {
        self.reports.path.borrow().clone()
    }

    pub(super) fn set_path_warning(&self, warning: Option<ConnectionWarning>) {
        self.reports.set(&self.reports.path, warning);
    }

    /// To be told of each client that connects.
    pub(crate) fn latest_client(&self) -> &Arc<LatestClient> {
        &self.reports.latest_client
    }

    /// Waits until the connection or the problem changes. For one waiter; cancel-safe, and a change while nothing waits
    /// is not missed.
    pub async fn changed(&self) {
        self.reports.changed.notified().await;
    }

    /// Runs a start of the engine's daemon: what goes with its device is not another program's doing.
    pub(crate) async fn starting<T>(&self, start: impl Future<Output = T>) -> T {
        // The end is counted wherever the start ends.
        struct Counted<'a>(&'a AtomicUsize);
        impl Drop for Counted<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        self.reports.engine_starts.fetch_add(1, Ordering::SeqCst);
        let _counted = Counted(&self.reports.engine_starts);
        start.await
    }

    pub(super) fn engine_starts(&self) -> EngineStarts {
        let count = self.reports.engine_starts.load(Ordering::SeqCst);
        EngineStarts { count, is_starting: count % 2 == 1 }
    }

    pub(crate) fn set_connection(&self, connection: Connection) {
        self.reports.set(&self.reports.connection, connection);
    }

    pub(crate) fn set_problem(&self, problem: Option<Problem>) {
        self.reports.set(&self.reports.problem, problem);
    }
}

/// What the engine reports about a tunnel.
#[derive(Debug)]
struct Reports {
    connection: watch::Sender<Connection>,
    problem: watch::Sender<Option<Problem>>,
    dropped: watch::Sender<Option<ConnectionError>>,
    unserved: watch::Sender<Vec<Unserved>>,
    path: watch::Sender<Option<ConnectionWarning>>,
    latest_client: Arc<LatestClient>,
    /// Grows at the begin and at the end of each start.
    engine_starts: AtomicUsize,
    changed: Notify,
}

/// How often the engine's daemon was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EngineStarts {
    pub(super) count: usize,
    pub(super) is_starting: bool,
}

impl Reports {
    fn set<T: PartialEq>(&self, sender: &watch::Sender<T>, value: T) {
        let differs = sender.send_if_modified(|old| {
            let differs = *old != value;
            *old = value;
            differs
        });
        if differs {
            self.changed.notify_one();
        }
    }
}
