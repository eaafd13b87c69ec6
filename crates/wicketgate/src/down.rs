//! `wicketgate down`: removes what `up`, or the role of a gateway, leaves running.

use std::path::PathBuf;

use clap::Args;
use tracing::info;
use wicketgate_system::own_directory::{DirectoryKind, OwnDirectory};

use crate::{gateway::STATE_DIRECTORY, remaining_tunnels::remove_tunnels, up::DATA_DIRECTORY};

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
        remove_tunnels(state_dir).await
    }
}
