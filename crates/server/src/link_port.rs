//! Where gateways join and link.
//!
//! Invariants: nobody without a certificate of the authority, or a join token, makes the database write. A connection that says
//! nothing has a place for [`HANDSHAKE_WITHIN`] at most, and there are [`HANDSHAKES`] places.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};
use uuid::Uuid;
use wicketgate_authority::Ca;
use wicketgate_link::{LinkRefusal, refuse, server_pump};
use wicketgate_model::{JoinGrant, JoinRequest, ServerId};
use wicketgate_store::{JoinAttempt, RequestOrigin, WriteContext};
use wicketgate_transport::{
    control::{Control, JoinAnswer},
    identity::{Identity, PresentedGateway},
    tls::{LinkAccepted, LinkStream, ServerIdentity},
};

use crate::{
    background::Activator,
    gateways::{PeerQuestion, link_table::LinkTable},
};

/// Connections whose handshake, or join, is under way.
const HANDSHAKES: usize = 64;
/// A TLS handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(8);
/// A join, whose request is written by a program.
const JOIN_WITHIN: Duration = Duration::from_secs(15);
/// After an error of accepting, as without descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub(crate) struct LinkPort {
    pub(crate) listener: TcpListener,
    pub(crate) identity: ServerIdentity,
    pub(crate) desk: Arc<LinkDesk>,
    pub(crate) activator: Activator,
    /// Of all links.
    pub(crate) tasks: TaskTracker,
}

/// What answers a connection.
#[derive(Debug)]
pub(crate) struct LinkDesk {
    pub(crate) links: LinkTable,
    pub(crate) ca: Arc<Ca>,
}

impl LinkPort {
    /// Until the server stops.
    pub(crate) async fn run(self) {
        let stop = self.activator.stop.clone();
        let _ = stop.run_until_cancelled(self.accept()).await;
    }

    async fn accept(&self) {
        let places = Arc::new(Semaphore::new(HANDSHAKES));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((tcp, from)) => self.begin(tcp, from, place),
                Err(error) => {
                    warn!(%error, "cannot accept gateways");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn begin(&self, tcp: TcpStream, from: SocketAddr, place: OwnedSemaphorePermit) {
        let (identity, desk) = (self.identity.clone(), Arc::clone(&self.desk));
        let activator = self.activator.clone();
        self.tasks.spawn(async move {
            let _ = tcp.set_nodelay(true);
            match timeout(HANDSHAKE_WITHIN, Box::pin(identity.accept(tcp))).await {
                Ok(Ok(LinkAccepted::Join(control))) => {
                    if timeout(JOIN_WITHIN, desk.join(control, from)).await.is_err() {
                        debug!(address = %from, "a gateway that joins is silent");
                    }
                    drop(place);
                }
                Ok(Ok(LinkAccepted::Link(gateway, stream))) => {
                    drop(place);
                    Box::pin(desk.link(gateway, stream, &activator)).await;
                }
                Ok(Ok(LinkAccepted::Peer(server, control))) => {
                    desk.peer(server, control, place).await;
                }
                Ok(Err(error)) => debug!(address = %from, %error, "a connection to the link port failed"),
                Err(_) => debug!(address = %from, "a connection to the link port is silent"),
            }
        });
    }
}

impl LinkDesk {
    async fn join(&self, mut control: Control, from: SocketAddr) {
        let Ok(request) = control.receive::<JoinRequest>().await else { return };
        let answer = match self.answer(&request, from).await {
            Ok(answer) => answer,
            Err(error) => {
                warn!(error = format!("{error:#}"), address = %from, "could not have a gateway join");
                JoinAnswer::Unavailable
            }
        };
        let _ = control.send(&answer).await;
    }

    async fn answer(&self, request: &JoinRequest, from: SocketAddr) -> anyhow::Result<JoinAnswer> {
        let now = Timestamp::now();
        let attempt = JoinAttempt {
            token: request.token,
            secret_sha256: Sha256::digest(&request.secret).into(),
            public_key_sha256: Sha256::digest(&request.public_key).into(),
        };
        let origin = RequestOrigin { address: Some(from.ip().to_canonical()), request_id: None };
        let context = WriteContext { origin, ..WriteContext::new("gateway", now, Uuid::now_v7) };
        let joined = match self.links.store.join_gateway(&attempt, &context).await? {
            Ok(joined) => joined,
            Err(refusal) => {
                info!(token.id = %request.token, address = %from, %refusal, "a gateway was refused");
                return Ok(JoinAnswer::Refused { refusal });
            }
        };
        let identity = Identity::Gateway { gateway: joined.id };
        let certificate = self.ca.issue(&identity, &request.public_key, now).context("cannot issue")?;
        info!(gateway.id = %joined.id, location = %joined.location, address = %from, "a gateway has joined");
        Ok(JoinAnswer::Joined(JoinGrant {
            gateway: joined.id,
            location: joined.location,
            certificate,
            ca_certificate: self.ca.certificate().der().to_vec(),
            servers: self.links.addresses.get().to_vec(),
        }))
    }

    /// Answers another server. `place` is that of the connection until the question is there.
    async fn peer(&self, server: ServerId, mut control: Control, place: OwnedSemaphorePermit) {
        let Ok(Ok(question)) = timeout(JOIN_WITHIN, control.receive::<PeerQuestion>()).await else { return };
        drop(place);
        let answer = self.links.gateways.answer(question).await;
        if let Err(error) = control.send(&answer).await {
            debug!(server.id = %server, %error, "another server does not take the answer to its question");
        }
        control.close().await;
    }

    async fn link(&self, presented: PresentedGateway, stream: LinkStream, activator: &Activator) {
        let PresentedGateway { gateway, key_sha256 } = presented;
        let store = &self.links.store;
        let begun = store.link_gateway_of_key(gateway, key_sha256, Timestamp::now()).await;
        match begun {
            Ok(Some((location, epoch))) => {
                let (end, pump) = server_pump(gateway, location, stream);
                Box::pin(self.links.serve(end, pump, (epoch, key_sha256), activator)).await;
            }
            Ok(None) => {
                let refusal = match store.knows_gateway(gateway).await {
                    Ok(true) => LinkRefusal::Ended,
                    Ok(false) => LinkRefusal::Unknown,
                    Err(error) => {
                        warn!(gateway.id = %gateway, %error, "a gateway could not be looked up");
                        return;
                    }
                };
                warn!(gateway.id = %gateway, %refusal, "a gateway was refused");
                let _ = timeout(HANDSHAKE_WITHIN, refuse(stream, refusal)).await;
            }
            Err(error) => warn!(gateway.id = %gateway, %error, "a gateway's link cannot begin"),
        }
    }
}
