//! Seals at the start what is in the database in clear, or under another key than the first one.
//!
//! Invariant: each step is a transaction that leaves every secret readable. A start that is interrupted is continued by the
//! next one.

use crate::{
    PreviousKeys, Result, SecretKeyFile, StoreError,
    database::Database,
    field::Found,
    row::{FromRow, rows},
    shared_secret,
    statement::Assignments,
    transaction::Transaction,
    tunnel_keys::{SealedKeys, TABLE},
};
use std::{collections::BTreeSet, sync::Arc};
use tracing::{info, warn};
use wicketgate_model::{PreSharedKey, TunnelId};
use wicketgate_seal::KeyId;

/// Rows of a step.
const AT_ONCE: i64 = 100;
/// What sealed values begin with: `1.`, and the id of their key.
const USED: &str = "SELECT DISTINCT SUBSTR(pre_shared_key, 1, 19) FROM ipsec_tunnel WHERE pre_shared_key IS NOT NULL \
                    UNION SELECT DISTINCT SUBSTR(previous_keys, 1, 19) FROM ipsec_tunnel \
                    WHERE previous_keys IS NOT NULL \
                    UNION SELECT DISTINCT SUBSTR(sealed, 1, 19) FROM shared_secret";

/// Gives the database its keys, and changes nothing.
pub(crate) async fn give_keys(database: &mut Database, file: &SecretKeyFile) -> Result<()> {
    let mut tx = database.begin().await?;
    let used: Vec<(String,)> = tx.all(USED, &[]).await?;
    tx.rollback().await?;
    let used: BTreeSet<_> = used.iter().filter_map(|(start,)| KeyId::of(start)).collect();
    database.keys = Arc::new(file.open_for(&used)?);
    Ok(())
}

/// Gives the database its keys, and seals all secrets under the first of them. No other server uses the database.
pub(crate) async fn seal(database: &mut Database, file: &SecretKeyFile) -> Result<()> {
    give_keys(database, file).await?;
    let mut tx = database.begin().await?;
    let (are_left,): (bool,) = tx.one("SELECT are_left FROM clear_remains", &[]).await?;
    tx.rollback().await?;
    let clear = steps(database, seal_clear).await?;
    let answered = steps(database, tag_fingerprints).await?;
    if clear > 0 {
        info!(tunnels = clear, "the tunnels' keys were in the database in clear, and are sealed now");
    }
    let tunnels = steps(database, seal_under_first).await?;
    let older = tunnels + steps(database, shared_secret::seal_under_first).await?;
    if older > 0 {
        let file = file.path().display();
        info!(tunnels, %file, "sealed all secrets under the first key: the others of the file are not used any more");
    }
    if are_left || clear + answered > 0 {
        erase_remains(database).await;
    } else if older > 0 {
        database.erasure.request();
    }
    Ok(())
}

/// Takes a step until there is nothing more to do; returns how many rows there were.
async fn steps(database: &Database, step: impl AsyncFn(&mut Transaction) -> Result<usize>) -> Result<usize> {
    let mut all = 0;
    loop {
        let mut tx = database.begin_in_turn().await?;
        let done = step(&mut tx).await?;
        tx.commit().await?;
        all += done;
        if done == 0 {
            return Ok(all);
        }
    }
}

struct Clear {
    tunnel: TunnelId,
    pre_shared_key: PreSharedKey,
    previous_keys: PreviousKeys,
}

rows! {
    struct ClearText {
        tunnel: TunnelId,
        pre_shared_key: String,
        previous_keys: String,
    }

    struct Sealed {
        id: TunnelId,
        pre_shared_key: Option<PreSharedKey>,
        previous_keys: PreviousKeys,
    }
}

impl FromRow for Clear {
    fn from_row(row: &Found<'_>) -> Result<Self> {
        let corrupt = |column: &str| StoreError::Corrupt { column: column.to_owned() };
        let ClearText { tunnel, pre_shared_key, previous_keys } = ClearText::from_row(row)?;
        Ok(Self {
            tunnel,
            pre_shared_key: pre_shared_key.parse().map_err(|_| corrupt("pre_shared_key"))?,
            previous_keys: PreviousKeys::read(&previous_keys).ok_or_else(|| corrupt("previous_keys"))?,
        })
    }
}

async fn seal_clear(tx: &mut Transaction) -> Result<usize> {
    let rows: Vec<Clear> = tx.all("SELECT * FROM clear_tunnel_key LIMIT $1", &[&AT_ONCE]).await?;
    for Clear { tunnel, pre_shared_key, previous_keys } in &rows {
        write(tx, tunnel, Some(pre_shared_key), previous_keys).await?;
        tx.execute("DELETE FROM clear_tunnel_key WHERE tunnel = $1", &[tunnel]).await?;
    }
    Ok(rows.len())
}

async fn seal_under_first(tx: &mut Transaction) -> Result<usize> {
    let select = "SELECT id, status, pre_shared_key, previous_keys FROM ipsec_tunnel \
                  WHERE pre_shared_key NOT LIKE $1 OR previous_keys NOT LIKE $1 LIMIT $2";
    let first = format!("{}%", tx.keys().newest_prefix()?);
    let rows: Vec<Sealed> = tx.all(select, &[&first, &AT_ONCE]).await?;
    for Sealed { id, pre_shared_key, previous_keys } in &rows {
        write(tx, id, pre_shared_key.as_ref(), previous_keys).await?;
    }
    Ok(rows.len())
}

async fn write(
    tx: &mut Transaction,
    id: &TunnelId,
    key: Option<&PreSharedKey>,
    previous: &PreviousKeys,
) -> Result<()> {
    let sealed = SealedKeys::of(id, key, previous, tx.keys())?;
    tx.run(Assignments::of(&sealed).update(TABLE, "", id, "")?).await.map(drop)
}

/// A fingerprint was a plain hash of a request, and a request may contain a key: with a copy of the database, keys could be tried.
async fn tag_fingerprints(tx: &mut Transaction) -> Result<usize> {
    let select =
        "SELECT principal, key, fingerprint FROM idempotency WHERE fingerprint NOT LIKE '1.%' LIMIT $1";
    let rows: Vec<(String, String, String)> = tx.all(select, &[&AT_ONCE]).await?;
    for (principal, key, fingerprint) in &rows {
        let tag = tx.keys().tag(fingerprint)?;
        let update = "UPDATE idempotency SET fingerprint = $1 WHERE principal = $2 AND key = $3";
        tx.execute(update, &[&tag, principal, key]).await?;
    }
    Ok(rows.len())
}

/// Rewrites what may still have a secret in clear: pages that are free, and columns that were dropped. A disk that has no
/// room for it is no reason not to serve.
async fn erase_remains(database: &Database) {
    if let Err(error) = try_erase(database).await {
        warn!(%error, "the database's files may still contain keys in clear: the next start erases them");
    }
}

async fn try_erase(database: &Database) -> Result<()> {
    database.rewrite().await?;
    let mut tx = database.begin().await?;
    tx.execute("UPDATE clear_remains SET are_left = 0", &[]).await?;
    tx.commit().await
}
