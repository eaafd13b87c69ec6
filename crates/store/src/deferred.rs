//! What a transaction writes last, just before its commit: its events, and how the numbers of shares
//! changed. Writes that share a commit share it, so that it is paid for once.

use crate::{
    Result,
    event::{self, NewEvent},
    event_retention::Written,
    share_count::ShareCounts,
    transaction::Transaction,
};

#[derive(Debug, Default)]
pub(crate) struct Deferred {
    pub(crate) events: Vec<NewEvent>,
    pub(crate) counts: ShareCounts,
    /// A row that is cached was changed.
    pub(crate) forgets: bool,
    /// A secret was replaced or deleted.
    pub(crate) erases: bool,
}

impl Deferred {
    pub(crate) fn extend(&mut self, other: Self) {
        self.events.extend(other.events);
        self.counts.extend(other.counts);
        self.forgets |= other.forgets;
        self.erases |= other.erases;
    }

    pub(crate) async fn write(&self, tx: &mut Transaction) -> Result<Option<Written>> {
        self.counts.write(tx).await?;
        event::insert(tx, &self.events).await
    }
}
