//! A stream of bytes, sealed in chunks with AES-256-GCM: none of it is read before it is authenticated, and it cannot be cut,
//! nor its chunks exchanged.
//!
//! The construction is STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015): a chunk's nonce is its number, and whether it is the
//! last. The key is used for one stream only.

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use std::io::{self, BufRead, BufReader, Read, Write};
use zeroize::Zeroize as _;

/// Bytes of a chunk in clear. Only the last may be shorter.
const CHUNK: usize = 1 << 16;
/// What a chunk is longer when it is sealed.
const TAG: usize = 16;

/// Number of the next chunk, with the key and what is authenticated with each chunk.
struct Chunks {
    key: LessSafeKey,
    header: Vec<u8>,
    next: u64,
}

impl Chunks {
    fn nonce(&mut self, is_last: bool) -> Nonce {
        let mut nonce = [0; 12];
        nonce[0] = is_last.into();
        nonce[4..].copy_from_slice(&self.next.to_be_bytes());
        self.next += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Seals what is written to it. Without [`finish`](Self::finish), the stream has no end and cannot be read.
pub(super) struct Sealer<W> {
    to: W,
    chunks: Chunks,
    clear: Vec<u8>,
}

impl<W: Write> Sealer<W> {
    /// `header` is authenticated with the stream, and not part of it.
    pub(super) fn new(to: W, key: LessSafeKey, header: &[u8]) -> Self {
        let chunks = Chunks { key, header: header.to_vec(), next: 0 };
        Self { to, chunks, clear: Vec::with_capacity(CHUNK + TAG) }
    }

    fn seal(&mut self, is_last: bool) -> io::Result<()> {
        let nonce = self.chunks.nonce(is_last);
        let sealed =
            self.chunks.key.seal_in_place_append_tag(nonce, Aad::from(&self.chunks.header), &mut self.clear);
        sealed.map_err(|_| io::Error::other("the cipher cannot be used"))?;
        self.to.write_all(&self.clear)?;
        self.clear.clear();
        Ok(())
    }

    /// Writes the last chunk.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        self.to.flush()?;
        Ok(self.to)
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk waits until more comes: it may be the last.
        if self.clear.len() == CHUNK && !bytes.is_empty() {
            self.seal(false)?;
        }
        let taken = bytes.len().min(CHUNK - self.clear.len());
        self.clear.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Opens what a [`Sealer`] has written.
pub(super) struct Opener<R> {
    from: BufReader<R>,
    chunks: Chunks,
    clear: Vec<u8>,
    read: usize,
    was_last: bool,
}

impl<R: Read> Opener<R> {
    pub(super) fn new(from: R, key: LessSafeKey, header: &[u8]) -> Self {
        let chunks = Chunks { key, header: header.to_vec(), next: 0 };
        Self { from: BufReader::new(from), chunks, clear: Vec::new(), read: 0, was_last: false }
    }

    fn open(&mut self) -> io::Result<()> {
        self.clear.zeroize();
        (&mut self.from).take((CHUNK + TAG) as u64).read_to_end(&mut self.clear)?;
        self.was_last = self.clear.len() < CHUNK + TAG || self.from.fill_buf()?.is_empty();
        let nonce = self.chunks.nonce(self.was_last);
        let opened = self.chunks.key.open_in_place(nonce, Aad::from(&self.chunks.header), &mut self.clear);
        let length = opened
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it was changed, cut, or damaged"))?
            .len();
        self.clear.truncate(length);
        self.read = 0;
        Ok(())
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.read == self.clear.len() && !self.was_last {
            self.open()?;
        }
        let taken = (&self.clear[self.read..]).read(to)?;
        self.read += taken;
        Ok(taken)
    }
}

impl<R> Drop for Opener<R> {
    fn drop(&mut self) {
        self.clear.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::aead::{AES_256_GCM, UnboundKey};
    use proptest::prelude::*;

    fn key(n: u8) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[n; 32]).unwrap())
    }

    fn sealed(clear: &[u8]) -> Vec<u8> {
        let mut sealer = Sealer::new(Vec::new(), key(1), b"header");
        sealer.write_all(clear).unwrap();
        sealer.finish().unwrap()
    }

    fn opened(sealed: &[u8], by: u8, header: &[u8]) -> io::Result<Vec<u8>> {
        let mut clear = Vec::new();
        Opener::new(sealed, key(by), header).read_to_end(&mut clear)?;
        Ok(clear)
    }

    fn text(length: usize) -> Vec<u8> {
        (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect()
    }

    #[test]
    fn what_was_sealed_is_opened_whatever_its_length() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 7] {
            let (clear, sealed) = (text(length), sealed(&text(length)));
            assert_eq!(opened(&sealed, 1, b"header").unwrap(), clear, "{length}");
            assert!(opened(&sealed, 2, b"header").is_err(), "another key");
            assert!(opened(&sealed, 1, b"headex").is_err(), "another header");
            let chunk = CHUNK + TAG;
            for cut in
                [0, 1, sealed.len() - 1, chunk.min(sealed.len() - 1), (2 * chunk).min(sealed.len() - 1)]
            {
                assert!(opened(&sealed[..cut], 1, b"header").is_err(), "{length} cut at {cut}");
            }
            assert!(opened(&[&sealed[..], b"x"].concat(), 1, b"header").is_err(), "more");
        }
        let mut exchanged = sealed(&text(3 * CHUNK));
        let (first, rest) = exchanged.split_at_mut(CHUNK + TAG);
        first.swap_with_slice(&mut rest[..CHUNK + TAG]);
        assert!(opened(&exchanged, 1, b"header").is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_changed_bit_is_found(length in 0_usize..200_000, at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let mut sealed = sealed(&text(length));
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(opened(&sealed, 1, b"header").is_err());
        }
    }
}
