//! `wicketgate down`: removes what `up` leaves running.

use std::{net::Ipv4Addr, path::PathBuf};

use anyhow::Context;
use clap::Args;
use tracing::info;
use wicketgate_gateway::{Backend, IpsecConfig, IpsecMode};
use wicketgate_system::own_directory::{DirectoryKind, OwnDirectory};

use crate::up::DATA_DIRECTORY;

/// The data directory of an `up` that has ended.
const STOPPED: DirectoryKind =
    DirectoryKind { busy: "`down` removes what `up` leaves running, so stop `up` first", ..DATA_DIRECTORY };

#[derive(Debug, Args)]
pub(crate) struct Down {
    /// The data directory of a stopped `up`.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/wicketgate", env = "WICKETGATE_DATA_DIR")]
    data_dir: PathBuf,
}

impl Down {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.data_dir.is_dir(),
            "data directory {} does not exist: set --data-dir",
            self.data_dir.display()
        );
        let data_dir = OwnDirectory::open(&self.data_dir, &STOPPED)?;
        let state_dir = data_dir.subdirectory("gateway")?;
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
