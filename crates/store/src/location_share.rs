//! What one organization may take of a location's gateways while there are others: they hold a number of tunnels, whose quotas together
//! may be more.

use crate::{Result, StoreError, write::Write};
use wicketgate_model::{FrontdoorId, LocationId};

/// An organization has at most one of so many parts.
const PARTS: u64 = 2;

impl Write {
    /// Fails with [`StoreError::LocationShare`] if the Frontdoor's organization has half of the tunnels that the location's gateways
    /// hold, as far as they have told it, and there is another organization.
    pub(crate) async fn need_room_beside_others(
        &mut self,
        frontdoor: FrontdoorId,
        location: &LocationId,
    ) -> Result<()> {
        let capacity = "SELECT CAST(SUM(max_tunnels) AS BIGINT), (SELECT COUNT(*) FROM frontdoor own JOIN frontdoor f \
                        ON f.organization <> own.organization AND f.deleted_at IS NULL WHERE own.id = $2) \
                        FROM gateway WHERE location = $1 AND deleted_at IS NULL";
        let (capacity, others): (Option<u64>, u64) = self.tx.one(capacity, &[location, &frontdoor]).await?;
        let Some(limit) = capacity.filter(|_| others > 0).map(|capacity| (capacity / PARTS).max(1)) else {
            return Ok(());
        };
        let count = "SELECT COUNT(*) FROM frontdoor own JOIN frontdoor f ON f.organization = own.organization \
                     JOIN ipsec_tunnel t ON t.frontdoor = f.id WHERE own.id = $2 AND t.location = $1 AND t.status <> 'DELETED'";
        let (used,): (u64,) = self.tx.one(count, &[location, &frontdoor]).await?;
        if used < limit {
            return Ok(());
        }
        Err(StoreError::LocationShare { location: location.clone(), limit, used })
    }
}
