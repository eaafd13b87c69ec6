//! Quotas: how much there is of each kind, and whether there is room for one more.
//!
//! Invariant: the decision is made in the transaction that inserts. Writes follow one another, so that requests at the
//! same time do not exceed a limit together. What exceeds a limit that was lowered stays.

use crate::{
    NamedRow, Result, Store, StoreError,
    bulk::parts,
    enrollment::TRIES,
    field::{Argument, Found, get},
    row::FromRow,
    write::Write,
};
use jiff::Timestamp;
use sqlx::AssertSqlSafe;
use std::collections::BTreeMap;
use wicketgate_model::{FrontdoorId, QuotaKind, QuotaLimit, Quotas};

/// How much there is of each kind.
pub type QuotaUse = BTreeMap<QuotaKind, u64>;

/// Codes that an agent can enrol with, at the time `$1`: not those of an environment that was deleted since.
fn usable_codes() -> String {
    format!(
        "SELECT COUNT(*) FROM enrollment c WHERE c.frontdoor = f.id AND c.agent IS NULL AND c.expires_at > $1 \
         AND c.tries < {TRIES} AND (c.environment IS NULL OR EXISTS \
         (SELECT 1 FROM environment e WHERE e.id = c.environment AND e.deleted_at IS NULL))"
    )
}

/// An expression of how much the Frontdoor `f` has of a kind, at the time `$1`. A server counts its event streams itself.
fn used(kind: QuotaKind) -> String {
    let all = match kind {
        QuotaKind::Tunnels => {
            "(SELECT COUNT(*) FROM ipsec_tunnel WHERE frontdoor = f.id AND status <> 'DELETED')"
        }
        QuotaKind::Shares => {
            "(SELECT CAST(COALESCE(SUM(shares), 0) AS BIGINT) FROM ipsec_share_count \
             WHERE frontdoor = f.id AND status <> 'DELETED')"
        }
        QuotaKind::Environments => {
            return format!(
                "((SELECT COUNT(*) FROM environment WHERE frontdoor = f.id AND deleted_at IS NULL) \
                 + ({} AND c.environment IS NULL))",
                usable_codes()
            );
        }
        QuotaKind::Agents => {
            return format!(
                "((SELECT COUNT(*) FROM agent WHERE frontdoor = f.id AND barred_at IS NULL) + ({}))",
                usable_codes()
            );
        }
        QuotaKind::EnrollmentCodes => return format!("({})", usable_codes()),
        QuotaKind::ApiAccounts => {
            "(SELECT COUNT(*) FROM api_account WHERE organization = f.organization AND revoked_at IS NULL \
             AND (frontdoors IS NULL OR ' ' || frontdoors || ' ' LIKE '% ' || f.id || ' %'))"
        }
        QuotaKind::HandoverLinks => {
            "(SELECT COUNT(*) FROM handover_link WHERE frontdoor = f.id AND revoked_at IS NULL AND expires_at > $1)"
        }
        QuotaKind::EventStreams | QuotaKind::Frontdoors => "0",
    };
    all.to_owned()
}

/// With those that this transaction adds or removes. A count that is below zero is refused, not taken for room.
fn total(counted: i64, pending: i64) -> Result<u64> {
    u64::try_from(counted + pending).map_err(|_| StoreError::Corrupt { column: "shares".to_owned() })
}

/// A Frontdoor with what it has of each kind, in their order.
struct Used {
    frontdoor: FrontdoorId,
    used: QuotaUse,
}

impl FromRow for Used {
    fn from_row(row: &Found<'_>) -> Result<Self> {
        let count = |(kind, column)| Ok((kind, get(row, column)?));
        let used = QuotaKind::of_frontdoor().zip(1_usize..).map(count).collect::<Result<_>>()?;
        Ok(Self { frontdoor: get(row, 0)?, used })
    }
}

impl Store {
    /// What these Frontdoors have of each kind.
    pub async fn quota_use(
        &self,
        frontdoors: &[FrontdoorId],
        at: Timestamp,
    ) -> Result<BTreeMap<FrontdoorId, QuotaUse>> {
        let counts: Vec<_> = QuotaKind::of_frontdoor().map(used).collect();
        let mut all = BTreeMap::new();
        for part in parts(frontdoors) {
            let (counts, ids) = (counts.join(", "), ids(part));
            let select = format!("SELECT f.id, {counts} FROM frontdoor f WHERE f.id IN ({ids})");
            let found: Vec<Used> = self.all(AssertSqlSafe(select), &values(&at, part)).await?;
            all.extend(found.into_iter().map(|Used { frontdoor, used }| (frontdoor, used)));
        }
        Ok(all)
    }
}

impl Write {
    /// Fails with [`StoreError::QuotaExceeded`] unless each of the Frontdoors may have one more.
    pub(crate) async fn need_room(&mut self, frontdoors: &[FrontdoorId], kind: QuotaKind) -> Result<()> {
        let used = used(kind);
        for part in parts(frontdoors) {
            let ids = ids(part);
            let select = format!(
                "SELECT f.id, f.default_namespace, f.quotas, {used} FROM frontdoor f WHERE f.id IN ({ids})"
            );
            let values = values(&self.context.at, part);
            // Where there is no such Frontdoor, the write fails for that.
            let found: Vec<(FrontdoorId, String, Quotas, i64)> =
                self.tx.all(AssertSqlSafe(select), &values).await?;
            for (frontdoor, name, own, counted) in found {
                // The numbers of shares are written once, at the transaction's end.
                let pending = if kind == QuotaKind::Shares { self.kept.counts.of(frontdoor) } else { 0 };
                let limit = own.within(&self.context.quotas, kind);
                let named = || NamedRow::new(&frontdoor, &name);
                check(total(counted, pending)?, limit, kind, Some(&named))?;
            }
        }
        Ok(())
    }
}

/// The places of Frontdoors in a statement whose first value is the time.
fn ids(frontdoors: &[FrontdoorId]) -> String {
    (2..).take(frontdoors.len()).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ")
}

fn values<'a>(at: &'a Timestamp, frontdoors: &'a [FrontdoorId]) -> Vec<&'a dyn Argument> {
    let mut values: Vec<&dyn Argument> = vec![at];
    values.extend(frontdoors.iter().map(|id| id as &dyn Argument));
    values
}

/// `None`: they are counted in the organization.
pub(crate) fn check(
    used: u64,
    limit: QuotaLimit,
    kind: QuotaKind,
    frontdoor: Option<&dyn Fn() -> NamedRow>,
) -> Result<()> {
    let limit = limit.get();
    if used < limit.into() {
        return Ok(());
    }
    Err(StoreError::QuotaExceeded { frontdoor: frontdoor.map(|named| named()), kind, limit, used })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::Row as _;

    #[tokio::test]
    async fn what_takes_no_room_is_not_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let store = crate::store::fresh(dir.path()).await;
        for (kind, index) in [
            (QuotaKind::ApiAccounts, "api_account_live"),
            (QuotaKind::EnrollmentCodes, "enrollment_unused"),
            (QuotaKind::HandoverLinks, "handover_link_live"),
        ] {
            let explain =
                format!("EXPLAIN QUERY PLAN SELECT {} FROM frontdoor f WHERE f.id = 'x'", used(kind));
            let explained = sqlx::query(AssertSqlSafe(explain)).bind(1_i64);
            let mut reader = store.database.readers.acquire().await.unwrap();
            let plan = explained.fetch_all(&mut *reader).await.unwrap();
            let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
            assert!(plan.iter().any(|step| step.contains(index)), "{plan:?}");
        }
    }

    #[test]
    fn a_count_below_zero_is_no_room() {
        assert_eq!(total(3, -1).unwrap(), 2);
        assert!(matches!(total(1, -2), Err(StoreError::Corrupt { .. })));
    }
}
