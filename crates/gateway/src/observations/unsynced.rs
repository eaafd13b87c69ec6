//! Rows that are removed, and whose removal the gateway's disk may not have yet.

use std::collections::BTreeMap;

/// See the module.
#[derive(Debug)]
pub(super) struct Unsynced<Id> {
    rows: BTreeMap<Id, UnsyncedRow>,
    /// The disk has the removals up to this number: it may be faster than who tells of one.
    synced: u64,
}

#[derive(Debug, Clone, Copy)]
struct UnsyncedRow {
    /// The disk has the removal once it has this number.
    number: u64,
    /// Nothing else is left of the row.
    is_gone: bool,
}

impl<Id> Default for Unsynced<Id> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), synced: 0 }
    }
}

impl<Id: Ord + Copy> Unsynced<Id> {
    pub(super) fn remove(&mut self, id: Id, number: u64) {
        if number <= self.synced {
            return;
        }
        let is_gone = self.rows.get(&id).is_some_and(|row| row.is_gone);
        self.rows.insert(id, UnsyncedRow { number, is_gone });
    }

    /// Nothing else is left of the row. Returns whether it has to stay for the disk.
    pub(super) fn is_gone(&mut self, id: Id) -> bool {
        let row = self.rows.get_mut(&id);
        let is_unsynced = row.is_some();
        if let Some(row) = row {
            row.is_gone = true;
        }
        is_unsynced
    }

    /// The row is desired again. Returns whether nothing was left of it.
    pub(super) fn returns(&mut self, id: Id) -> bool {
        self.rows.remove(&id).is_some_and(|row| row.is_gone)
    }

    /// The disk has the removals up to this number. Returns the rows of which nothing is left.
    pub(super) fn synced(&mut self, number: u64) -> Vec<Id> {
        self.synced = self.synced.max(number);
        let done: Vec<_> = self
            .rows
            .iter()
            .filter(|(_, row)| row.number <= number)
            .map(|(id, row)| (*id, row.is_gone))
            .collect();
        for (id, _) in &done {
            self.rows.remove(id);
        }
        done.into_iter().filter(|(_, is_gone)| *is_gone).map(|(id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removal_that_the_disk_has_already_keeps_no_row() {
        let mut rows = Unsynced::default();
        rows.remove('a', 1);
        assert!(rows.is_gone('a'));
        assert_eq!(rows.synced(2), ['a']);
        // The disk was faster than who tells of it.
        rows.remove('b', 2);
        assert!(!rows.is_gone('b'));
        rows.remove('c', 3);
        assert!(rows.is_gone('c') && rows.synced(2).is_empty());
        assert_eq!(rows.synced(3), ['c']);
    }
}
