//! A share's listener, and the way of a connection through the gateway: accept, open a stream through an agent,
//! relay.
//!
//! Invariant: the accept loop only accepts; whatever may wait happens in the connection's own task.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, debug, debug_span, warn};
use wicketgate_model::{Generation, IngressPort, ShareId};

use crate::{agents::Agents, counters::ShareCounters};

/// Connections of one share at a time, waiting for their agent or relayed. More wait in the kernel's queue.
const CONNECTIONS: usize = 10_000;
/// When `accept` fails for want of descriptors or memory, trying again at once would only burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A client whose host has vanished is found by probes: the first after a minute of silence, then three.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);

/// What stays the same over a share's updates on one tunnel.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) share: ShareId,
    pub(crate) counters: Arc<ShareCounters>,
    permits: Arc<Semaphore>,
    /// Ends all of the share's connections: it was deleted.
    cut: CancellationToken,
}

impl Served {
    pub(crate) fn new(share: ShareId, counters: Arc<ShareCounters>, stop: &CancellationToken) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        Arc::new(Self { share, counters, permits, cut: stop.child_token() })
    }

    pub(crate) fn cut(&self) {
        self.cut.cancel();
    }
}

/// A bound listener. Dropped, it stops accepting; connections that were accepted go on.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) port: IngressPort,
    pub(crate) generation: Generation,
    pub(crate) served: Arc<Served>,
    accepting: CancellationToken,
}

impl Listener {
    /// Takes a bound, non-blocking socket.
    pub(crate) fn start(
        socket: std::net::TcpListener,
        port: IngressPort,
        generation: Generation,
        served: Arc<Served>,
        agents: Agents,
        tasks: &TaskTracker,
    ) -> io::Result<Self> {
        let socket = TcpListener::from_std(socket)?;
        let accepting = served.cut.child_token();
        let span = debug_span!("share", share.id = %served.share, port = %port);
        let accept = accept(socket, Arc::clone(&served), agents, tasks.clone()).instrument(span);
        tasks.spawn(accepting.clone().run_until_cancelled_owned(accept));
        Ok(Self { port, generation, served, accepting })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.accepting.cancel();
    }
}

async fn accept(socket: TcpListener, served: Arc<Served>, agents: Agents, tasks: TaskTracker) {
    let mut starved = false;
    loop {
        let Ok(permit) = Arc::clone(&served.permits).acquire_owned().await else { return };
        match socket.accept().await {
            Ok((client, address)) => {
                starved = false;
                let connection = connection(client, address, Arc::clone(&served), agents.clone());
                let connection = served.cut.clone().run_until_cancelled_owned(connection);
                tasks.spawn(
                    async move {
                        connection.await;
                        drop(permit);
                    }
                    .in_current_span(),
                );
            }
            Err(error) if is_of_the_connection(&error) => {
                debug!(%error, "a connection ended before it was accepted")
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

async fn connection(client: TcpStream, address: SocketAddr, served: Arc<Served>, agents: Agents) {
    if let Err(error) = prepare(&client) {
        debug!(%error, "a connection ended before it was served");
        return;
    }
    match agents.open(served.share, address).await {
        Ok(stream) => {
            let active = served.counters.open();
            let end = stream.relay(client, &served.counters.rx, &served.counters.tx).await;
            debug!(?end, "connection ended");
            drop(active);
        }
        Err(failure) => {
            served.counters.fail();
            debug!(reason = %failure, "connection could not be served");
            // A reset, so that the client does not take the failure for an empty answer.
            if let Err(error) = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)) {
                debug!(%error, "client was gone already");
            }
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
