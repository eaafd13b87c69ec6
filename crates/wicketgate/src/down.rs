//! `wicketgate down`: removes what `up` left running.

use std::{net::Ipv4Addr, path::PathBuf};

use anyhow::Context;
use clap::Args;
use tracing::info;
use wicketgate_gateway::{Backend, IpsecConfig, IpsecMode};

use crate::data_dir::DataDir;

#[derive(Debug, Args)]
pub(crate) struct Down {
    /// The data directory of the `up` that is to be undone. It must not be running, and is undone in the network
    /// namespace that it ran in.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/wicketgate", env = "WICKETGATE_DATA_DIR")]
    data_dir: PathBuf,
}

impl Down {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.data_dir.is_dir(),
            "there is no data directory {}: name it with --data-dir",
            self.data_dir.display()
        );
        let data_dir = DataDir::open(&self.data_dir)?;
        let state_dir = data_dir.subdirectory("gateway")?;
        if std::fs::read_dir(&state_dir)?.next().is_none() {
            // It ran without IPsec only, and never on a machine that may have no IKE daemon at all.
            info!("there was nothing to remove");
            return Ok(());
        }
        // What is removed needs no address to be dialled at, and the host may have no default route to tell one by.
        let config =
            IpsecConfig { mode: IpsecMode::Auto, state_dir, public_address: Some(Ipv4Addr::LOCALHOST) };
        let purged = Backend::start(config).await?.purge().await;
        purged.context("not everything could be removed: try again")?;
        info!("no tunnel is left on this machine; the data stays");
        Ok(())
    }
}
