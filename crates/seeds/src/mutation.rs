//! Mutations of seeds: what parsers fail at.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// Bytes at the limits of types, and those that end, quote or control something.
const BYTES: [u8; 14] = [0, 1, 0x7f, 0x80, 0xff, b'\n', b'\r', b' ', b'"', b'\'', b'\\', b'/', b'%', 0x1b];
/// Texts at the limits of numbers, and characters of several bytes.
const TEXTS: [&[u8]; 8] = [
    b"-1",
    b"65536",
    b"4294967296",
    b"18446744073709551616",
    b"1e400",
    "ä".as_bytes(),
    "\u{202e}".as_bytes(),
    b"",
];
/// The most edits of one input.
const EDITS: usize = 4;
/// The most bytes of an input. Longer seeds are cut.
const LONGEST: usize = 1 << 16;

/// Makes inputs of seeds.
pub(crate) struct Mutator<'a> {
    seeds: &'a [Vec<u8>],
    /// The words of all seeds, and what is between them.
    words: Vec<&'a [u8]>,
    state: u64,
}

impl<'a> Mutator<'a> {
    /// The same target and seeds make the same inputs.
    pub(crate) fn new(target: &str, seeds: &'a [Vec<u8>]) -> Self {
        let mut hasher = DefaultHasher::new();
        target.hash(&mut hasher);
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric();
        let words = seeds.iter().flat_map(|seed| seed.chunk_by(|a, b| is_word(a) == is_word(b)));
        Self { seeds, words: words.chain(TEXTS).collect(), state: hasher.finish() }
    }

    pub(crate) fn next(&mut self) -> Vec<u8> {
        let at = self.below(self.seeds.len());
        let mut input = self.seeds[at].clone();
        for _ in 0..=self.below(EDITS) {
            self.edit(&mut input);
        }
        input.truncate(LONGEST);
        input
    }

    fn edit(&mut self, input: &mut Vec<u8>) {
        let (from, to) = self.range(input.len());
        match self.below(8) {
            0 => input.truncate(from),
            1 => drop(input.drain(from..to)),
            2 => input.extend_from_within(from..to),
            3 => {
                let byte = BYTES[self.below(BYTES.len())];
                input.splice(from..input.len().min(from + 1), [byte]);
            }
            4 => {
                let at = self.below(self.words.len());
                let word = self.words[at];
                let over = self.below(2) * (to - from);
                input.splice(from..from + over, word.iter().copied());
            }
            5 => {
                let at = self.below(self.seeds.len());
                let other = &self.seeds[at];
                let (begin, end) = self.range(other.len());
                input.splice(from..to, other[begin..end].iter().copied());
            }
            6 => {
                let (byte, count) = (BYTES[self.below(BYTES.len())], self.below(300));
                input.splice(from..from, std::iter::repeat_n(byte, count));
            }
            _ => {
                let bit = 1 << self.below(8);
                if let Some(byte) = input.get_mut(from) {
                    *byte ^= bit;
                }
            }
        }
    }

    /// A part of so many bytes, mostly a short one.
    fn range(&mut self, length: usize) -> (usize, usize) {
        let from = self.below(length + 1);
        let most = if self.below(4) == 0 { length - from } else { (length - from).min(8) };
        (from, from + self.below(most + 1))
    }

    /// A number below `end`, which is not 0. SplitMix64 (Steele, Lea, Flood 2014).
    fn below(&mut self, end: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % end as u64).unwrap_or_default()
    }
}
