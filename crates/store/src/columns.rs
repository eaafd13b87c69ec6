//! Conversion between columns and the domain's types.

use crate::{Result, StoreError};
use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{
    Any, Row,
    any::{AnyArguments, AnyRow},
};
use std::str::FromStr;
use wicketgate_model::{Detail, Generation, Problem, Reason, Standing};

/// Labels that a caller attaches to a share or a tunnel.
pub type Tags = std::collections::BTreeMap<String, String>;

pub(crate) type Query = sqlx::query::Query<'static, Any, AnyArguments>;

/// Assignments that mark a tunnel or a share `DELETING` at `$1`, in the revision `$2`.
macro_rules! deleting {
    () => {
        "generation = generation + 1, status = 'DELETING', status_since = $1, updated_at = $1, reason = NULL, \
         message = NULL, detail_since = NULL, revision = $2"
    };
}
pub(crate) use deleting;

pub(crate) fn parsed<T: FromStr>(row: &AnyRow, column: &'static str) -> Result<T> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|_| StoreError::Corrupt { column })
}

pub(crate) fn parsed_option<T: FromStr>(row: &AnyRow, column: &'static str) -> Result<Option<T>> {
    let text: Option<String> = row.try_get(column)?;
    text.map(|t| t.parse().map_err(|_| StoreError::Corrupt { column })).transpose()
}

pub(crate) fn number<T: TryFrom<i64>>(row: &AnyRow, column: &'static str) -> Result<T> {
    let n: i64 = row.try_get(column)?;
    n.try_into().map_err(|_| StoreError::Corrupt { column })
}

pub(crate) fn number_option<T: TryFrom<i64>>(row: &AnyRow, column: &'static str) -> Result<Option<T>> {
    let n: Option<i64> = row.try_get(column)?;
    n.map(|n| n.try_into().map_err(|_| StoreError::Corrupt { column })).transpose()
}

pub(crate) fn text(row: &AnyRow, column: &'static str) -> Result<String> {
    Ok(row.try_get(column)?)
}

pub(crate) fn time(row: &AnyRow, column: &'static str) -> Result<Timestamp> {
    let micros: i64 = row.try_get(column)?;
    Timestamp::from_microsecond(micros).map_err(|_| StoreError::Corrupt { column })
}

pub(crate) fn time_option(row: &AnyRow, column: &'static str) -> Result<Option<Timestamp>> {
    let micros: Option<i64> = row.try_get(column)?;
    micros.map(|m| Timestamp::from_microsecond(m).map_err(|_| StoreError::Corrupt { column })).transpose()
}

pub(crate) fn tags(row: &AnyRow) -> Result<Tags> {
    serde_json::from_str(&text(row, "tags")?).map_err(|_| StoreError::Corrupt { column: "tags" })
}

pub(crate) fn tags_text(tags: &Tags) -> Result<String> {
    serde_json::to_string(tags).map_err(|_| StoreError::Corrupt { column: "tags" })
}

pub(crate) fn generation(row: &AnyRow) -> Result<Generation> {
    Ok(Generation::new(number(row, "generation")?))
}

pub(crate) fn json_option<T: DeserializeOwned>(row: &AnyRow, column: &'static str) -> Result<Option<T>> {
    let text: Option<String> = row.try_get(column)?;
    text.map(|t| serde_json::from_str(&t).map_err(|_| StoreError::Corrupt { column })).transpose()
}

pub(crate) fn json_text(column: &'static str, value: Option<&impl Serialize>) -> Result<Option<String>> {
    value.map(|v| serde_json::to_string(v).map_err(|_| StoreError::Corrupt { column })).transpose()
}

/// A count for the database. Counts beyond what fits would take centuries; they stop there.
pub(crate) fn big(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(crate) fn standing(row: &AnyRow) -> Result<Standing> {
    let status = parsed(row, "status")?;
    let observed: Option<i64> = row.try_get("observed_generation")?;
    let since = time(row, "status_since")?;
    let reason: Option<String> = row.try_get("reason")?;
    let detail = match reason {
        None => Detail::waiting(status, since),
        Some(name) => {
            let reason: Reason = name.parse().map_err(|_| StoreError::Corrupt { column: "reason" })?;
            let message: Option<String> = row.try_get("message")?;
            let since =
                time_option(row, "detail_since")?.ok_or(StoreError::Corrupt { column: "detail_since" })?;
            Some(Detail { problem: Problem::new(reason, message.unwrap_or_default()), since })
        }
    };
    Ok(Standing {
        status,
        since,
        observed_generation: observed.and_then(|n| u64::try_from(n).ok()).map(Generation::new),
        detail,
    })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The inverse of [`hex`].
pub(crate) fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let digits = text.as_bytes();
    if digits.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Text from outside, short and printable: it is shown in pages and terminals, and PostgreSQL's TEXT holds no NUL.
pub(crate) fn shown(text: &str) -> String {
    /// Characters. Longer than any host name (RFC 1035 §2.3.4) and any sentence.
    const LONGEST: usize = 1000;
    text.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_hash_survives_a_round_trip(bytes: [u8; 32]) {
            prop_assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        }

        #[test]
        fn no_text_panics(text in ".{0,70}|[0-9a-f+ä]{64}") {
            let _ = unhex(&text);
        }
    }
}
