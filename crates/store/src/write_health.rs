//! Whether the last write failed because of the database's disk. Reads may succeed all the while.

use crate::{Result, StoreError, database_fault::DatabaseFault};
use std::sync::Arc;
use wicketgate_system::Mutex;

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct WriteHealth(Arc<Mutex<Option<DatabaseFault>>>);

impl WriteHealth {
    pub(crate) fn fault(&self) -> Option<DatabaseFault> {
        *self.0.lock()
    }

    /// Something was committed.
    pub(crate) fn committed(&self) {
        *self.0.lock() = None;
    }

    /// Passes on the result of a statement that writes.
    pub(crate) fn noted<T>(&self, result: sqlx::Result<T>) -> Result<T> {
        result.map_err(|error| {
            let fault = DatabaseFault::of(&error);
            if fault.stops_writes() {
                *self.0.lock() = Some(fault);
            }
            StoreError::from(error)
        })
    }
}
