//! Numbers of shares by environment and status, for the totals of lists.
//!
//! Invariant: in every snapshot of the database, `ipsec_share_count` equals `COUNT(*)`.

use crate::{Result, columns::parsed};
use sqlx::{AnyConnection, any::AnyRow};
use std::collections::BTreeMap;
use wicketgate_model::{EnvironmentId, FrontdoorId, Status};

/// Shares that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Counted {
    pub(crate) frontdoor: FrontdoorId,
    pub(crate) environment: EnvironmentId,
    pub(crate) status: Status,
}

impl Counted {
    /// From a row that has these three columns.
    pub(crate) fn read(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            frontdoor: parsed(row, "frontdoor")?,
            environment: parsed(row, "environment")?,
            status: parsed(row, "status")?,
        })
    }
}

/// Changes of the numbers.
#[derive(Debug, Default)]
pub(crate) struct ShareCounts(BTreeMap<Counted, i64>);

impl ShareCounts {
    pub(crate) fn add(&mut self, to: Counted) {
        *self.0.entry(to).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, from: Counted) {
        *self.0.entry(from).or_default() -= 1;
    }

    pub(crate) fn extend(&mut self, other: Self) {
        for (counted, change) in other.0 {
            *self.0.entry(counted).or_default() += change;
        }
    }

    /// In one order in all transactions, so that on PostgreSQL no two wait for each other.
    pub(crate) async fn write(&self, db: &mut AnyConnection) -> Result<()> {
        for (counted, change) in self.0.iter().filter(|(_, change)| **change != 0) {
            sqlx::query(
                "INSERT INTO ipsec_share_count (frontdoor, environment, status, shares) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (frontdoor, environment, status) \
                 DO UPDATE SET shares = ipsec_share_count.shares + excluded.shares",
            )
            .bind(counted.frontdoor.to_string())
            .bind(counted.environment.to_string())
            .bind(counted.status.as_str())
            .bind(*change)
            .execute(&mut *db)
            .await?;
        }
        Ok(())
    }
}
