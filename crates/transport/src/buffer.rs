//! Buffers of streams: taken when there are bytes, returned as soon as they are consumed.
//!
//! Invariant: an idle stream holds none; one that moves bytes, or has a slow reader, holds at most one in each
//! direction. Each thread keeps a few free buffers, so that taking one needs neither an allocation nor a lock.

use crate::tls::SLOT;
use std::{cell::RefCell, mem};

/// Records in a buffer. Fewer cost more system calls; more do not help, and each slow reader holds them.
pub(crate) const SLOTS: usize = 4;
const SIZE: usize = SLOTS * SLOT;
/// Free buffers of a thread: 2 MiB.
const FREE_MOST: usize = 32;

thread_local! {
    static FREE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Room for [`SLOTS`] records, or nothing.
#[derive(Default)]
pub(crate) struct Buffer(Box<[u8]>);

impl Buffer {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// Takes a buffer, if it has none.
    pub(crate) fn take(&mut self) -> &mut [u8] {
        if self.0.is_empty() {
            let free = FREE.try_with(|free| free.borrow_mut().pop()).ok().flatten();
            self.0 = free.unwrap_or_else(|| vec![0; SIZE].into());
        }
        &mut self.0
    }

    /// Returns the buffer. Its content is lost.
    pub(crate) fn give_back(&mut self) {
        if self.0.is_empty() {
            return;
        }
        let bytes = mem::take(&mut self.0);
        // The list of a thread that is ending is gone.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < FREE_MOST {
                free.push(bytes);
            }
        });
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({})", self.0.len())
    }
}
