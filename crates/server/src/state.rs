//! The state that every request handler shares.

use crate::{
    auth::{Auth, Principal},
    authentication_failures::{AuthenticationFailureRecord, AuthenticationFailures},
    background::{Activator, BackgroundTasks},
    database_check::DatabaseCheck,
    error::ApiError,
    event_feed::{EventFeed, EventReader, Subscription},
    external::ExternalAddress,
    gateways::Gateways,
    rate_limits::{RateLimits, Rates},
    site_desk::SiteDesk,
    telemetry::ServerMetrics,
    turns::Turns,
};
use jiff::{Timestamp, TimestampRound, Unit};
use prometheus_client::registry::Registry;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use wicketgate_model::{LoadBalancerPools, QuotaKind, Quotas};
use wicketgate_store::{FrontdoorRow, FrontdoorSpec, RequestOrigin, Store, StoreError, WriteContext};
use wicketgate_system::Latest;
use wicketgate_transport::trust::Fingerprint;

/// Lists that a customer reads at a time.
const LISTS: usize = 1;

/// The arguments of [`AppState::new`].
#[derive(Debug)]
pub struct StateConfig {
    pub store: Store,
    pub auth: Auth,
    pub gateways: Gateways,
    pub pools: LoadBalancerPools,
    pub external: ExternalAddress,
    /// The fingerprint of the CA that agents trust.
    pub ca: Fingerprint,
    /// The URL that agents dial, if it is known.
    pub agent_server: Option<String>,
    /// Where gateways link to the servers that live, as HOST:PORT. None: the server has its gateway in its process, and no other can
    /// join.
    pub link_addresses: Arc<Latest<Vec<String>>>,
    /// The limits of the installation that are not the defaults.
    pub quotas: Quotas,
    /// The limits of requests that are not the defaults.
    pub rates: Rates,
    /// The record of revocations beside the database.
    pub revocations: PathBuf,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct AppState {
    pub(crate) store: Store,
    pub(crate) auth: Auth,
    pub(crate) gateways: Gateways,
    pub(crate) pools: LoadBalancerPools,
    pub(crate) external: Arc<ExternalAddress>,
    pub(crate) ca: Fingerprint,
    pub(crate) agent_server: Option<String>,
    pub(crate) link_addresses: Arc<Latest<Vec<String>>>,
    pub(crate) quotas: Arc<Quotas>,
    pub(crate) metrics: Arc<ServerMetrics>,
    pub(crate) feed: EventFeed,
    pub(crate) tasks: BackgroundTasks,
    pub(crate) site: Arc<SiteDesk>,
    pub(crate) failures: Arc<AuthenticationFailures>,
    pub(crate) revocations: Arc<Path>,
    pub(crate) rate_limits: Arc<RateLimits>,
    /// Of customers that read lists.
    pub(crate) lists: Arc<Turns>,
    pub(crate) database_check: Arc<DatabaseCheck>,
}

impl AppState {
    /// `registry` is what `/metrics` shows; event streams end with `stop`.
    pub fn new(config: StateConfig, registry: &mut Registry, stop: CancellationToken) -> Self {
        let StateConfig {
            store,
            auth,
            gateways,
            pools,
            external,
            ca,
            agent_server,
            link_addresses,
            quotas,
            rates,
            revocations,
        } = config;
        let metrics = ServerMetrics::new(registry);
        Self {
            revocations: revocations.into(),
            rate_limits: Arc::new(RateLimits::new(rates, Arc::clone(&metrics))),
            metrics,
            feed: EventFeed::new(store.clone(), stop),
            tasks: BackgroundTasks::new(registry),
            site: Arc::default(),
            failures: Arc::default(),
            lists: Arc::new(Turns::new(LISTS)),
            database_check: Arc::default(),
            store,
            auth,
            gateways,
            pools,
            external: Arc::new(external),
            ca,
            agent_server,
            link_addresses,
            quotas: Arc::new(quotas),
        }
    }

    /// The URL that agents dial, if it is known: of the gateway in this process, or of one that is linked somewhere.
    pub(crate) fn agent_server(&self) -> Option<String> {
        let is_one_of_several = !self.link_addresses.get().is_empty();
        self.agent_server.clone().or_else(|| is_one_of_several.then(|| self.gateways.agent_url())?)
    }

    /// The last runs of the background tasks.
    pub fn tasks(&self) -> &BackgroundTasks {
        &self.tasks
    }

    /// Reads new events for subscribers, until the server stops.
    pub async fn run_event_feed(&self) {
        self.activator().run(EventReader { feed: self.feed.clone(), since: None }).await;
    }

    /// Writes failed authentications, until the server stops.
    pub async fn run_authentication_failures(&self) {
        let record =
            AuthenticationFailureRecord { failures: Arc::clone(&self.failures), store: self.store.clone() };
        self.activator().run(record).await;
    }

    /// A place for a client that follows events or logs of the Frontdoor.
    pub(crate) fn follow(&self, frontdoor: &FrontdoorRow) -> Result<Subscription, ApiError> {
        let most = frontdoor.spec.quotas.within(&self.quotas, QuotaKind::EventStreams);
        self.feed.enter(frontdoor.id, &frontdoor.spec.organization, most)
    }

    pub(crate) fn activator(&self) -> Activator {
        Activator { tasks: self.tasks.clone(), stop: self.feed.over().clone() }
    }

    /// The context of a write that `principal` makes now.
    pub(crate) fn write_context(&self, principal: &Principal, origin: &RequestOrigin) -> WriteContext {
        WriteContext {
            claim: principal.claim.clone(),
            origin: origin.clone(),
            quotas: Arc::clone(&self.quotas),
            ..WriteContext::new(principal.actor.clone(), now(), Uuid::now_v7)
        }
    }
}

/// To the microsecond, as the database keeps times: a 202 shows the same time as a later GET.
pub(crate) fn now() -> Timestamp {
    to_the_microsecond(Timestamp::now())
}

pub(crate) fn to_the_microsecond(at: Timestamp) -> Timestamp {
    at.round(TimestampRound::new().smallest(Unit::Microsecond).mode(jiff::RoundMode::Trunc)).unwrap_or(at)
}

/// Creates the first Frontdoor; `None` if there has been one before.
///
/// # Errors
///
/// The database.
pub async fn ensure_first_frontdoor(store: &Store) -> Result<Option<FrontdoorRow>, StoreError> {
    let Ok(default_namespace) = "default".parse() else { return Ok(None) };
    let spec = FrontdoorSpec {
        organization: "default".to_owned(),
        default_namespace,
        ipsec_shares_enabled: true,
        quotas: Quotas::default(),
    };
    store.ensure_first_frontdoor(&spec, &WriteContext::new("server", now(), Uuid::now_v7)).await
}
