//! Whether the kernel still delivers what a relay has written.
//!
//! A slow reader takes minutes for what was written in a moment. While its acknowledgements advance, the stream is not
//! idle.

use std::os::fd::AsFd;
use wicketgate_system::send_queue::send_queue;

/// The acknowledged bytes of a connection and a carrier, when they were last compared.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    tcp: Option<u64>,
    carrier: Option<u64>,
}

/// What a comparison has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// The connection's peer has acknowledged bytes, and more are under way to it.
    pub(super) tcp: bool,
    /// The same of the carrier.
    pub(super) carrier: bool,
}

impl Delivery {
    /// Compares with the last time.
    pub(super) fn progress(&mut self, tcp: &impl AsFd, carrier: &impl AsFd) -> Progress {
        Progress { tcp: is_delivered(&mut self.tcp, tcp), carrier: is_delivered(&mut self.carrier, carrier) }
    }
}

fn is_delivered(last: &mut Option<u64>, tcp: &impl AsFd) -> bool {
    let Ok(queue) = send_queue(tcp) else { return false };
    let before = last.replace(queue.acknowledged);
    !queue.is_empty && before.is_some_and(|before| before < queue.acknowledged)
}
