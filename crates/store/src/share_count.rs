//! Numbers of shares by environment and status, for the totals of lists.
//!
//! Invariant: in every snapshot of the database, `ipsec_share_count` equals `COUNT(*)`.

use crate::{
    Result,
    bulk::{parts, places},
    row::rows,
    statement::bind,
    transaction::Transaction,
};
use sqlx::AssertSqlSafe;
use std::collections::BTreeMap;
use wicketgate_model::{EnvironmentId, FrontdoorId, Status};

rows! {
    /// Shares that are counted together.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) struct Counted {
        pub(crate) frontdoor: FrontdoorId,
        pub(crate) environment: EnvironmentId,
        pub(crate) status: Status,
    }
}

/// Changes of the numbers.
#[derive(Debug, Default)]
pub(crate) struct ShareCounts(BTreeMap<Counted, i64>);

impl ShareCounts {
    /// Counts one share elsewhere. `None` stands for a share that is not there.
    pub(crate) fn moved(&mut self, from: Option<Counted>, to: Option<Counted>) {
        for (counted, change) in from.map(|from| (from, -1)).into_iter().chain(to.map(|to| (to, 1))) {
            *self.0.entry(counted).or_default() += change;
        }
    }

    /// Counts so many shares elsewhere.
    pub(crate) fn all_moved(&mut self, from: Counted, to: Counted, shares: i64) {
        for (counted, change) in [(from, -shares), (to, shares)] {
            *self.0.entry(counted).or_default() += change;
        }
    }

    /// How the number of a Frontdoor's shares changes that are not `DELETED`.
    pub(crate) fn of(&self, frontdoor: FrontdoorId) -> i64 {
        let is_of = |counted: &Counted| counted.frontdoor == frontdoor && counted.status != Status::Deleted;
        self.0.iter().filter(|(counted, _)| is_of(counted)).map(|(_, change)| change).sum()
    }

    pub(crate) fn extend(&mut self, other: Self) {
        for (counted, change) in other.0 {
            *self.0.entry(counted).or_default() += change;
        }
    }

    /// In one order in all transactions, so that on PostgreSQL no two wait for each other.
    pub(crate) async fn write(&self, tx: &mut Transaction) -> Result<()> {
        let changed: Vec<_> = self.0.iter().filter(|(_, change)| **change != 0).collect();
        for part in parts(&changed) {
            let insert = format!(
                "INSERT INTO ipsec_share_count (frontdoor, environment, status, shares) VALUES {} \
                 ON CONFLICT (frontdoor, environment, status) \
                 DO UPDATE SET shares = ipsec_share_count.shares + excluded.shares",
                places(part.len(), 4)
            );
            let mut query = sqlx::query(AssertSqlSafe(insert));
            for (Counted { frontdoor, environment, status }, change) in part {
                query = bind(query, &[frontdoor, environment, status, *change])?;
            }
            tx.run(query).await?;
        }
        Ok(())
    }
}
