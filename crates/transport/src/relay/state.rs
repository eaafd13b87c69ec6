//! The progress of a stream.

use super::Exchange;
use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// Counts the payload that was relayed.
#[derive(Debug, Clone, Copy)]
pub struct Counters<'a> {
    pub to_carrier: &'a AtomicU64,
    pub from_carrier: &'a AtomicU64,
    /// Whether the end at the carrier answers, if that is of interest.
    pub exchange: Option<&'a Exchange<'a>>,
    /// Counts reads of the carrier that had bytes, which show that its other end is alive.
    pub heard: Option<&'a AtomicU64>,
    /// Whether the peer of the connection acknowledges what it is sent, if that is of interest within seconds.
    pub acknowledgements: Option<&'a dyn Acknowledgements>,
}

/// Who is told about a peer that does not acknowledge what it is sent.
pub trait Acknowledgements: fmt::Debug + Send + Sync {
    /// The peer has acknowledged nothing for one to two seconds, or acknowledges again.
    fn stopped_or_resumed(&self);
}

impl<'a> Counters<'a> {
    /// Of bytes alone.
    pub fn of_bytes(to_carrier: &'a AtomicU64, from_carrier: &'a AtomicU64) -> Self {
        Self { to_carrier, from_carrier, exchange: None, heard: None, acknowledgements: None }
    }
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
    /// Nothing more is read.
    finishing: AtomicBool,
    up_rests: AtomicBool,
    down_rests: AtomicBool,
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
            finishing: AtomicBool::new(false),
            up_rests: AtomicBool::new(false),
            down_rests: AtomicBool::new(false),
            is_worn: AtomicBool::new(false),
        }
    }

    /// Bytes have come from the carrier.
    pub(super) fn heard(&self) {
        if let Some(heard) = self.counters.heard {
            heard.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn exchange(&self) -> Option<&Exchange<'_>> {
        self.counters.exchange
    }

    /// Tells the exchange, if there is one.
    pub(super) fn tell(&self, what: impl FnOnce(&Exchange<'_>)) {
        if let Some(exchange) = self.exchange() {
            what(exchange);
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

    /// From now on, nothing more is read.
    pub(super) fn finish(&self) {
        self.finishing.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_finishing(&self) -> bool {
        self.finishing.load(Ordering::Relaxed)
    }

    /// Whether the direction from the connection has to rest before its next read.
    pub(super) fn up_rests(&self) -> bool {
        self.up_rests.fetch_or(self.is_finishing(), Ordering::Relaxed);
        self.is_finishing()
    }

    /// Whether the direction from the carrier has to rest before its next read.
    pub(super) fn down_rests(&self) -> bool {
        self.down_rests.fetch_or(self.is_finishing(), Ordering::Relaxed);
        self.is_finishing()
    }

    /// Each direction has written what it had read and rests, or has ended.
    pub(super) fn is_finished(&self) -> bool {
        let resting = [&self.up_rests, &self.down_rests].map(|rests| u8::from(rests.load(Ordering::Relaxed)));
        resting.iter().sum::<u8>() + self.ended.load(Ordering::Relaxed) >= 2 && self.is_finishing()
    }

    /// One direction has ended. Returns whether it was the second one: then nothing that follows on the carrier, not
    /// even its end, belongs to this stream.
    pub(super) fn end(&self) -> bool {
        self.moved();
        self.ended.fetch_add(1, Ordering::Relaxed) > 0
    }
}
