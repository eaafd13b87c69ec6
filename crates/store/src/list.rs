//! Lists: filtered, sorted, a page at a time.
//!
//! A [`Listing`] says what is selected; columns say what it can be filtered and sorted by. Callers' values are bound:
//! none of their text becomes part of a statement.

mod listing;
mod sql;

use crate::{Page, Result, Store, row::FromRow};
use listing::Offset;
use sql::Sql;
use sqlx::{Any, Row, any::AnyRow};

pub(crate) use listing::{CountTable, Hidden, Listing, Scope, of};
pub use listing::{Filter, FilterValue, ListRequest, Sort};

impl Store {
    pub(crate) async fn list<T: FromRow>(
        &self,
        listing: &'static Listing,
        scope: Scope,
        request: &ListRequest,
    ) -> Result<Page<T>> {
        let scope = scope.as_ref();
        let mut reader = self.database.readers.acquire().await?;
        let total = total(Sql::count(listing, scope, request), &mut *reader).await?;
        let offset = request.page.offset();
        if offset >= total {
            return page(&[], total);
        }
        if offset <= total / 2 {
            let rows =
                Sql::page(listing, scope, request, Offset::Start(offset)).fetch_all(&mut *reader).await?;
            return page(&rows, total);
        }
        drop(reader);
        // Skipping very many rows takes longer than everything else. Counted from the end, a page stays where it is only
        // as long as no row is added or removed.
        let mut tx = self.database.snapshot().await?;
        let total = self::total(Sql::count(listing, scope, request), tx.db()).await?;
        let mut rows = match total - offset {
            left @ 1.. => Sql::page(listing, scope, request, Offset::End(left)).fetch_all(tx.db()).await?,
            // The rows were removed in the meantime.
            _ => Vec::new(),
        };
        tx.commit().await?;
        rows.reverse();
        page(&rows, total)
    }
}

async fn total<'a>(count: Sql, db: impl sqlx::Executor<'a, Database = Any>) -> Result<i64> {
    Ok(count.fetch_one(db).await?.try_get(0)?)
}

fn page<T: FromRow>(rows: &[AnyRow], total: i64) -> Result<Page<T>> {
    let rows = rows.iter().map(T::from_row).collect::<Result<_>>()?;
    Ok(Page { rows, total: u64::try_from(total).unwrap_or(0) })
}

#[cfg(test)]
mod tests;
