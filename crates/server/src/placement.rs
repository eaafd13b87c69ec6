//! Tunnels come to the gateways at which they are to be.

use std::time::Duration;

use jiff::Timestamp;
use tracing::info;
use wicketgate_store::Store;

use crate::{
    background::{BackgroundTask, Outcome},
    gateways::Gateways,
};

/// Adds and withdraws places of tunnels whose gateways drain, have joined or are gone. See [`Store::repair_places`].
#[derive(Debug)]
pub(crate) struct Placement {
    pub(crate) store: Store,
    pub(crate) gateways: Gateways,
}

impl BackgroundTask for Placement {
    const NAME: &'static str = "placement";
    /// A tunnel that becomes redundant gets its second gateway so much later.
    const PERIOD: Duration = Duration::from_secs(2);
    /// A hundred transactions.
    const WITHIN: Duration = Duration::from_secs(60);

    async fn activate(&mut self, now: Timestamp) -> anyhow::Result<Outcome> {
        let steps = self.store.repair_places(now).await?;
        if steps == 0 {
            return Ok(Outcome::Done);
        }
        info!(steps, "places of tunnels were added or withdrawn");
        self.gateways.wake();
        Ok(Outcome::More)
    }
}
