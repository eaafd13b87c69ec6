//! Tells the other servers that this one lives, and learns which of them do.
//!
//! A server that cannot say so lets its gateways go: the others end its links, and its gateways find another server.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::time::timeout;
use tracing::warn;
use wicketgate_model::Deadlines;
use wicketgate_store::{BEAT_EVERY, ServerFacts, Store};
use wicketgate_system::Latest;

use crate::{
    background::{BackgroundTask, Outcome},
    gateways::link_table::LinkTable,
};

/// A server that could not write for so long ends its links.
const ALONE: Duration = Duration::from_secs(15);

/// See the module.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    pub(crate) store: Store,
    pub(crate) facts: ServerFacts,
    pub(crate) links: LinkTable,
    /// When the last beat was written.
    pub(crate) written: Instant,
    /// Where gateways link to the servers that live.
    pub(crate) addresses: Arc<Latest<Vec<String>>>,
}

impl Heartbeat {
    /// One beat, which has to succeed before the server answers requests: without it, it would take the others for dead.
    pub(crate) async fn beat(&mut self, now: Timestamp) -> wicketgate_store::Result<()> {
        self.store.beat(&self.facts, now).await?;
        self.written = Instant::now();
        let servers = self.store.live_servers().await?;
        self.addresses.set(servers.into_iter().filter_map(|server| server.link_address).collect());
        self.links.tell_servers();
        Ok(())
    }
}

impl BackgroundTask for Heartbeat {
    const NAME: &'static str = "heartbeat";
    const PERIOD: Duration = BEAT_EVERY;
    /// Longer than the store's own bounds.
    const WITHIN: Duration = Duration::from_secs(10);

    async fn activate(&mut self, now: Timestamp) -> anyhow::Result<Outcome> {
        let left = ALONE.saturating_sub(self.written.elapsed());
        if !left.is_zero()
            && let Ok(written) = timeout(left, self.beat(now)).await
        {
            return Ok(written.map(|()| Outcome::Done)?);
        }
        if self.links.end_all() {
            warn!(
                "the database has not taken a beat of this server for {} s: its gateways' links end",
                ALONE.as_secs()
            );
        }
        self.beat(now).await?;
        Ok(Outcome::Done)
    }
}

/// Has the rows of gateways say that no server has a link to them.
#[derive(Debug)]
pub(crate) struct SilentGateways {
    pub(crate) store: Store,
    pub(crate) deadlines: Deadlines,
    /// When this server began: gateways that were without one have the same time to find it.
    pub(crate) begun: Timestamp,
}

impl BackgroundTask for SilentGateways {
    const NAME: &'static str = "silent-gateways";
    /// Rows say so this much later than after 30 s. Rows of a gateway that stays away are looked at each time.
    const PERIOD: Duration = Duration::from_secs(5);
    /// Some hundred rows of each gateway.
    const WITHIN: Duration = Duration::from_secs(30);

    async fn activate(&mut self, now: Timestamp) -> anyhow::Result<Outcome> {
        let is_more = self.store.tell_of_silent_gateways(self.deadlines, self.begun, now).await?;
        Ok(if is_more { Outcome::More } else { Outcome::Done })
    }
}
