//! A cache of rows that every request reads and that hardly ever change: Frontdoors and API accounts.
//!
//! Invariants: it is used on SQLite only, where no other process writes such a row. It is cleared after every commit that changed
//! such a row, before the write is answered. Missing rows are not cached.

use crate::Result;
use std::{any::Any, collections::HashMap, sync::Arc};
use wicketgate_system::Mutex;

/// Rows: far more than an installation uses at a time, in little memory.
const MOST: usize = 10_000;

#[derive(Debug)]
pub(crate) struct Cache(Mutex<Kept>);

#[derive(Debug)]
struct Kept {
    most: usize,
    /// Some of the rows may change at an unknown time.
    is_suspended: bool,
    /// How often it was cleared. A row that was read before may be out of date.
    forgotten: u64,
    /// By a key that tells rows of different types apart.
    rows: HashMap<String, Arc<dyn Any + Send + Sync>>,
}

impl Cache {
    /// `is_alone`: no other process writes.
    pub(crate) fn new(is_alone: bool) -> Self {
        let most = if is_alone { MOST } else { 0 };
        Self(Mutex::new(Kept { most, is_suspended: false, forgotten: 0, rows: HashMap::new() }))
    }

    /// The row of this key, from the database if it is not cached.
    pub(crate) async fn get<T: Clone + Send + Sync + 'static>(
        &self,
        key: String,
        read: impl Future<Output = Result<Option<T>>>,
    ) -> Result<Option<T>> {
        let forgotten = {
            let kept = self.0.lock();
            if let Some(row) = kept.rows.get(&key).and_then(|row| row.downcast_ref::<T>()) {
                return Ok(Some(row.clone()));
            }
            kept.forgotten
        };
        let row = read.await?;
        let mut kept = self.0.lock();
        if kept.forgotten == forgotten
            && kept.most > 0
            && !kept.is_suspended
            && let Some(row) = row.clone()
        {
            if kept.rows.len() >= kept.most {
                kept.rows.clear();
            }
            kept.rows.insert(key, Arc::new(row));
        }
        Ok(row)
    }

    /// Clears it: some of the rows have changed.
    pub(crate) fn forget(&self) {
        let mut kept = self.0.lock();
        kept.forgotten += 1;
        kept.rows.clear();
    }

    /// Stops caching until the next write transaction: a COMMIT failed, and may be carried out yet.
    pub(crate) fn suspend(&self) {
        self.0.lock().is_suspended = true;
        self.forget();
    }

    /// A write transaction has begun. SQLite has one at a time, so that the one before has ended.
    pub(crate) fn resume(&self) {
        let was_suspended = std::mem::take(&mut self.0.lock().is_suspended);
        if was_suspended {
            // A row that was read before may be out of date.
            self.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_row_read_before_a_change_is_not_cached() {
        let rows = Cache::new(true);
        assert_eq!(rows.get("1".to_owned(), async { Ok(Some("old")) }).await.unwrap(), Some("old"));
        assert_eq!(rows.get::<&str>("1".to_owned(), async { unreachable!() }).await.unwrap(), Some("old"));
        rows.forget();
        let late = rows.get("1".to_owned(), async {
            rows.forget();
            Ok(Some("old"))
        });
        assert_eq!(late.await.unwrap(), Some("old"));
        assert_eq!(rows.get("1".to_owned(), async { Ok(Some("new")) }).await.unwrap(), Some("new"));
        rows.suspend();
        assert_eq!(rows.get("1".to_owned(), async { Ok(Some("old")) }).await.unwrap(), Some("old"));
        assert_eq!(
            rows.get("1".to_owned(), async { Ok(Some("changed later")) }).await.unwrap(),
            Some("changed later")
        );
        let late = rows.get("1".to_owned(), async {
            rows.resume();
            Ok(Some("old"))
        });
        assert_eq!(late.await.unwrap(), Some("old"));
        assert_eq!(rows.get("1".to_owned(), async { Ok(Some("new")) }).await.unwrap(), Some("new"));
        assert_eq!(rows.get::<&str>("1".to_owned(), async { unreachable!() }).await.unwrap(), Some("new"));
        let rows = Cache::new(true);
        assert_eq!(rows.get("2".to_owned(), async { Ok(None::<&str>) }).await.unwrap(), None);
        assert_eq!(
            rows.get("2".to_owned(), async { Ok(Some("there by now")) }).await.unwrap(),
            Some("there by now")
        );
    }
}
