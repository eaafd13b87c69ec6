//! An enrolment code: given to an agent for its first start.
//!
//! It contains the enrolment's id, a secret, and the fingerprint of the server's CA, so that the first connection is
//! authenticated both ways without a public certificate. The text is `ENR-` and 88 letters of Crockford's base32
//! (no I, L, O, U). The last 24 bits are a checksum, which detects mistyped and incomplete codes before any connection.
//! `Debug` never shows the secret.

use crate::trust::{Fingerprint, sha256};
use std::{array, fmt, str::FromStr};
use uuid::Uuid;
use wicketgate_model::EnrollmentId;
use zeroize::Zeroizing;

const PREFIX: &str = "ENR-";
const LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
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

    /// SHA-256 of the secret, which the server stores. The secret is random, so it needs no slower hash.
    pub fn secret_hash(&self) -> [u8; 32] {
        secret_hash(self.secret.as_slice())
    }

    /// The CA of the server's gateways.
    pub fn ca(&self) -> Fingerprint {
        self.ca
    }

    /// The code's text, which contains the secret.
    pub fn expose(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0u8; BYTES]);
        let (id, rest) = bytes.split_at_mut(16);
        // An id gives its bits only as text: 32 hexadecimal digits.
        let digits = self.enrollment.to_string();
        let bits = u128::from_str_radix(digits.trim_start_matches("enr-"), 16).unwrap_or_default();
        id.copy_from_slice(&bits.to_be_bytes());
        let (secret, rest) = rest.split_at_mut(SECRET);
        secret.copy_from_slice(self.secret.as_slice());
        rest[..Fingerprint::LENGTH].copy_from_slice(&self.ca.0);
        let sum = checksum(&bytes[..BYTES - CHECKSUM]);
        bytes[BYTES - CHECKSUM..].copy_from_slice(&sum);
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + TEXT));
        text.push_str(PREFIX);
        for five in bytes.chunks_exact(5) {
            let bits = five.iter().fold(0u64, |acc, &b| acc << 8 | u64::from(b));
            for shift in (0..8).rev() {
                text.push(char::from(LETTERS[(bits >> (shift * 5)) as usize & 31]));
            }
        }
        text
    }
}

/// SHA-256 of a code's secret, which the server stores and compares.
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
        let mut bytes = Zeroizing::new(Vec::with_capacity(BYTES));
        let (mut bits, mut have) = (0u16, 0);
        for letter in letters.chars() {
            bits = bits << 5 | value(letter).ok_or(CodeError::Letter)?;
            have += 5;
            if have >= 8 {
                have -= 8;
                bytes.push((bits >> have & 0xff) as u8);
            }
        }
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

/// Accepts letters that look like digits.
fn value(letter: char) -> Option<u16> {
    let letter = match letter.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    LETTERS.iter().position(|&l| char::from(l) == letter).and_then(|i| u16::try_from(i).ok())
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
        fn a_code_reads_back(id: u128, secret: [u8; SECRET], ca: Vec<u8>) {
            let code = code(id, secret, &ca);
            let text = code.expose();
            prop_assert_eq!(text.len(), PREFIX.len() + TEXT);
            prop_assert_eq!(text.parse::<EnrolmentCode>(), Ok(code.clone()));
            prop_assert_eq!(format!(" {}\n", text.to_lowercase()).parse::<EnrolmentCode>(), Ok(code));
        }

        #[test]
        fn a_wrong_letter_is_detected(id: u128, secret: [u8; SECRET], at in 0..TEXT, letter in 0usize..32) {
            let text = code(id, secret, b"ca").expose();
            let mut bytes = text.as_bytes().to_vec();
            let was = std::mem::replace(&mut bytes[PREFIX.len() + at], LETTERS[letter]);
            let wrong = String::from_utf8(bytes).unwrap().parse::<EnrolmentCode>();
            prop_assert!(was == LETTERS[letter] || wrong == Err(CodeError::Checksum));
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
        assert_eq!(text.replace(&text[90..], "!!").parse::<EnrolmentCode>(), Err(CodeError::Letter));
        assert!(!text.contains(&format!("{code:?}")) && !format!("{code:?}").contains("9, 9"));
    }
}
