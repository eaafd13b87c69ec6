//! Who holds a gateway's link.
//!
//! Invariant: a transaction that writes what a gateway has reported, or what follows from it, needs the epoch of the gateway's
//! present link, which does not change until the transaction ends. So a server that has lost a gateway to another one, and does not
//! know it yet, overwrites nothing. The number of an epoch comes again if a failover loses the transaction that began it, and another
//! server's link begins then: so an epoch is the number and the server.

use crate::{Result, Store, StoreError, transaction::Transaction, write::Write};
use futures_util::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use sqlx::AssertSqlSafe;
use std::collections::BTreeMap;
use wicketgate_model::{GatewayId, LocationId, ServerId};

/// The right to write about a gateway: until its next link begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatewayEpoch {
    gateway: GatewayId,
    epoch: i64,
    /// Whose link it is.
    server: ServerId,
}

impl GatewayEpoch {
    pub fn gateway(&self) -> GatewayId {
        self.gateway
    }

    /// Greater than that of each earlier link of the gateway.
    pub fn number(&self) -> u64 {
        self.epoch.unsigned_abs()
    }
}

impl Store {
    /// Records that a gateway's link begins, and ends the epoch of the link before. No agent counts as connected to the gateway until
    /// the gateway reports it again.
    ///
    /// # Errors
    /// [`StoreError::Missing`]: the gateway is not registered.
    pub async fn link_gateway(&self, gateway: GatewayId, at: Timestamp) -> Result<GatewayEpoch> {
        let own = self.own_links(gateway);
        let epoch = self.settle(move |write| write.begin_link(gateway, own, at).boxed()).await?;
        self.remember(&epoch);
        Ok(epoch)
    }

    /// The epoch of each gateway that was not removed and has a link to this server.
    pub async fn link_epochs(&self) -> Result<BTreeMap<GatewayId, u64>> {
        let select = "SELECT k.gateway, k.epoch FROM gateway_link k JOIN gateway g ON g.id = k.gateway \
                      WHERE g.deleted_at IS NULL AND k.server = $1 AND k.lost_at IS NULL";
        let all: Vec<(GatewayId, u64)> = self.all(select, &[&self.server_id()]).await?;
        Ok(all.into_iter().collect())
    }

    /// As [`Store::link_gateway`], if its machine has joined with this key, with the gateway's location; `None` if another machine has
    /// taken its place, or it was removed.
    pub async fn link_gateway_of_key(
        &self,
        gateway: GatewayId,
        key_sha256: [u8; 32],
        at: Timestamp,
    ) -> Result<Option<(LocationId, GatewayEpoch)>> {
        let own = self.own_links(gateway);
        let begun = self.settle(move |write| {
            async move {
                // Another machine that joins changes this row first.
                let select = write.sharing(
                    "SELECT location FROM gateway WHERE id = $1 AND public_key_sha256 = $2 AND in_process = 0 \
                     AND deleted_at IS NULL",
                );
                let found: Option<(LocationId,)> = write.tx.find(select, &[&gateway, &key_sha256]).await?;
                let Some((location,)) = found else { return Ok(None) };
                Ok(Some((location, write.begin_link(gateway, own, at).await?)))
            }
            .boxed()
        });
        let begun = begun.await?;
        if let Some((_, epoch)) = &begun {
            self.remember(epoch);
        }
        Ok(begun)
    }

    /// This server, and the highest epoch of its links to the gateway: a failover may have lost that, and it does not come again.
    fn own_links(&self, gateway: GatewayId) -> (ServerId, i64) {
        (self.server_id(), self.epochs.lock().get(&gateway).copied().unwrap_or_default())
    }

    fn remember(&self, epoch: &GatewayEpoch) {
        self.epochs.lock().insert(epoch.gateway, epoch.epoch);
    }

    /// Ends a link of this server that is recorded and that it does not have, as after a COMMIT without an answer.
    pub async fn end_link_of_none(&self, gateway: GatewayId, number: u64, at: Timestamp) -> Result<()> {
        let epoch = i64::try_from(number).unwrap_or(i64::MAX);
        self.unlink_gateway(&GatewayEpoch { gateway, epoch, server: self.server_id() }, at).await
    }

    /// Whether there is, or was, a gateway with this id.
    pub async fn knows_gateway(&self, gateway: GatewayId) -> Result<bool> {
        let found: Option<(GatewayId,)> =
            self.find("SELECT id FROM gateway WHERE id = $1", &[&gateway]).await?;
        Ok(found.is_some())
    }

    /// Restores the right of a server that uses the database alone, after the database has lost the transaction that gave it, as after
    /// a failover. Returns whether that was so: epochs only rise, so a lesser one is no other holder's.
    pub async fn hold_gateway_again(&self, epoch: &GatewayEpoch) -> Result<bool> {
        let GatewayEpoch { gateway, epoch, server } = *epoch;
        self.settle(move |write| {
            async move {
                let hold =
                    "UPDATE gateway_link SET epoch = $1, server = $2 WHERE gateway = $3 AND epoch < $1";
                Ok(write.tx.execute(hold, &[&epoch, &server, &gateway]).await? > 0)
            }
            .boxed()
        })
        .await
    }

    /// Records that a gateway's link has ended. Its agents were connected until then.
    pub async fn unlink_gateway(&self, epoch: &GatewayEpoch, at: Timestamp) -> Result<()> {
        let gateway = epoch.gateway;
        self.settle_under(epoch, move |write| {
            async move {
                let lose = "UPDATE gateway_link SET lost_at = $1 WHERE gateway = $2";
                write.tx.execute(lose, &[&at, &gateway]).await?;
                write.disconnect_agents(gateway, at, Some(at)).await
            }
            .boxed()
        })
        .await
    }

    /// As [`Store::settle`], about a gateway: nothing is written once the epoch has passed.
    pub(crate) async fn settle_under<T: Send + 'static>(
        &self,
        epoch: &GatewayEpoch,
        work: impl for<'a> FnOnce(&'a mut Write) -> BoxFuture<'a, Result<T>> + Send + 'static,
    ) -> Result<T> {
        let epoch = *epoch;
        self.settle(move |write| {
            async move {
                let select = write.sharing(SELECT);
                need(&mut write.tx, select, &epoch).await?;
                work(write).await
            }
            .boxed()
        })
        .await
    }

    /// Begins a transaction about a gateway that runs beside others.
    pub(crate) async fn begin_under(&self, epoch: &GatewayEpoch) -> Result<Transaction> {
        let mut tx = self.database.begin().await?;
        need(&mut tx, self.database.sharing(SELECT), epoch).await?;
        Ok(tx)
    }
}

impl Write {
    async fn begin_link(
        &mut self,
        gateway: GatewayId,
        (server, had): (ServerId, i64),
        at: Timestamp,
    ) -> Result<GatewayEpoch> {
        // It waits for the transactions that have a share lock.
        let next = "UPDATE gateway_link SET epoch = CASE WHEN epoch < $1 THEN $1 ELSE epoch END + 1, linked_at = $2, \
                    lost_at = NULL, server = $3, held_removals = 0, removal_confirmed = 0 WHERE gateway = $4 RETURNING epoch";
        let next: Option<(i64,)> = self.tx.find(next, &[&had, &at, &server, &gateway]).await?;
        let (epoch,) = next.ok_or(StoreError::Missing)?;
        self.disconnect_agents(gateway, at, None).await?;
        Ok(GatewayEpoch { gateway, epoch, server })
    }

    /// Ends the epoch of a gateway's link, if it has one: nothing is written any more of what comes over that link.
    pub(crate) async fn end_link(&mut self, gateway: GatewayId) -> Result<()> {
        let at = self.context.at;
        let end = "UPDATE gateway_link SET epoch = epoch + 1, \
                   lost_at = CASE WHEN linked_at IS NULL THEN NULL ELSE COALESCE(lost_at, $1) END WHERE gateway = $2";
        self.tx.execute(end, &[&at, &gateway]).await?;
        self.disconnect_agents(gateway, at, Some(at)).await
    }
}

const SELECT: &str = "SELECT epoch FROM gateway_link WHERE gateway = $1 AND epoch = $2 AND server = $3";

/// Fails with [`StoreError::Superseded`] if the epoch has passed.
async fn need(tx: &mut Transaction, select: AssertSqlSafe<String>, epoch: &GatewayEpoch) -> Result<()> {
    let held: Option<(i64,)> = tx.find(select, &[&epoch.gateway, &epoch.epoch, &epoch.server]).await?;
    held.map(drop).ok_or(StoreError::Superseded)
}
