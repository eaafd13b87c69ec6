//! Removes rows that are past their retention time and keys that are not valid any more, ends the records of lost actions, and
//! gives tunnels back what they had lost.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;
use wicketgate_store::{Store, WriteContext};

use crate::background::{BackgroundTask, Outcome};

/// See the module.
#[derive(Debug)]
pub(crate) struct Retention(pub(crate) Store);

impl BackgroundTask for Retention {
    const NAME: &'static str = "retention";
    /// Short, so that little is deleted at a time: a large site has thousands of new rows a second.
    const PERIOD: Duration = Duration::from_secs(300);
    /// The steps of one call, on a slow disk.
    const WITHIN: Duration = Duration::from_secs(300);

    async fn activate(&mut self, now: Timestamp) -> anyhow::Result<Outcome> {
        Ok(if self.0.prune(now).await? { Outcome::More } else { Outcome::Done })
    }
}

/// Ends the records of actions whose outcome was not recorded in time.
#[derive(Debug)]
pub(crate) struct LostActions(pub(crate) Store);

impl BackgroundTask for LostActions {
    const NAME: &'static str = "lost-actions";
    /// Who reads that an action is running, waits for it.
    const PERIOD: Duration = Duration::from_secs(60);
    /// One statement.
    const WITHIN: Duration = Duration::from_secs(10);

    async fn activate(&mut self, now: Timestamp) -> anyhow::Result<Outcome> {
        self.0.end_lost_actions(now).await?;
        Ok(Outcome::Done)
    }
}

/// Gives tunnels that have lost their peer's address it back, once no other tunnel has it.
#[derive(Debug)]
pub(crate) struct LostAddresses(pub(crate) Store);

impl BackgroundTask for LostAddresses {
    const NAME: &'static str = "lost-addresses";
    /// Such a tunnel has waited for a day or more.
    const PERIOD: Duration = Duration::from_secs(60);
    /// One statement; if many are given back, a small write each.
    const WITHIN: Duration = Duration::from_secs(60);

    async fn activate(&mut self, now: Timestamp) -> anyhow::Result<Outcome> {
        self.0.return_peer_addresses(&WriteContext::new("server", now, Uuid::now_v7)).await?;
        Ok(Outcome::Done)
    }
}

/// Erases tunnels' previous keys whose grace has ended.
#[derive(Debug)]
pub(crate) struct ExpiredKeys(pub(crate) Store);

impl BackgroundTask for ExpiredKeys {
    const NAME: &'static str = "expired-keys";
    /// The gateway accepts none of them any more: this only shortens the time for which they can be disclosed.
    const PERIOD: Duration = Duration::from_secs(60);
    /// One statement; after a rotation of all keys, some hundred transactions.
    const WITHIN: Duration = Duration::from_secs(60);

    async fn activate(&mut self, now: Timestamp) -> anyhow::Result<Outcome> {
        self.0.erase_expired_keys(now).await?;
        Ok(Outcome::Done)
    }
}
