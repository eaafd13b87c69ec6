//! What a gateway that has ended leaves running, so that its next start goes on with it.

use std::{net::Ipv4Addr, path::PathBuf};

use anyhow::Context as _;
use tracing::info;
use wicketgate_gateway::{Backend, IpsecConfig, IpsecMode};

/// Removes all tunnels of a gateway that does not run.
pub(crate) async fn remove_tunnels(state_dir: PathBuf) -> anyhow::Result<()> {
    // It needs no public address, and the host may have no default route to derive one from.
    let config = IpsecConfig { mode: IpsecMode::Auto, state_dir, public_address: Some(Ipv4Addr::LOCALHOST) };
    let purged = Backend::start(config).await?.purge().await;
    purged.context("could not remove everything: run `wicketgate down` again")?;
    info!("all tunnels are removed; this removes no data");
    Ok(())
}
