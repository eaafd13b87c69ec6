//! The server's end of a link to a gateway: takes in what the gateway reports, and answers its requests.
//!
//! Invariant: reports are taken in order, so that an agent that came and went is never left as connected; requests
//! for certificates are answered beside them.

mod issuer;

use std::{
    collections::BTreeSet,
    mem,
    sync::{Arc, MutexGuard},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::timeout,
};
use tracing::{info, warn};
use wicketgate_authority::Ca;
use wicketgate_link::{ConnectedAgent, FromGateway, GatewayHello};
use wicketgate_model::{Observed, ShareId, TunnelId};
use wicketgate_store::{Store, StoreError};
use wicketgate_system::{Mutex, Outage};

use crate::{gateway_status::GatewayStatus, telemetry::Metrics};

/// Between two tries to write what has to be written.
const INSIST_EVERY: Duration = Duration::from_secs(1);

/// One try: longer than any of these writes takes. What is longer hangs at a database that is gone.
const WRITTEN_WITHIN: Duration = Duration::from_secs(30);

/// What is known of one gateway: written by its link, read by the reconciler.
#[derive(Debug)]
pub(crate) struct Sight {
    inner: Mutex<Seen>,
    /// Wakes the reconciler, which is woken by accepted writes as well.
    wake: Arc<Notify>,
}

#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) observed: Observed,
    /// The newest delta that the gateway has answered; 0 before its first report on this link.
    pub(crate) heard: u64,
    /// Since when the gateway has said nothing; `None` once it has reported.
    pub(crate) silent_since: Option<Timestamp>,
    /// The gateway has said that it stops, and leaves its tunnels as they are.
    pub(crate) is_draining: bool,
    /// When the gateway's first report on this link came.
    pub(crate) reporting_since: Timestamp,
    touched_tunnels: BTreeSet<TunnelId>,
    touched_shares: BTreeSet<ShareId>,
    /// A reset or the end of the link touched everything.
    touched_all: bool,
}

/// What changed in a [`Sight`] since it was last asked.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    pub(crate) all: bool,
    pub(crate) tunnels: BTreeSet<TunnelId>,
    pub(crate) shares: BTreeSet<ShareId>,
}

impl Sight {
    pub(crate) fn new(wake: Arc<Notify>, now: Timestamp) -> Arc<Self> {
        let seen = Seen {
            observed: Observed::default(),
            heard: 0,
            silent_since: Some(now),
            is_draining: false,
            reporting_since: now,
            touched_tunnels: BTreeSet::new(),
            touched_shares: BTreeSet::new(),
            touched_all: true,
        };
        Arc::new(Self { inner: Mutex::new(seen), wake })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Seen> {
        self.inner.lock()
    }

    fn write(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.lock());
        self.wake.notify_one();
    }
}

impl Seen {
    pub(crate) fn take_touched(&mut self) -> Touched {
        Touched {
            all: mem::take(&mut self.touched_all),
            tunnels: mem::take(&mut self.touched_tunnels),
            shares: mem::take(&mut self.touched_shares),
        }
    }
}

/// Serves the link until the gateway closes its end.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) store: Store,
    pub(crate) ca: Arc<Ca>,
    pub(crate) sight: Arc<Sight>,
    pub(crate) status: watch::Sender<GatewayStatus>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Link {
    pub(crate) async fn run(self, mut receive: mpsc::Receiver<FromGateway>) {
        insist("clear the list of connected agents", || {
            self.store.all_agents_disconnected(Timestamp::now(), None)
        })
        .await;
        let mut desk = issuer::Desk::new(self.store.clone(), Arc::clone(&self.ca));
        while let Some(message) = receive.recv().await {
            if let Some(report) = desk.take(message) {
                self.take(report).await;
            }
        }
        info!("the gateway's link ended");
        self.gone();
        let seen = Timestamp::now();
        insist("clear the list of connected agents", || self.store.all_agents_disconnected(seen, Some(seen)))
            .await;
    }

    /// What the gateway served is not served any more, or about to be gone.
    fn gone(&self) {
        self.status.send_modify(|s| s.connected = false);
        self.sight.write(|seen| {
            seen.silent_since.get_or_insert(Timestamp::now());
            seen.heard = 0;
            seen.observed = Observed::default();
            seen.touched_all = true;
        });
    }

    /// Takes a report.
    pub(crate) async fn take(&self, message: FromGateway) {
        match message {
            FromGateway::Hello(hello) => {
                info!(esp = %hello.esp, "gateway linked");
                let GatewayHello { esp, public_address, max_tunnels } = hello;
                self.status.send_replace(GatewayStatus {
                    connected: true,
                    esp: Some(esp),
                    public_address,
                    max_tunnels,
                });
            }
            FromGateway::Observed { heard, delta } => self.sight.write(|seen| {
                seen.heard = heard;
                // Only the answer to the first delta says how everything stands.
                if delta.reset {
                    (seen.silent_since, seen.is_draining) = (None, false);
                    seen.reporting_since = Timestamp::now();
                    seen.touched_all = true;
                }
                seen.touched_tunnels.extend(delta.tunnels.iter().map(|(id, _)| id));
                seen.touched_tunnels.extend(&delta.gone_tunnels);
                seen.touched_shares.extend(delta.shares.iter().map(|(id, _)| id));
                seen.touched_shares.extend(&delta.gone_shares);
                seen.observed.apply(delta);
            }),
            FromGateway::AgentConnected(agent) => {
                info!(agent.id = %agent.agent, environment.id = %agent.environment, version = agent.version, "agent connected");
                let ConnectedAgent { agent, name, version, address, .. } = agent;
                let now = Timestamp::now();
                insist("record that an agent connected", || {
                    self.store.agent_connected(agent, &name, &version, address, now)
                })
                .await;
            }
            FromGateway::AgentDisconnected(agent) => {
                info!(agent.id = %agent, "agent disconnected");
                let now = Timestamp::now();
                insist("record that an agent disconnected", || self.store.agent_disconnected(agent, now))
                    .await;
            }
            FromGateway::Traffic(carried) => {
                self.metrics.carried(&carried);
                let now = Timestamp::now();
                insist("record what shares carried", || self.store.record_traffic(now, &carried)).await;
            }
            FromGateway::Carriers { parked } => self.metrics.parked(parked),
            FromGateway::Draining => {
                info!("the gateway is stopping");
                self.sight.write(|seen| seen.is_draining = true);
                self.gone();
            }
            // For the desk.
            FromGateway::Enrol(..) | FromGateway::Renew(..) => {}
        }
    }
}

/// Writes what the gateway tells only once, however long the database does not answer. What the gateway has to say
/// meanwhile waits at its end of the link, where it is folded together.
async fn insist<T, F>(what: &str, mut write: impl FnMut() -> F)
where
    F: Future<Output = wicketgate_store::Result<T>>,
{
    let mut outage = Outage::default();
    while let Err(error) = timeout(WRITTEN_WITHIN, write()).await.unwrap_or(Err(StoreError::Late)) {
        if outage.failed() {
            warn!(%error, "cannot {what}; retrying every second");
        }
        tokio::time::sleep(INSIST_EVERY).await;
    }
}
