//! A mutex without poisoning.

use std::sync::{MutexGuard, PoisonError};

/// A [`std::sync::Mutex`] that stays usable after a panic of its holder: one failed task must not stop the others.
/// Holders keep the value consistent at every point where they may panic.
#[derive(Debug, Default)]
pub struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, thread};

    #[test]
    fn a_panicking_holder_does_not_poison_it() {
        let mutex = Arc::new(Mutex::new(1));
        let held = Arc::clone(&mutex);
        let holder = thread::spawn(move || {
            *held.lock() = 2;
            let _guard = held.lock();
            panic!("the holder fails");
        });
        assert!(holder.join().is_err());
        assert_eq!(*mutex.lock(), 2);
    }
}
