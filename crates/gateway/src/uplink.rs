//! The gateway's link to a server, and to the next one when it ends.
//!
//! Components send to one channel for ever, and this task hands on what arrives there. Between two links it drops what is
//! sent again on the next one, and tells agents that ask for certificates that no server is available.
//! Invariant: on a link, nothing is reported that answers a delta of another link.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    net::{TcpStream, lookup_host},
    select,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use wicketgate_link::{
    CertificateAnswer, FromGateway, GatewayEnd, GatewayHello, HandshakeError, HeldState, LinkBroken,
    LinkReceiver, LinkRefusal, Pending, ToGateway, gateway_pump,
};
use wicketgate_model::Era;
use wicketgate_system::backoff::Backoff;
use wicketgate_transport::{
    identity::is_renewal_due,
    tls::{GatewayIdentity, LinkStream, LinkTls},
};

use crate::{agents::Agents, observations::Observations, traffic_spool::TrafficSpool};

/// A server that does not answer is given up, and the next one is asked.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// A handshake: a signature at each end, and a read of the database at the server.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(8);
/// Pauses between rounds of all servers.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));
/// After a refusal: an operator has to act.
const REFUSED: Duration = Duration::from_secs(30);
/// A link that has lasted so long did not fail.
const LASTED: Duration = Duration::from_secs(10);
/// Servers that are known at one time.
const KNOWN: usize = 16;
/// How often it is looked whether the certificate is to be renewed.
const RENEWAL_EVERY: Duration = Duration::from_secs(60);

/// How a gateway has its server.
#[derive(Debug)]
pub enum LinkSource {
    /// In this process.
    InProcess(Box<GatewayEnd>),
    /// It dials.
    Network(Box<Dialler>),
}

/// The servers that a gateway dials, and the certificate that it presents.
#[derive(Debug)]
pub struct Dialler {
    /// HOST:PORT of each, as the operator has named them.
    pub servers: Vec<String>,
    /// Those that links have told, those of the last one first. One that is away may come back while all others are lost.
    pub told: Vec<String>,
    /// Whom it has dialled last: the others are dialled before it.
    pub last: Option<String>,
    pub tls: LinkTls,
    pub identity: GatewayIdentity,
    /// When the certificate was issued.
    pub issued_at: Timestamp,
    /// For who keeps it on the disk.
    pub keep: mpsc::Sender<ToKeep>,
}

/// What a server has told that the next start needs.
#[derive(Debug)]
pub enum ToKeep {
    /// In DER.
    Certificate(Vec<u8>),
    Servers(Vec<String>),
    /// The gateway was deleted, or is another machine now: what it has kept is not to be served again.
    Ended,
}

/// A link that has begun, for the applier.
#[derive(Debug)]
pub(crate) struct NewLink {
    pub(crate) era: Era,
    pub(crate) messages: LinkReceiver<ToGateway>,
}

/// What an applier passes back: when it can take a link, with what it holds, and what has arrived for the uplink.
#[derive(Debug)]
pub(crate) enum FromApplier {
    Ready(Option<HeldState>),
    Certificate(Option<Vec<u8>>),
    Servers(Vec<String>),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Uplink {
    pub(crate) dialler: Dialler,
    /// Without what is held.
    pub(crate) hello: GatewayHello,
    pub(crate) outgoing: mpsc::Receiver<FromGateway>,
    pub(crate) applier: mpsc::Receiver<FromApplier>,
    /// The applier can take a link, and holds this.
    pub(crate) ready: Option<Option<HeldState>>,
    pub(crate) links: mpsc::Sender<NewLink>,
    /// Counts the links.
    pub(crate) number: watch::Sender<u64>,
    pub(crate) observations: Arc<Observations>,
    pub(crate) agents: Agents,
    pub(crate) spool: Arc<TrafficSpool>,
    /// The last traffic is in the channel: what comes after it does not matter.
    pub(crate) over: CancellationToken,
}

/// An open link.
struct Open {
    send: mpsc::Sender<FromGateway>,
    pump: JoinHandle<Result<(), LinkBroken>>,
    /// Set while the gateway stops: only the answers to reports of traffic are read from it.
    messages: Option<LinkReceiver<ToGateway>>,
}

/// The gateway has stopped: nothing will be sent any more.
struct Stopped;

impl Uplink {
    /// Until the last traffic of a gateway that stops is sent.
    pub(crate) async fn run(mut self) {
        let mut pauses = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            let Ok(held) = self.applier_is_ready().await else { return };
            let stream = match self.dial(&mut pauses).await {
                Ok(stream) => stream,
                Err(Stopped) => return,
            };
            let begin = tokio::time::Instant::now();
            match self.open(stream, held).await {
                Ok(Some(open)) => {
                    self.ready = None;
                    if self.forward(open).await.is_err() {
                        return;
                    }
                    // A link that ends soon would end again.
                    if begin.elapsed() > LASTED {
                        pauses.reset();
                    } else if self.wait(pauses.randomized()).await.is_err() {
                        return;
                    }
                }
                Ok(None) => {
                    if self.wait(pauses.randomized()).await.is_err() {
                        return;
                    }
                }
                Err(refusal @ LinkRefusal::Ended) => {
                    error!(%refusal, "the server refuses this gateway, which ends");
                    let _ = self.dialler.keep.send(ToKeep::Ended).await;
                    return;
                }
                Err(refusal @ LinkRefusal::Unknown) => {
                    error!(%refusal, "the server refuses this gateway, which serves on what it has");
                    if self.wait(REFUSED).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// What the applier holds when it has taken in all of the last link.
    async fn applier_is_ready(&mut self) -> Result<Option<HeldState>, Stopped> {
        loop {
            if let Some(held) = self.ready {
                return Ok(held);
            }
            select! {
                told = self.applier.recv() => match told {
                    Some(FromApplier::Ready(held)) => self.ready = Some(held),
                    Some(FromApplier::Certificate(_) | FromApplier::Servers(_)) => {}
                    // The gateway stops: links are for its traffic alone.
                    None => self.ready = Some(None),
                },
                message = self.outgoing.recv() => self.without_link(message)?,
                () = self.over.cancelled() => return Err(Stopped),
            }
        }
    }

    /// Connects to one of the servers, however long that takes.
    async fn dial(&mut self, pauses: &mut Backoff) -> Result<LinkStream, Stopped> {
        let mut is_told = false;
        loop {
            for server in self.servers() {
                self.dialler.last = Some(server.clone());
                let tls = self.dialler.tls.clone();
                let dialled = timeout(CONNECT_WITHIN + HANDSHAKE_WITHIN, connect(tls, server.clone()));
                match self.meanwhile(dialled).await? {
                    Ok(Ok((id, stream))) => {
                        info!(server, server.id = %id, "connected to a server");
                        return Ok(stream);
                    }
                    Ok(Err(why)) if !is_told => {
                        warn!(
                            server,
                            why, "cannot link to the server; the gateway serves what it has, and tries again"
                        );
                    }
                    Err(_) if !is_told => {
                        warn!(
                            server,
                            "the server does not answer; the gateway serves what it has, and tries again"
                        );
                    }
                    Ok(Err(_)) | Err(_) => {}
                }
            }
            is_told = true;
            self.wait(pauses.randomized()).await?;
        }
    }

    async fn wait(&mut self, pause: Duration) -> Result<(), Stopped> {
        self.meanwhile(sleep(pause)).await
    }

    /// Waits for `done`, without a link.
    async fn meanwhile<T>(&mut self, done: impl Future<Output = T>) -> Result<T, Stopped> {
        let mut done = std::pin::pin!(done);
        loop {
            select! {
                done = &mut done => return Ok(done),
                message = self.outgoing.recv() => self.without_link(message)?,
                () = self.over.cancelled() => return Err(Stopped),
            }
        }
    }

    /// Takes a message that no link can carry. State is sent again on the next link, and traffic stays in the spool.
    fn without_link(&self, message: Option<FromGateway>) -> Result<(), Stopped> {
        match message.ok_or(Stopped)? {
            FromGateway::Enrol { request, .. } => {
                self.agents.enrolled(request, CertificateAnswer::Unavailable);
            }
            FromGateway::Renew { request, .. } => {
                self.agents.renewed(request, CertificateAnswer::Unavailable);
            }
            _ => {}
        }
        Ok(())
    }

    /// Both ends say hello. `None`: the link broke.
    async fn open(
        &mut self,
        stream: LinkStream,
        held: Option<HeldState>,
    ) -> Result<Option<Open>, LinkRefusal> {
        let (end, pump) = gateway_pump(stream);
        let pump = tokio::spawn(pump.run());
        // From here on, no report is made until the first delta of this link is applied; those that wait are of the link before.
        self.observations.begin_link();
        while let Ok(message) = self.outgoing.try_recv() {
            let _ = self.without_link(Some(message));
        }
        let (send, handshake) = end.open(GatewayHello { held, ..self.hello.clone() });
        match timeout(HANDSHAKE_WITHIN, handshake.finish()).await {
            Ok(Ok((hello, messages))) => {
                self.learn(hello.servers).await;
                info!(epoch = hello.epoch, holds = held.is_some(), "linked to a server");
                let sent = self.links.send(NewLink { era: hello.era, messages }).await;
                let messages = sent.err().map(|mpsc::error::SendError(link)| link.messages);
                if messages.is_some() {
                    let _ = send.send(FromGateway::Draining).await;
                }
                self.number.send_modify(|number| *number += 1);
                Ok(Some(Open { send, pump, messages }))
            }
            Ok(Err(HandshakeError::Refused(refusal))) => Err(refusal),
            Ok(Err(error)) => {
                warn!(%error, "the link to the server cannot be opened");
                Ok(None)
            }
            Err(_) => {
                warn!("the server has opened a link and said nothing");
                pump.abort();
                Ok(None)
            }
        }
    }

    fn servers(&self) -> Vec<String> {
        let Dialler { servers, told, last, .. } = &self.dialler;
        let mut all: Vec<_> =
            servers.iter().chain(told.iter().filter(|told| !servers.contains(told))).cloned().collect();
        let begin = all.iter().position(|server| Some(server) == last.as_ref()).map_or(0, |last| last + 1);
        all.rotate_left(begin);
        all
    }

    /// The servers of the moment.
    async fn learn(&mut self, mut told: Vec<String>) {
        if !told.is_empty() && !self.dialler.told.starts_with(&told) {
            info!(servers = told.join(", "), "the server has told which servers there are");
            let before: Vec<_> =
                self.dialler.told.iter().filter(|known| !told.contains(known)).cloned().collect();
            told.extend(before);
            told.truncate(KNOWN);
            let _ = self.dialler.keep.send(ToKeep::Servers(told.clone())).await;
            self.dialler.told = told;
        }
    }

    /// Hands messages on until the link ends.
    async fn forward(&mut self, Open { send, mut pump, mut messages }: Open) -> Result<(), Stopped> {
        let mut renewal = interval(RENEWAL_EVERY);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (pending, spool) = (Pending::<()>::new(1), Arc::clone(&self.spool));
        let hear = async {
            if let Some(messages) = &mut messages {
                spool.hear(messages).await;
            }
            std::future::pending::<()>().await;
        };
        let mut hear = std::pin::pin!(hear);
        loop {
            select! {
                message = self.outgoing.recv() => {
                    if send.send(message.ok_or(Stopped)?).await.is_err() {
                        tell((&mut pump).await);
                        return Ok(());
                    }
                }
                () = self.over.cancelled() => {
                    while let Ok(message) = self.outgoing.try_recv() {
                        let _ = timeout(HANDSHAKE_WITHIN, send.send(message)).await;
                    }
                    // What was sent arrives, and the server sees the end.
                    drop(send);
                    let _ = timeout(HANDSHAKE_WITHIN, &mut pump).await;
                    return Err(Stopped);
                }
                () = &mut hear => {}
                // Closed when the gateway stops.
                Some(told) = self.applier.recv() => match told {
                    FromApplier::Certificate(certificate) => self.renewed(certificate).await,
                    FromApplier::Servers(servers) => self.learn(servers).await,
                    // It has seen the end of the messages before this task has seen that of the link.
                    FromApplier::Ready(held) => self.ready = Some(held),
                },
                _ = renewal.tick() => {
                    if is_renewal_due(self.dialler.issued_at, Timestamp::now())
                        && let Some(call) = pending.call()
                    {
                        let public_key = self.dialler.identity.certificate().public_point();
                        let _ = send.try_send(FromGateway::RenewOwn { request: call.id(), public_key });
                    }
                }
                ended = &mut pump => {
                    tell(ended);
                    return Ok(());
                }
            }
        }
    }

    async fn renewed(&mut self, certificate: Option<Vec<u8>>) {
        let Some(certificate) = certificate else {
            warn!("the server could not renew this gateway's certificate; it is asked again");
            return;
        };
        match self.dialler.identity.certificate().replace(certificate.clone()) {
            Ok(()) => {
                self.dialler.issued_at = Timestamp::now();
                info!("the gateway's certificate was renewed");
                let _ = self.dialler.keep.send(ToKeep::Certificate(certificate)).await;
            }
            Err(error) => warn!(%error, "the server's answer is no certificate of this gateway"),
        }
    }
}

fn tell(ended: Result<Result<(), LinkBroken>, tokio::task::JoinError>) {
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            warn!(%error, "the link to the server ended; the gateway keeps serving its last desired state")
        }
        Err(error) => {
            warn!(%error, "the link to the server failed; the gateway keeps serving its last desired state")
        }
    }
}

/// To one server: its name is looked up each time.
async fn connect(tls: LinkTls, server: String) -> Result<(wicketgate_model::ServerId, LinkStream), String> {
    let addresses: Vec<SocketAddr> = lookup_host(&server)
        .await
        .map_err(|error| format!("its name cannot be resolved: {error}"))?
        .collect();
    let mut why = "its name has no address".to_owned();
    for address in addresses {
        let connected = timeout(CONNECT_WITHIN, TcpStream::connect(address)).await;
        let tcp = match connected {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(error)) => {
                why = format!("{address}: {error}");
                continue;
            }
            Err(_) => {
                why = format!("{address} does not answer");
                continue;
            }
        };
        let _ = tcp.set_nodelay(true);
        match timeout(HANDSHAKE_WITHIN, tls.connect(tcp)).await {
            Ok(Ok(linked)) => return Ok(linked),
            Ok(Err(error)) => why = format!("{address}: {error}"),
            Err(_) => why = format!("{address} does not answer"),
        }
    }
    Err(why)
}
