//! How Frontdoors have the public addresses of peers: since when, and when a connection from it was last up.
//!
//! Invariant: a hold goes on while a tunnel of the Frontdoor has the address, and begins and ends in the transaction that changes this.

use crate::{Result, row::rows, transaction::Transaction, write::Write};
use jiff::{SignedDuration, Timestamp};
use wicketgate_model::{
    Connection, ConnectionState, FrontdoorId, LocationId, PeerAddress, PeerHold, TunnelId,
};

/// How exactly the last proof is recorded: connections are reported much more often.
const PROOF_RECORDED: SignedDuration = SignedDuration::from_hours(1);

const FIND_HOLD: &str = "SELECT since, proved_at, released_at FROM peer_address_hold \
    WHERE location = $1 AND peer_address = $2 AND frontdoor = $3";

rows! {
    struct HoldRow {
        since: Timestamp,
        proved_at: Option<Timestamp>,
        released_at: Option<Timestamp>,
    }
}

impl HoldRow {
    fn hold(&self) -> PeerHold {
        PeerHold { since: self.since, proved_at: self.proved_at }
    }
}

/// An address at a location, for a Frontdoor.
#[derive(Clone, Copy)]
pub(crate) struct PeerPlace<'a> {
    pub(crate) location: &'a LocationId,
    pub(crate) address: PeerAddress,
    pub(crate) frontdoor: FrontdoorId,
}

impl Write {
    /// A connection that is up now proves the address now.
    pub(crate) async fn hold_of(&mut self, holder: TunnelId, held: PeerPlace<'_>) -> Result<PeerHold> {
        let PeerPlace { location, address, frontdoor } = held;
        let select = self.locking(FIND_HOLD, "peer_address_hold");
        let hold: Option<HoldRow> = self.tx.find(select, &[location, &address, &frontdoor]).await?;
        let at = self.context.at;
        let hold = hold.map_or(PeerHold { since: at, proved_at: None }, |row| row.hold());
        let up =
            "SELECT tunnel FROM tunnel_endpoint WHERE tunnel = $1 AND state = 'UP' AND peer_address = $2";
        let up: Option<(TunnelId,)> = self.tx.find(up, &[&holder, &address]).await?;
        Ok(if up.is_some() { PeerHold { proved_at: Some(at), ..hold } } else { hold })
    }

    /// Whether a connection of the Frontdoor came up from the address lately, whatever has it now.
    pub(crate) async fn has_proof(&mut self, place: PeerPlace<'_>) -> Result<bool> {
        let PeerPlace { location, address, frontdoor } = place;
        let hold: Option<HoldRow> = self.tx.find(FIND_HOLD, &[location, &address, &frontdoor]).await?;
        Ok(hold.is_some_and(|row| row.hold().is_proved(self.context.at)))
    }

    pub(crate) async fn begin_hold(
        &mut self,
        PeerPlace { location, address, frontdoor }: PeerPlace<'_>,
    ) -> Result<()> {
        let earlier: Option<HoldRow> = self.tx.find(FIND_HOLD, &[location, &address, &frontdoor]).await?;
        let at = self.context.at;
        let earlier = earlier.map(|row| (row.hold(), row.released_at.unwrap_or(at)));
        let PeerHold { since, proved_at } = PeerHold::begun(earlier, at);
        let upsert = "INSERT INTO peer_address_hold (location, peer_address, frontdoor, since, proved_at, released_at) \
                      VALUES ($1, $2, $3, $4, $5, NULL) ON CONFLICT (location, peer_address, frontdoor) DO UPDATE SET \
                      since = excluded.since, proved_at = excluded.proved_at, released_at = NULL";
        self.tx.execute(upsert, &[location, &address, &frontdoor, &since, &proved_at]).await.map(drop)
    }

    pub(crate) async fn release(
        &mut self,
        PeerPlace { location, address, frontdoor }: PeerPlace<'_>,
    ) -> Result<()> {
        let release = "UPDATE peer_address_hold SET released_at = $1 \
                       WHERE location = $2 AND peer_address = $3 AND frontdoor = $4";
        self.tx.execute(release, &[&self.context.at, location, &address, &frontdoor]).await.map(drop)
    }
}

/// Records that a connection from the address is up, or was until it was reported to have ended.
pub(crate) async fn prove(
    tx: &mut Transaction,
    PeerPlace { location, address, frontdoor }: PeerPlace<'_>,
    (before, reported): (Option<&Connection>, &Connection),
    now: Timestamp,
) -> Result<()> {
    let is_proof = |connection: &Connection| {
        connection.state == ConnectionState::Up
            && connection.peer.as_ref().is_some_and(|peer| peer.address == address.get())
    };
    let at = match before {
        _ if is_proof(reported) => now,
        Some(before) if is_proof(before) => reported.since.min(now),
        _ => return Ok(()),
    };
    let recent = at.as_microsecond() - i64::try_from(PROOF_RECORDED.as_micros()).unwrap_or(0);
    let update = "UPDATE peer_address_hold SET proved_at = $1 WHERE location = $2 AND peer_address = $3 AND frontdoor = $4 \
                  AND released_at IS NULL AND (proved_at IS NULL OR proved_at < $5)";
    tx.execute(update, &[&at, location, &address, &frontdoor, &recent]).await.map(drop)
}
