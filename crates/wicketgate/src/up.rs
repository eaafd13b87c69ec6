//! `wicketgate up`: server and gateway in one process, joined by an in-process link.

mod certificate_renewal;
mod oidc;

use std::{
    io::{self, IsTerminal as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use prometheus_client::registry::Registry;
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpListener;
use tracing::{info, warn};
use uuid::Uuid;
use wicketgate_authority::Ca;
use wicketgate_gateway::{
    Backend, CONNECTION_RATE, Gateway, GatewayConfig, IpsecConfig, IpsecMode,
    host_check::{HostVerdict, public_address},
};
use wicketgate_link::{self as link, ServerEnd};
use wicketgate_model::{GatewayId, LoadBalancerPool, LoadBalancerPools, LocationId, QuotaSetting};
use wicketgate_server::{
    ApiTls, ExternalAddress, ExternalUrl, Prepared, RateSetting, Server, ServerConfig, TrustedProxy,
    auth::oidc::ProviderConfig,
};
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

use crate::database::{self, Database, GATEWAY_ID};
use certificate_renewal::CertificateRenewal;
use oidc::Oidc;

/// Time for a port to become free: the daemon that a killed gateway was just starting may hold it for a moment.
const FREE_WITHIN: Duration = Duration::from_secs(1);

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
    /// Address of the REST API.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8480", value_parser = socket_address)]
    pub(crate) listen: SocketAddr,
    /// The API's certificate with its chain, in PEM. A renewed file is used within seconds, without a restart.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of the API's certificate, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Serve the API without TLS on an address that other hosts can reach. Tokens and keys can then be intercepted.
    #[arg(long, conflicts_with = "tls_cert")]
    insecure_http: bool,
    /// The URL that clients reach the API at through a reverse proxy, with its path prefix; links begin with it.
    #[arg(long, value_name = "URL")]
    external_url: Option<ExternalUrl>,
    /// A reverse proxy whose X-Forwarded-Proto, -Host and -Prefix name that URL, and whose -For names the client; repeatable.
    #[arg(long, value_name = "CIDR")]
    trusted_proxy: Vec<TrustedProxy>,
    /// Address of /metrics for Prometheus, without TLS [default: none].
    #[arg(long, value_name = "ADDR:PORT", value_parser = socket_address)]
    admin_listen: Option<SocketAddr>,
    /// Address that hosting agents connect to, with TLS.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:8443", value_parser = socket_address)]
    pub(crate) agent_listen: SocketAddr,
    /// Where ESP is processed. `auto` uses the kernel if it supports ESP, else userland. `off` is for development: no
    /// IPsec, no root, and a loopback address for each tunnel.
    #[arg(long, value_name = "auto|kernel|userland|off", default_value = "auto")]
    pub(crate) ipsec: IpsecMode,
    /// The name of this gateway's location, which tunnels refer to: it must stay the same while there are tunnels.
    #[arg(long, value_name = "NAME", default_value = "local")]
    location: LocationId,
    /// The IPv4 address that remote sites connect to [default: the source address of the default route].
    #[arg(long, value_name = "IPV4", value_parser = reachable_address)]
    pub(crate) public_address: Option<Ipv4Addr>,
    /// A network that load balancers' addresses come from; repeatable [default: 100.64.0.0/16 and 10.255.0.0/16]. Tunnels
    /// keep the addresses that they have.
    #[arg(long, value_name = "CIDR")]
    load_balancer_pool: Vec<LoadBalancerPool>,
    /// The URL that agents connect to [default: https:// and the address of --agent-listen].
    #[arg(long, value_name = "URL", value_parser = https_url)]
    agent_url: Option<String>,
    /// Seconds until a change that has not taken effect becomes ERROR. Retries continue after that.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    provisioning_deadline: u32,
    /// Maximum number of tunnels [default: from memory and the open-file limit]. Further tunnels have the reason
    /// GatewayFull until there is room.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=16_000))]
    max_tunnels: Option<u32>,
    /// New connections a second of each Frontdoor, while several have tunnels on the gateway. Clients that open more wait.
    #[arg(long, value_name = "NUMBER", default_value_t = CONNECTION_RATE)]
    connection_rate: NonZeroU32,
    /// The most that a Frontdoor may have of a kind, like shares=5000; repeatable. The operator can set others for one
    /// Frontdoor.
    #[arg(long, value_name = "KIND=NUMBER")]
    quota: Vec<QuotaSetting>,
    /// Requests a second, and at once, of an account (reads, writes) or an address without a token (strangers), like
    /// writes=10:1000 or writes=off; repeatable.
    #[arg(long, value_name = "KIND=NUMBER:NUMBER")]
    rate_limit: Vec<RateSetting>,
    /// Seconds that established connections may continue after a signal to stop, while new ones are refused. With 0
    /// they are cut at once, and a restart takes a second.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(..=86_400))]
    drain: u32,
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    oidc: Oidc,
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
        Backend::preflight(self.ipsec)?;
        // Before the listeners: a second start names the directory, and not a port that the first one has.
        let data_dir = OwnDirectory::open(&self.data_dir, &DATA_DIRECTORY)?;
        // What the API is asked for does not delay the gateway's connections.
        let control = SecondRuntime::start("server").context("cannot start the server's threads")?;
        let (api_listener, admin_listener) = control.carry(self.server_listeners()).await?;
        let agent_listener = listen(self.agent_listen, "agents", "--agent-listen").await?;
        database::check(data_dir.path(), database.as_ref())?;
        data_dir.subdirectory(CA)?;
        let backend = Backend::start(IpsecConfig {
            mode: self.ipsec,
            state_dir: data_dir.subdirectory("gateway")?,
            public_address: self.public_address,
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
            quotas: self.quota.into_iter().collect(),
            rates: self.rate_limit.into_iter().collect(),
            external: ExternalAddress { url: self.external_url, trusted_proxies: self.trusted_proxy },
            location: self.location.clone(),
            provisioning_deadline: Duration::from_secs(self.provisioning_deadline.into()),
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
        let longest_stop = Duration::from_secs(self.drain.into()) + STOP_BESIDES_DRAIN;
        let (server_end, gateway_end) = link::in_process(gateway_id, self.location);
        let config = GatewayConfig {
            backend,
            agent_listener,
            identity: renewal.identity.clone(),
            budget: DescriptorBudget::find(),
            max_tunnels: self.max_tunnels,
            connection_rate: self.connection_rate,
            drain: Duration::from_secs(self.drain.into()),
        };
        let gateway = Gateway::start(config, gateway_end).await?;
        print_token(server.new_admin_token.as_ref(), &Server::admin_token_file(data_dir.path()));
        let agent_url = self.agent_url.or_else(|| agent_url(&gateway));
        let server = control.carry(start(server, (server_end, agent_url), renewal)).await?;

        service_manager::ready("serving");
        stop_on_signal(server, gateway, longest_stop, (reloads, reload)).await
    }

    /// Checks what the parser cannot. Writes and changes nothing.
    pub(crate) fn check(&self) -> anyhow::Result<Checked> {
        Ok(Checked {
            tls: self.tls()?,
            database: self.database.url()?,
            secret_keys: self.database.secret_keys(&self.data_dir)?,
            pools: self.pools()?,
            provider: self.oidc.provider()?,
        })
    }

    /// What the settings say that may be a mistake.
    pub(crate) fn doubts(&self) -> Vec<String> {
        let address = (self.ipsec != IpsecMode::Off).then(|| public_address(self.public_address));
        let doubtful = address.filter(|finding| finding.verdict != HostVerdict::Pass);
        doubtful.into_iter().map(|finding| finding.message).collect()
    }

    /// The API's certificate. Without one, the API must be on a loopback address.
    fn tls(&self) -> anyhow::Result<Option<ApiTls>> {
        if let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) {
            return Ok(Some(ApiTls::load(certificate, key)?));
        }
        anyhow::ensure!(
            self.insecure_http || self.listen.ip().is_loopback(),
            WrongUsage(format!(
                "the API would be served without TLS on {}, which other hosts can reach: \
                 set --tls-cert and --tls-key, or --insecure-http",
                self.listen
            ))
        );
        Ok(None)
    }

    /// Of the API, and of the metrics if they have one.
    async fn server_listeners(&self) -> anyhow::Result<(TcpListener, Option<TcpListener>)> {
        let api = listen(self.listen, "the API", "--listen").await?;
        let Some(address) = self.admin_listen else { return Ok((api, None)) };
        Ok((api, Some(listen(address, "metrics", "--admin-listen").await?)))
    }

    /// The networks of load balancers' addresses.
    fn pools(&self) -> anyhow::Result<LoadBalancerPools> {
        let given = &self.load_balancer_pool;
        Ok(match self.ipsec {
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
    let server = Box::pin(server.start(link, agent_url, Registry::default())).await?;
    server.run_in_background(renewal);
    Ok(server)
}

/// Serves until a signal stops the process, or another server takes over the database.
async fn stop_on_signal(
    server: Server,
    gateway: Gateway,
    longest_stop: Duration,
    (mut reloads, mut reload): (ReloadSignals, impl FnMut() -> Option<Box<Up>>),
) -> anyhow::Result<()> {
    let mut signals = StopSignals::new(reloads.are_expected())?;
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

async fn listen(address: SocketAddr, peers: &str, flag: &str) -> anyhow::Result<TcpListener> {
    let end = Instant::now() + FREE_WITHIN;
    let bound = loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < end => {
                tokio::time::sleep(FREE_WITHIN / 20).await;
            }
            bound => break bound,
        }
    };
    bound.with_context(|| {
        format!("cannot listen for {peers} on {address}: choose another address with {flag}")
    })
}

pub(crate) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "must be an IP address and a port, like 127.0.0.1:8480 or [::1]:8480".to_owned())
}

fn reachable_address(text: &str) -> Result<Ipv4Addr, String> {
    let address: Ipv4Addr =
        text.parse().map_err(|_| "must be an IPv4 address, like 198.51.100.1".to_owned())?;
    let is_unusable = address.is_unspecified() || address.is_multicast() || address.is_broadcast();
    if is_unusable { Err("must be an address that sites can connect to".to_owned()) } else { Ok(address) }
}

/// Agents always use TLS.
fn https_url(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("https://").filter(|rest| !rest.is_empty());
    host.map(|_| text.to_owned()).ok_or_else(|| "must begin with https:// and name a host".to_owned())
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

/// The URL for agents, if it can be derived from the address the gateway listens on.
fn agent_url(gateway: &Gateway) -> Option<String> {
    let (listen, public) = (gateway.agent_address(), gateway.public_address());
    let ip = if listen.ip().is_unspecified() { public?.into() } else { listen.ip() };
    Some(format!("https://{}", SocketAddr::new(ip, listen.port())))
}

/// Shows a new token once, on a terminal only: a service's output would keep it in a log.
fn print_token(token: Option<&SecretString>, file: &Path) {
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
