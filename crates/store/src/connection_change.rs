//! The history of tunnels' connections: the last changes of each.
//!
//! Invariants: a change is written in the transaction that writes the connection. A repeated failure of the same kind is
//! no change, since repeated attempts would soon replace the rest of the history. The changes of a tunnel are numbered in the order in
//! which they were recorded, whichever gateway they are of: writes follow one another.

use crate::{
    Column, ColumnType, ListRequest, Page, Result, Store,
    field::{Found, get, shown},
    list::Listing,
    row::{FromRow, specs},
    statement::Assignments,
    transaction::Transaction,
};
use jiff::Timestamp;
use std::net::Ipv4Addr;
use wicketgate_model::{
    Algorithms, Connection, ConnectionError, ConnectionFault, ConnectionState, GatewayId, Peer, TunnelId,
};

/// Changes that are kept of each tunnel.
pub(crate) const MOST: i64 = 100;

/// One change: the connection from then on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionChange {
    /// Counts the tunnel's changes from 1.
    pub number: u64,
    /// Where the connection is.
    pub gateway: GatewayId,
    pub at: Timestamp,
    pub state: ConnectionState,
    pub peer: Option<Peer>,
    pub algorithms: Option<Algorithms>,
    pub last_error: Option<(ConnectionFault, String)>,
}

specs! {
    /// The part of a connection that its history and its endpoint have as columns.
    pub(crate) struct ConnectionColumns {
        state: ConnectionState,
        peer_address: Option<Ipv4Addr>,
        peer_port: Option<u16>,
        peer_id: Option<String>,
        ike: Option<String>,
        esp: Option<String>,
        error: Option<String>,
        error_message: Option<String>,
    }
}

impl From<&Connection> for ConnectionColumns {
    fn from(connection: &Connection) -> Self {
        let Connection { state, peer, algorithms, last_error, .. } = connection;
        Self {
            state: *state,
            peer_address: peer.as_ref().map(|p| p.address),
            peer_port: peer.as_ref().map(|p| p.port),
            peer_id: peer.as_ref().and_then(|p| p.id.clone()),
            ike: algorithms.as_ref().map(|a| a.ike.clone()),
            esp: algorithms.as_ref().map(|a| a.esp.clone()),
            error: last_error.as_ref().map(|e| e.reason.to_string()),
            error_message: last_error.as_ref().map(|e| shown(&e.to_string())),
        }
    }
}

impl FromRow for ConnectionChange {
    fn from_row(row: &Found<'_>) -> Result<Self> {
        let is = ConnectionColumns::from_row(row)?;
        let peer = is.peer_address.zip(is.peer_port);
        Ok(Self {
            number: get(row, "number")?,
            gateway: get(row, "gateway")?,
            at: get(row, "at")?,
            state: is.state,
            peer: peer.map(|(address, port)| Peer { address, port, id: is.peer_id }),
            algorithms: is.ike.zip(is.esp).map(|(ike, esp)| Algorithms { ike, esp }),
            last_error: is.error.and_then(|name| name.parse().ok()).zip(is.error_message),
        })
    }
}

/// The part of a connection whose difference is a change: whether traffic can flow, the peer and algorithms, and the
/// error.
#[derive(PartialEq)]
struct Essence<'a> {
    is_up: bool,
    with: Option<(Option<&'a Peer>, Option<&'a Algorithms>)>,
    error: Option<Failure<'a>>,
}

impl<'a> Essence<'a> {
    fn of(connection: Option<&'a Connection>) -> Self {
        let up = connection.filter(|c| c.state == ConnectionState::Up);
        Self {
            is_up: up.is_some(),
            with: up.map(|c| (c.peer.as_ref(), c.algorithms.as_ref())),
            error: connection.and_then(|c| error(c.last_error.as_ref())),
        }
    }
}

/// An error without its time.
type Failure<'a> = (ConnectionFault, &'a str, &'a str);

/// The part of an error that makes it another one when it changes.
pub(crate) fn error(error: Option<&ConnectionError>) -> Option<Failure<'_>> {
    error.map(|e| (e.reason, e.cause.as_str(), e.cure.as_str()))
}

/// When the connection changed from `before` to `after`; `None` if it did not.
pub(crate) fn changed_at(
    before: Option<&Connection>,
    after: &Connection,
    now: Timestamp,
) -> Option<Timestamp> {
    let (was, is) = (Essence::of(before), Essence::of(Some(after)));
    (was != is).then(|| match &after.last_error {
        _ if was.is_up != is.is_up => after.since,
        Some(error) if was.error != is.error => error.since,
        _ => now,
    })
}

/// Records the newest change of a tunnel, and deletes the oldest changes.
pub(crate) async fn keep(
    tx: &mut Transaction,
    endpoint: (TunnelId, GatewayId),
    connection: &Connection,
    at: Timestamp,
) -> Result<()> {
    let (tunnel, gateway) = endpoint;
    let next = "SELECT COALESCE(MAX(number), 0) + 1 FROM connection_change WHERE tunnel = $1";
    let (number,): (i64,) = tx.one(next, &[&tunnel]).await?;
    let columns = ConnectionColumns::from(connection);
    let change =
        Assignments::new(&[("tunnel", &tunnel), ("gateway", &gateway), ("number", &number), ("at", &at)]);
    tx.run(change.with(&columns).insert("connection_change", "")?).await?;
    let forget = "DELETE FROM connection_change WHERE tunnel = $1 AND number <= $2";
    tx.execute(forget, &[&tunnel, &(number - MOST)]).await?;
    Ok(())
}

impl Store {
    /// The latest changes of a tunnel's connection.
    pub async fn connection_changes(
        &self,
        tunnel: TunnelId,
        request: &ListRequest,
    ) -> Result<Page<ConnectionChange>> {
        let scope = Some((&TUNNEL, vec![tunnel.to_string()]));
        self.list(&LISTING, scope, request).await
    }
}

pub(crate) static LISTING: Listing = Listing::new("h.*", "connection_change h", "h.number");
pub(crate) static TUNNEL: Column = Column::new(ColumnType::Text, "h.tunnel");

pub mod columns {
    crate::list_column::columns! {
        NUMBER = Integer("h.number");
        GATEWAY = Text("h.gateway");
        AT = Time("h.at");
        STATE = Text("h.state");
        PEER_ADDRESS = Text("h.peer_address").optional();
        PEER_PORT = Integer("h.peer_port").optional();
        PEER_ID = Text("h.peer_id").optional();
        IKE_ALGORITHMS = Text("h.ike").optional();
        ESP_ALGORITHMS = Text("h.esp").optional();
        ERROR_REASON = Text("h.error").optional();
        ERROR_MESSAGE = Text("h.error_message").optional();
    }
}
