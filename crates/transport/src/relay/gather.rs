//! Batches a one-way flow of many small pieces: decides when to pause before the next read, so that a millisecond's
//! pieces are read at once.
//!
//! The packets of a tunnel are such pieces. Each one that is relayed by itself wakes the gateway, the agent and the
//! target, which with ESP in user space takes CPU time from the ESP. Invariant: a request that waits for an answer is
//! not delayed: a stream whose other side sends between the pieces never pauses, and one on which a pause gained
//! little does not pause again soon.

use crate::{buffer::SLOTS, frame::MAX_DATA};
use std::time::Duration;

/// The length of a pause. A flow of less than a record in that time needs none.
pub(super) const GATHER: Duration = Duration::from_millis(1);
/// A pause follows this many pieces in a row, each smaller than a record, and together a record for each [`GATHER`].
const PIECES: u32 = 16;
/// Each pause in vain doubles [`PIECES`], at most this often: to 65,536.
const VAIN_MOST: u32 = 12;
/// After this many useful pauses, those in vain are forgotten.
const USEFUL: u32 = 64;

/// The pattern of the last reads of one direction.
#[derive(Debug, Default)]
pub(super) struct Gather {
    state: State,
    /// Pauses in vain.
    vain: u32,
    useful: u32,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Pieces in a row, their bytes, and the time of the first one, in milliseconds since the stream's start.
    Pieces { count: u32, bytes: usize, since: u64 },
    /// `waited`: there was a pause before the last read.
    Gathering { waited: bool },
}

impl Default for State {
    fn default() -> Self {
        Self::Pieces { count: 0, bytes: 0, since: 0 }
    }
}

impl Gather {
    /// Records a read of `n` bytes, `at` milliseconds after the stream's start; `answered`: bytes were relayed in the
    /// other direction since the last read. Returns whether to pause before the next one.
    pub(super) fn read(&mut self, n: usize, at: u64, answered: bool) -> bool {
        let is_piece = n < MAX_DATA;
        match self.state {
            State::Gathering { waited: true } if is_piece => {
                self.vain = (self.vain + 1).min(VAIN_MOST);
                (self.state, self.useful) = (State::default(), 0);
            }
            _ if answered => self.state = State::default(),
            State::Pieces { .. } if !is_piece => self.state = State::default(),
            State::Pieces { count, bytes, since } => {
                let since = if count == 0 { at } else { since };
                let (count, bytes) = (count + 1, bytes + n);
                self.state = State::Pieces { count, bytes, since };
                if count >= PIECES << self.vain {
                    let waits = (u128::from(at.saturating_sub(since)) / GATHER.as_millis()).max(1);
                    let pays = bytes as u128 >= waits * MAX_DATA as u128;
                    self.state = if pays { State::Gathering { waited: true } } else { State::default() };
                    return pays;
                }
            }
            // The buffer was filled again without a pause: the flow is fast enough.
            State::Gathering { waited: false } if n == SLOTS * MAX_DATA => self.state = State::default(),
            State::Gathering { waited } => {
                if waited {
                    self.useful += 1;
                    if self.useful >= USEFUL {
                        (self.vain, self.useful) = (0, 0);
                    }
                }
                // A full buffer: there may be more, which is read first.
                let wait = n < SLOTS * MAX_DATA;
                self.state = State::Gathering { waited: wait };
                return wait;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The length of a piece that fits into one packet.
    const PIECE: usize = 1400;

    /// The number of reads before a pause, with `a_millisecond` reads in each millisecond.
    fn until_it_waits(gather: &mut Gather, a_millisecond: u64) -> Option<u64> {
        (0..100_000).find(|i| gather.read(PIECE, i / a_millisecond, false))
    }

    #[test]
    fn a_flow_of_pieces_is_gathered_until_it_stops() {
        let mut gather = Gather::default();
        assert_eq!(until_it_waits(&mut gather, 20), Some(15));
        for _ in 0..100 {
            assert!(gather.read(2 * MAX_DATA, 1, false), "the flow continues");
        }
        assert!(!gather.read(SLOTS * MAX_DATA, 2, false), "a full buffer is followed by a read at once");
        assert!(gather.read(PIECE, 2, false), "a rest does not end the flow");
        assert!(!gather.read(PIECE, 3, false), "a piece after a pause ends it");
        assert_eq!(until_it_waits(&mut gather, 20), Some(31));
    }

    #[test]
    fn a_fast_flow_never_pauses() {
        let mut gather = Gather::default();
        for at in 0..1000 {
            assert!(!gather.read(MAX_DATA, at, false));
        }
        until_it_waits(&mut gather, 20).unwrap();
        assert!(!gather.read(SLOTS * MAX_DATA, 1, false));
        assert!(!gather.read(SLOTS * MAX_DATA, 1, false));
        assert!(!gather.read(MAX_DATA, 1, false), "a fast flow is not gathered");
        assert_eq!(until_it_waits(&mut gather, 20), Some(15), "and no pause was in vain");
    }

    #[test]
    fn a_request_that_waits_for_an_answer_is_not_delayed() {
        let mut gather = Gather::default();
        for at in 0..1000 {
            assert!(!gather.read(PIECE, at / 20, at % 10 == 0));
        }
        until_it_waits(&mut gather, 20).unwrap();
        assert!(!gather.read(2 * MAX_DATA, 1, true), "the other side has begun to send");
    }

    #[test]
    fn slow_pieces_are_relayed_one_by_one() {
        assert_eq!(until_it_waits(&mut Gather::default(), 1), None);
        let mut gather = Gather::default();
        assert!((0..1000).all(|i| !gather.read(MAX_DATA - 1, 2 * i, false)));
    }

    #[test]
    fn messages_of_many_pieces_pause_a_few_times_and_never_again() {
        let (mut gather, mut waits) = (Gather::default(), 0);
        for at in 0..1000 {
            // Each has 50 pieces, and is followed by an answer.
            for piece in 0..50 {
                waits += u32::from(gather.read(PIECE, 4 * at, piece == 0));
            }
        }
        assert_eq!(waits, 2);
    }
}
