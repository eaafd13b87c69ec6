//! The server: prepares what it keeps, then answers, and reconciles.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};
use wicketgate_model::LoadBalancerPools;
use wicketgate_session::{ca::Ca, link::ServerEnd};
use wicketgate_store::Store;

use crate::{
    api,
    auth::{AdminToken, admin_token},
    link::{Link, Sight},
    reconciler::{self, LastRun, Reconciler},
    state::{AppState, GatewayStatus, ensure_first_frontdoor},
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
    /// Where the REST API answers.
    pub listener: TcpListener,
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
    admin: AdminToken,
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
    /// Opens the database, and makes what a first start makes.
    ///
    /// # Errors
    ///
    /// One sentence that says what is in the way: the directory or the database.
    pub async fn prepare(config: ServerConfig) -> anyhow::Result<Prepared> {
        let path = config.data_dir.join(DATABASE);
        let store = Store::open(&path.display().to_string()).await?;
        if let Some(frontdoor) = ensure_first_frontdoor(&store).await? {
            info!(frontdoor.id = %frontdoor.id, "made the first Frontdoor");
        }
        let (token, is_new) = admin_token::load_or_create(&config.data_dir)?;
        let admin = AdminToken::new(token.expose_secret());
        Ok(Prepared { config, store, admin, new_admin_token: is_new.then_some(token) })
    }

    /// Where the admin token is kept.
    pub fn admin_token_file(data_dir: &Path) -> PathBuf {
        data_dir.join(admin_token::FILE)
    }
}

impl Prepared {
    /// Starts to answer and to reconcile. `agent_url` is what agents are told to dial, if it is known.
    ///
    /// # Errors
    ///
    /// The listener can't be asked for its address.
    pub fn start(self, ca: Arc<Ca>, link: ServerEnd, agent_url: Option<String>) -> anyhow::Result<Server> {
        let Self { config, store, admin, .. } = self;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let wake = Arc::new(Notify::new());
        let (gateway_status, gateway) = watch::channel(GatewayStatus::default());
        let (last_run_status, last_run) = watch::channel(LastRun::default());
        let sight = Sight::new(Arc::clone(&wake), Timestamp::now());
        let address = config.listener.local_addr().context("cannot tell where the API listens")?;

        let state = AppState {
            store: store.clone(),
            wake: Arc::clone(&wake),
            pools: config.pools,
            locations: Arc::from([link.location]),
            gateway,
            last_run,
            ca: ca.fingerprint(),
            agent_server: agent_url,
            admin,
        };
        let reconciler = Reconciler::new(
            store.clone(),
            Arc::clone(&ca),
            Arc::clone(&sight),
            link.send,
            reconciler::deadlines(config.provisioning_deadline),
        );
        let link_task = Link { store: store.clone(), ca, sight, status: gateway_status };

        // Not cut by a stop: it ends with the gateway's end of the link, and what came before is taken in.
        tasks.spawn(link_task.run(link.receive));
        tasks.spawn(reconciler.run(wake, last_run_status, stop.clone()));
        tasks.spawn(stop.clone().run_until_cancelled_owned(prune(store.clone())));
        let serve = axum::serve(config.listener, api::router(state))
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        tasks.spawn(async move {
            if let Err(error) = serve.await {
                warn!(%error, "the API stopped");
            }
        });
        info!(api = %address, "server started");
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
