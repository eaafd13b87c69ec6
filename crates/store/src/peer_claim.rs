//! Which tunnel has the public address of a peer, of which a location can serve one. [`PeerHold`](wicketgate_model::PeerHold) has
//! the rule.
//!
//! Invariants: the live tunnels of a location that have not lost their address have different ones (a unique index). The
//! decision about a claim, the loss that follows from it and the new tunnel are one transaction, and writes follow one another.
//! No error tells anything of another Frontdoor's tunnel.

use crate::{
    Action, ResourceType, Result, Store, StoreError, TunnelRow, WriteContext, execution::Execution,
    peer_address::PeerPlace, tunnel::columns, write::Write,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use sqlx::AssertSqlSafe;
use wicketgate_model::{FrontdoorId, LocationId, PeerAddress, PeerClaim, Status, TunnelId};

/// Tunnels that have lost their address, which no tunnel has now.
const RETURNABLE: &str = "SELECT id FROM ipsec_tunnel \
    WHERE peer_address_taken_at IS NOT NULL AND status NOT IN ('DELETING', 'DELETED') \
    AND NOT EXISTS (SELECT 1 FROM ipsec_tunnel o WHERE o.location = ipsec_tunnel.location \
    AND o.peer_address = ipsec_tunnel.peer_address AND o.status <> 'DELETED' AND o.peer_address_taken_at IS NULL)";

impl TunnelRow {
    fn peer_place(&self) -> PeerPlace<'_> {
        let (location, address) = (&self.spec.location, self.spec.peer_address);
        PeerPlace { location, address, frontdoor: self.frontdoor }
    }
}

impl Store {
    /// Gives tunnels that have lost their address it back, where no other tunnel has it any more. To be called periodically.
    pub async fn return_peer_addresses(&self, context: &WriteContext) -> Result<()> {
        let select = format!("{RETURNABLE} ORDER BY peer_address_taken_at, id");
        let returnable: Vec<(TunnelId,)> = self.all(AssertSqlSafe(select), &[]).await?;
        for (id,) in returnable {
            self.write(context, move |write| write.return_peer_address(id).boxed()).await?;
        }
        Ok(())
    }
}

impl Write {
    /// Locks the rows that a change of the tunnel's address writes, in the order in which all transactions lock them.
    pub(crate) async fn lock_for_address(&mut self, id: TunnelId, address: PeerAddress) -> Result<()> {
        let select = "SELECT id FROM ipsec_tunnel WHERE id = $1 OR (peer_address = $2 AND status <> 'DELETED' \
                      AND location = (SELECT o.location FROM ipsec_tunnel o WHERE o.id = $1)) ORDER BY id";
        let locked: Vec<(TunnelId,)> =
            self.tx.all(self.locking(select, "ipsec_tunnel"), &[&id, &address]).await?;
        drop(locked);
        Ok(())
    }

    /// For a tunnel that is changed to have this address. Returns since when it has lost it, if it has.
    pub(crate) async fn move_peer_address(
        &mut self,
        before: &TunnelRow,
        to: PeerAddress,
    ) -> Result<Option<Timestamp>> {
        let is_moved = before.spec.peer_address != to;
        let lost_at = before.peer_address_taken_at;
        // Nothing but another address, or the operator, brings back what was lost.
        if !is_moved && (lost_at.is_none() || !self.context.takes_peer_address) {
            return Ok(lost_at);
        }
        self.release_peer_address(before).await?;
        self.claim_peer_address(before.frontdoor, &before.spec.location, to).await?;
        Ok(None)
    }

    /// For a tunnel that gets the address. Fails with [`StoreError::Conflict`] if another one keeps it.
    pub(crate) async fn claim_peer_address(
        &mut self,
        frontdoor: FrontdoorId,
        location: &LocationId,
        address: PeerAddress,
    ) -> Result<()> {
        let place = PeerPlace { location, address, frontdoor };
        let select = "SELECT id, frontdoor, status FROM ipsec_tunnel WHERE location = $1 AND peer_address = $2 \
                      AND status <> 'DELETED' AND peer_address_taken_at IS NULL";
        let select = self.locking(select, "ipsec_tunnel");
        let holder: Option<(TunnelId, FrontdoorId, Status)> =
            self.tx.find(select, &[location, &address]).await?;
        if let Some((id, owner, status)) = holder {
            let held = PeerPlace { frontdoor: owner, ..place };
            let hold = self.hold_of(id, held).await?;
            let claim = match owner == frontdoor {
                true => PeerClaim::SameFrontdoor,
                false if self.context.takes_peer_address => PeerClaim::Operator,
                false if self.has_proof(place).await? => PeerClaim::ProvedFrontdoor,
                false => PeerClaim::OtherFrontdoor,
            };
            if !hold.gives_way(claim, status == Status::Deleting, self.context.at) {
                return Err(StoreError::Conflict { column: &columns::PEER_ADDRESS, with: None });
            }
            self.lose_peer_address(id, held).await?;
        }
        self.begin_hold(place).await
    }

    /// For a tunnel that is deleted, or gets another address.
    pub(crate) async fn release_peer_address(&mut self, tunnel: &TunnelRow) -> Result<()> {
        match tunnel.peer_address_taken_at {
            None => self.release(tunnel.peer_place()).await,
            // Another tunnel of the Frontdoor may have it.
            Some(_) => Ok(()),
        }
    }

    /// The reconciler sees the new revision, has the gateway withdraw the tunnel, and writes its status.
    async fn lose_peer_address(&mut self, id: TunnelId, held: PeerPlace<'_>) -> Result<()> {
        let lose = "UPDATE ipsec_tunnel SET peer_address_taken_at = $1, revision = $2 WHERE id = $3";
        self.tx.execute(lose, &[&self.context.at, &self.revision, &id]).await?;
        self.release(held).await?;
        self.record_own_change(id, held.frontdoor).await
    }

    async fn return_peer_address(&mut self, id: TunnelId) -> Result<()> {
        let select = format!(
            "SELECT location, peer_address, frontdoor FROM ipsec_tunnel WHERE id IN ({RETURNABLE}) AND id = $1"
        );
        let select = self.locking(&select, "ipsec_tunnel");
        let found: Option<(LocationId, PeerAddress, FrontdoorId)> = self.tx.find(select, &[&id]).await?;
        let Some((location, address, frontdoor)) = found else { return Ok(()) };
        self.begin_hold(PeerPlace { location: &location, address, frontdoor }).await?;
        let give_back = "UPDATE ipsec_tunnel SET peer_address_taken_at = NULL, revision = $1 WHERE id = $2";
        self.tx.execute(give_back, &[&self.revision, &id]).await?;
        self.record_own_change(id, frontdoor).await
    }

    /// By the server: nothing in the record leads to the other Frontdoor's request.
    async fn record_own_change(&mut self, id: TunnelId, frontdoor: FrontdoorId) -> Result<()> {
        let context = WriteContext::new("server", self.context.at, self.context.fresh);
        let of = Execution::of(ResourceType::Tunnel, &id);
        of.insert(&mut self.tx, &context, Some(frontdoor), Action::Update).await.map(drop)
    }
}
