//! `wicketgate server`: the control plane alone, whose gateways join and link over a network.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{bail, ensure};
use clap::Args;
use prometheus_client::registry::Registry;
use secrecy::SecretString;
use tracing::info;
use wicketgate_authority::Ca;
use wicketgate_model::LoadBalancerPools;
use wicketgate_server::{
    ApiTls, ExternalAddress, GatewayLinks, LinkListener, Server, ServerConfig, auth::oidc::ProviderConfig,
};
use wicketgate_settings::SettingsFaults;
use wicketgate_store::SecretKeyFile;
use wicketgate_system::{
    descriptor_budget::DescriptorBudget,
    log::LogFilter,
    own_directory::OwnDirectory,
    program::{StopSignals, WrongUsage},
    service_manager::{self, ReloadSignals},
};

use crate::{
    database::{self, Database},
    flags::{
        listen,
        server::{PROVIDER, ServerFlags, TLS},
        socket_address,
    },
    gateway::host_and_port,
    up::{CA, DATA_DIRECTORY, print_token},
};

/// What a stop takes at most.
const LONGEST_STOP: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(crate) struct ServerRole {
    /// A file with settings, in TOML, whose keys are these flags' names.
    #[arg(long, value_name = "FILE", env = "WICKETGATE_SERVER_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// What is logged: a level (error, warn, info, debug), or levels of targets. A reload changes it.
    #[arg(long, value_name = "FILTER", default_value = "info", env = "RUST_LOG")]
    log: LogFilter,
    /// Directory for the secret key and the admin token. Created if it does not exist.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/wicketgate", env = "WICKETGATE_DATA_DIR")]
    data_dir: PathBuf,
    /// Address where gateways join and link, with TLS.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:8444", value_parser = socket_address)]
    link_listen: SocketAddr,
    /// What gateways dial for that, as HOST:PORT [default: that of --link-listen, if it is one address].
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    link_address: Option<String>,
    #[command(flatten)]
    pub(crate) server: ServerFlags,
    #[command(flatten)]
    pub(crate) database: Database,
}

/// What the settings say, checked.
#[derive(Debug)]
pub(crate) struct CheckedServer {
    tls: Option<ApiTls>,
    provider: Option<ProviderConfig>,
    database: SecretString,
    secret_keys: SecretKeyFile,
    link_address: String,
}

impl ServerRole {
    pub(crate) async fn run(
        self,
        mut reloads: ReloadSignals,
        mut reload: impl FnMut() -> Option<Box<Self>>,
    ) -> anyhow::Result<()> {
        self.log.apply();
        let CheckedServer { tls, provider, database, secret_keys, link_address } = self.check()?;
        let data_dir = OwnDirectory::open(&self.data_dir, &DATA_DIRECTORY)?;
        let (listener, admin_listener) = self.server.listeners().await?;
        let links = listen(self.link_listen, "gateways", "--link-listen").await?;
        database::check(data_dir.path(), Some(&database))?;
        let authority = data_dir.subdirectory(CA)?;
        let prepared = Server::prepare(ServerConfig {
            data_dir: data_dir.path().to_owned(),
            has_served: Ca::remembered(&authority)?.is_some(),
            listener,
            connections: usize::try_from(DescriptorBudget::find().api)?,
            database: Some(database.clone()),
            secret_keys,
            tls,
            admin_listener,
            provider,
            pools: self.pools(),
            quotas: self.server.quota.into_iter().collect(),
            rates: self.server.rate_limit.into_iter().collect(),
            external: ExternalAddress {
                url: self.server.external_url,
                trusted_proxies: self.server.trusted_proxy,
            },
            location: None,
            provisioning_deadline: Duration::from_secs(self.server.provisioning_deadline.into()),
        })
        .await?;
        database::keep(data_dir.path(), Some(&database))?;
        print_token(prepared.new_admin_token.as_ref(), &Server::admin_token_file(data_dir.path()));
        let source = GatewayLinks::Port(LinkListener { listener: links, address: link_address });
        // Before the API answers: who has had an answer may ask for a stop.
        let mut signals = StopSignals::new(reloads.are_expected())?;
        let server = Box::pin(prepared.start(source, None, Registry::default())).await?;
        service_manager::ready("serving");
        let (signal, is_superseded) = loop {
            tokio::select! {
                signal = signals.next() => break (signal, false),
                () = server.superseded() => break ("another server uses the database", true),
                _reload = reloads.next() => {
                    if let Some(role) = reload() {
                        role.log.apply();
                    }
                }
            }
        };
        service_manager::stopping();
        service_manager::stop_takes(LONGEST_STOP);
        info!(signal, "stopping");
        server.stop().await;
        ensure!(!is_superseded, "another server has taken over the PostgreSQL database");
        Ok(())
    }

    /// Checks what the parser cannot. Writes and changes nothing.
    pub(crate) fn check(&self) -> Result<CheckedServer, SettingsFaults> {
        let mut faults = SettingsFaults::default();
        let tls = faults.keep(TLS, self.server.tls());
        let provider = faults.keep(PROVIDER, self.server.provider());
        let database = faults.keep(database::SETTINGS, self.needed_database());
        let secret_keys = faults.keep(database::KEY_SETTINGS, self.database.secret_keys(&self.data_dir));
        let link_address = faults.keep(&["link-address", "link-listen"], self.link_address());
        match (tls, provider, database, secret_keys, link_address) {
            (Some(tls), Some(provider), Some(database), Some(secret_keys), Some(link_address)) => {
                Ok(CheckedServer { tls, provider, database, secret_keys, link_address })
            }
            _ => Err(faults),
        }
    }

    fn needed_database(&self) -> anyhow::Result<SecretString> {
        let needed =
            "a server with gateways elsewhere needs PostgreSQL: set --database, or run `wicketgate up`";
        self.database.url()?.ok_or_else(|| WrongUsage(needed.to_owned()).into())
    }

    fn pools(&self) -> LoadBalancerPools {
        match &self.server.load_balancer_pool {
            given if given.is_empty() => LoadBalancerPools::ipsec(),
            given => given.clone().into(),
        }
    }

    fn link_address(&self) -> anyhow::Result<String> {
        let listens = self.link_listen;
        match &self.link_address {
            Some(address) => Ok(address.clone()),
            None if !listens.ip().is_unspecified() => Ok(listens.to_string()),
            None => bail!(WrongUsage(
                "gateways have to be told what to dial: set --link-address to HOST:PORT of this server"
                    .to_owned()
            )),
        }
    }
}
