//! What the operator does on the server's host with other processes than the servers: it is recorded as what callers of the API do.

use crate::{
    Action, ResourceType, Result, Store, StoreError, WriteContext,
    database::Database,
    database_name::is_postgres,
    erasure::BUSY,
    execution::{self, Execution, INSTALLATION, Record},
    field::Query,
};
use futures_util::FutureExt as _;
use sqlx::{AnyConnection, Connection as _, Executor as _};
use std::time::Duration;
use tokio::time::timeout;

/// The actor: who may read the files of the data directory, root as a rule.
pub const LOCAL_OPERATOR: &str = "local";

/// For a connection and two statements. SQLite's lock is waited for as long as a server does.
const WITHIN: Duration = Duration::from_secs(10);

/// What was done to the installation, and what came of it.
pub(crate) fn record(action: Action, message: &str, context: &WriteContext) -> Record {
    let on = Execution::of(ResourceType::Installation, &ResourceType::Installation);
    let on = Execution { organization: Some(INSTALLATION), ..on };
    on.record(context, None, action).with_message(message.to_owned())
}

/// A connection of a process beside the servers, to a database that is there.
pub(crate) async fn connect(place: &str) -> Result<AnyConnection> {
    let mut db = Database::connect_one(place).await?;
    if !is_postgres(place) {
        db.execute(BUSY).await?;
    }
    Ok(db)
}

/// Writes with the record of it, in one transaction.
pub(crate) async fn write_recorded(place: &str, statement: Option<Query>, record: &Record) -> Result<()> {
    let written = async {
        let mut db = connect(place).await?;
        let mut tx = db.begin().await?;
        if let Some(statement) = statement {
            statement.execute(&mut *tx).await?;
        }
        record.insert()?.execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(db.close().await?)
    };
    timeout(WITHIN, written).await.map_err(|_| StoreError::RolledBack)?
}

/// Records what is about to be done to the database at `place`, which is as for [`Store::open`] and may be in use.
///
/// # Errors
/// The database does not answer, or has an older schema.
pub async fn record_of_operator(
    place: &str,
    action: Action,
    message: &str,
    context: &WriteContext,
) -> Result<()> {
    write_recorded(place, None, &record(action, message, context)).await
}

impl Store {
    /// Records what was done to the installation.
    pub async fn record_of_operator(
        &self,
        action: Action,
        message: &str,
        context: &WriteContext,
    ) -> Result<()> {
        let record = record(action, message, context);
        let written = self.write(context, move |write| {
            async move { execution::insert_all(&mut write.tx, &[record]).await }.boxed()
        });
        written.await
    }
}
