//! A cache of rows that every request reads and that hardly ever change: Frontdoors and API accounts.
//!
//! Invariants: it is used on SQLite only, where no other process writes. It is cleared after every commit that changed
//! such a row, before the write is answered. Missing rows are not cached.

use crate::{ApiAccountRow, FrontdoorRow, Result};
use std::{collections::HashMap, hash::Hash};
use wicketgate_model::{ApiAccountId, FrontdoorId};
use wicketgate_system::Mutex;

/// Rows of one kind: far more than an installation uses at a time, in little memory.
const MOST: usize = 10_000;

#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) frontdoors: Rows<FrontdoorId, FrontdoorRow>,
    pub(crate) accounts: Rows<ApiAccountId, ApiAccountRow>,
    /// By the hash of the secret.
    pub(crate) secrets: Rows<[u8; 32], ApiAccountRow>,
}

impl Cache {
    /// `is_alone`: no other process writes.
    pub(crate) fn new(is_alone: bool) -> Self {
        let most = if is_alone { MOST } else { 0 };
        Self { frontdoors: Rows::new(most), accounts: Rows::new(most), secrets: Rows::new(most) }
    }

    /// Clears it: some of the rows have changed.
    pub(crate) fn forget(&self) {
        self.frontdoors.forget();
        self.accounts.forget();
        self.secrets.forget();
    }

    /// Stops caching: some of the rows may change at an unknown time.
    pub(crate) fn give_up(&self) {
        self.frontdoors.give_up();
        self.accounts.give_up();
        self.secrets.give_up();
    }
}

#[derive(Debug)]
pub(crate) struct Rows<K, V>(Mutex<Kept<K, V>>);

#[derive(Debug)]
struct Kept<K, V> {
    most: usize,
    /// How often it was cleared. A row that was read before may be out of date.
    forgotten: u64,
    rows: HashMap<K, V>,
}

impl<K: Eq + Hash, V: Clone> Rows<K, V> {
    /// The row of this key, from the database if it is not cached.
    pub(crate) async fn get(
        &self,
        key: K,
        read: impl Future<Output = Result<Option<V>>>,
    ) -> Result<Option<V>> {
        let forgotten = {
            let kept = self.0.lock();
            if let Some(row) = kept.rows.get(&key) {
                return Ok(Some(row.clone()));
            }
            kept.forgotten
        };
        let row = read.await?;
        let mut kept = self.0.lock();
        if kept.forgotten == forgotten && kept.most > 0 {
            if kept.rows.len() >= kept.most {
                kept.rows.clear();
            }
            kept.rows.extend(row.clone().map(|row| (key, row)));
        }
        Ok(row)
    }
}

impl<K, V> Rows<K, V> {
    fn new(most: usize) -> Self {
        Self(Mutex::new(Kept { most, forgotten: 0, rows: HashMap::new() }))
    }

    fn forget(&self) {
        let mut kept = self.0.lock();
        kept.forgotten += 1;
        kept.rows.clear();
    }

    fn give_up(&self) {
        self.0.lock().most = 0;
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_row_read_before_a_change_is_not_cached() {
        let rows = Rows::<u8, &str>::new(1);
        assert_eq!(rows.get(1, async { Ok(Some("old")) }).await.unwrap(), Some("old"));
        assert_eq!(rows.get(1, async { unreachable!() }).await.unwrap(), Some("old"));
        rows.forget();
        let late = rows.get(1, async {
            rows.forget();
            Ok(Some("old"))
        });
        assert_eq!(late.await.unwrap(), Some("old"));
        assert_eq!(rows.get(1, async { Ok(Some("new")) }).await.unwrap(), Some("new"));
        rows.give_up();
        assert_eq!(rows.get(1, async { Ok(Some("old")) }).await.unwrap(), Some("old"));
        assert_eq!(
            rows.get(1, async { Ok(Some("changed at last")) }).await.unwrap(),
            Some("changed at last")
        );
        let rows = Rows::<u8, &str>::new(1);
        assert_eq!(rows.get(2, async { Ok(None) }).await.unwrap(), None);
        assert_eq!(rows.get(2, async { Ok(Some("there by now")) }).await.unwrap(), Some("there by now"));
    }
}
