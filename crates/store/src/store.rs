//! The store: a database, the writer of its changes, and what all resources need of both.

use crate::{
    Result, StoreError, WriteContext,
    claim::RunningClaims,
    connections::Leased,
    database::Database,
    database_lock::DatabaseLock,
    field::Argument,
    live_servers::LiveServers,
    request_time::{READ, waited},
    row::{FromRow, opened},
    statement::query,
    wakes::Wakes,
    write::Write,
    writer::{Revises, Writer},
};
use futures_util::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use sqlx::{AnyConnection, SqlSafeStr};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use uuid::Uuid;
use wicketgate_model::GatewayId;

/// For the write by which a ping finds out whether the disk works again.
const PROBE: Duration = Duration::from_secs(2);

/// The database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) database: Database,
    pub(crate) writer: Writer,
    pub(crate) claims: RunningClaims,
    pub(crate) servers: LiveServers,
    /// Of a database with other servers.
    pub(crate) wakes: Option<Arc<Wakes>>,
    /// Of who has restored the database: nobody else uses it before the store is dropped.
    pub(crate) held: Option<Arc<Mutex<DatabaseLock>>>,
    /// The highest epoch that each gateway's links to this server had.
    pub(crate) epochs: Arc<wicketgate_system::Mutex<BTreeMap<GatewayId, i64>>>,
}

impl Store {
    /// Whether the database may have other servers.
    pub fn has_others(&self) -> bool {
        self.wakes.is_some()
    }

    /// Whether the database answers and SQLite's disk has room; carries out a write if the last one failed because of
    /// the database's disk.
    pub async fn ping(&self) -> Result<()> {
        timeout(READ, self.database.ping()).await.map_err(|_| StoreError::RolledBack)??;
        if self.database.write_health.fault().is_some() {
            let probe = WriteContext::new("server", Timestamp::now(), Uuid::nil);
            timeout(PROBE, self.write(&probe, |_| async { Ok(()) }.boxed()))
                .await
                .map_err(|_| StoreError::DiskHangs)??;
        }
        Ok(())
    }

    /// Waits for running statements, and closes all connections.
    pub async fn close(&self) {
        self.database.close().await;
        if let Some(held) = &self.held {
            held.lock().await.release().await;
        }
    }

    /// Changes what gateways should serve, or what the API shows. See [`Writer::write`].
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        context: &WriteContext,
        work: impl for<'a> FnOnce(&'a mut Write) -> BoxFuture<'a, Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.writer.write(context, Revises::Desired, work).await
    }

    /// Records what a gateway has observed. No gateway should serve anything else by it, so that it takes no revision.
    pub(crate) async fn settle<T: Send + 'static>(
        &self,
        work: impl for<'a> FnOnce(&'a mut Write) -> BoxFuture<'a, Result<T>> + Send + 'static,
    ) -> Result<T> {
        let context = WriteContext::new("server", Timestamp::now(), Uuid::nil);
        self.writer.write(&context, Revises::Nothing, work).await
    }

    /// The row that a statement finds.
    pub(crate) async fn find<T: FromRow>(
        &self,
        sql: impl SqlSafeStr,
        values: &[&dyn Argument],
    ) -> Result<Option<T>> {
        let query = query(sql, values)?;
        let row = self.read(async |db| Ok(query.fetch_optional(db).await?)).await?;
        row.map(|row| opened(&row, &self.database.keys)).transpose()
    }

    /// The rows that a statement finds.
    pub(crate) async fn all<T: FromRow>(
        &self,
        sql: impl SqlSafeStr,
        values: &[&dyn Argument],
    ) -> Result<Vec<T>> {
        let query = query(sql, values)?;
        let rows = self.read(async |db| Ok(query.fetch_all(db).await?)).await?;
        rows.iter().map(|row| opened(row, &self.database.keys)).collect()
    }

    /// Reads on a connection, within the bound of a request.
    pub(crate) async fn read<T>(
        &self,
        reads: impl AsyncFnOnce(&mut AnyConnection) -> Result<T>,
    ) -> Result<T> {
        let until = Instant::now() + READ;
        let mut reader = Reader { connection: self.database.readers.acquire().await?, is_answered: false };
        let left = until.saturating_duration_since(Instant::now());
        let read = waited(left, reads(&mut reader.connection)).await.ok_or(StoreError::RolledBack)?;
        reader.is_answered = true;
        read
    }
}

/// A connection of the pool that reads. Dropped before it has answered, because of its time or because the client has hung up, it
/// is closed: in the pool, it would hold a place until it answers.
struct Reader {
    connection: Leased,
    is_answered: bool,
}

impl Drop for Reader {
    fn drop(&mut self) {
        if !self.is_answered {
            self.connection.close_on_drop();
        }
    }
}

/// A new database in this directory.
#[cfg(test)]
pub(crate) async fn fresh(dir: &std::path::Path) -> Store {
    let keys = crate::SecretKeyFile::created_at(dir.join("secret-key"));
    Store::open(dir.join("wicketgate.db").to_str().unwrap(), &keys).await.unwrap()
}
