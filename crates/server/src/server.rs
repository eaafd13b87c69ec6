//! The server: opens its database and keys, then serves the API and reconciles.

mod gateway_links;

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
use wicketgate_model::{LoadBalancerPools, LocationId, Quotas};
use wicketgate_store::{DatabaseLock, Installation, SecretKeyFile, Store};
use wicketgate_system::{Latest, essential};

use crate::{
    api,
    auth::{
        Auth,
        admin_token::{self, AdminTokenRefresh, Decides},
        oidc::{KeyRefresh, Provider, ProviderConfig},
        token_key,
    },
    background::{Activator, BackgroundTask, OfEldest},
    database_ownership::DatabaseOwnership,
    external::ExternalAddress,
    gateways::{GatewayDirectory, Gateways, directory::DirectoryReader, link_table::LinkTable, reconciler},
    placement::Placement,
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
    /// That of the gateway in this process; `None`: gateways join and link.
    pub location: Option<LocationId>,
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
    /// What the database is.
    opened: Installation,
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
    opened: Installation,
    activator: Activator,
    superseded: CancellationToken,
    data_dir: PathBuf,
    /// Other servers know it.
    is_one_of_several: bool,
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
        let (store, lock) = match &config.location {
            Some(_) => Store::open_alone(&place, &config.secret_keys).await?,
            None => {
                let (store, lock) = Store::open_beside(&place, &config.secret_keys).await?;
                (store, Some(lock))
            }
        };
        let SharedSecrets { ca, tokens } =
            SharedSecrets::load(&store, &config.data_dir, config.has_served).await?;
        let opened = store.installation().await?;
        if let Some(frontdoor) = ensure_first_frontdoor(&store).await? {
            info!(frontdoor.id = %frontdoor.id, "created the first Frontdoor");
        }
        let with_tunnels = store.own_tunnel_locations().await?;
        match &config.location {
            Some(own) => refuse_other_location(&with_tunnels, own)?,
            None if with_tunnels.is_empty() => {}
            None => bail!(
                "the database has tunnels of the gateway in the process of `wicketgate up`, which this role does not have: run \
                 `wicketgate up`, or delete them first"
            ),
        }
        let decides = if config.location.is_some() { Decides::File } else { Decides::Database };
        let (admin, new_admin_token) = admin_token::load(&store, &config.data_dir, decides).await?;
        let auth = Auth { admin: Arc::new(Latest::new(admin)), tokens, provider };
        Ok(Prepared { config, store, lock, ca, opened, auth, new_admin_token })
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

/// How this server has its gateways.
#[derive(Debug)]
pub enum GatewayLinks {
    /// One, in this process.
    InProcess(Box<ServerEnd>),
    /// They dial.
    Port(LinkListener),
}

/// Where gateways join and link.
#[derive(Debug)]
pub struct LinkListener {
    pub listener: TcpListener,
    /// What gateways dial, as HOST:PORT.
    pub address: String,
}

impl Prepared {
    /// The database's authority.
    pub fn ca(&self) -> Arc<Ca> {
        Arc::clone(&self.ca)
    }

    /// Starts to serve and to reconcile. `agent_url` is the URL that agents dial at the gateway in this process, if it is known;
    /// `registry` is what `/metrics` shows.
    ///
    /// # Errors
    ///
    /// The listener has no address, or the database does not answer.
    pub async fn start(
        self,
        source: GatewayLinks,
        agent_url: Option<String>,
        mut registry: Registry,
    ) -> anyhow::Result<Server> {
        let Self { config, store, lock, ca, opened, auth, .. } = self;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let address = config.listener.local_addr().context("cannot tell where the API listens")?;
        let directory = GatewayDirectory::read(&store).await.context("cannot read the gateways")?;
        let (provider, addresses) = (auth.provider.clone(), Arc::<Latest<Vec<String>>>::default());
        let state_config = StateConfig {
            store: store.clone(),
            auth,
            gateways: Gateways::default().in_directory(directory.clone()),
            pools: config.pools,
            external: config.external,
            ca: ca.fingerprint(),
            agent_server: agent_url,
            link_addresses: Arc::clone(&addresses),
            quotas: config.quotas,
            rates: config.rates,
            revocations: config.data_dir.join(revocation_journal::FILE),
        };
        let state = AppState::new(state_config, &mut registry, stop.clone());
        let links = LinkTable {
            store: store.clone(),
            ca,
            era: opened.era,
            gateways: state.gateways.clone(),
            metrics: Arc::clone(&state.metrics),
            failures: Arc::clone(&state.failures),
            deadlines: reconciler::deadlines(config.provisioning_deadline),
            addresses,
            ends: Arc::default(),
        };
        let server = Server {
            tasks,
            stop: stop.clone(),
            store,
            lock: lock.map(|lock| Arc::new(Mutex::new(lock))),
            opened,
            activator: state.activator(),
            superseded: CancellationToken::new(),
            data_dir: config.data_dir,
            is_one_of_several: matches!(source, GatewayLinks::Port(_)),
        };
        // Before the API answers: a tunnel is placed at a gateway.
        match source {
            GatewayLinks::InProcess(end) => server.serve_own(*end, &links).await?,
            GatewayLinks::Port(port) => server.serve_gateways(port, links).await?,
        }
        // What its link has recorded.
        directory.refresh(&server.store).await.context("cannot read the gateways")?;
        server.run_tasks(&state, directory);
        if let Some(provider) = provider {
            let activator = server.activator.clone();
            server.tasks.spawn(async move { activator.run(KeyRefresh::new(provider).await).await });
        }
        let tls = config.tls.map(Arc::new);
        if let Some(tls) = &tls {
            server.run_in_background(TlsReload(Arc::clone(tls)));
        }
        if let Some(listener) = config.admin_listener {
            server.serve_metrics(listener, registry, &state);
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
    /// Runs what every server does beside its gateways.
    fn run_tasks(&self, state: &AppState, directory: GatewayDirectory) {
        let store = || self.store.clone();
        if let Some(lock) = self.lock.clone() {
            let (superseded, stop) = (self.superseded.clone(), self.stop.clone());
            let opened = self.opened.clone();
            let is_in_doubt = false;
            self.run_in_background(DatabaseOwnership {
                lock,
                store: store(),
                opened,
                is_in_doubt,
                superseded,
                stop,
            });
        }
        self.run_in_background(DirectoryReader { directory, store: store() });
        self.run_for_all(Retention(store()));
        let admin = Arc::clone(&state.auth.admin);
        self.run_in_background(AdminTokenRefresh { store: store(), admin });
        self.run_in_background(RevocationJournal::new(store(), &self.data_dir));
        self.run_for_all(LostActions(store()));
        self.run_for_all(ExpiredKeys(store()));
        self.run_for_all(LostAddresses(store()));
        self.run_for_all(Placement { store: store(), gateways: state.gateways.clone() });
        let feed = state.clone();
        self.tasks.spawn(async move {
            essential("feeds events to their readers", feed.run_event_feed()).await;
        });
        let record = state.clone();
        self.tasks.spawn(async move {
            essential("records failed authentications", record.run_authentication_failures()).await;
        });
    }

    fn serve_metrics(&self, listener: TcpListener, registry: Registry, state: &AppState) {
        let scrape = Scrape {
            metrics: Arc::clone(&state.metrics),
            registry: Arc::new(registry),
            store: self.store.clone(),
            gateways: state.gateways.clone(),
        };
        let places = Places::new(SCRAPERS, Arc::default(), Arc::clone(&state.metrics));
        let admin = Http { listener, tls: None, router: telemetry::router(scrape), places };
        self.tasks.spawn(admin.run(self.stop.clone()));
    }

    /// Runs a task until the server stops; it is shown with the server's own.
    pub fn run_in_background<T: BackgroundTask>(&self, task: T) {
        let name = format!("is called {} in /readyz", T::NAME);
        let run = self.activator.clone().run(task);
        self.tasks.spawn(async move { essential(&name, run).await });
    }

    /// As [`Server::run_in_background`], by one of the database's servers.
    fn run_for_all<T: BackgroundTask>(&self, task: T) {
        self.run_in_background(OfEldest { store: self.store.clone(), task });
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
        if self.is_one_of_several
            && let Err(error) = self.store.leave().await
        {
            warn!(%error, "the other servers learn in some seconds that this one has stopped");
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
