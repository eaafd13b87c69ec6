//! Whether the last write failed because of the database's disk. Reads may succeed all the while.

use crate::{Result, StoreError, database_fault::DatabaseFault};
use std::sync::Arc;
use wicketgate_system::Mutex;

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct WriteHealth {
    fault: Arc<Mutex<Option<DatabaseFault>>>,
    /// The number of statements of each transaction.
    #[cfg(test)]
    pub(crate) statements: Arc<Mutex<Vec<usize>>>,
}

impl WriteHealth {
    pub(crate) fn fault(&self) -> Option<DatabaseFault> {
        *self.fault.lock()
    }

    /// A transaction begins. Only tests count its statements.
    pub(crate) fn begins(&self) {
        #[cfg(test)]
        self.statements.lock().push(0);
    }

    /// Something was committed.
    pub(crate) fn committed(&self) {
        *self.fault.lock() = None;
    }

    /// Passes on the result of a statement that writes.
    pub(crate) fn noted<T>(&self, result: sqlx::Result<T>) -> Result<T> {
        #[cfg(test)]
        if let Some(statements) = self.statements.lock().last_mut() {
            *statements += 1;
        }
        result.map_err(|error| {
            let fault = DatabaseFault::of(&error);
            if fault.stops_writes() {
                *self.fault.lock() = Some(fault);
            }
            StoreError::from(error)
        })
    }
}
