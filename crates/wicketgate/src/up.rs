//! `wicketgate up`: server and gateway in one process, joined by an in-process link.

mod certificate_renewal;

use std::{
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use prometheus_client::registry::Registry;
use secrecy::{ExposeSecret, SecretString};
use tracing::{info, warn};
use uuid::Uuid;
use wicketgate_authority::Ca;
use wicketgate_gateway::{Backend, Gateway, IpsecConfig, IpsecMode, LinkSource};
use wicketgate_link::{self as link, ServerEnd};
use wicketgate_model::{GatewayId, LoadBalancerPools, LocationId};
use wicketgate_server::{
    ApiTls, ExternalAddress, GatewayLinks, Prepared, Server, ServerConfig, auth::oidc::ProviderConfig,
};
use wicketgate_settings::SettingsFaults;
use wicketgate_store::SecretKeyFile;
use wicketgate_system::{
    SecondRuntime,
    descriptor_budget::DescriptorBudget,
    log::LogFilter,
    own_directory::{DirectoryKind, OwnDirectory},
    private_file,
    program::{StopSignals, WrongUsage},
    service_manager::{self, ReloadSignals},
};

use crate::{
    database::{self, Database, GATEWAY_ID},
    flags::{self, gateway::GatewayFlags, server::ServerFlags},
};
use certificate_renewal::CertificateRenewal;

/// What a stop takes at most beside `--drain`: notices, deliveries, requests, tasks.
const STOP_BESIDES_DRAIN: Duration = Duration::from_secs(30);

/// The directory in the data directory that says which authority it belongs to.
pub(crate) const CA: &str = Ca::DIRECTORY;

pub(crate) const DATA_DIRECTORY: DirectoryKind = DirectoryKind {
    program: "wicketgate",
    name: "data directory",
    flag: "--data-dir",
    first: CA,
    given: &[database::SECRET_KEY],
    busy: "stop it first, or choose another with --data-dir",
};

#[derive(Debug, Args)]
// `--drain -1` is a wrong value and not an unknown flag.
#[command(allow_negative_numbers = true)]
pub(crate) struct Up {
    /// A file with settings, in TOML, whose keys are these flags' names. `wicketgate config default` prints one.
    #[arg(long, value_name = "FILE", env = "WICKETGATE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// What is logged: a level (error, warn, info, debug), or levels of targets, like info,access=warn. A reload changes it.
    #[arg(long, value_name = "FILTER", default_value = "info", env = "RUST_LOG")]
    log: LogFilter,
    /// Directory for the database, the secret key and the admin token. Created if it does not exist.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/wicketgate", env = "WICKETGATE_DATA_DIR")]
    pub(crate) data_dir: PathBuf,
    #[command(flatten)]
    pub(crate) server: ServerFlags,
    #[command(flatten)]
    pub(crate) gateway: GatewayFlags,
    /// The name of this gateway's location, which tunnels refer to: it must stay the same while there are tunnels.
    #[arg(long, value_name = "NAME", default_value = "local")]
    location: LocationId,
    #[command(flatten)]
    pub(crate) database: Database,
}

/// The settings that a reload changes while the process runs. All others need a restart.
pub(crate) const RELOADED: &[&str] = &["log"];

/// What the settings say, checked.
#[derive(Debug)]
pub(crate) struct Checked {
    tls: Option<ApiTls>,
    database: Option<SecretString>,
    secret_keys: SecretKeyFile,
    pools: LoadBalancerPools,
    provider: Option<ProviderConfig>,
}

impl Up {
    pub(crate) async fn run(
        self,
        reloads: ReloadSignals,
        reload: impl FnMut() -> Option<Box<Self>>,
    ) -> anyhow::Result<()> {
        self.log.apply();
        let Checked { tls, database, secret_keys, pools, provider } = self.check()?;
        let Self { server, gateway, location, .. } = self;
        Backend::preflight(gateway.ipsec)?;
        // Before the listeners: a second start names the directory, and not a port that the first one has.
        let data_dir = OwnDirectory::open(&self.data_dir, &DATA_DIRECTORY)?;
        // What the API is asked for does not delay the gateway's connections.
        let control = SecondRuntime::start("server").context("cannot start the server's threads")?;
        let (api_listener, admin_listener) = control.carry(server.listeners()).await?;
        let agent_listener = gateway.listener().await?;
        database::check(data_dir.path(), database.as_ref())?;
        data_dir.subdirectory(CA)?;
        let backend = Backend::start(IpsecConfig {
            mode: gateway.ipsec,
            state_dir: data_dir.subdirectory("gateway")?,
            public_address: gateway.public_address,
        })
        .await?;
        let prepared = control.carry(Server::prepare(ServerConfig {
            data_dir: data_dir.path().to_owned(),
            has_served: data_dir.path().join(GATEWAY_ID).try_exists()?,
            listener: api_listener,
            connections: usize::try_from(DescriptorBudget::find().api)?,
            database: database.clone(),
            secret_keys,
            tls,
            admin_listener,
            provider,
            pools,
            quotas: server.quota.into_iter().collect(),
            rates: server.rate_limit.into_iter().collect(),
            external: ExternalAddress { url: server.external_url, trusted_proxies: server.trusted_proxy },
            location: Some(location.clone()),
            provisioning_deadline: Duration::from_secs(server.provisioning_deadline.into()),
        }));
        // After the database was opened: a start that fails before leaves no trace of another database.
        let identified = |server: Prepared| {
            let identity = identify(data_dir.path(), database.as_ref(), server.ca())?;
            Ok((server, identity))
        };
        let (server, (gateway_id, renewal)) = match prepared.await.and_then(identified) {
            Ok(identified) => identified,
            Err(error) => {
                give_back(backend).await;
                return Err(error);
            }
        };
        let longest_stop = gateway.drain() + STOP_BESIDES_DRAIN;
        let (server_end, gateway_end) = link::in_process(gateway_id, location.clone());
        let config = gateway.config(backend, agent_listener, renewal.identity.clone());
        let serving = Gateway::start(config, LinkSource::InProcess(gateway_end.into())).await?;
        print_token(server.new_admin_token.as_ref(), &Server::admin_token_file(data_dir.path()));
        // Before the API answers: who has had an answer may ask for a stop.
        let signals = StopSignals::new(reloads.are_expected())?;
        let server = control.carry(start(server, (server_end, serving.agent_url()), renewal)).await?;

        service_manager::ready("serving");
        stop_on_signal((server, serving), longest_stop, signals, (reloads, reload)).await
    }

    /// Checks what the parser cannot. Writes and changes nothing.
    pub(crate) fn check(&self) -> Result<Checked, SettingsFaults> {
        let mut faults = SettingsFaults::default();
        let tls = faults.keep(flags::server::TLS, self.server.tls());
        let database = faults.keep(database::SETTINGS, self.database.url());
        let secret_keys = faults.keep(database::KEY_SETTINGS, self.database.secret_keys(&self.data_dir));
        let pools = faults.keep(&["load-balancer-pool", "ipsec"], self.pools());
        let provider = faults.keep(flags::server::PROVIDER, self.server.provider());
        match (tls, database, secret_keys, pools, provider) {
            (Some(tls), Some(database), Some(secret_keys), Some(pools), Some(provider)) => {
                Ok(Checked { tls, database, secret_keys, pools, provider })
            }
            _ => Err(faults),
        }
    }

    /// The networks of load balancers' addresses.
    fn pools(&self) -> anyhow::Result<LoadBalancerPools> {
        let given = &self.server.load_balancer_pool;
        Ok(match self.gateway.ipsec {
            IpsecMode::Off if !given.is_empty() => anyhow::bail!(WrongUsage(
                "--load-balancer-pool needs IPsec: with --ipsec off, addresses are of 127.64.0.0/16; leave it out"
                    .to_owned()
            )),
            IpsecMode::Off => LoadBalancerPools::loopback(),
            IpsecMode::Auto | IpsecMode::Kernel | IpsecMode::Userland if given.is_empty() => {
                LoadBalancerPools::ipsec()
            }
            IpsecMode::Auto | IpsecMode::Kernel | IpsecMode::Userland => given.clone().into(),
        })
    }

    /// What the settings say that may be a mistake.
    pub(crate) fn doubts(&self) -> Vec<String> {
        [self.gateway.doubts(), self.server.doubts()].concat()
    }
}

/// Makes the database that of the data directory, and the gateway's identity.
fn identify(
    data_dir: &Path,
    database: Option<&SecretString>,
    ca: Arc<Ca>,
) -> anyhow::Result<(GatewayId, CertificateRenewal)> {
    database::keep(data_dir, database)?;
    let id = gateway_id(data_dir)?;
    Ok((id, CertificateRenewal::new(ca, id)?))
}

/// The firewall rules of a gateway that does not run would drop packets of other programs.
async fn give_back(backend: Backend) {
    if let Err(left) = backend.rest().await {
        warn!(error = %left, "the gateway's firewall rules could not be removed: run `wicketgate down`");
    }
}

async fn start(
    server: Prepared,
    (link, agent_url): (ServerEnd, Option<String>),
    renewal: CertificateRenewal,
) -> anyhow::Result<Server> {
    let server =
        Box::pin(server.start(GatewayLinks::InProcess(link.into()), agent_url, Registry::default())).await?;
    server.run_in_background(renewal);
    Ok(server)
}

/// Serves until a signal stops the process, or another server takes over the database.
async fn stop_on_signal(
    (server, gateway): (Server, Gateway),
    longest_stop: Duration,
    mut signals: StopSignals,
    (mut reloads, mut reload): (ReloadSignals, impl FnMut() -> Option<Box<Up>>),
) -> anyhow::Result<()> {
    // Not inside `info!`: it does not evaluate its fields if the event is filtered out.
    let (signal, is_superseded) = loop {
        tokio::select! {
            signal = signals.next() => break (signal, false),
            () = server.superseded() => break ("another server uses the database", true),
            _reload = reloads.next() => {
                if let Some(up) = reload() {
                    up.log.apply();
                }
            }
        }
    };
    service_manager::stopping();
    service_manager::stop_takes(longest_stop);
    info!(signal, "stopping; a second signal cuts all connections at once");
    // The gateway stops first, so that its last reports are recorded.
    let again = async {
        let signal = signals.next().await;
        info!(signal, "stopping at once");
    };
    gateway.stop(again).await;
    server.stop().await;
    anyhow::ensure!(!is_superseded, "another server has taken over the PostgreSQL database");
    Ok(())
}

/// The gateway's lasting id: created at the first start and kept in the data directory.
fn gateway_id(data_dir: &Path) -> anyhow::Result<GatewayId> {
    let file = data_dir.join(GATEWAY_ID);
    let make = || anyhow::Ok(format!("{}\n", GatewayId::new(Uuid::now_v7())));
    let content = private_file::load_or_create(&file, make)?;
    String::from_utf8_lossy(&content).trim().parse().with_context(|| {
        format!("{} does not contain a gateway id: restore it, or delete the file", file.display())
    })
}

/// Shows a new token once, on a terminal only: a service's output would keep it in a log.
pub(crate) fn print_token(token: Option<&SecretString>, file: &Path) {
    let Some(token) = token else { return };
    let (mut out, file) = (std::io::stdout(), file.display());
    // The file has it: an output without a reader is no reason to stop.
    let _ = if out.is_terminal() {
        writeln!(out, "admin token, shown only once and stored in {file}: {}", token.expose_secret())
    } else {
        writeln!(out, "the admin token is in {file}")
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn a_gateway_keeps_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let id = gateway_id(dir.path()).unwrap();
        assert_eq!(gateway_id(dir.path()).unwrap(), id);
        std::fs::write(dir.path().join(GATEWAY_ID), "gwy-").unwrap();
        assert!(gateway_id(dir.path()).unwrap_err().to_string().contains("does not contain a gateway id"));
    }

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        up: Up,
    }

    #[test]
    fn pools_are_those_of_the_command_line() {
        let pools = |args: &[&str]| {
            let line = Line::try_parse_from([&["up"], args].concat()).map_err(anyhow::Error::from)?;
            line.up.pools().map(|pools| pools.to_string())
        };
        assert_eq!(pools(&[]).unwrap(), "100.64.0.0/16, 10.255.0.0/16");
        let two = ["--load-balancer-pool", "192.168.77.0/24", "--load-balancer-pool", "10.9.0.0/16"];
        assert_eq!(pools(&two).unwrap(), "192.168.77.0/24, 10.9.0.0/16");
        assert_eq!(pools(&["--ipsec", "off"]).unwrap(), "127.64.0.0/16");
        assert!(pools(&["--ipsec", "off", "--load-balancer-pool", "10.9.0.0/16"]).is_err());
        assert!(pools(&["--load-balancer-pool", "10.9.0.1/16"]).is_err());
    }
}
