//! Secrets at rest: AES-256-GCM under keys that are not in the database.
//!
//! A sealed value is `1.KEY.HEX`: the version of this format, the id of its key, and in hexadecimal a nonce of 96 random
//! bits, the ciphertext and the tag. Its additional authenticated data is its table, its row's id and its column.
//!
//! Invariants: a value opens in its own place only. The first key seals; the others open what was sealed before them.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, RandomizedNonceKey, UnboundKey},
    hmac,
};
use std::fmt;
use zeroize::Zeroizing;

/// The size of a key, in bytes.
const KEY: usize = 32;
/// Keys of a file: the one that seals, and those that a rotation has not yet replaced.
const MOST: usize = 16;
/// What is derived from a key, by HMAC-SHA-256: none of them tells about another, or about the key.
const FOR_ID: &[u8] = b"wicketgate secret key: id";
const FOR_CIPHER: &[u8] = b"wicketgate secret key: AES-256-GCM";
/// The key of a backup is an HMAC-SHA-256 of the backup's salt under this.
const FOR_STREAMS: &[u8] = b"wicketgate secret key: backups";
const FOR_TAGS: &[u8] = b"wicketgate secret key: tags";
const VERSION: &str = "1";

/// The keys of an installation. Without any, nothing can be sealed or opened.
#[derive(Default)]
pub struct SecretKeys(Vec<SecretKey>);

struct SecretKey {
    id: KeyId,
    cipher: RandomizedNonceKey,
    tags: hmac::Key,
    streams: hmac::Key,
}

/// Names a key: 16 hexadecimal digits, which reveal nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

/// Where a sealed value belongs.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub table: &'static str,
    pub row: &'a str,
    pub column: &'static str,
}

/// Why a text contains no keys. It does not show the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecretKeys {
    #[error("it contains no key")]
    Empty,
    #[error("line {0} is not a key of 64 hexadecimal digits")]
    Line(usize),
    #[error("line {0} has the same key as a line before")]
    Repeated(usize),
    #[error("it contains more than {MOST} keys")]
    TooMany,
}

/// Nothing can be sealed: it names what cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot seal a secret: {0} cannot be used")]
pub struct SealError(&'static str);

type Result<T, E = SealError> = std::result::Result<T, E>;

impl SecretKeys {
    /// A line with a new key.
    pub fn new_line() -> Result<Zeroizing<String>> {
        let mut key = Zeroizing::new([0; KEY]);
        aws_lc_rs::rand::fill(key.as_mut_slice()).map_err(|_| failed("the system's random numbers"))?;
        Ok(Zeroizing::new(format!("{}\n", Zeroizing::new(hex::encode(key.as_slice())).as_str())))
    }

    /// A key a line, in hexadecimal; empty lines and those that begin with `#` do not count.
    pub fn parse(text: &str) -> Result<Self, InvalidSecretKeys> {
        let mut keys: Vec<SecretKey> = Vec::new();
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut key = Zeroizing::new([0; KEY]);
            hex::decode_to_slice(line, key.as_mut_slice()).map_err(|_| InvalidSecretKeys::Line(number))?;
            let key = SecretKey::new(&key).ok_or(InvalidSecretKeys::Line(number))?;
            match () {
                () if keys.iter().any(|other| other.id == key.id) => {
                    return Err(InvalidSecretKeys::Repeated(number));
                }
                () if keys.len() == MOST => return Err(InvalidSecretKeys::TooMany),
                () => keys.push(key),
            }
        }
        if keys.is_empty() { Err(InvalidSecretKeys::Empty) } else { Ok(Self(keys)) }
    }

    pub fn ids(&self) -> impl Iterator<Item = &KeyId> {
        self.0.iter().map(|key| &key.id)
    }

    /// What the values begin with that the first key has sealed.
    pub fn newest_prefix(&self) -> Result<String> {
        Ok(prefix(&self.first()?.id))
    }

    pub fn seal(&self, place: Place<'_>, clear: &str) -> Result<String> {
        let key = self.first()?;
        // Sealed in place, with room for the tag: no copy of the clear text is left.
        let mut sealed = Vec::with_capacity(clear.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(clear.as_bytes());
        let nonce = key.cipher.seal_in_place_append_tag(place.aad(), &mut sealed);
        let nonce = nonce.map_err(|_| failed("the cipher"))?;
        Ok(format!("{}{}{}", prefix(&key.id), hex::encode(nonce.as_ref()), hex::encode(sealed)))
    }

    /// `None`: the value is not one of this place, it was changed, or its key is missing.
    pub fn open(&self, place: Place<'_>, sealed: &str) -> Option<Zeroizing<String>> {
        let (id, value) = parts(sealed)?;
        let key = self.0.iter().find(|key| key.id.0 == id)?;
        let mut value = Zeroizing::new(hex::decode(value).ok()?);
        let (nonce, sealed) = value.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let clear = key.cipher.open_in_place(nonce, place.aad(), sealed).ok()?;
        std::str::from_utf8(clear).ok().map(|clear| Zeroizing::new(clear.to_owned()))
    }

    /// A text that stands for `of` without revealing it, also where there are few texts that it could be.
    pub fn tag(&self, of: &str) -> Result<String> {
        self.first().map(|key| key.tag(of))
    }

    /// Whether it is a tag of this text. Not so if its key is missing.
    pub fn is_tag(&self, tag: &str, of: &str) -> bool {
        let key = parts(tag).and_then(|(id, _)| self.0.iter().find(|key| key.id.0 == id));
        // Who could measure the comparison of a text with 256 bits does not know how to come closer.
        key.is_some_and(|key| key.tag(of) == tag)
    }

    /// A key for one stream: the id of the secret key that it is made from, the salt that makes it, and itself.
    pub fn new_stream(&self) -> Result<(String, String, LessSafeKey)> {
        let mut salt = [0; KEY];
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| failed("the system's random numbers"))?;
        let (key, salt) = (&self.first()?.id.0, hex::encode(salt));
        let cipher = self.stream(key, &salt).ok_or_else(|| failed("the cipher"))?;
        Ok((key.clone(), salt, cipher))
    }

    /// The key of a stream. `None`: the secret key that it was made from is missing.
    pub fn stream(&self, key: &str, salt: &str) -> Option<LessSafeKey> {
        let key = self.0.iter().find(|own| own.id.0 == key)?;
        let key = hmac::sign(&key.streams, salt.as_bytes());
        UnboundKey::new(&AES_256_GCM, key.as_ref()).map(LessSafeKey::new).ok()
    }

    fn first(&self) -> Result<&SecretKey> {
        self.0.first().ok_or_else(|| failed("the secret keys"))
    }
}

impl SecretKey {
    fn new(key: &[u8; KEY]) -> Option<Self> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let derived = |label| Zeroizing::new(hmac::sign(&key, label).as_ref().to_vec());
        let id = KeyId(hex::encode(derived(FOR_ID).get(..8)?));
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &derived(FOR_CIPHER)).ok()?;
        let [tags, streams] =
            [FOR_TAGS, FOR_STREAMS].map(|label| hmac::Key::new(hmac::HMAC_SHA256, &derived(label)));
        Some(Self { id, cipher, tags, streams })
    }

    fn tag(&self, of: &str) -> String {
        format!("{}{}", prefix(&self.id), hex::encode(hmac::sign(&self.tags, of.as_bytes())))
    }
}

impl Place<'_> {
    /// Names and ids have no NUL, so that no two places have the same.
    fn aad(&self) -> Aad<Vec<u8>> {
        Aad::from(
            format!("wicketgate\0{VERSION}\0{}\0{}\0{}", self.table, self.row, self.column).into_bytes(),
        )
    }
}

impl KeyId {
    /// Of a value that any key has sealed.
    pub fn of(sealed: &str) -> Option<Self> {
        parts(sealed).map(|(id, _)| Self(id.to_owned()))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SecretKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

fn prefix(id: &KeyId) -> String {
    format!("{VERSION}.{id}.")
}

/// The id of its key, and the rest.
fn parts(sealed: &str) -> Option<(&str, &str)> {
    let (version, rest) = sealed.split_once('.')?;
    rest.split_once('.').filter(|_| version == VERSION)
}

fn failed(what: &'static str) -> SealError {
    SealError(what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(numbers: &[u8]) -> SecretKeys {
        let lines: Vec<_> = numbers.iter().map(|n| hex::encode([*n; KEY])).collect();
        SecretKeys::parse(&lines.join("\n")).unwrap()
    }

    const HOME: Place<'_> = Place { table: "ipsec_tunnel", row: "tnl-1", column: "pre_shared_key" };

    proptest! {
        #[test]
        fn what_is_sealed_opens_in_its_place_only(clear in ".{0,200}", row in "[a-z0-9-]{1,40}") {
            let (keys, place) = (keys(&[1]), Place { row: &row, ..HOME });
            let sealed = keys.seal(place, &clear).unwrap();
            let opened = keys.open(place, &sealed).unwrap();
            prop_assert_eq!(opened.as_str(), clear.as_str());
            prop_assert!(clear.len() < 4 || !sealed.contains(&clear));
            prop_assert!(keys.seal(place, &clear).unwrap() != sealed);
            let other_row = format!("{row}x");
            for other in [
                Place { row: &other_row, ..HOME },
                Place { column: "previous_keys", ..place },
                Place { table: "other", ..place },
            ] {
                prop_assert!(keys.open(other, &sealed).is_none());
            }
            prop_assert!(super::tests::keys(&[2]).open(place, &sealed).is_none());
        }

        #[test]
        fn a_changed_value_does_not_open(at in 19_usize..200, by in 1_u8..16) {
            let keys = keys(&[1]);
            let mut sealed = keys.seal(HOME, &"k".repeat(64)).unwrap().into_bytes();
            let at = at.min(sealed.len() - 1);
            let digit = char::from(sealed[at]).to_digit(16).unwrap() ^ u32::from(by);
            sealed[at] = u8::try_from(char::from_digit(digit, 16).unwrap()).unwrap();
            prop_assert!(keys.open(HOME, std::str::from_utf8(&sealed).unwrap()).is_none());
        }

        #[test]
        fn no_text_that_was_not_sealed_opens(text in ".{0,200}") {
            prop_assert!(keys(&[1]).open(HOME, &text).is_none());
        }
    }

    #[test]
    fn the_first_key_seals_and_all_open() {
        let (old, both, new) = (keys(&[1]), keys(&[2, 1]), keys(&[2]));
        let (before, after) = (old.seal(HOME, "secret").unwrap(), both.seal(HOME, "secret").unwrap());
        assert_eq!(both.open(HOME, &before).unwrap().as_str(), "secret");
        assert_eq!(new.open(HOME, &after).unwrap().as_str(), "secret");
        assert!(new.open(HOME, &before).is_none());
        assert!(before.starts_with(&old.newest_prefix().unwrap()));
        assert_eq!(KeyId::of(&after).as_ref(), new.ids().next());
        let tag = old.tag("text").unwrap();
        assert!(both.is_tag(&tag, "text") && !both.is_tag(&tag, "texts") && !new.is_tag(&tag, "text"));
        assert_ne!(tag, both.tag("text").unwrap());
        assert!(SecretKeys::default().seal(HOME, "secret").is_err());
    }

    #[test]
    fn a_file_of_keys_is_read_strictly_and_never_shown() {
        let made = SecretKeys::new_line().unwrap();
        let text = format!("# of 2026\n\n{}{}\n", made.as_str(), "ab".repeat(KEY));
        let keys = SecretKeys::parse(&text).unwrap();
        assert_eq!(keys.ids().count(), 2);
        assert!(!format!("{keys:?}").contains(made.trim()));
        let wrong = |text: &str| SecretKeys::parse(text).unwrap_err();
        assert_eq!(wrong("# nothing\n"), InvalidSecretKeys::Empty);
        assert_eq!(wrong("\nabc"), InvalidSecretKeys::Line(2));
        assert_eq!(wrong(&format!("{}00", "ab".repeat(KEY))), InvalidSecretKeys::Line(1));
        assert_eq!(wrong(&format!("{0}{0}", made.as_str())), InvalidSecretKeys::Repeated(2));
        let many: Vec<_> = (0..=16_u8).map(|n| hex::encode([n; KEY])).collect();
        assert_eq!(wrong(&many.join("\n")), InvalidSecretKeys::TooMany);
    }
}
