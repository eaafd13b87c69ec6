//! The server: opens its database and keys, then serves the API and reconciles.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use jiff::Timestamp;
use prometheus_client::registry::Registry;
use secrecy::{ExposeSecret, SecretString};
use tokio::{net::TcpListener, sync::Mutex};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};
use wicketgate_authority::Ca;
use wicketgate_link::ServerEnd;
use wicketgate_model::{Era, GatewayId, LoadBalancerPools, LocationId, Quotas};
use wicketgate_store::{DatabaseLock, GatewayEpoch, NewGateway, SecretKeyFile, Store};
use wicketgate_system::essential;

use crate::{
    api,
    auth::{
        AdminToken, Auth, admin_token,
        oidc::{KeyRefresh, Provider, ProviderConfig},
        token_key,
    },
    background::{Activator, BackgroundTask},
    database_ownership::DatabaseOwnership,
    external::ExternalAddress,
    gateways::{
        GatewayDirectory, GatewayRpc, Gateways, LinkedGateway, SharedView,
        directory::DirectoryReader,
        link::GatewayLink,
        reconciler::{self, Reconciler, ReconcilerParts},
    },
    rate_limits::Rates,
    retention::{ExpiredKeys, LostActions, LostAddresses, Retention},
    revocation_journal::{self, RevocationJournal},
    serve::{
        Http,
        places::Places,
        tls::{ApiTls, TlsReload},
    },
    shared_secrets::SharedSecrets,
    state::{AppState, StateConfig, ensure_first_frontdoor},
    telemetry::{self, Scrape},
};

/// For requests that are being answered when the server stops.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// For the last revocations: a read and a sync of the disk, if the database answers.
const RECORD_WITHIN: Duration = Duration::from_secs(2);

/// Connections to `/metrics` at one time: few programs read it.
const SCRAPERS: usize = 16;

/// What a server is started with.
#[derive(Debug)]
pub struct ServerConfig {
    /// Exists, has mode 0700, and is locked by this process.
    pub data_dir: PathBuf,
    /// A PostgreSQL database; `None` is a SQLite file in the data directory.
    pub database: Option<SecretString>,
    /// What seals the secrets in the database.
    pub secret_keys: SecretKeyFile,
    /// This data directory's authority and gateway have served a database before.
    pub has_served: bool,
    /// Where the REST API answers.
    pub listener: TcpListener,
    /// Connections to it at one time.
    pub connections: usize,
    /// The API's certificate; `None` serves it in clear.
    pub tls: Option<ApiTls>,
    /// Where `/metrics` is answered, in clear.
    pub admin_listener: Option<TcpListener>,
    /// The operator's identity provider, if there is one.
    pub provider: Option<ProviderConfig>,
    /// Where tunnels' load-balancer addresses come from.
    pub pools: LoadBalancerPools,
    /// Where clients reach the API behind a reverse proxy.
    pub external: ExternalAddress,
    /// The limits of each Frontdoor that are not the defaults.
    pub quotas: Quotas,
    /// The limits of requests that are not the defaults.
    pub rates: Rates,
    /// The gateway's.
    pub location: LocationId,
    /// How long a change may take before its status is `ERROR`.
    pub provisioning_deadline: Duration,
}

/// A server that is ready to start, and serves nothing yet.
#[derive(Debug)]
pub struct Prepared {
    config: ServerConfig,
    store: Store,
    /// Of a PostgreSQL database.
    lock: Option<DatabaseLock>,
    ca: Arc<Ca>,
    era: Era,
    auth: Auth,
    /// The admin token, if it was created just now: to be printed once.
    pub new_admin_token: Option<secrecy::SecretString>,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    tasks: TaskTracker,
    stop: CancellationToken,
    store: Store,
    lock: Option<Arc<Mutex<DatabaseLock>>>,
    activator: Activator,
    superseded: CancellationToken,
    data_dir: PathBuf,
}

impl Server {
    /// The SQLite database's name in the data directory.
    pub const SQLITE: &str = "wicketgate.db";

    /// Connects the identity provider, opens the database, and creates what a first start needs.
    ///
    /// # Errors
    ///
    /// One sentence: the provider, the database or the directory cannot be used.
    pub async fn prepare(config: ServerConfig) -> anyhow::Result<Prepared> {
        let provider = match config.provider.clone() {
            Some(provider) => Some(Arc::new(Provider::connect(provider).await?)),
            None => None,
        };
        let sqlite = || config.data_dir.join(Self::SQLITE).display().to_string();
        let place = config.database.as_ref().map_or_else(sqlite, |url| url.expose_secret().to_owned());
        let (store, lock) = Store::open_alone(&place, &config.secret_keys).await?;
        let SharedSecrets { ca, tokens } =
            SharedSecrets::load(&store, &config.data_dir, config.has_served).await?;
        let era = store.installation().await?.era;
        if let Some(frontdoor) = ensure_first_frontdoor(&store).await? {
            info!(frontdoor.id = %frontdoor.id, "created the first Frontdoor");
        }
        refuse_other_location(&store.own_tunnel_locations().await?, &config.location)?;
        let (token, is_new) = admin_token::load_or_create(&config.data_dir)?;
        let auth = Auth { admin: AdminToken::new(token.expose_secret()), tokens, provider };
        Ok(Prepared { config, store, lock, ca, era, auth, new_admin_token: is_new.then_some(token) })
    }

    /// The file in the data directory that belongs to the database, and cannot be made again.
    pub const KEPT_FILE: &str = admin_token::FILE;

    /// The file of a secret that the database has, in the data directories of earlier versions.
    pub const FORMER_FILE: &str = token_key::FILE;

    /// Where the admin token is kept.
    pub fn admin_token_file(data_dir: &Path) -> PathBuf {
        data_dir.join(admin_token::FILE)
    }
}

/// Records the gateway in this process, and that its link begins.
async fn own_gateway(
    store: &Store,
    id: GatewayId,
    location: &LocationId,
) -> wicketgate_store::Result<GatewayEpoch> {
    let (own, now) = (NewGateway { id, location: location.clone(), in_process: true }, Timestamp::now());
    store.register_gateway(&own, now).await?;
    store.link_gateway(id, now).await
}

/// Refuses a start that would leave all tunnels without a gateway. With some at the own location, the others can only be
/// deleted while the server runs.
fn refuse_other_location(with_tunnels: &[LocationId], own: &LocationId) -> anyhow::Result<()> {
    match with_tunnels.iter().find(|other| *other != own) {
        Some(other) if with_tunnels.contains(own) => {
            warn!(location = %other, "no gateway serves this location, which has tunnels: delete them");
            Ok(())
        }
        Some(other) => bail!(
            "the database has tunnels at the location {other}, and this gateway would serve {own}: start it with \
             --location {other}, or delete those tunnels before you change the location"
        ),
        None => Ok(()),
    }
}

impl Prepared {
    /// The database's authority.
    pub fn ca(&self) -> Arc<Ca> {
        Arc::clone(&self.ca)
    }

    /// Starts to serve and to reconcile. `agent_url` is the URL that agents dial, if it is known; `registry` is what
    /// `/metrics` shows.
    ///
    /// # Errors
    ///
    /// The listener has no address, or the database does not answer.
    pub async fn start(
        self,
        link: ServerEnd,
        agent_url: Option<String>,
        mut registry: Registry,
    ) -> anyhow::Result<Server> {
        let Self { config, store, lock, ca, era, auth, .. } = self;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let address = config.listener.local_addr().context("cannot tell where the API listens")?;
        let (gateway_id, location) = (link.gateway, link.location.clone());
        // Before the API answers: a tunnel is placed at a gateway.
        let epoch = own_gateway(&store, gateway_id, &location).await.context("cannot record the gateway")?;
        let directory = GatewayDirectory::read(&store).await.context("cannot read the gateways")?;
        let (send, handshake) = link.open();
        let view = SharedView::new(Timestamp::now());
        let gateway = LinkedGateway { location, view, rpc: GatewayRpc::new(send.clone()) };
        let provider = auth.provider.clone();
        let state_config = StateConfig {
            store: store.clone(),
            auth,
            gateways: Gateways::from_iter([(gateway_id, gateway.clone())]).in_directory(directory.clone()),
            pools: config.pools,
            external: config.external,
            ca: ca.fingerprint(),
            agent_server: agent_url,
            quotas: config.quotas,
            rates: config.rates,
            revocations: config.data_dir.join(revocation_journal::FILE),
        };
        let state = AppState::new(state_config, &mut registry, stop.clone());
        let reconciler = Reconciler::new(ReconcilerParts {
            store: store.clone(),
            ca: Arc::clone(&ca),
            epoch,
            era,
            view: Arc::clone(&gateway.view),
            metrics: Arc::clone(&state.metrics),
            send: send.clone(),
            deadlines: reconciler::deadlines(config.provisioning_deadline),
        });
        let metrics = Arc::clone(&state.metrics);
        let link_task = GatewayLink { store: store.clone(), ca, epoch, gateway, metrics, send };

        // Not cut by a stop: it ends with the gateway's end of the link, and what came before is taken in.
        tasks.spawn(essential("serves the gateway's link", link_task.run(handshake)));
        let superseded = CancellationToken::new();
        let activator = state.activator();
        let lock = lock.map(|lock| Arc::new(Mutex::new(lock)));
        let (own_stop, data_dir) = (stop.clone(), config.data_dir.clone());
        let superseded_too = superseded.clone();
        let server =
            Server { tasks, stop: own_stop, store, lock, activator, superseded: superseded_too, data_dir };
        if let Some(lock) = server.lock.clone() {
            let (store, stop) = (server.store.clone(), stop.clone());
            server.run_in_background(DatabaseOwnership { lock, store, superseded, stop });
        }
        server.run_in_background(reconciler);
        server.run_in_background(DirectoryReader { directory, store: server.store.clone() });
        server.run_in_background(Retention(server.store.clone()));
        server.run_in_background(RevocationJournal::new(server.store.clone(), &config.data_dir));
        server.run_in_background(LostActions(server.store.clone()));
        server.run_in_background(ExpiredKeys(server.store.clone()));
        server.run_in_background(LostAddresses(server.store.clone()));
        server.tasks.spawn({
            let state = state.clone();
            async move { essential("feeds events to their readers", state.run_event_feed()).await }
        });
        server.tasks.spawn({
            let state = state.clone();
            let record = async move { state.run_authentication_failures().await };
            async move { essential("records failed authentications", record).await }
        });
        if let Some(provider) = provider {
            let activator = server.activator.clone();
            server.tasks.spawn(async move { activator.run(KeyRefresh::new(provider).await).await });
        }
        let tls = config.tls.map(Arc::new);
        if let Some(tls) = &tls {
            server.run_in_background(TlsReload(Arc::clone(tls)));
        }
        if let Some(listener) = config.admin_listener {
            let scrape = Scrape {
                metrics: Arc::clone(&state.metrics),
                registry: Arc::new(registry),
                store: server.store.clone(),
                gateways: state.gateways.clone(),
            };
            let places = Places::new(SCRAPERS, Arc::default(), Arc::clone(&state.metrics));
            let admin = Http { listener, tls: None, router: telemetry::router(scrape), places };
            server.tasks.spawn(admin.run(stop.clone()));
        }
        let is_tls = tls.is_some();
        let places = Places::new(config.connections, Arc::clone(&state.external), Arc::clone(&state.metrics));
        let router = api::router(state);
        let api = Http { listener: config.listener, tls, router, places };
        server.tasks.spawn(essential("serves the API", api.run(stop)));
        let scheme = if is_tls { "https" } else { "http" };
        info!(api = %address, tls = is_tls, console = format!("{scheme}://{address}/"), "server started");
        Ok(server)
    }
}

impl Server {
    /// Runs a task until the server stops; it is shown with the server's own.
    pub fn run_in_background<T: BackgroundTask>(&self, task: T) {
        let name = format!("is called {} in /readyz", T::NAME);
        let run = self.activator.clone().run(task);
        self.tasks.spawn(async move { essential(&name, run).await });
    }

    /// Waits until another server has taken the database: this one has to stop.
    pub async fn superseded(&self) {
        self.superseded.cancelled().await;
    }

    /// Answers running requests, takes in the gateway's last reports, and stops. A gateway in the same process is
    /// stopped before.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP_WITHIN, self.tasks.wait()).await.is_err() {
            warn!("some requests were not answered in time");
        }
        // The file is copied after a stop, and then has to tell of all that was revoked before.
        let mut journal = RevocationJournal::new(self.store.clone(), &self.data_dir);
        let recorded = tokio::time::timeout(RECORD_WITHIN, journal.activate(Timestamp::now())).await;
        if !matches!(recorded, Ok(Ok(_))) {
            warn!(
                "what was revoked in the last seconds is not in the file of revocations: the next start writes it"
            );
        }
        self.store.close().await;
        // After the last write.
        drop(self.lock);
        info!("server stopped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_refused_only_if_all_tunnels_would_be_left() {
        let [a, b] = ["a", "b"].map(|name| name.parse::<LocationId>().unwrap());
        let (both, one) = ([a.clone(), b.clone()], [b.clone()]);
        assert!(refuse_other_location(&[], &a).is_ok());
        assert!(refuse_other_location(&one, &b).is_ok());
        assert!(refuse_other_location(&both, &a).is_ok() && refuse_other_location(&both, &b).is_ok());
        let refused = refuse_other_location(&one, &a).unwrap_err().to_string();
        assert!(refused.contains("--location b"), "{refused}");
    }
}
