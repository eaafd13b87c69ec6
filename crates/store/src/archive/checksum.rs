//! A checksum of a table, the same in both databases and in whatever order the rows are read.
//!
//! It is the sum, modulo 2^256, of the SHA-256 of the line of each row and of the table's name and columns. A row that is missing,
//! doubled or different changes it; it is no protection from an attacker, who would have to break the seal of the file first.

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// The rows of a table and their checksum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSum {
    pub table: String,
    pub rows: u64,
    /// In hexadecimal.
    pub sha256: String,
}

/// The sum of the rows so far.
#[derive(Debug, Default)]
pub(super) struct Checksum {
    rows: u64,
    /// The least significant byte is the first.
    sum: [u8; 32],
}

impl Checksum {
    /// Of a table without rows. `head` is the line before them.
    pub(super) fn new(head: &[u8]) -> Self {
        let mut checksum = Self::default();
        checksum.add_line(head);
        checksum
    }

    pub(super) fn add_row(&mut self, line: &[u8]) {
        self.rows += 1;
        self.add_line(line);
    }

    fn add_line(&mut self, line: &[u8]) {
        let mut carry = 0;
        for (byte, of_line) in self.sum.iter_mut().zip(digest(&SHA256, line).as_ref()) {
            let sum = u16::from(*byte) + u16::from(*of_line) + carry;
            (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
        }
    }

    pub(super) fn of(self, table: &str) -> TableSum {
        TableSum { table: table.to_owned(), rows: self.rows, sha256: hex::encode(self.sum) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(rows: &[String]) -> TableSum {
        let mut sum = Checksum::new(b"head");
        rows.iter().for_each(|row| sum.add_row(row.as_bytes()));
        sum.of("table")
    }

    #[test]
    fn a_carry_reaches_the_next_byte() {
        let mut sum = Checksum { rows: 0, sum: [0xff; 32] };
        sum.add_row(b"");
        let one_less =
            hex::decode("e2b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855").unwrap();
        assert_eq!(hex::encode(sum.sum), hex::encode(one_less));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn rows_count_and_their_order_does_not(
            mut rows in prop::collection::vec("[a-c]{0,3}", 1..8),
            at in any::<prop::sample::Index>(),
        ) {
            let whole = sum(&rows);
            rows.reverse();
            prop_assert_eq!(&sum(&rows), &whole);
            let one = at.index(rows.len());
            let mut other = rows.clone();
            other[one].push('x');
            prop_assert_ne!(&sum(&other).sha256, &whole.sha256);
            other = rows.clone();
            let doubled = other[one].clone();
            other.push(doubled);
            prop_assert_ne!(&sum(&other), &whole);
            rows.remove(one);
            prop_assert_ne!(&sum(&rows), &whole);
        }
    }
}
