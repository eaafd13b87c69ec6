//! A share's listener, and the way of a connection through the gateway: accept, open a stream through an agent,
//! relay.
//!
//! Invariant: the accept loop only accepts; whatever may wait happens in the connection's own task.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, debug, debug_span, warn};
use wicketgate_model::{Generation, IngressPort, ShareId};
use wicketgate_session::{carrier::Early, unended::Unended};

use crate::{agents::Agents, counters::ShareCounters};

/// When `accept` fails for want of descriptors or memory, trying again at once would only burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A client whose host has vanished is found by probes: the first after a minute of silence, then three.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);

/// A share that is served, whichever tunnel serves it: the same over all its updates.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) share: ShareId,
    /// Ends all of the share's connections: it was deleted.
    cut: CancellationToken,
}

impl Served {
    /// Its connections end with `stop`, too.
    pub(crate) fn new(share: ShareId, stop: &CancellationToken) -> Arc<Self> {
        Arc::new(Self { share, cut: stop.child_token() })
    }

    pub(crate) fn cut(&self) {
        self.cut.cancel();
    }
}

/// What a connection is served with.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    pub(crate) served: Arc<Served>,
    pub(crate) counters: Arc<ShareCounters>,
    pub(crate) agents: Agents,
    /// One of each is held by a connection: its tunnel's and its gateway's. Whoever gets none waits, and others
    /// behind it in the kernel's queue, so that one site can't take all that the others need.
    pub(crate) permits: [Arc<Semaphore>; 2],
    pub(crate) tasks: TaskTracker,
}

/// A bound listener. Dropped, it stops accepting soon; connections that were accepted go on.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) port: IngressPort,
    pub(crate) generation: Generation,
    accepting: CancellationToken,
    task: JoinHandle<Option<()>>,
}

impl Listener {
    /// Takes a bound, non-blocking socket.
    pub(crate) fn start(
        socket: std::net::TcpListener,
        port: IngressPort,
        generation: Generation,
        serving: Serving,
    ) -> io::Result<Self> {
        let socket = TcpListener::from_std(socket)?;
        let accepting = serving.served.cut.child_token();
        let span = debug_span!("share", share.id = %serving.served.share, port = %port);
        let tasks = serving.tasks.clone();
        let accept = accept(socket, serving).instrument(span);
        let task = tasks.spawn(accepting.clone().run_until_cancelled_owned(accept));
        Ok(Self { port, generation, accepting, task })
    }

    /// Stops accepting, and returns when the port is free.
    pub(crate) async fn close(mut self) {
        self.accepting.cancel();
        if let Err(error) = (&mut self.task).await {
            warn!(%error, port = %self.port, "a listener's task failed");
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.accepting.cancel();
    }
}

async fn accept(socket: TcpListener, serving: Serving) {
    let mut starved = false;
    loop {
        let [tunnel, gateway] = serving.permits.clone();
        let (Ok(of_tunnel), Ok(of_gateway)) = (tunnel.acquire_owned().await, gateway.acquire_owned().await)
        else {
            return;
        };
        match socket.accept().await {
            Ok((client, address)) => {
                starved = false;
                let cut = serving.served.cut.clone();
                let connection = cut.run_until_cancelled_owned(connection(client, address, serving.clone()));
                serving.tasks.spawn(
                    async move {
                        connection.await;
                        drop((of_tunnel, of_gateway));
                    }
                    .in_current_span(),
                );
            }
            Err(error) if is_of_the_connection(&error) => {
                debug!(%error, "a connection ended before it was accepted");
            }
            Err(error) => {
                if !starved {
                    warn!(%error, "could not accept connections: pausing until there is room");
                }
                starved = true;
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Errors that `accept` passes on from the connection at the head of its queue (accept(2), "Error handling").
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | HostUnreachable | NetworkDown | NetworkUnreachable
    )
}

async fn connection(client: TcpStream, address: SocketAddr, serving: Serving) {
    let Serving { served, counters, agents, .. } = serving;
    let mut client = Unended::new(client);
    if let Err(error) = prepare(client.tcp()) {
        debug!(%error, "a connection ended before it was served");
        return;
    }
    match agents.open(served.share, address, Early::new(Vec::new(), client.tcp())).await {
        Ok(stream) => {
            let active = counters.open();
            let end = stream.relay(client, &counters.rx, &counters.tx, None).await;
            debug!(?end, "connection ended");
            drop(active);
        }
        Err(failure) => {
            counters.fail();
            debug!(reason = %failure, "connection could not be served");
        }
    }
}

fn prepare(client: &TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(3);
    socket2::SockRef::from(client).set_tcp_keepalive(&keepalive)
}
