//! Rows that are removed, and whose removal the gateway's disk may not have yet.

use std::collections::BTreeMap;

/// See the module.
#[derive(Debug)]
pub(super) struct Unsynced<Id>(BTreeMap<Id, UnsyncedRow>);

#[derive(Debug, Clone, Copy)]
struct UnsyncedRow {
    /// The disk has the removal once it has this number.
    number: u64,
    /// Nothing else is left of the row.
    is_gone: bool,
}

impl<Id> Default for Unsynced<Id> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<Id: Ord + Copy> Unsynced<Id> {
    pub(super) fn remove(&mut self, id: Id, number: u64) {
        let is_gone = self.0.get(&id).is_some_and(|row| row.is_gone);
        self.0.insert(id, UnsyncedRow { number, is_gone });
    }

    /// Nothing else is left of the row. Returns whether it has to stay for the disk.
    pub(super) fn is_gone(&mut self, id: Id) -> bool {
        let row = self.0.get_mut(&id);
        let is_unsynced = row.is_some();
        if let Some(row) = row {
            row.is_gone = true;
        }
        is_unsynced
    }

    /// The row is desired again. Returns whether nothing was left of it.
    pub(super) fn returns(&mut self, id: Id) -> bool {
        self.0.remove(&id).is_some_and(|row| row.is_gone)
    }

    /// The disk has the removals up to this number. Returns the rows of which nothing is left.
    pub(super) fn synced(&mut self, number: u64) -> Vec<Id> {
        let done: Vec<_> = self
            .0
            .iter()
            .filter(|(_, row)| row.number <= number)
            .map(|(id, row)| (*id, row.is_gone))
            .collect();
        for (id, _) in &done {
            self.0.remove(id);
        }
        done.into_iter().filter(|(_, is_gone)| *is_gone).map(|(id, _)| id).collect()
    }
}
