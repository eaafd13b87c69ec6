//! A tunnel's keys in its row: sealed, each for its row and its column.
//!
//! Invariants: a live tunnel has a key. A deleted one has none: it was erased in the transaction of the deletion.

use crate::{
    Action, PreviousKeys, ResourceType, Result, Store, StoreError, WriteContext,
    execution::Execution,
    field::{Found, get},
    row::{Assignment, FromColumns, ToColumns, rows, write},
    transaction::Transaction,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use wicketgate_model::{FrontdoorId, PreSharedKey, Status, TunnelId};
use wicketgate_seal::{Place, SecretKeys};
use zeroize::Zeroizing;

pub(crate) const TABLE: &str = "ipsec_tunnel";
pub(crate) const PRE_SHARED_KEY: &str = "pre_shared_key";
pub(crate) const PREVIOUS_KEYS: &str = "previous_keys";

/// Rows whose expired keys are erased in one transaction.
const AT_ONCE: i64 = 100;

/// The columns of a tunnel's keys. The default erases them.
#[derive(Default)]
pub(crate) struct SealedKeys {
    pre_shared_key: Option<String>,
    /// `None`: there are none.
    previous_keys: Option<String>,
    previous_keys_until: Option<Timestamp>,
}

write!(SealedKeys { pre_shared_key, previous_keys, previous_keys_until });

impl SealedKeys {
    pub(crate) fn of(
        id: &TunnelId,
        current: Option<&PreSharedKey>,
        previous: &PreviousKeys,
        keys: &SecretKeys,
    ) -> Result<Self> {
        let row = id.to_string();
        let seal = |column, text: &str| keys.seal(Place { table: TABLE, row: &row, column }, text);
        let text = previous.text();
        Ok(Self {
            pre_shared_key: current.map(|key| seal(PRE_SHARED_KEY, key.expose())).transpose()?,
            previous_keys: (!text.is_empty()).then(|| seal(PREVIOUS_KEYS, &text)).transpose()?,
            previous_keys_until: previous.until(),
        })
    }
}

fn opened(found: &Found<'_>, column: &'static str) -> Result<Option<Zeroizing<String>>> {
    let Some(sealed) = get::<Option<String>>(found, column)? else { return Ok(None) };
    let row: String = get(found, "id")?;
    let clear = found.keys.open(Place { table: TABLE, row: &row, column }, &sealed);
    clear.map(Some).ok_or_else(|| corrupt(column))
}

fn corrupt(column: &str) -> StoreError {
    StoreError::Corrupt { column: column.to_owned() }
}

impl FromColumns for Option<PreSharedKey> {
    fn from_columns(found: &Found<'_>, column: &'static str) -> Result<Self> {
        let key = opened(found, column)?.map(|text| text.parse().map_err(|_| corrupt(column))).transpose()?;
        if key.is_none() && get::<Status>(found, "status")?.is_live() {
            return Err(corrupt(column));
        }
        Ok(key)
    }
}

/// What a caller decides about a tunnel contains the key; [`SealedKeys`] are what is written of it.
impl ToColumns for Option<PreSharedKey> {
    fn to_columns<'a>(&'a self, _: &'static str, _: &mut Vec<Assignment<'a>>) {}
}

impl FromColumns for PreviousKeys {
    fn from_columns(found: &Found<'_>, column: &'static str) -> Result<Self> {
        let Some(text) = opened(found, column)? else { return Ok(Self::default()) };
        Self::read(&text).ok_or_else(|| corrupt(column))
    }
}

rows! {
    struct Expired {
        id: TunnelId,
        previous_keys: PreviousKeys,
    }
}

/// Erases previous keys that are not valid any more; returns whether there were any. There may be more.
async fn erase_expired(tx: &mut Transaction, now: Timestamp) -> Result<bool> {
    let select = "SELECT id, previous_keys FROM ipsec_tunnel WHERE previous_keys_until <= $1 LIMIT $2";
    let rows: Vec<Expired> = tx.all(select, &[&now, &AT_ONCE]).await?;
    for Expired { id, previous_keys } in &rows {
        let left = SealedKeys::of(id, None, &previous_keys.left(now), tx.keys())?;
        let update = "UPDATE ipsec_tunnel SET previous_keys = $1, previous_keys_until = $2 WHERE id = $3";
        tx.execute(update, &[&left.previous_keys, &left.previous_keys_until, id]).await?;
    }
    Ok(!rows.is_empty())
}

impl Store {
    /// Erases previous keys whose grace has ended. To be called periodically.
    pub async fn erase_expired_keys(&self, now: Timestamp) -> Result<()> {
        loop {
            let mut tx = self.database.begin_in_turn().await?;
            let were_there = erase_expired(&mut tx, now).await?;
            tx.commit().await?;
            if !were_there {
                return Ok(());
            }
            self.database.erasure.request();
        }
    }

    /// Records that the tunnel's key is handed out. Without this record it must not be.
    pub async fn record_key_read(
        &self,
        frontdoor: FrontdoorId,
        id: TunnelId,
        context: &WriteContext,
    ) -> Result<()> {
        self.write(context, move |write| {
            async move {
                let of = Execution::of(ResourceType::Tunnel, &id);
                write.record(frontdoor, Action::ReadKey, of).await.map(drop)
            }
            .boxed()
        })
        .await
    }
}
