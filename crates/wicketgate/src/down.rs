//! `wicketgate down`: removes what `up`, or the role of a gateway, leaves running.

use std::{net::Ipv4Addr, path::PathBuf};

use anyhow::Context;
use clap::Args;
use tracing::info;
use wicketgate_gateway::{Backend, IpsecConfig, IpsecMode};
use wicketgate_system::own_directory::{DirectoryKind, OwnDirectory};

use crate::{gateway::STATE_DIRECTORY, up::DATA_DIRECTORY};

/// The data directory of an `up` that has ended.
const STOPPED: DirectoryKind =
    DirectoryKind { busy: "`down` removes what `up` leaves running, so stop `up` first", ..DATA_DIRECTORY };

/// The state directory of a gateway that has ended.
const STOPPED_GATEWAY: DirectoryKind = DirectoryKind {
    busy: "`down` removes what the gateway leaves running, so stop it first",
    ..STATE_DIRECTORY
};

#[derive(Debug, Args)]
pub(crate) struct Down {
    /// The data directory of a stopped `up`.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/wicketgate", env = "WICKETGATE_DATA_DIR")]
    data_dir: PathBuf,
    /// The state directory of a stopped `wicketgate gateway`, in place of a data directory.
    #[arg(long, value_name = "DIR", conflicts_with = "data_dir")]
    state_dir: Option<PathBuf>,
}

impl Down {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let (path, kind) = match &self.state_dir {
            Some(state) => (state, &STOPPED_GATEWAY),
            None => (&self.data_dir, &STOPPED),
        };
        let DirectoryKind { name, flag, .. } = kind;
        anyhow::ensure!(path.is_dir(), "{name} {} does not exist: set {flag}", path.display());
        let directory = OwnDirectory::open(path, kind)?;
        let state_dir = directory.subdirectory("gateway")?;
        if std::fs::read_dir(&state_dir)?.next().is_none() {
            // `up` ran without IPsec only; this host may not even have an IKE daemon.
            info!("nothing to remove");
            return Ok(());
        }
        // Removing tunnels needs no public address, and the host may have no default route to derive one from.
        let config =
            IpsecConfig { mode: IpsecMode::Auto, state_dir, public_address: Some(Ipv4Addr::LOCALHOST) };
        let purged = Backend::start(config).await?.purge().await;
        purged.context("could not remove everything: run `wicketgate down` again")?;
        info!("all tunnels are removed; this removes no data");
        Ok(())
    }
}
