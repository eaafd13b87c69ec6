//! Who holds a gateway's link.
//!
//! Invariant: a transaction that writes what a gateway has reported, or what follows from it, needs the epoch of the gateway's
//! present link, which does not change until the transaction ends. So a server that has lost a gateway to another one, and does not
//! know it yet, overwrites nothing.

use crate::{Result, Store, StoreError, transaction::Transaction, write::Write};
use futures_util::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use sqlx::AssertSqlSafe;
use wicketgate_model::GatewayId;

/// The right to write about a gateway: until its next link begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatewayEpoch {
    gateway: GatewayId,
    epoch: i64,
}

impl GatewayEpoch {
    pub fn gateway(&self) -> GatewayId {
        self.gateway
    }
}

impl Store {
    /// Records that a gateway's link begins, and ends the epoch of the link before. No agent counts as connected to the gateway until
    /// the gateway reports it again.
    ///
    /// # Errors
    /// [`StoreError::Missing`]: the gateway is not registered.
    pub async fn link_gateway(&self, gateway: GatewayId, at: Timestamp) -> Result<GatewayEpoch> {
        self.settle(move |write| {
            async move {
                // It waits for the transactions that have a share lock.
                let next = "UPDATE gateway_link SET epoch = epoch + 1, linked_at = $1, lost_at = NULL WHERE gateway = $2 \
                            RETURNING epoch";
                let next: Option<(i64,)> = write.tx.find(next, &[&at, &gateway]).await?;
                let (epoch,) = next.ok_or(StoreError::Missing)?;
                write.disconnect_agents(gateway, at, None).await?;
                Ok(GatewayEpoch { gateway, epoch })
            }
            .boxed()
        })
        .await
    }

    /// Restores the right of a server that uses the database alone, after the database has lost the transaction that gave it, as after
    /// a failover. Returns whether that was so: epochs only rise, so a lesser one is no other holder's.
    pub async fn hold_gateway_again(&self, epoch: &GatewayEpoch) -> Result<bool> {
        let GatewayEpoch { gateway, epoch } = *epoch;
        self.settle(move |write| {
            async move {
                let hold = "UPDATE gateway_link SET epoch = $1 WHERE gateway = $2 AND epoch < $1";
                Ok(write.tx.execute(hold, &[&epoch, &gateway]).await? > 0)
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
    /// Ends the epoch of a gateway's link, if it has one: nothing is written any more of what comes over that link.
    pub(crate) async fn end_link(&mut self, gateway: GatewayId) -> Result<()> {
        let at = self.context.at;
        let end = "UPDATE gateway_link SET epoch = epoch + 1, lost_at = $1 WHERE gateway = $2";
        self.tx.execute(end, &[&at, &gateway]).await?;
        self.disconnect_agents(gateway, at, Some(at)).await
    }
}

const SELECT: &str = "SELECT epoch FROM gateway_link WHERE gateway = $1 AND epoch = $2";

/// Fails with [`StoreError::Superseded`] if the epoch has passed.
async fn need(tx: &mut Transaction, select: AssertSqlSafe<String>, epoch: &GatewayEpoch) -> Result<()> {
    let held: Option<(i64,)> = tx.find(select, &[&epoch.gateway, &epoch.epoch]).await?;
    held.map(drop).ok_or(StoreError::Superseded)
}
