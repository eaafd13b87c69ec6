//! The links of this server: each has a view, a reconciler and a task that end with it.
//!
//! Invariant: a gateway has one link here at most. The next one ends the one before, and so does a link at another server, whose
//! epoch is later.

use std::{
    collections::BTreeMap,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{select, sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use wicketgate_authority::Ca;
use wicketgate_link::{FromGateway, Handshake, HeldState, Pump, ServerEnd, ServerHello, ToGateway, VERSIONS};
use wicketgate_model::{Deadlines, Era, GatewayId};
use wicketgate_store::{GatewayEpoch, Store};
use wicketgate_system::{Latest, Mutex};
use wicketgate_transport::tls::LinkStream;

use super::{
    GatewayRpc, Gateways, LinkedGateway, SharedView,
    link::GatewayLink,
    reconciler::{Reconciler, ReconcilerParts},
};
use crate::{
    authentication_failures::AuthenticationFailures,
    background::{Activator, BackgroundTask, Outcome},
    telemetry::ServerMetrics,
};

/// For the hello of a gateway whose TLS handshake is done.
const HELLO_WITHIN: Duration = Duration::from_secs(8);

/// A link that is recorded and is not there for so long is none: longer than an opening, and the end of one, may take.
const STRAY: Duration = Duration::from_secs(45);

/// What all links of a server have in common. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct LinkTable {
    pub(crate) store: Store,
    pub(crate) ca: Arc<Ca>,
    pub(crate) era: Era,
    pub(crate) gateways: Gateways,
    pub(crate) metrics: Arc<ServerMetrics>,
    /// Of agents that enrol.
    pub(crate) failures: Arc<AuthenticationFailures>,
    pub(crate) deadlines: Deadlines,
    /// Where gateways link to the servers that live.
    pub(crate) addresses: Arc<Latest<Vec<String>>>,
    /// What ends each link over a network.
    pub(crate) ends: Arc<Mutex<BTreeMap<GatewayId, LinkEnd>>>,
}

/// A link over a network.
#[derive(Debug, Clone)]
pub(crate) struct LinkEnd {
    epoch: u64,
    over: CancellationToken,
    send: mpsc::Sender<ToGateway>,
    /// The servers' addresses that the gateway was told last.
    told: Arc<Vec<String>>,
}

/// A link that is open at this end.
#[derive(Debug)]
pub(crate) struct OpenLink {
    pub(crate) gateway: LinkedGateway,
    pub(crate) link: GatewayLink,
    pub(crate) handshake: Handshake<FromGateway>,
    parts: ReconcilerParts,
}

impl OpenLink {
    /// `held`: what the gateway has from another link.
    pub(crate) fn reconciler(&self, held: Option<HeldState>) -> Reconciler {
        Reconciler::new(ReconcilerParts { held, ..self.parts.clone() })
    }
}

impl LinkTable {
    /// Sends the hello.
    pub(crate) fn open(&self, end: ServerEnd, epoch: GatewayEpoch, key: Option<[u8; 32]>) -> OpenLink {
        let Self { store, ca, era, metrics, deadlines, .. } = self;
        let servers = self.addresses.get().to_vec();
        let hello = ServerHello { versions: VERSIONS, epoch: epoch.number(), era: *era, servers };
        let (location, kind) = (end.location.clone(), end.kind);
        let (send, handshake) = end.open(hello);
        let view = SharedView::new(Timestamp::now());
        let gateway = LinkedGateway { location, view, rpc: GatewayRpc::new(send.clone()) };
        let parts = ReconcilerParts {
            store: store.clone(),
            ca: Arc::clone(ca),
            epoch,
            era: *era,
            view: Arc::clone(&gateway.view),
            metrics: Arc::clone(metrics),
            send: send.clone(),
            kind,
            held: None,
            deadlines: *deadlines,
        };
        let link = GatewayLink {
            store: store.clone(),
            ca: Arc::clone(ca),
            failures: Arc::clone(&self.failures),
            epoch,
            gateway: gateway.clone(),
            metrics: Arc::clone(metrics),
            send,
            key_sha256: key,
        };
        OpenLink { gateway, link, handshake, parts }
    }

    /// Serves a gateway's link over a network until it ends.
    pub(crate) async fn serve(
        &self,
        end: ServerEnd,
        pump: Pump<LinkStream, ToGateway, FromGateway>,
        (epoch, key): (GatewayEpoch, [u8; 32]),
        activator: &Activator,
    ) {
        let over = activator.stop.child_token();
        let id = epoch.gateway();
        let told = self.addresses.get();
        let OpenLink { gateway, link, handshake, parts } = self.open(end, epoch, Some(key));
        let end = LinkEnd { epoch: epoch.number(), over: over.clone(), send: parts.send.clone(), told };
        let activator = Activator { tasks: activator.tasks.clone(), stop: over.clone() };
        let carry = async {
            let broken = select! {
                broken = pump.run() => broken.err(),
                () = over.cancelled() => None,
            };
            match broken {
                Some(error) => warn!(gateway.id = %id, %error, "the gateway's link has broken"),
                None => info!(gateway.id = %id, "the gateway's link was closed here"),
            }
        };
        let serve = async {
            match timeout(HELLO_WITHIN, handshake.finish()).await {
                Ok(Ok((hello, messages))) => {
                    let entry = self.enter(id, gateway, end);
                    let reconciler = Reconciler::new(ReconcilerParts { held: hello.held, ..parts });
                    let reconcile = activator.run(reconciler);
                    let link = async {
                        Box::pin(link.run_linked(hello, messages)).await;
                        over.cancel();
                    };
                    tokio::join!(link, Box::pin(reconcile));
                    drop(entry);
                }
                Ok(Err(error)) => {
                    warn!(gateway.id = %id, %error, "the link to the gateway cannot be opened");
                    link.give_up().await;
                }
                Err(_) => {
                    warn!(gateway.id = %id, "the gateway has opened a link and said nothing");
                    link.give_up().await;
                }
            }
            over.cancel();
        };
        tokio::join!(carry, serve);
    }

    /// Makes it the gateway's only link here, and its gateway one of this server's; unless a later one is there, which ends this one.
    fn enter(&self, id: GatewayId, gateway: LinkedGateway, end: LinkEnd) -> Entry {
        let entry = Entry { links: self.clone(), id, epoch: end.epoch, view: Arc::clone(&gateway.view) };
        let mut ends = self.ends.lock();
        match ends.get(&id) {
            Some(other) if other.epoch > end.epoch => end.over.cancel(),
            before => {
                if let Some(before) = before {
                    before.over.cancel();
                }
                ends.insert(id, end);
                self.gateways.link(id, gateway);
            }
        }
        entry
    }

    /// Tells all gateways that are linked over a network where servers are, if they do not know it.
    pub(crate) fn tell_servers(&self) {
        let servers = self.addresses.get();
        for end in self.ends.lock().values_mut().filter(|end| end.told != servers) {
            // A link that is busy is told at the next beat.
            if end.send.try_send(ToGateway::Servers(servers.to_vec())).is_ok() {
                end.told = Arc::clone(&servers);
            }
        }
    }

    /// Each link over a network, and what it has told.
    pub(crate) fn linked_over_network(&self) -> Vec<(mpsc::Sender<ToGateway>, Arc<SharedView>)> {
        let (ends, linked) = (self.ends.lock(), self.gateways.linked_now());
        let both = ends.iter().filter_map(|(id, end)| Some((end.send.clone(), &linked.get(id)?.view)));
        both.map(|(send, view)| (send, Arc::clone(view))).collect()
    }

    /// Ends all links over a network. Returns whether there were some.
    pub(crate) fn end_all(&self) -> bool {
        let ends = self.ends.lock();
        ends.values().for_each(|end| end.over.cancel());
        !ends.is_empty()
    }
}

/// A link's place among those of the server, which ends with it: also if its task panics.
#[derive(Debug)]
struct Entry {
    links: LinkTable,
    id: GatewayId,
    epoch: u64,
    view: Arc<SharedView>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.links.gateways.unlink(self.id, &self.view);
        let mut ends = self.links.ends.lock();
        if ends.get(&self.id).is_some_and(|end| end.epoch == self.epoch) {
            ends.remove(&self.id);
        }
    }
}

/// Ends links whose epoch is not that of the database: their gateway has another one, or was removed. And ends the record of a link
/// that is none, as one that could not be ended while the database was away.
#[derive(Debug)]
pub(crate) struct PassedLinks {
    pub(crate) links: LinkTable,
    /// Links that are recorded for this server and that it does not have, and since when they are seen.
    pub(crate) strays: BTreeMap<GatewayId, (u64, Instant)>,
}

impl BackgroundTask for PassedLinks {
    const NAME: &'static str = "passed-links";
    /// A gateway that was removed keeps its link for so long.
    const PERIOD: Duration = Duration::from_secs(1);
    /// One statement.
    const WITHIN: Duration = Duration::from_secs(10);

    async fn activate(&mut self, now: Timestamp) -> anyhow::Result<Outcome> {
        // Those of now: one that begins later has an epoch that the rows need not have yet.
        let ends = self.links.ends.lock().clone();
        let epochs = self.links.store.link_epochs().await?;
        for (gateway, end) in &ends {
            // A lesser one: a failover has lost the transaction by which the link began.
            if epochs.get(gateway) != Some(&end.epoch) {
                info!(gateway.id = %gateway, "the gateway has another link, or was removed: this one ends");
                end.over.cancel();
            }
        }
        let own: BTreeMap<_, _> = self.links.ends.lock().iter().map(|(id, end)| (*id, end.epoch)).collect();
        let strays = epochs.into_iter().filter(|(gateway, epoch)| own.get(gateway) != Some(epoch));
        let before = mem::take(&mut self.strays);
        for (gateway, epoch) in strays {
            let known = before.get(&gateway).filter(|(known, _)| *known == epoch);
            let since = known.map_or_else(Instant::now, |(_, since)| *since);
            if since.elapsed() > STRAY {
                warn!(gateway.id = %gateway, "the gateway is recorded as linked here, and has no link: that is ended");
                self.links.store.end_link_of_none(gateway, epoch, now).await?;
            } else {
                self.strays.insert(gateway, (epoch, since));
            }
        }
        Ok(Outcome::Done)
    }
}
