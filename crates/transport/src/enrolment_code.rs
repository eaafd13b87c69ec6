//! An enrolment code: given to an agent for its first start.
//!
//! It contains the enrolment's id, a secret, and the fingerprint of the server's CA, so that the first connection is
//! authenticated both ways without a public certificate. The text is `ENR-` and 88 letters of Crockford's base32
//! (no I, L, O, U). The last 24 bits are a checksum, which detects mistyped and incomplete codes before any connection.
//! `Debug` never shows the secret.

use crate::trust::{Fingerprint, sha256};
use base32::Alphabet;
use std::{array, fmt, str::FromStr};
use uuid::Uuid;
use wicketgate_model::EnrollmentId;
use zeroize::Zeroizing;

const PREFIX: &str = "ENR-";
/// Decoding accepts small letters, and letters that look like digits.
const LETTERS: Alphabet = Alphabet::Crockford;
const SECRET: usize = 16;
const CHECKSUM: usize = 3;
/// 440 bits: exactly 88 letters.
const BYTES: usize = 16 + SECRET + Fingerprint::LENGTH + CHECKSUM;
const TEXT: usize = BYTES * 8 / 5;

#[derive(Clone, PartialEq, Eq)]
pub struct EnrolmentCode {
    enrollment: EnrollmentId,
    secret: Zeroizing<[u8; SECRET]>,
    ca: Fingerprint,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    #[error("an enrolment code starts with ENR-")]
    Prefix,
    #[error(
        "the enrolment code is incomplete: it has {0} letters after ENR- instead of {TEXT}; copy all of it"
    )]
    Length(usize),
    #[error("the enrolment code contains an invalid letter: copy it again")]
    Letter,
    #[error("the enrolment code is mistyped: copy it again")]
    Checksum,
}

impl EnrolmentCode {
    /// A code with a fresh secret.
    pub fn generate(enrollment: EnrollmentId, ca: Fingerprint) -> Result<Self, getrandom::Error> {
        let mut secret = Zeroizing::new([0; SECRET]);
        getrandom::fill(secret.as_mut())?;
        Ok(Self { enrollment, secret, ca })
    }

    pub fn enrollment(&self) -> EnrollmentId {
        self.enrollment
    }

    pub fn secret(&self) -> &[u8; SECRET] {
        &self.secret
    }

    /// The CA of the server's gateways.
    pub fn ca(&self) -> Fingerprint {
        self.ca
    }

    /// The code's text, which contains the secret.
    pub fn expose(&self) -> Zeroizing<String> {
        // An id gives its bits only as text: 32 hexadecimal digits.
        let digits = self.enrollment.to_string();
        let bits = u128::from_str_radix(digits.trim_start_matches("enr-"), 16).unwrap_or_default();
        let mut bytes = Zeroizing::new(Vec::with_capacity(BYTES));
        bytes.extend(bits.to_be_bytes());
        bytes.extend_from_slice(self.secret.as_slice());
        bytes.extend(self.ca.0);
        let sum = checksum(&bytes);
        bytes.extend(sum);
        let letters = Zeroizing::new(base32::encode(LETTERS, &bytes));
        Zeroizing::new(format!("{PREFIX}{}", *letters))
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

impl FromStr for EnrolmentCode {
    type Err = CodeError;

    fn from_str(s: &str) -> Result<Self, CodeError> {
        let s = s.trim();
        let letters = s
            .get(..PREFIX.len())
            .filter(|p| p.eq_ignore_ascii_case(PREFIX))
            .map(|_| &s[PREFIX.len()..])
            .ok_or(CodeError::Prefix)?;
        let count = letters.chars().count();
        if count != TEXT {
            return Err(CodeError::Length(count));
        }
        // Shorter with `=` at its end, which is no letter either.
        let bytes = base32::decode(LETTERS, letters).filter(|bytes| bytes.len() == BYTES);
        let bytes = Zeroizing::new(bytes.ok_or(CodeError::Letter)?);
        let (content, sum) = bytes.split_at(BYTES - CHECKSUM);
        if checksum(content) != sum {
            return Err(CodeError::Checksum);
        }
        Ok(Self {
            enrollment: EnrollmentId::new(Uuid::from_bytes(array::from_fn(|n| content[n]))),
            secret: Zeroizing::new(array::from_fn(|n| content[16 + n])),
            ca: Fingerprint(array::from_fn(|n| content[16 + SECRET + n])),
        })
    }
}

impl fmt::Debug for EnrolmentCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnrolmentCode({}, …)", self.enrollment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn code(id: u128, secret: [u8; SECRET], ca: &[u8]) -> EnrolmentCode {
        EnrolmentCode {
            enrollment: EnrollmentId::new(Uuid::from_u128(id)),
            secret: Zeroizing::new(secret),
            ca: Fingerprint::of(ca),
        }
    }

    proptest! {
        #[test]
        fn a_code_survives_a_round_trip(id: u128, secret: [u8; SECRET], ca: Vec<u8>) {
            let code = code(id, secret, &ca);
            let text = code.expose();
            prop_assert_eq!(text.len(), PREFIX.len() + TEXT);
            prop_assert_eq!(text.parse::<EnrolmentCode>(), Ok(code.clone()));
            prop_assert_eq!(format!(" {}\n", text.to_lowercase()).parse::<EnrolmentCode>(), Ok(code));
        }

        #[test]
        fn a_wrong_character_is_detected(id: u128, secret: [u8; SECRET], at in 0..TEXT, letter in 0usize..32) {
            let text = code(id, secret, b"ca").expose();
            let letter = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"[letter];
            let mut bytes = text.as_bytes().to_vec();
            let was = std::mem::replace(&mut bytes[PREFIX.len() + at], letter);
            let wrong = String::from_utf8(bytes).unwrap().parse::<EnrolmentCode>();
            prop_assert!(was == letter || wrong == Err(CodeError::Checksum));
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
        assert_eq!("".parse::<EnrolmentCode>(), Err(CodeError::Prefix));
        assert_eq!(text[..40].parse::<EnrolmentCode>(), Err(CodeError::Length(36)));
        assert_eq!(text.replace(&text[86..], "======").parse::<EnrolmentCode>(), Err(CodeError::Letter));
        assert_eq!(text.replace(&text[90..], "!!").parse::<EnrolmentCode>(), Err(CodeError::Letter));
        assert_eq!(text.replace('0', "o").replace('1', "L").parse(), Ok(code.clone()));
        assert!(!text.contains(&format!("{code:?}")) && !format!("{code:?}").contains("9, 9"));
    }
}
