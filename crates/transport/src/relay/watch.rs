//! Ends a stream that has stopped: idle for longer than its limit, or with a peer that acknowledges nothing.
//!
//! Invariants: a stream is not idle while the kernel delivers what was written to one of its connections: a slow reader
//! takes minutes for what was written in a moment. A peer that answers is alive, even if it has no room for more. A
//! stream without a limit is looked at only while bytes are under way, or its first answer is awaited.

use super::{Broken, broken::Side, state::RelayState};
use crate::keepalive::keepalive;
use std::{
    mem,
    os::fd::AsFd,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep};
use wicketgate_system::send_queue::{SendQueue, send_queue};

/// How long a half-closed stream may be idle. A stream that is open on both sides may be idle without a limit, unless
/// its share has one: database pools are, and keepalive detects dead peers.
pub const HALF_CLOSED_IDLE: Duration = Duration::from_secs(60);
/// How long a peer may leave data without any answer. A site's line may be out for less.
pub const UNANSWERED: Duration = Duration::from_secs(60);
/// Unanswered probes of a peer without room after which it is dead. They are sent at growing intervals, up to 120 s.
const PROBES: u8 = 6;
/// How often streams are looked at, unless their limit needs it more often.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often streams are looked at, if their peer's silence is of interest within seconds.
const LOOK_SOON: Duration = Duration::from_secs(1);
/// The shortest silence that is told: bytes were sent again twice or more often.
const SILENT: Duration = Duration::from_secs(1);
/// How often in the time of a limit.
const LOOKS: u32 = 4;
/// A vanished host is detected within three times this, if no data is under way.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(60);
/// The time of the first look. Shorter connections save the system calls.
pub(super) const SETTLED: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Watch {
    /// For a stream that is open on both sides.
    idle: Option<Duration>,
    tcp: Peer,
    carrier: Peer,
    /// It was told that the connection's peer is silent.
    is_silent: bool,
    /// The last look; `None` before the first.
    looked: Option<Instant>,
    /// The timer runs.
    is_armed: bool,
}

impl Watch {
    pub(super) fn new(idle: Option<Duration>) -> Self {
        Self {
            idle,
            tcp: Peer::default(),
            carrier: Peer::default(),
            is_silent: false,
            looked: None,
            is_armed: true,
        }
    }

    /// The time until the first look.
    pub(super) fn first(&self) -> Duration {
        self.idle.map_or(SETTLED, |idle| SETTLED.min(idle / LOOKS))
    }

    /// The time until the next look, as far as the limit is concerned.
    fn interval(&self, state: &RelayState<'_>) -> Duration {
        let every = if state.counters.acknowledgements.is_some() { LOOK_SOON } else { LOOK_EVERY };
        self.limit(state).map_or(every, |limit| every.min(limit / LOOKS))
    }

    fn limit(&self, state: &RelayState<'_>) -> Option<Duration> {
        if state.has_ended() {
            return Some(self.idle.map_or(HALF_CLOSED_IDLE, |idle| idle.min(HALF_CLOSED_IDLE)));
        }
        self.idle
    }

    /// Ready when it is time for a look.
    pub(super) fn poll(
        &mut self,
        mut timer: Pin<&mut Sleep>,
        state: &RelayState<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if !self.is_armed {
            let Some(looked) = self.looked.filter(|looked| state.has_ended() || state.last() > *looked)
            else {
                return Poll::Pending;
            };
            self.is_armed = true;
            timer.as_mut().reset(looked.max(Instant::now()) + self.interval(state));
        }
        timer.poll(cx)
    }

    /// Looks at both connections, and sets the timer for the next time. Returns whether the kernel delivers bytes to
    /// the connection.
    pub(super) fn look(
        &mut self,
        timer: Pin<&mut Sleep>,
        state: &RelayState<'_>,
        tcp: &impl AsFd,
        carrier: &impl AsFd,
    ) -> Result<bool, Broken> {
        let now = Instant::now();
        let before = self.looked.replace(now);
        if before.is_none() {
            // Fails only if the connection has ended already.
            let _ = keepalive(tcp, KEEPALIVE);
        }
        let since = now - before.unwrap_or(now);
        let to_tcp = self.tcp.look(send_queue(tcp).ok(), now, since);
        let to_carrier = self.carrier.look(send_queue(carrier).ok(), now, since);
        let is_silent = self.tcp.silent_since.is_some_and(|at| now - at >= SILENT);
        if is_silent != mem::replace(&mut self.is_silent, is_silent)
            && let Some(told) = state.counters.acknowledgements
        {
            told.stopped_or_resumed();
        }
        for (look, side) in [(to_tcp, Side::Connection), (to_carrier, Side::Carrier)] {
            if look == Look::Dead {
                return Err(Broken::Unanswered(side));
            }
        }
        if to_tcp == Look::Delivering || to_carrier == Look::Delivering {
            state.moved();
        }
        let next = now + self.interval(state);
        let due = state.exchange().and_then(|exchange| exchange.look());
        match self.limit(state) {
            Some(limit) => {
                let end = state.last() + limit;
                if end <= now {
                    return Err(Broken::Idle(limit));
                }
                timer.reset(next.min(end));
            }
            None if to_tcp == Look::Empty && to_carrier == Look::Empty && due.is_none() => {
                self.is_armed = false;
            }
            None => timer.reset(due.unwrap_or(next).min(next)),
        }
        Ok(to_tcp == Look::Delivering)
    }
}

/// What was seen of one connection.
#[derive(Debug, Default)]
struct Peer {
    acknowledged: Option<u64>,
    /// Since when data is under way without any answer.
    silent_since: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Nothing is under way.
    Empty,
    /// Bytes are under way, and some have arrived since the last look.
    Delivering,
    /// Bytes are under way, and none have arrived.
    Stalled,
    Dead,
}

impl Peer {
    /// `since` is the time since the last look. `None`: the connection has ended, which its stream notices.
    fn look(&mut self, queue: Option<SendQueue>, now: Instant, since: Duration) -> Look {
        let Some(queue) = queue.filter(|queue| !queue.is_empty) else {
            *self = Self::default();
            return Look::Empty;
        };
        let before = self.acknowledged.replace(queue.acknowledged);
        if before.is_some_and(|before| before < queue.acknowledged) {
            self.silent_since = None;
            return Look::Delivering;
        }
        let answered = before.is_none() || queue.last_answer < since;
        // A peer without room has nothing to acknowledge: it answers probes.
        let waits = queue.is_unacknowledged || queue.probes >= PROBES;
        if answered || !waits {
            self.silent_since = (!answered).then_some(now);
            return Look::Stalled;
        }
        let silent_since = *self.silent_since.get_or_insert(now - since);
        if now - silent_since >= UNANSWERED { Look::Dead } else { Look::Stalled }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: SendQueue = SendQueue {
        acknowledged: 10,
        is_empty: false,
        is_unacknowledged: true,
        probes: 0,
        last_answer: Duration::ZERO,
    };

    /// Looks every 10 s at these queues.
    fn looks(queues: &[SendQueue]) -> Vec<Look> {
        let (mut peer, mut now) = (Peer::default(), Instant::now());
        let mut look = |queue: &SendQueue| {
            now += LOOK_EVERY;
            peer.look(Some(*queue), now, LOOK_EVERY)
        };
        queues.iter().map(&mut look).collect()
    }

    #[test]
    fn a_peer_that_answers_nothing_is_dead_after_a_minute() {
        let silent: Vec<_> = (1..=8).map(|n| SendQueue { last_answer: n * LOOK_EVERY, ..QUEUE }).collect();
        let seen = looks(&silent);
        assert_eq!(seen[..6], [Look::Stalled; 6], "the first look begins the time");
        assert_eq!(seen[6..], [Look::Dead; 2]);
    }

    #[test]
    fn a_peer_without_room_is_alive_as_long_as_it_answers_probes() {
        let full = SendQueue { is_unacknowledged: false, last_answer: 2 * LOOK_EVERY, ..QUEUE };
        assert_eq!(looks(&[full; 60]), [Look::Stalled; 60]);
        let gone = SendQueue { probes: PROBES, ..full };
        assert_eq!(looks(&[gone; 10])[9], Look::Dead);
    }

    #[test]
    fn an_answer_or_an_empty_queue_begins_anew() {
        let silent = SendQueue { last_answer: 5 * LOOK_EVERY, ..QUEUE };
        let mut queues = vec![silent; 6];
        queues.push(SendQueue { last_answer: Duration::from_secs(1), ..QUEUE });
        queues.extend([silent; 5]);
        queues.push(SendQueue { is_empty: true, ..silent });
        queues.extend([silent; 5]);
        assert!(!looks(&queues).contains(&Look::Dead));
        let advancing: Vec<_> = (0..20).map(|n| SendQueue { acknowledged: n, ..silent }).collect();
        assert_eq!(looks(&advancing)[1..], [Look::Delivering; 19]);
    }
}
