//! Lists: filtered, sorted, a page at a time.
//!
//! A [`Listing`] says what is selected; columns say what it can be filtered and sorted by. Callers' values are bound:
//! none of their text becomes part of a statement.

mod listing;
mod sql;

use crate::{
    Page, Result, Store, StoreError,
    request_time::{READ, waited},
    row::{FromRow, opened},
};
use listing::{Offset, Restriction};
use sql::Sql;
use sqlx::{Any, Row, any::AnyRow};
use tokio::time::{Instant, timeout_at};
use wicketgate_seal::SecretKeys;
use wicketgate_system::apart;

pub(crate) use listing::{CountTable, Hidden, Listing, Scope, of};
pub use listing::{Filter, FilterValue, KnownFalse, ListRequest, Sort};

/// Rows that take a millisecond, opened or written.
const LONG: usize = 100;

impl Store {
    pub(crate) async fn list<T: FromRow>(
        &self,
        listing: &'static Listing,
        scope: Scope,
        request: &ListRequest,
    ) -> Result<Page<T>> {
        let scope = scope.as_ref();
        let (offset, until) = (request.page.offset(), Instant::now() + READ);
        let near_start = self.read(async |db| {
            let total = total(Sql::count(listing, scope, request), &mut *db).await?;
            Ok(match offset {
                past if past >= total => Some((Vec::new(), total)),
                far if far > total / 2 => None,
                _ => Some((
                    Sql::page(listing, scope, request, Offset::Start(offset)).fetch_all(db).await?,
                    total,
                )),
            })
        });
        if let Some((rows, total)) = near_start.await? {
            return page(rows, total, &self.database.keys);
        }
        timeout_at(until, self.near_end(listing, scope, request)).await.map_err(|_| StoreError::RolledBack)?
    }

    /// Skipping very many rows takes longer than everything else. Counted from the end, a page stays where it is only as long
    /// as no row is added or removed.
    async fn near_end<T: FromRow>(
        &self,
        listing: &'static Listing,
        scope: Option<&Restriction>,
        request: &ListRequest,
    ) -> Result<Page<T>> {
        let offset = request.page.offset();
        let mut tx = self.database.snapshot().await?;
        let total = self::total(Sql::count(listing, scope, request), tx.db());
        let total = waited(READ, total).await.ok_or(StoreError::RolledBack)??;
        let mut rows = match total - offset {
            left @ 1.. => {
                let rows = Sql::page(listing, scope, request, Offset::End(left)).fetch_all(tx.db());
                waited(READ, rows).await.ok_or(StoreError::RolledBack)??
            }
            // The rows were removed in the meantime.
            _ => Vec::new(),
        };
        tx.commit().await?;
        rows.reverse();
        page(rows, total, &self.database.keys)
    }
}

async fn total<'a>(count: Sql, db: impl sqlx::Executor<'a, Database = Any>) -> Result<i64> {
    Ok(count.fetch_one(db).await?.try_get(0)?)
}

fn page<T: FromRow>(rows: Vec<AnyRow>, total: i64, keys: &SecretKeys) -> Result<Page<T>> {
    let is_long = rows.len() > LONG;
    let open = || rows.into_iter().map(|row| opened(&row, keys)).collect::<Result<_>>();
    let rows = if is_long { apart(open)? } else { open()? };
    Ok(Page { rows, total: u64::try_from(total).unwrap_or(0) })
}

#[cfg(test)]
mod tests;
