//! A share's listener, and the path of a connection through the gateway: accept, admit or refuse, open a stream through
//! an agent, relay.
//!
//! Invariants: the accept loop accepts and refuses, and waits only for its Frontdoor's turn, with the next ones in the kernel's
//! queue; anything else that may wait runs in the connection's own task. Each connection that is not served is counted and reset,
//! but for one whose port is closed while it waits.

use std::{
    future, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, debug_span, info, warn};
use wicketgate_model::{FailureReason, Generation, IngressPort, ProxyProtocol, ShareId, ShareOptions};
use wicketgate_system::{Latest, accept::Acceptor};
use wicketgate_transport::{
    abort::Abort,
    carrier::EarlyData,
    relay::{Counters, Exchange},
    reset_on_drop::ResetOnDrop,
};

use crate::{
    counters::ShareCounters,
    ground::{BACKLOG, LatestClient},
    open_connections::OpenConnections,
    parts::GatewayParts,
    proxy_protocol,
    quota::{ConnectionPermit, ConnectionQuota},
    traffic_room::TunnelPlaces,
};

/// What the connections of one share have in common, across its updates and tunnels.
#[derive(Debug)]
pub(crate) struct ShareState {
    pub(crate) share: ShareId,
    /// The options for new connections. Admitted ones keep theirs.
    pub(crate) options: Latest<ShareOptions>,
    connections: Arc<ConnectionQuota>,
    pub(crate) open: Arc<OpenConnections>,
    /// Triggered when the share is deleted: ends all its connections.
    pub(crate) abort: Abort,
}

impl ShareState {
    /// `abort` ends its connections too.
    pub(crate) fn new(share: ShareId, abort: &Abort) -> Arc<Self> {
        Arc::new(Self {
            share,
            options: Latest::default(),
            connections: Arc::default(),
            open: Arc::default(),
            abort: abort.child(),
        })
    }
}

/// What a connection needs to be served.
#[derive(Debug)]
pub(crate) struct ConnectionContext {
    pub(crate) state: Arc<ShareState>,
    pub(crate) counters: Arc<ShareCounters>,
    pub(crate) tunnel: Arc<TunnelPlaces>,
    pub(crate) latest_client: Arc<LatestClient>,
    pub(crate) parts: GatewayParts,
}

/// What an admitted connection holds until it ends.
pub(crate) type Admitted = (Arc<ShareOptions>, ConnectionPermit, [ConnectionPermit; 3]);

impl ShareState {
    /// Admits or refuses a connection from `address`, without waiting; `None`: from an allowed one. `tunnel` is the share's.
    pub(crate) fn admit(
        &self,
        address: Option<SocketAddr>,
        tunnel: &TunnelPlaces,
        parts: &GatewayParts,
    ) -> Result<Admitted, FailureReason> {
        let options = self.options.get();
        if let Some((sources, address)) = options.allowed_sources.as_ref().zip(address) {
            let admitted = match address.ip().to_canonical() {
                IpAddr::V4(ip) => sources.admit(ip),
                IpAddr::V6(_) => false,
            };
            if !admitted {
                return Err(FailureReason::SourceNotAllowed);
            }
        }
        let most = options.max_connections.and_then(|most| usize::try_from(most.get()).ok());
        let limits = parts.room.limits();
        let share = self.connections.enter(most.unwrap_or(limits.share));
        let share = share.ok_or(FailureReason::ShareFull)?;
        let others = parts.room.connect(tunnel, &limits)?;
        Ok((options, share, others))
    }
}

/// A bound listener. Dropping it stops accepting; accepted connections continue.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) port: IngressPort,
    pub(crate) generation: Generation,
    accepting: CancellationToken,
    _places: [ConnectionPermit; 2],
    task: JoinHandle<Option<()>>,
}

impl Listener {
    /// `socket` is a non-blocking socket from [`crate::ipsec::TunnelHandle::bind`].
    pub(crate) fn start(
        socket: std::net::TcpListener,
        port: IngressPort,
        generation: Generation,
        places: [ConnectionPermit; 2],
        context: ConnectionContext,
    ) -> io::Result<Self> {
        let socket = Acceptor::new(TcpListener::from_std(socket)?, "the clients of a share");
        let accepting = context.state.abort.token().child_token();
        let span = debug_span!("share", share.id = %context.state.share, port = %port);
        let tasks = context.parts.tasks.clone();
        let accept = listen(socket, Arc::new(context)).instrument(span);
        let task = tasks.spawn(accepting.clone().run_until_cancelled_owned(accept));
        Ok(Self { port, generation, accepting, _places: places, task })
    }

    /// Stops accepting, and returns when the port is free.
    pub(crate) async fn close(mut self) {
        self.accepting.cancel();
        if let Err(error) = (&mut self.task).await {
            warn!(%error, port = %self.port, "listener task failed");
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.accepting.cancel();
    }
}

/// Accepts connections while the share is open. Its port is closed otherwise, and stays bound.
async fn listen(mut socket: Acceptor, context: Arc<ConnectionContext>) {
    let share = context.state.share;
    let mut is_open = context.parts.agents.is_open(share);
    loop {
        tokio::select! {
            () = becomes(&mut is_open, false) => {}
            () = accept(&mut socket, &context) => {}
        }
        info!(share.id = %share, "no agent can serve the share: its port is closed");
        socket = match socket.close_until(becomes(&mut is_open, true), BACKLOG).await {
            Ok(socket) => socket,
            Err(error) => return warn!(share.id = %share, %error, "the port stays closed"),
        };
        info!(share.id = %share, "an agent can serve the share: its port is open");
    }
}

/// Waits until the value is `wanted`; of a share that was removed, it does not change any more.
async fn becomes(is_open: &mut watch::Receiver<bool>, wanted: bool) {
    if is_open.wait_for(|is_open| *is_open == wanted).await.is_err() {
        future::pending().await
    }
}

async fn accept(socket: &mut Acceptor, context: &Arc<ConnectionContext>) {
    loop {
        let (client, address) = socket.next().await;
        let (client, accepted) = (ResetOnDrop::accepted(client), Instant::now());
        if let IpAddr::V4(address) = address.ip() {
            context.latest_client.set(address);
        }
        let admitted = match context.state.admit(Some(address), &context.tunnel, &context.parts) {
            Ok(admitted) => admitted,
            Err(reason) => {
                context.counters.refuse(address.ip(), reason);
                debug!(reason = reason.as_str(), "connection refused");
                drop(client);
                context.parts.room.refused(&context.tunnel).await;
                continue;
            }
        };
        let open = context.state.open.enter(address.ip(), &context.state.abort);
        // With its places, so that one that waits is counted, and is closed with the others of its source.
        context.parts.room.turn(&context.tunnel).await;
        // Boxed, because each future around it holds it twice, as argument and as running: 10 KiB for each connection.
        let connection = Box::pin(connection(client, (address, accepted), admitted, Arc::clone(context)));
        let connection = async move {
            tokio::select! {
                biased;
                () = open.abort.triggered() => {}
                () = connection => {}
            }
        };
        context.parts.connections.spawn(connection.in_current_span());
    }
}

async fn connection(
    mut client: ResetOnDrop,
    (address, accepted): (SocketAddr, Instant),
    (options, _share, _others): Admitted,
    context: Arc<ConnectionContext>,
) {
    let ConnectionContext { state, counters, parts, .. } = &*context;
    let preface = match options.proxy_protocol.map(|ProxyProtocol::V2| client.tcp().local_addr()) {
        None => Vec::new(),
        Some(Ok(local)) => proxy_protocol::header(address, local),
        Some(Err(error)) => return debug!(%error, "connection ended before it was served"),
    };
    match parts.agents.open(state.share, address, EarlyData::new(preface, client.tcp())).await {
        Ok(stream) => {
            let active = counters.open(accepted.elapsed());
            let idle = options.idle_timeout_seconds.map(|idle| Duration::from_secs(idle.get().into()));
            let exchange = Exchange::new(&counters.answers);
            let counted =
                Counters { exchange: Some(&exchange), ..Counters::of_bytes(&counters.rx, &counters.tx) };
            let end = stream.relay(client, counted, idle).await;
            debug!(?end, "connection ended");
            drop(active);
        }
        Err(failure) => {
            counters.fail(failure.metric());
            debug!(reason = %failure, "connection could not be served");
        }
    }
}
