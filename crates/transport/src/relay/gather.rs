//! When to wait for more before reading on: what comes in many small pieces, one way only, is read a millisecond's worth
//! at a time.
//!
//! A packet of a tunnel is such a piece, and each that is handed on by itself wakes the gateway, the agent and the target;
//! with ESP in user space that takes the processor from the ESP. Invariant: nobody who waits for an answer waits for
//! this: a stream on which the other side speaks between the pieces is never held up, and one on which waiting
//! brought little is not held up again soon.

use crate::{buffer::SLOTS, frame::MAX_DATA};
use std::time::Duration;

/// How long is waited. A link that makes less than a record in that time has no need of it.
pub(super) const GATHER: Duration = Duration::from_millis(1);
/// Pieces in a row, each less than a record and all together a record for each [`GATHER`], after which is waited.
const PIECES: u32 = 16;
/// So often in vain at most is not forgotten: then it takes 65,536 pieces.
const VAIN_MOST: u32 = 12;
/// Waits that were of use, after which those in vain are forgotten.
const USEFUL: u32 = 64;

/// What the last reads of one direction were like.
#[derive(Debug, Default)]
pub(super) struct Gather {
    state: State,
    /// Waits in vain.
    vain: u32,
    useful: u32,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// So many pieces in a row, of so many bytes, the first one so many milliseconds after the stream's beginning.
    Pieces { count: u32, bytes: usize, since: u64 },
    /// `waited`: before the last read.
    Gathering { waited: bool },
}

impl Default for State {
    fn default() -> Self {
        Self::Pieces { count: 0, bytes: 0, since: 0 }
    }
}

impl Gather {
    /// So many bytes were read, so many milliseconds after the stream's beginning; `answered`: something has gone the
    /// other way since the last read. Answers whether to wait before the next one.
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
            // All that there was room for, again: it comes fast enough by itself.
            State::Gathering { waited: false } if n == SLOTS * MAX_DATA => self.state = State::default(),
            State::Gathering { waited } => {
                if waited {
                    self.useful += 1;
                    if self.useful >= USEFUL {
                        (self.vain, self.useful) = (0, 0);
                    }
                }
                // There is more: it is read first.
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

    const PIECE: usize = 1400;

    /// How many reads go by until one is to be waited before, at one in so many of a millisecond.
    fn until_it_waits(gather: &mut Gather, a_millisecond: u64) -> Option<u64> {
        (0..100_000).find(|i| gather.read(PIECE, i / a_millisecond, false))
    }

    #[test]
    fn a_flow_of_pieces_is_gathered_until_it_stops() {
        let mut gather = Gather::default();
        assert_eq!(until_it_waits(&mut gather, 20), Some(15));
        for _ in 0..100 {
            assert!(gather.read(2 * MAX_DATA, 1, false), "it goes on");
        }
        assert!(!gather.read(SLOTS * MAX_DATA, 2, false), "there is more, to be read at once");
        assert!(gather.read(PIECE, 2, false), "what was left is no sign of an end");
        assert!(!gather.read(PIECE, 3, false), "but that is");
        assert_eq!(until_it_waits(&mut gather, 20), Some(31));
    }

    #[test]
    fn what_comes_fast_is_left_alone() {
        let mut gather = Gather::default();
        for at in 0..1000 {
            assert!(!gather.read(MAX_DATA, at, false));
        }
        until_it_waits(&mut gather, 20).unwrap();
        assert!(!gather.read(SLOTS * MAX_DATA, 1, false));
        assert!(!gather.read(SLOTS * MAX_DATA, 1, false));
        assert!(!gather.read(MAX_DATA, 1, false), "it gathers no more");
        assert_eq!(until_it_waits(&mut gather, 20), Some(15), "and was not in vain");
    }

    #[test]
    fn who_waits_for_an_answer_is_never_held_up() {
        let mut gather = Gather::default();
        for at in 0..1000 {
            assert!(!gather.read(PIECE, at / 20, at % 10 == 0));
        }
        until_it_waits(&mut gather, 20).unwrap();
        assert!(!gather.read(2 * MAX_DATA, 1, true), "the other side has begun to speak");
    }

    #[test]
    fn slow_pieces_are_handed_on_as_they_come() {
        assert_eq!(until_it_waits(&mut Gather::default(), 1), None);
        let mut gather = Gather::default();
        assert!((0..1000).all(|i| !gather.read(MAX_DATA - 1, 2 * i, false)));
    }

    #[test]
    fn messages_of_many_pieces_are_held_up_a_few_times_and_never_again() {
        let (mut gather, mut waits) = (Gather::default(), 0);
        for at in 0..1000 {
            // Each of 50 pieces, and then an answer.
            for piece in 0..50 {
                waits += u32::from(gather.read(PIECE, 4 * at, piece == 0));
            }
        }
        assert_eq!(waits, 2);
    }
}
