//! Secrets that all servers of a database share: the authority's key, and the key that signs tokens.
//!
//! Invariants: a secret is sealed for its row. Servers that start at the same time agree on the secret that is written first.

use crate::{
    Result, StoreError,
    field::{Found, get},
    row::{FromColumns, FromRow, rows},
    transaction::Transaction,
};
use jiff::Timestamp;
use std::fmt;
use wicketgate_seal::{Place, SecretKeys};
use zeroize::Zeroizing;

const TABLE: &str = "shared_secret";
const SEALED: &str = "sealed";

/// Which secret it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedSecretName {
    /// The authority's key, beside its certificate.
    Ca,
    /// The key that signs the tokens of API accounts.
    TokenKey,
}

/// A secret of the database.
pub struct SharedSecret {
    /// PKCS #8 (RFC 5208), DER.
    pub key: Zeroizing<Vec<u8>>,
    /// In PEM; `None` for a key without one.
    pub certificate: Option<String>,
}

impl SharedSecretName {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ca => "ca",
            Self::TokenKey => "token-key",
        }
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSecret").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl FromRow for SharedSecret {
    fn from_row(row: &Found<'_>) -> Result<Self> {
        let corrupt = || StoreError::Corrupt { column: SEALED.to_owned() };
        let (name, sealed): (String, String) = (get(row, "name")?, get(row, SEALED)?);
        let place = Place { table: TABLE, row: &name, column: SEALED };
        let text = row.keys.open(place, &sealed).ok_or_else(corrupt)?;
        let key = Zeroizing::new(hex::decode(text.as_bytes()).map_err(|_| corrupt())?);
        Ok(Self { key, certificate: get(row, "certificate")? })
    }
}

impl FromColumns for SharedSecret {
    fn from_columns(row: &Found<'_>, _: &'static str) -> Result<Self> {
        Self::from_row(row)
    }
}

rows! {
    struct Kept {
        name: String,
        secret: SharedSecret,
    }
}

/// Returns whether there was none.
pub(crate) async fn insert(
    tx: &mut Transaction,
    name: SharedSecretName,
    secret: &SharedSecret,
    at: Timestamp,
) -> Result<bool> {
    let (name, sealed) = (name.as_str(), seal(tx.keys(), name.as_str(), &secret.key)?);
    let insert = "INSERT INTO shared_secret (name, sealed, certificate, created_at) VALUES ($1, $2, $3, $4) \
                  ON CONFLICT (name) DO NOTHING";
    Ok(tx.execute(insert, &[&name, &sealed, &secret.certificate, &at]).await? > 0)
}

fn seal(keys: &SecretKeys, name: &str, key: &[u8]) -> Result<String> {
    let text = Zeroizing::new(hex::encode(key));
    Ok(keys.seal(Place { table: TABLE, row: name, column: SEALED }, &text)?)
}

/// Seals under the first key what is sealed under another; returns how many there were.
pub(crate) async fn seal_under_first(tx: &mut Transaction) -> Result<usize> {
    let first = format!("{}%", tx.keys().newest_prefix()?);
    let select = "SELECT name, sealed, certificate FROM shared_secret WHERE sealed NOT LIKE $1";
    let rows: Vec<Kept> = tx.all(select, &[&first]).await?;
    for Kept { name, secret } in &rows {
        let sealed = seal(tx.keys(), name, &secret.key)?;
        tx.execute("UPDATE shared_secret SET sealed = $1 WHERE name = $2", &[&sealed, name]).await?;
    }
    Ok(rows.len())
}
