//! The records of an established TLS 1.3 connection (RFC 8446 §5), encrypted and decrypted in place.
//!
//! The TLS library does the handshake and derives the secrets and their updates. This module applies the AEAD, so that
//! bytes are not copied between buffers and an idle connection holds no buffer. docs/PERFORMANCE.md compares it with
//! the TLS library's own record layer. Invariant: a sequence number is used once; a key is replaced long before its
//! limit.

use super::error::broken;
use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::{AlertDescription, ConnectionTrafficSecrets, Error, InvalidMessage};
use std::{
    io,
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
};
use wicketgate_system::Mutex;

/// Type, version, length.
pub(crate) const HEADER: usize = 5;
/// The inner content type and the tag.
const TRAILER: usize = 1 + TAG;
const TAG: usize = 16;
/// The most plaintext of one record.
pub(crate) const MAX_PLAIN: usize = 16 * 1024;
/// The longest encrypted record. Its inner plaintext (content, type and padding) has at most 2^14 + 1 bytes
/// (RFC 8446 §5.4), and the ciphers in use add the tag.
const MAX_SEALED: usize = MAX_PLAIN + TRAILER;
/// Room for a record.
pub(crate) const SLOT: usize = HEADER + MAX_SEALED;
/// The overhead of a record.
pub(crate) const MARGIN: usize = SLOT - MAX_PLAIN;
/// Records under one key: half of what AES-GCM allows (RFC 8446 §5.5).
const KEY_LIMIT: u64 = 1 << 23;
/// Records in a row without a byte of data. A good peer sends one or two; each key update costs a key derivation for
/// some thirty bytes.
const RECORDS_WITHOUT_DATA: u32 = 32;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
const CLOSE_NOTIFY: [u8; 2] = [1, 0];

/// Derives the next secrets of a direction, `true` for sending.
pub(super) type NextSecrets = Box<dyn FnMut(bool) -> Result<(u64, ConnectionTrafficSecrets), Error> + Send>;

/// State shared by both directions of a connection.
pub(crate) struct TrafficKeys {
    next: Mutex<NextSecrets>,
    /// The peer has requested a key update.
    asked: AtomicBool,
}

impl TrafficKeys {
    pub(super) fn new(next: NextSecrets) -> Self {
        Self { next: Mutex::new(next), asked: AtomicBool::new(false) }
    }

    fn update(&self, transmit: bool) -> Result<RecordKey, Error> {
        RecordKey::new((*self.next.lock())(transmit)?)
    }
}

/// The key of one direction.
pub(super) struct RecordKey {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
}

impl RecordKey {
    pub(super) fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, Error> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(Error::General("an unknown cipher".to_owned())),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| Error::EncryptError)?;
        let iv = iv.as_ref().try_into().map_err(|_| Error::EncryptError)?;
        Ok(Self { key: LessSafeKey::new(key), iv, sequence })
    }

    /// RFC 8446 §5.3.
    fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, s) in nonce[NONCE_LEN - 8..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= s;
        }
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Encrypts records for the peer.
pub(crate) struct RecordSealer(RecordKey);

impl RecordSealer {
    pub(super) fn new(key: RecordKey) -> Self {
        Self(key)
    }

    /// Encrypts a record in place: `slot` has room for it, and `n` bytes of plaintext behind [`HEADER`]. Returns the
    /// record's length.
    pub(crate) fn data(&mut self, slot: &mut [u8], n: usize) -> io::Result<usize> {
        self.seal(slot, n, APPLICATION_DATA)
    }

    /// The record that ends the connection (RFC 8446 §6.1).
    pub(super) fn close_notify(&mut self) -> io::Result<Vec<u8>> {
        self.small(&CLOSE_NOTIFY, ALERT)
    }

    /// The record of a key update, if one is due. It must be sent before any other record.
    pub(crate) fn key_update(&mut self, keys: &TrafficKeys) -> io::Result<Option<Vec<u8>>> {
        if self.0.sequence < KEY_LIMIT && !keys.asked.load(Ordering::Relaxed) {
            return Ok(None);
        }
        keys.asked.store(false, Ordering::Relaxed);
        let record = self.small(&[KEY_UPDATE, 0, 0, 1, 0], HANDSHAKE)?;
        self.0 = keys.update(true).map_err(broken)?;
        Ok(Some(record))
    }

    fn small(&mut self, plain: &[u8], kind: u8) -> io::Result<Vec<u8>> {
        let mut record = vec![0; HEADER + plain.len() + TRAILER];
        record[HEADER..HEADER + plain.len()].copy_from_slice(plain);
        self.seal(&mut record, plain.len(), kind)?;
        Ok(record)
    }

    fn seal(&mut self, slot: &mut [u8], n: usize, kind: u8) -> io::Result<usize> {
        let header = header(n + TRAILER);
        slot[..HEADER].copy_from_slice(&header);
        slot[HEADER + n] = kind;
        let (plain, rest) = slot[HEADER..].split_at_mut(n + 1);
        let nonce = self.0.nonce();
        let tag = self.0.key.seal_in_place_separate_tag(nonce, Aad::from(header), plain);
        rest[..TAG].copy_from_slice(tag.map_err(|_| broken(Error::EncryptError))?.as_ref());
        Ok(HEADER + n + TRAILER)
    }
}

/// Decrypts records of the peer.
pub(crate) struct RecordOpener {
    key: RecordKey,
    /// Records since the last byte of data.
    without_data: u32,
}

/// The result of decrypting a record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// The record is incomplete.
    Partial,
    /// The range of the plaintext in the input, and the length of the whole record.
    Data { plain: Range<usize>, record: usize },
    /// A message of TLS itself.
    Handled { record: usize },
    /// The peer has ended the connection.
    Closed,
}

impl RecordOpener {
    pub(super) fn new(key: RecordKey) -> Self {
        Self { key, without_data: 0 }
    }

    /// Decrypts the record at the start of `bytes`, in place.
    pub(crate) fn open(&mut self, bytes: &mut [u8], keys: &TrafficKeys) -> io::Result<Opened> {
        let Some((&header, rest)) = bytes.split_first_chunk_mut::<HEADER>().map(|(h, r)| (&*h, r)) else {
            return Ok(Opened::Partial);
        };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if header[0] != APPLICATION_DATA {
            return Err(broken(InvalidMessage::InvalidContentType));
        }
        if length > MAX_SEALED {
            return Err(broken(Error::PeerSentOversizedRecord));
        }
        if length < TRAILER {
            return Err(broken(InvalidMessage::MessageTooShort));
        }
        let Some(sealed) = rest.get_mut(..length) else {
            return Ok(Opened::Partial);
        };
        let nonce = self.key.nonce();
        let plain = self.key.key.open_in_place(nonce, Aad::from(header), sealed);
        let plain = plain.map_err(|_| broken(Error::DecryptError))?;
        // Behind the content type there may be padding.
        let end = plain.iter().rposition(|b| *b != 0);
        let end = end.ok_or_else(|| broken(InvalidMessage::InvalidContentType))?;
        let (record, content) = (HEADER + length, &plain[..end]);
        match plain[end] {
            APPLICATION_DATA => {
                self.count(end > 0)?;
                Ok(Opened::Data { plain: HEADER..HEADER + end, record })
            }
            HANDSHAKE => {
                self.count(false)?;
                self.handshake(content, keys)?;
                Ok(Opened::Handled { record })
            }
            ALERT => match content {
                [_, 0] => Ok(Opened::Closed),
                [_, alert] => Err(broken(Error::AlertReceived(AlertDescription::from(*alert)))),
                _ => Err(broken(InvalidMessage::MissingData("alert"))),
            },
            _ => Err(broken(InvalidMessage::InvalidContentType)),
        }
    }

    /// Counts a record, which has data or not.
    fn count(&mut self, has_data: bool) -> io::Result<()> {
        self.without_data = if has_data { 0 } else { self.without_data + 1 };
        if self.without_data > RECORDS_WITHOUT_DATA {
            return Err(broken(Error::General("too many records without data".to_owned())));
        }
        Ok(())
    }

    fn handshake(&mut self, mut messages: &[u8], keys: &TrafficKeys) -> io::Result<()> {
        let unexpected = || broken(Error::General("an unexpected handshake message".to_owned()));
        while let [kind, a, b, c, rest @ ..] = messages {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            let body = rest.get(..length).ok_or_else(unexpected)?;
            messages = &rest[length..];
            match (*kind, body) {
                // RFC 8446 §4.6.3: nothing may follow it under the old key.
                (KEY_UPDATE, [asks]) if messages.is_empty() => {
                    if *asks != 0 {
                        keys.asked.store(true, Ordering::Relaxed);
                    }
                    self.key = keys.update(false).map_err(broken)?;
                }
                (NEW_SESSION_TICKET, _) => {}
                _ => return Err(unexpected()),
            }
        }
        if messages.is_empty() { Ok(()) } else { Err(unexpected()) }
    }
}

fn header(length: usize) -> [u8; HEADER] {
    let [a, b] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    [APPLICATION_DATA, 3, 3, a, b]
}

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz {
    use super::*;

    fn secrets() -> (u64, ConnectionTrafficSecrets) {
        (0, ConnectionTrafficSecrets::Aes256Gcm { key: [1; 32].into(), iv: [1; 12].into() })
    }

    #[expect(clippy::unwrap_used, reason = "a fuzz target may panic")]
    pub(super) fn key() -> RecordKey {
        RecordKey::new(secrets()).unwrap()
    }

    fn open(record: &mut [u8]) -> io::Result<Opened> {
        RecordOpener::new(key()).open(record, &TrafficKeys::new(Box::new(|_| Ok(secrets()))))
    }

    /// Bytes of a peer without the key open nothing. A record of one with the key, of the first byte as its type and the others
    /// as its content, is what RFC 8446 §5.2 says, in whole only, and opens nothing once a bit of it is another.
    pub fn tls_record(bytes: &[u8]) {
        assert!(matches!(open(&mut bytes.to_vec()), Ok(Opened::Partial) | Err(_)));
        let Some((&kind, plain)) = bytes.split_first().filter(|(_, plain)| plain.len() <= MAX_PLAIN) else {
            return;
        };
        let mut record = vec![0; HEADER + plain.len() + TRAILER];
        record[HEADER..HEADER + plain.len()].copy_from_slice(plain);
        assert!(RecordSealer::new(key()).seal(&mut record, plain.len(), kind).is_ok());
        for cut in [0, HEADER, record.len() - 1] {
            assert!(matches!(open(&mut record[..cut].to_vec()), Ok(Opened::Partial)));
        }
        let at =
            plain.iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31) ^ usize::from(*byte)) % record.len();
        let mut damaged = record.clone();
        damaged[at] ^= 1 << (kind % 8);
        assert!(matches!(open(&mut damaged), Ok(Opened::Partial) | Err(_)));
        // Behind the type there may be zeros.
        let inner = [plain, &[kind]].concat();
        let end = inner.iter().rposition(|byte| *byte != 0);
        let content = end.map(|end| (inner[end], &inner[..end]));
        let whole = record.len();
        match (open(&mut record), content) {
            (Ok(Opened::Data { plain, record: length }), Some((APPLICATION_DATA, content))) => {
                assert_eq!((&record[plain], length), (content, whole));
            }
            (Ok(Opened::Handled { record: length }), Some((HANDSHAKE, _))) => assert_eq!(length, whole),
            (Ok(Opened::Closed), Some((ALERT, content))) => assert_eq!((content.len(), content[1]), (2, 0)),
            (opened, content) => {
                let is_data = content.is_some_and(|(kind, _)| kind == APPLICATION_DATA);
                assert!(opened.is_err() && !is_data, "{opened:?} of {content:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{fuzz::key, *};

    /// Opens a record whose inner plaintext has this length: three bytes, their type, and padding.
    fn open_padded(inner: usize) -> io::Result<Opened> {
        let mut record = vec![0; HEADER + inner + TAG];
        record[HEADER..HEADER + 4].copy_from_slice(&[1, 2, 3, APPLICATION_DATA]);
        // The last byte of the padding is at the position of the type.
        RecordSealer::new(key()).seal(&mut record, inner - 1, 0).unwrap();
        RecordOpener::new(key())
            .open(&mut record, &TrafficKeys::new(Box::new(|_| Err(Error::HandshakeNotComplete))))
    }

    /// The records of the kind that are opened one after the other until one is refused, at most a hundred.
    fn opened_in_a_row(plain: &[u8], kind: u8) -> usize {
        let keys = TrafficKeys::new(Box::new(|_| {
            let (key, iv) = ([1; 32].into(), [1; 12].into());
            Ok((0, ConnectionTrafficSecrets::Aes256Gcm { key, iv }))
        }));
        let (mut sealer, mut opener) = (RecordSealer::new(key()), RecordOpener::new(key()));
        let next = |_| {
            let mut record = sealer.small(plain, kind).unwrap();
            if kind == HANDSHAKE {
                sealer = RecordSealer::new(key());
            }
            opener.open(&mut record, &keys).ok()
        };
        (0..100).map_while(next).count()
    }

    #[test]
    fn a_peer_that_sends_no_data_is_refused_after_32_records() {
        assert_eq!(opened_in_a_row(&[KEY_UPDATE, 0, 0, 1, 1], HANDSHAKE), 32);
        assert_eq!(opened_in_a_row(&[], APPLICATION_DATA), 32);
        assert_eq!(opened_in_a_row(&[1], APPLICATION_DATA), 100);
    }

    #[test]
    fn an_inner_plaintext_above_the_limit_is_a_record_overflow() {
        let record = HEADER + MAX_PLAIN + 1 + TAG;
        let longest = open_padded(MAX_PLAIN + 1).unwrap();
        assert_eq!(longest, Opened::Data { plain: HEADER..HEADER + 3, record });
        let error = open_padded(MAX_PLAIN + 2).unwrap_err();
        let tls = error.get_ref().and_then(|e| e.downcast_ref::<Error>());
        assert_eq!(tls, Some(&Error::PeerSentOversizedRecord));
    }
}
