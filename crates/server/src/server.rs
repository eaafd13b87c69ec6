//! The server: prepares what it keeps, then answers, and reconciles.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use jiff::Timestamp;
use prometheus_client::registry::Registry;
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};
use wicketgate_authority::Ca;
use wicketgate_link::ServerEnd;
use wicketgate_model::LoadBalancerPools;
use wicketgate_store::Store;

use crate::{
    api,
    auth::{
        AdminToken, Auth, admin_token,
        oidc::{Provider, ProviderConfig},
        token_key::TokenKey,
    },
    feed::Feed,
    gateway_status::GatewayStatus,
    link::{Link, Sight},
    questions::Questions,
    reconciler::{self, LastRun, Reconciler},
    serve::{Http, tls::ApiTls},
    state::{AppState, ensure_first_frontdoor},
    telemetry::{self, Metrics, Scrape},
};

/// The SQLite database's name in the data directory.
const DATABASE: &str = "wicketgate.db";
/// How often what is past its retention is removed.
const PRUNE_EVERY: Duration = Duration::from_secs(3600);
/// Requests that are being answered have this long when the server stops.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// What a server is started with.
#[derive(Debug)]
pub struct ServerConfig {
    /// Exists, mode 0700, and is this process's alone.
    pub data_dir: PathBuf,
    /// A PostgreSQL database; `None` is a SQLite file in the data directory.
    pub database: Option<SecretString>,
    /// Where the REST API answers.
    pub listener: TcpListener,
    /// The API's certificate; `None` serves it in clear.
    pub tls: Option<ApiTls>,
    /// Where `/metrics` is answered, in clear.
    pub admin_listener: Option<TcpListener>,
    /// The operator's identity provider, if there is one.
    pub provider: Option<ProviderConfig>,
    /// Where tunnels' load-balancer addresses come from.
    pub pools: LoadBalancerPools,
    /// How long a change may take before its status is `ERROR`.
    pub provisioning_deadline: Duration,
}

/// A server that has all it needs, and answers nobody yet.
#[derive(Debug)]
pub struct Prepared {
    config: ServerConfig,
    store: Store,
    auth: Auth,
    /// The admin token, if it was made just now: to be printed once.
    pub new_admin_token: Option<secrecy::SecretString>,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    tasks: TaskTracker,
    stop: CancellationToken,
    store: Store,
}

impl Server {
    /// Asks the identity provider who it is, opens the database, and makes what a first start makes.
    ///
    /// # Errors
    ///
    /// One sentence that says what is in the way: the provider, the database or the directory.
    pub async fn prepare(config: ServerConfig) -> anyhow::Result<Prepared> {
        let provider = match config.provider.clone() {
            Some(provider) => Some(Arc::new(Provider::connect(provider).await?)),
            None => None,
        };
        let store = match &config.database {
            Some(url) => Store::open(url.expose_secret()).await?,
            None => Store::open(&config.data_dir.join(DATABASE).display().to_string()).await?,
        };
        if let Some(frontdoor) = ensure_first_frontdoor(&store).await? {
            info!(frontdoor.id = %frontdoor.id, "made the first Frontdoor");
        }
        let (token, is_new) = admin_token::load_or_create(&config.data_dir)?;
        let auth = Auth {
            admin: AdminToken::new(token.expose_secret()),
            tokens: Arc::new(TokenKey::load_or_create(&config.data_dir)?),
            provider,
        };
        Ok(Prepared { config, store, auth, new_admin_token: is_new.then_some(token) })
    }

    /// Where the admin token is kept.
    pub fn admin_token_file(data_dir: &Path) -> PathBuf {
        data_dir.join(admin_token::FILE)
    }
}

impl Prepared {
    /// Starts to answer and to reconcile. `agent_url` is what agents are told to dial, if it is known; `registry` is
    /// what `/metrics` tells.
    ///
    /// # Errors
    ///
    /// The listener can't be asked for its address.
    pub fn start(
        self,
        ca: Arc<Ca>,
        link: ServerEnd,
        agent_url: Option<String>,
        mut registry: Registry,
    ) -> anyhow::Result<Server> {
        let Self { config, store, auth, .. } = self;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let wake = Arc::new(Notify::new());
        let (gateway_status, gateway) = watch::channel(GatewayStatus::default());
        let (last_run_status, last_run) = watch::channel(LastRun::default());
        let metrics = Metrics::new(&mut registry);
        let scrape = Scrape {
            metrics: Arc::clone(&metrics),
            registry: Arc::new(registry),
            store: store.clone(),
            location: link.location.clone(),
            gateway: gateway.clone(),
        };
        let sight = Sight::new(Arc::clone(&wake), Timestamp::now());
        let address = config.listener.local_addr().context("cannot tell where the API listens")?;

        let feed = Feed::new(stop.clone());
        let state = AppState {
            store: store.clone(),
            wake: Arc::clone(&wake),
            pools: config.pools,
            locations: Arc::from([link.location]),
            gateway,
            last_run,
            metrics: Arc::clone(&metrics),
            feed: feed.clone(),
            questions: Questions::new(link.send.clone()),
            ca: ca.fingerprint(),
            agent_server: agent_url,
            auth: auth.clone(),
        };
        let reconciler = Reconciler::new(
            store.clone(),
            Arc::clone(&ca),
            Arc::clone(&sight),
            Arc::clone(&metrics),
            link.send,
            reconciler::deadlines(config.provisioning_deadline),
        );
        let link_task = Link { store: store.clone(), ca, sight, status: gateway_status, metrics };

        // Not cut by a stop: it ends with the gateway's end of the link, and what came before is taken in.
        tasks.spawn(link_task.run(link.receive));
        tasks.spawn(feed.run(store.clone()));
        tasks.spawn(reconciler.run(wake, last_run_status, stop.clone()));
        tasks.spawn(stop.clone().run_until_cancelled_owned(prune(store.clone())));
        if let Some(provider) = auth.provider {
            tasks.spawn(stop.clone().run_until_cancelled_owned(async move { provider.keep_fresh().await }));
        }
        let is_tls = config.tls.is_some();
        let api =
            Http { listener: config.listener, tls: config.tls.map(Arc::new), router: api::router(state) };
        tasks.spawn(api.run(stop.clone()));
        if let Some(listener) = config.admin_listener {
            let admin = Http { listener, tls: None, router: telemetry::router(scrape) };
            tasks.spawn(admin.run(stop.clone()));
        }
        info!(api = %address, tls = is_tls, "server started");
        Ok(Server { tasks, stop, store })
    }
}

impl Server {
    /// Answers what is being asked, takes in what the gateway said last, and stops. A gateway in the same process is
    /// stopped before.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP_WITHIN, self.tasks.wait()).await.is_err() {
            warn!("some requests were not answered in time");
        }
        self.store.close().await;
        info!("server stopped");
    }
}

async fn prune(store: Store) {
    let mut tick = tokio::time::interval(PRUNE_EVERY);
    loop {
        tick.tick().await;
        if let Err(error) = store.prune(Timestamp::now()).await {
            warn!(%error, "could not remove what is past its retention");
        }
    }
}
