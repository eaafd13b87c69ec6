//! A value that is read often and replaced as a whole.

use std::sync::{Arc, PoisonError, RwLock};

/// Readers keep the value that they got; the next read returns the replacement.
#[derive(Debug, Default)]
pub struct Latest<T>(RwLock<Arc<T>>);

impl<T> Latest<T> {
    pub fn new(value: T) -> Self {
        Self(RwLock::new(Arc::new(value)))
    }

    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces it by what this makes of it. Other changes wait.
    pub fn change(&self, change: impl FnOnce(&T) -> T) {
        let mut value = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *value = Arc::new(change(&value));
    }

    pub fn set(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
    }
}
