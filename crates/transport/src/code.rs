//! Codes that are given to a person for the first start of a program: an enrolment code of an agent, or a join token of a gateway.
//!
//! A code contains the id of its row, a secret, and the fingerprint of the authority's CA, so that the first connection is
//! authenticated both ways without a public certificate. The text is a prefix and 88 letters of Crockford's base32
//! (no I, L, O, U). The last 24 bits are a checksum, which detects mistyped and incomplete codes before any connection.
//! `Debug` never shows the secret.

use crate::trust::{Fingerprint, sha256};
use base32::Alphabet;
use std::{array, fmt, str::FromStr};
use uuid::Uuid;
use wicketgate_model::{EnrollmentId, JoinTokenId};
use zeroize::Zeroizing;

/// Decoding accepts small letters, and letters that look like digits.
const LETTERS: Alphabet = Alphabet::Crockford;
const SECRET: usize = 16;
const CHECKSUM: usize = 3;
/// 440 bits: exactly 88 letters.
const BYTES: usize = 16 + SECRET + Fingerprint::LENGTH + CHECKSUM;
const TEXT: usize = BYTES * 8 / 5;

/// What a code is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeKind {
    /// What the text begins with.
    prefix: &'static str,
    name: &'static str,
    /// Of the name.
    article: &'static str,
}

/// The id in a code, whose type tells the kind of the code.
pub trait CodeId: fmt::Display + Copy {
    const KIND: CodeKind;

    fn of(uuid: Uuid) -> Self;
}

impl CodeId for EnrollmentId {
    const KIND: CodeKind = CodeKind { prefix: "ENR-", name: "enrolment code", article: "an" };

    fn of(uuid: Uuid) -> Self {
        Self::new(uuid)
    }
}

impl CodeId for JoinTokenId {
    const KIND: CodeKind = CodeKind { prefix: "GWJ-", name: "join token", article: "a" };

    fn of(uuid: Uuid) -> Self {
        Self::new(uuid)
    }
}

/// The code of an agent that enrols.
pub type EnrolmentCode = SecretCode<EnrollmentId>;
/// The code of a gateway that joins.
pub type JoinToken = SecretCode<JoinTokenId>;

/// A code with this kind of id.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretCode<I> {
    id: I,
    secret: Zeroizing<[u8; SECRET]>,
    ca: Fingerprint,
}

/// A text that is no code of the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    #[error("{} {} starts with {}", .0.article, .0.name, .0.prefix)]
    Prefix(CodeKind),
    #[error(
        "the {} is incomplete: it has {letters} letters after {} instead of {TEXT}; copy all of it", kind.name, kind.prefix
    )]
    Length { kind: CodeKind, letters: usize },
    #[error("the {} contains an invalid letter: copy it again", .0.name)]
    Letter(CodeKind),
    #[error("the {} is mistyped: copy it again", .0.name)]
    Checksum(CodeKind),
}

impl<I: CodeId> SecretCode<I> {
    /// A code with a fresh secret.
    pub fn generate(id: I, ca: Fingerprint) -> Result<Self, getrandom::Error> {
        let mut secret = Zeroizing::new([0; SECRET]);
        getrandom::fill(secret.as_mut())?;
        Ok(Self { id, secret, ca })
    }

    pub fn id(&self) -> I {
        self.id
    }

    pub fn secret(&self) -> &[u8; SECRET] {
        &self.secret
    }

    /// The authority that the first connection trusts.
    pub fn ca(&self) -> Fingerprint {
        self.ca
    }

    /// The code's text, which contains the secret.
    pub fn expose(&self) -> Zeroizing<String> {
        // An id gives its bits only as text: a prefix and 32 hexadecimal digits.
        let id = self.id.to_string();
        let digits = id.rsplit('-').next().unwrap_or_default();
        let bits = u128::from_str_radix(digits, 16).unwrap_or_default();
        let mut bytes = Zeroizing::new(Vec::with_capacity(BYTES));
        bytes.extend(bits.to_be_bytes());
        bytes.extend_from_slice(self.secret.as_slice());
        bytes.extend(self.ca.0);
        let sum = checksum(&bytes);
        bytes.extend(sum);
        let letters = Zeroizing::new(base32::encode(LETTERS, &bytes));
        Zeroizing::new(format!("{}{}", I::KIND.prefix, *letters))
    }
}

/// SHA-256 of a code's secret, which the server stores and compares. The secret is random, so it needs no slower hash.
pub fn secret_hash(secret: &[u8]) -> [u8; 32] {
    sha256(secret)
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let sum = sha256(bytes);
    array::from_fn(|n| sum[n])
}

impl<I: CodeId> FromStr for SecretCode<I> {
    type Err = CodeError;

    fn from_str(s: &str) -> Result<Self, CodeError> {
        let (s, prefix) = (s.trim(), I::KIND.prefix);
        let letters = s
            .get(..prefix.len())
            .filter(|p| p.eq_ignore_ascii_case(prefix))
            .map(|_| &s[prefix.len()..])
            .ok_or(CodeError::Prefix(I::KIND))?;
        let count = letters.chars().count();
        if count != TEXT {
            return Err(CodeError::Length { kind: I::KIND, letters: count });
        }
        // Shorter with `=` at its end, which is no letter either.
        let bytes = base32::decode(LETTERS, letters).filter(|bytes| bytes.len() == BYTES);
        let bytes = Zeroizing::new(bytes.ok_or(CodeError::Letter(I::KIND))?);
        let (content, sum) = bytes.split_at(BYTES - CHECKSUM);
        if checksum(content) != sum {
            return Err(CodeError::Checksum(I::KIND));
        }
        Ok(Self {
            id: I::of(Uuid::from_bytes(array::from_fn(|n| content[n]))),
            secret: Zeroizing::new(array::from_fn(|n| content[16 + n])),
            ca: Fingerprint(array::from_fn(|n| content[16 + SECRET + n])),
        })
    }
}

impl<I: CodeId> fmt::Debug for SecretCode<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretCode({}, …)", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ENR: CodeKind = EnrollmentId::KIND;

    fn code_of<I: CodeId>(id: u128, secret: [u8; SECRET], ca: &[u8]) -> SecretCode<I> {
        SecretCode { id: I::of(Uuid::from_u128(id)), secret: Zeroizing::new(secret), ca: Fingerprint::of(ca) }
    }

    fn code(id: u128, secret: [u8; SECRET], ca: &[u8]) -> EnrolmentCode {
        code_of(id, secret, ca)
    }

    proptest! {
        #[test]
        fn a_code_survives_a_round_trip(id: u128, secret: [u8; SECRET], ca: Vec<u8>) {
            let code = code(id, secret, &ca);
            let text = code.expose();
            prop_assert_eq!(text.len(), ENR.prefix.len() + TEXT);
            prop_assert_eq!(text.parse::<EnrolmentCode>(), Ok(code.clone()));
            prop_assert_eq!(format!(" {}\n", text.to_lowercase()).parse::<EnrolmentCode>(), Ok(code));
        }

        #[test]
        fn a_wrong_character_is_detected(id: u128, secret: [u8; SECRET], at in 0..TEXT, letter in 0usize..32) {
            let text = code(id, secret, b"ca").expose();
            let letter = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"[letter];
            let mut bytes = text.as_bytes().to_vec();
            let was = std::mem::replace(&mut bytes[ENR.prefix.len() + at], letter);
            let wrong = String::from_utf8(bytes).unwrap().parse::<EnrolmentCode>();
            prop_assert!(was == letter || wrong == Err(CodeError::Checksum(ENR)));
        }

        #[test]
        fn no_text_panics(s in ".{0,120}") {
            let _ = s.parse::<EnrolmentCode>();
            let _ = format!("ENR-{s}").parse::<EnrolmentCode>();
        }
    }

    #[test]
    fn an_error_names_the_fault_and_debug_hides_the_secret() {
        let code = code(7, [9; SECRET], b"ca");
        let text = code.expose();
        assert_eq!("".parse::<EnrolmentCode>(), Err(CodeError::Prefix(ENR)));
        assert_eq!(text[..40].parse::<EnrolmentCode>(), Err(CodeError::Length { kind: ENR, letters: 36 }));
        assert_eq!(text.replace(&text[86..], "======").parse::<EnrolmentCode>(), Err(CodeError::Letter(ENR)));
        assert_eq!(text.replace(&text[90..], "!!").parse::<EnrolmentCode>(), Err(CodeError::Letter(ENR)));
        assert_eq!(text.replace('0', "o").replace('1', "L").parse(), Ok(code.clone()));
        assert!(!text.contains(&format!("{code:?}")) && !format!("{code:?}").contains("9, 9"));
    }

    /// Codes that people have keep their text.
    #[test]
    fn the_text_of_a_code_is_this() {
        let (enrolment, join) = (code(7, [9; SECRET], b"ca"), code_of::<JoinTokenId>(7, [9; SECRET], b"ca"));
        let letters =
            "0000000000000000000000000W4GJ289144GJ289144GJ289144PJP89E00X2181NHYN9G5XQ3DP2GGFCP7NNFSS";
        assert_eq!(*enrolment.expose(), format!("ENR-{letters}"));
        assert_eq!(*join.expose(), format!("GWJ-{letters}"));
        assert_eq!(join.expose().to_lowercase().parse(), Ok(join.clone()));
        assert_eq!(join.id().to_string(), "gwj-00000000000000000000000000000007");
        assert!(!format!("{join:?}").contains("9, 9"));
    }

    #[test]
    fn a_code_of_the_other_kind_is_named() {
        let other = code(7, [9; SECRET], b"ca").expose().parse::<JoinToken>().unwrap_err();
        assert_eq!(other.to_string(), "a join token starts with GWJ-");
        let other = code_of::<JoinTokenId>(7, [9; SECRET], b"ca").expose().parse::<EnrolmentCode>();
        assert_eq!(other.unwrap_err().to_string(), "an enrolment code starts with ENR-");
        let short = "GWJ-0".parse::<JoinToken>().unwrap_err().to_string();
        assert_eq!(
            short,
            "the join token is incomplete: it has 1 letters after GWJ- instead of 88; copy all of it"
        );
    }
}
