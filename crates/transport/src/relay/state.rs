//! The progress of a stream.

use std::{
    sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// Counts the payload that was relayed.
#[derive(Debug, Clone, Copy)]
pub struct Counters<'a> {
    pub to_carrier: &'a AtomicU64,
    pub from_carrier: &'a AtomicU64,
}

/// State shared by the two directions.
pub(super) struct RelayState<'a> {
    pub(super) counters: Counters<'a>,
    began: Instant,
    /// Milliseconds from the start to the last byte.
    last: AtomicU64,
    ended: AtomicU8,
    /// A record was begun and not written completely.
    pub(super) mid_record: AtomicBool,
    /// Something was written to the connection since the last read from it.
    pub(super) answered: AtomicBool,
    /// The kernel delivers bytes to the connection: the other end is to be informed.
    pub(super) is_delivering: AtomicBool,
    /// The carrier's receive buffer has become too large for another stream.
    pub(super) is_worn: AtomicBool,
}

impl<'a> RelayState<'a> {
    pub(super) fn new(counters: Counters<'a>) -> Self {
        Self {
            counters,
            began: Instant::now(),
            last: AtomicU64::new(0),
            ended: AtomicU8::new(0),
            mid_record: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            is_delivering: AtomicBool::new(false),
            is_worn: AtomicBool::new(false),
        }
    }

    /// Milliseconds since the start.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Records that bytes were relayed. Returns the milliseconds since the start.
    pub(super) fn moved(&self) -> u64 {
        let at = self.now();
        self.last.store(at, Ordering::Relaxed);
        at
    }

    pub(super) fn last(&self) -> Instant {
        self.began + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    /// Whether one direction has ended already.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed) > 0
    }

    /// One direction has ended. Returns whether it was the second one: then nothing that follows on the carrier, not
    /// even its end, belongs to this stream.
    pub(super) fn end(&self) -> bool {
        self.moved();
        self.ended.fetch_add(1, Ordering::Relaxed) > 0
    }
}
