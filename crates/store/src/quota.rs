//! Quotas: how much there is of each kind, and whether there is room for one more.
//!
//! Invariant: the decision is made in the transaction that inserts. Writes follow one another, so that requests at the
//! same time do not exceed a limit together. What exceeds a limit that was lowered stays.

use crate::{
    Result, Store, StoreError,
    bulk::parts,
    field::{Argument, get},
    row::FromRow,
    write::Write,
};
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, any::AnyRow};
use std::collections::BTreeMap;
use wicketgate_model::{FrontdoorId, QuotaKind, QuotaLimit, Quotas};

/// How much there is of each kind.
pub type QuotaUse = BTreeMap<QuotaKind, u64>;

/// Codes that an agent can enrol with.
macro_rules! unused_codes {
    ($condition:literal) => {
        concat!(
            "(SELECT COUNT(*) FROM enrollment WHERE frontdoor = f.id AND agent IS NULL AND expires_at > $1 ",
            $condition,
            ")"
        )
    };
}
/// An expression of how much the Frontdoor `f` has of a kind, at the time `$1`. A server counts its event streams itself.
const fn used(kind: QuotaKind) -> &'static str {
    match kind {
        QuotaKind::Tunnels => {
            "(SELECT COUNT(*) FROM ipsec_tunnel WHERE frontdoor = f.id AND status <> 'DELETED')"
        }
        QuotaKind::Shares => {
            "(SELECT CAST(COALESCE(SUM(shares), 0) AS BIGINT) FROM ipsec_share_count \
             WHERE frontdoor = f.id AND status <> 'DELETED')"
        }
        QuotaKind::Environments => concat!(
            "((SELECT COUNT(*) FROM environment WHERE frontdoor = f.id AND deleted_at IS NULL) + ",
            unused_codes!("AND environment IS NULL"),
            ")"
        ),
        QuotaKind::Agents => concat!(
            "((SELECT COUNT(*) FROM agent WHERE frontdoor = f.id AND barred_at IS NULL) + ",
            unused_codes!(""),
            ")"
        ),
        QuotaKind::EnrollmentCodes => unused_codes!(""),
        QuotaKind::ApiAccounts => {
            "(SELECT COUNT(*) FROM api_account WHERE organization = f.organization AND revoked_at IS NULL \
             AND (frontdoors IS NULL OR ' ' || frontdoors || ' ' LIKE '% ' || f.id || ' %'))"
        }
        QuotaKind::HandoverLinks => {
            "(SELECT COUNT(*) FROM handover_link WHERE frontdoor = f.id AND revoked_at IS NULL AND expires_at > $1)"
        }
        QuotaKind::EventStreams | QuotaKind::Frontdoors => "0",
    }
}

/// A Frontdoor with what it has of each kind, in their order.
struct Used {
    frontdoor: FrontdoorId,
    used: QuotaUse,
}

impl FromRow for Used {
    fn from_row(row: &AnyRow) -> Result<Self> {
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
            let ids: Vec<_> = (2..).take(part.len()).map(|n| format!("${n}")).collect();
            let (counts, ids) = (counts.join(", "), ids.join(", "));
            let select = format!("SELECT f.id, {counts} FROM frontdoor f WHERE f.id IN ({ids})");
            let mut values: Vec<&dyn Argument> = vec![&at];
            values.extend(part.iter().map(|id| id as &dyn Argument));
            let found: Vec<Used> = self.all(AssertSqlSafe(select), &values).await?;
            all.extend(found.into_iter().map(|Used { frontdoor, used }| (frontdoor, used)));
        }
        Ok(all)
    }
}

impl Write {
    /// Fails with [`StoreError::QuotaExceeded`] unless the Frontdoor may have one more.
    pub(crate) async fn need_room(&mut self, frontdoor: FrontdoorId, kind: QuotaKind) -> Result<()> {
        let select = format!("SELECT f.quotas, {} FROM frontdoor f WHERE f.id = $2", used(kind));
        let found = self.tx.find(AssertSqlSafe(select), &[&self.context.at, &frontdoor]).await?;
        // Where there is no such Frontdoor, the write fails for that.
        let Some((own, counted)): Option<(Quotas, i64)> = found else { return Ok(()) };
        // The numbers of shares are written once, at the transaction's end.
        let pending = if kind == QuotaKind::Shares { self.kept.counts.of(frontdoor) } else { 0 };
        let used = u64::try_from(counted + pending).unwrap_or_default();
        let limit = own.within(&self.context.quotas, kind);
        check(used, limit, kind, Some(frontdoor))
    }
}

/// `None`: they are counted in the organization.
pub(crate) fn check(
    used: u64,
    limit: QuotaLimit,
    kind: QuotaKind,
    frontdoor: Option<FrontdoorId>,
) -> Result<()> {
    let limit = limit.get();
    if used < limit.into() {
        return Ok(());
    }
    Err(StoreError::QuotaExceeded { frontdoor, kind, limit, used })
}
