//! `wicketgate gateway`: a gateway in a process of its own, whose servers are elsewhere.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::sync::mpsc;
use tracing::{info, warn};
use wicketgate_gateway::{
    Backend, DesiredJournal, Dialler, Gateway, IpsecConfig, LinkSource, ToKeep, state_keys,
};
use wicketgate_link::LinkRefusal;
use wicketgate_settings::SettingsFaults;
use wicketgate_system::{
    if_exists,
    log::LogFilter,
    own_directory::{DirectoryKind, OwnDirectory},
    program::{LastingRefusal, StopSignals, WrongUsage},
    service_manager::{self, ReloadSignals},
};
use wicketgate_transport::code::JoinToken;

use crate::{
    flags::gateway::GatewayFlags,
    gateway_identity::{self, OwnIdentity},
    remaining_tunnels::remove_tunnels,
};

/// The file of the state key, in the state directory.
const STATE_KEY: &str = "state-key";
/// The file of the desired state, in the state directory.
const DESIRED: &str = "desired";
/// The file of traffic that waits, in the state directory.
const TRAFFIC: &str = "traffic";
/// What a stop takes at most beside `--drain`.
const STOP_BESIDES_DRAIN: Duration = Duration::from_secs(30);

pub(crate) const STATE_DIRECTORY: DirectoryKind = DirectoryKind {
    program: "wicketgate",
    name: "state directory",
    flag: "--state-dir",
    first: gateway_identity::KEY,
    given: &[],
    busy: "stop it first, or choose another with --state-dir",
};

#[derive(Debug, Args)]
// `--drain -1` is a wrong value and not an unknown flag.
#[command(allow_negative_numbers = true)]
pub(crate) struct GatewayRole {
    /// A file with settings, in TOML, whose keys are these flags' names.
    #[arg(long, value_name = "FILE", env = "WICKETGATE_GATEWAY_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// What is logged: a level (error, warn, info, debug), or levels of targets. A reload changes it.
    #[arg(long, value_name = "FILTER", default_value = "info", env = "RUST_LOG")]
    log: LogFilter,
    /// Directory for the gateway's key and state. Created if it does not exist.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/wicketgate-gateway")]
    pub(crate) state_dir: PathBuf,
    /// A server that the gateway joins at and links to, as HOST:PORT; repeatable. A link tells all that there are.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    server: Vec<String>,
    /// File with the join token of `wicketgate gateway join`; - is standard input. Not needed once the gateway has joined.
    #[arg(long, value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// File with the key that seals what the gateway keeps of its tunnels on the disk [default: state-key in --state-dir, which is
    /// created].
    #[arg(long, value_name = "FILE")]
    state_key_file: Option<PathBuf>,
    #[command(flatten)]
    gateway: GatewayFlags,
}

impl GatewayRole {
    pub(crate) async fn run(
        self,
        mut reloads: ReloadSignals,
        mut reload: impl FnMut() -> Option<Box<Self>>,
    ) -> anyhow::Result<()> {
        self.log.apply();
        Backend::preflight(self.gateway.ipsec)?;
        let directory = OwnDirectory::open(&self.state_dir, &STATE_DIRECTORY)?;
        // Before the signals are taken over: a terminal, or a pipe, may never end.
        let known = OwnIdentity::load(directory.path())?;
        let token = if known.is_none() { Some(self.token()?) } else { None };
        let mut signals = StopSignals::new(reloads.are_expected())?;
        let agent_listener = self.gateway.listener().await?;
        let joined = tokio::select! {
            joined = self.joined(&directory, known, token) => joined?,
            signal = signals.next() => {
                info!(signal, "stopped before it has joined");
                return Ok(());
            }
        };
        info!(gateway.id = %joined.id, location = %joined.location, "this is the gateway");
        let journal = self.journal(directory.path(), &joined.owner())?;
        let backend = Backend::start(IpsecConfig {
            mode: self.gateway.ipsec,
            state_dir: directory.subdirectory("gateway")?,
            public_address: self.gateway.public_address,
        })
        .await?;
        let (keep, kept) = mpsc::channel(4);
        let dialler = self.dialler(&joined, keep);
        let mut config = self.gateway.config(backend, agent_listener, joined.identity.clone());
        config.journal = Some(journal);
        config.traffic_file = Some(directory.path().join(TRAFFIC));
        let gateway = Gateway::start(config, LinkSource::Network(Box::new(dialler))).await?;
        let mut keeping = tokio::spawn(keep_on_disk(joined, kept));
        service_manager::ready("serving");
        let signal = loop {
            tokio::select! {
                signal = signals.next() => break signal,
                kept = &mut keeping => {
                    kept.context("what the server tells cannot be kept any more")?;
                    return end(gateway, &directory).await;
                }
                _reload = reloads.next() => {
                    if let Some(role) = reload() {
                        role.log.apply();
                    }
                }
            }
        };
        service_manager::stopping();
        service_manager::stop_takes(self.gateway.drain() + STOP_BESIDES_DRAIN);
        info!(signal, "stopping; a second signal cuts all connections at once");
        let again = async {
            let signal = signals.next().await;
            info!(signal, "stopping at once");
        };
        gateway.stop(again).await;
        Ok(())
    }

    fn dialler(&self, joined: &OwnIdentity, keep: mpsc::Sender<ToKeep>) -> Dialler {
        Dialler {
            servers: self.server.clone(),
            told: joined.servers.clone(),
            last: None,
            tls: joined.tls.clone(),
            identity: joined.identity.clone(),
            issued_at: joined.issued_at,
            keep,
        }
    }

    /// What the settings say that may be a mistake.
    pub(crate) fn doubts(&self) -> Vec<String> {
        self.gateway.doubts()
    }

    /// Checks what the parser cannot, of what a gateway that has not joined needs. Writes and changes nothing.
    pub(crate) fn check(&self) -> Result<(), SettingsFaults> {
        let mut faults = SettingsFaults::default();
        let is_file = |file: &&PathBuf| file.as_os_str() != "-";
        if let Some(file) = self.join_token_file.as_ref().filter(is_file)
            && !gateway_identity::has_joined(&self.state_dir)
        {
            faults.keep(&["join-token-file"], token_of(file));
            let needed = "a gateway that joins has to be told where: set --server to HOST:PORT of a server";
            let servers =
                if self.server.is_empty() { Err(WrongUsage(needed.to_owned()).into()) } else { Ok(()) };
            faults.keep(&["server", "join-token-file"], servers);
        }
        faults.none()
    }

    /// What the gateway served last.
    fn journal(&self, dir: &Path, owner: &str) -> anyhow::Result<DesiredJournal> {
        let keys = match &self.state_key_file {
            Some(file) => state_keys(file, false)?,
            None => state_keys(&dir.join(STATE_KEY), true)?,
        };
        Ok(DesiredJournal::open(dir.join(DESIRED), owner, keys))
    }

    fn token(&self) -> anyhow::Result<JoinToken> {
        let (Some(file), false) = (&self.join_token_file, self.server.is_empty()) else {
            bail!(WrongUsage(
                "this gateway has not joined: run the command that `wicketgate gateway join` prints, with --server and \
                 --join-token-file"
                    .to_owned()
            ))
        };
        token_of(file)
    }

    /// As it was kept, or by joining now.
    async fn joined(
        &self,
        directory: &OwnDirectory,
        known: Option<OwnIdentity>,
        token: Option<JoinToken>,
    ) -> anyhow::Result<OwnIdentity> {
        match (known, token) {
            (Some(known), _) => Ok(known),
            (None, Some(token)) => {
                // Of the gateway that this machine was before.
                forget_served(directory.path())?;
                OwnIdentity::join(directory.path(), &token, &self.server).await
            }
            (None, None) => bail!("this gateway has not joined"),
        }
    }
}

/// The join token in a file, or from standard input.
fn token_of(file: &Path) -> anyhow::Result<JoinToken> {
    let text = match file.as_os_str() == "-" {
        true => std::io::read_to_string(std::io::stdin()),
        false => fs::read_to_string(file),
    };
    let text = text.with_context(|| format!("cannot read the join token in {}", file.display()))?;
    text.trim().parse().with_context(|| format!("{} has no join token", file.display()))
}

/// Serves nothing any more, and keeps nothing of what was served: this machine is no gateway.
async fn end(gateway: Gateway, directory: &OwnDirectory) -> anyhow::Result<()> {
    service_manager::stopping();
    gateway.stop(async {}).await;
    forget_served(directory.path())?;
    let state_dir = directory.subdirectory("gateway")?;
    if fs::read_dir(&state_dir)?.next().is_some() {
        remove_tunnels(state_dir).await?;
    }
    bail!(LastingRefusal(LinkRefusal::Ended.to_string()))
}

/// Removes what a gateway has kept of what it served.
fn forget_served(dir: &Path) -> anyhow::Result<()> {
    for file in [DESIRED, TRAFFIC] {
        let path = dir.join(file);
        if_exists(fs::remove_file(&path)).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// Until the gateway has ended, or its uplink.
async fn keep_on_disk(mut joined: OwnIdentity, mut told: mpsc::Receiver<ToKeep>) {
    while let Some(told) = told.recv().await {
        if matches!(told, ToKeep::Ended) {
            return;
        }
        if let Err(error) = joined.told(told) {
            warn!(
                error = format!("{error:#}"),
                "what the server has told could not be kept: it is used until the next start"
            );
        }
    }
    // The gateway stops: that is no end.
    std::future::pending().await
}

pub(crate) fn host_and_port(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').unwrap_or_default();
    let is_right = !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0);
    if is_right {
        Ok(text.to_owned())
    } else {
        Err("must be HOST:PORT, like server-1.example:8444".to_owned())
    }
}
