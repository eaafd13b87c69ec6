//! A tunnel that is set up, as the rest of the gateway sees it: where to bind listeners, and what its engine reports.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    sync::Arc,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{Notify, watch};
use wicketgate_model::{Connection, Problem};
use wicketgate_transport::reset_on_drop;

use super::Namespace;

/// The kernel's default limit of connections that wait to be accepted is 4,096.
const BACKLOG: i32 = 1024;

/// A tunnel that is set up. Whether its peer is there is its [`Connection`].
#[derive(Debug)]
pub struct TunnelHandle {
    /// `None`: the namespace of this process.
    namespace: Option<Namespace>,
    load_balancer: Ipv4Addr,
    connection: watch::Receiver<Connection>,
    problem: watch::Receiver<Option<Problem>>,
    changed: Arc<Notify>,
}

impl TunnelHandle {
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
        match &self.namespace {
            Some(namespace) => namespace.run(bind),
            None => bind(),
        }
    }

    pub fn load_balancer(&self) -> Ipv4Addr {
        self.load_balancer
    }

    /// The peer, as the IKE daemon sees it.
    pub fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.clone()
    }

    /// Why the tunnel cannot answer its peer now: its daemon died and is not back yet.
    pub fn problem(&self) -> Option<Problem> {
        self.problem.borrow().clone()
    }

    /// Waits until the connection or the problem changes. For one waiter; cancel-safe, and a change while nothing waits
    /// is not missed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// The writing side of a [`TunnelHandle`].
#[derive(Debug)]
pub(crate) struct TunnelReporter {
    connection: watch::Sender<Connection>,
    problem: watch::Sender<Option<Problem>>,
    changed: Arc<Notify>,
}

impl TunnelReporter {
    pub(crate) fn new(now: jiff::Timestamp) -> Self {
        Self {
            connection: watch::Sender::new(Connection::down(now)),
            problem: watch::Sender::new(None),
            changed: Arc::default(),
        }
    }

    pub(crate) fn tunnel(&self, namespace: Option<Namespace>, load_balancer: Ipv4Addr) -> Arc<TunnelHandle> {
        Arc::new(TunnelHandle {
            namespace,
            load_balancer,
            connection: self.connection.subscribe(),
            problem: self.problem.subscribe(),
            changed: Arc::clone(&self.changed),
        })
    }

    pub(crate) fn set_connection(&self, connection: Connection) {
        if set(&self.connection, connection) {
            self.changed.notify_one();
        }
    }

    pub(crate) fn set_problem(&self, problem: Option<Problem>) {
        if set(&self.problem, problem) {
            self.changed.notify_one();
        }
    }
}

fn set<T: PartialEq>(sender: &watch::Sender<T>, value: T) -> bool {
    sender.send_if_modified(|old| {
        let differs = *old != value;
        if differs {
            *old = value;
        }
        differs
    })
}
