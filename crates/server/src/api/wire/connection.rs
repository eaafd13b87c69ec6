//! A tunnel's live connection in JSON.

use jiff::Timestamp;
use serde::Serialize;
use wicketgate_model::{Algorithms, Connection, ConnectionFault, ConnectionState, Nat, Peer, SaTimes};

#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct LiveConnection {
    state: ConnectionState,
    since: Timestamp,
    algorithms: Option<Algorithms>,
    peer: Option<Peer>,
    nat: Option<Nat>,
    ike_sa: Option<SaTimes>,
    child_sa: Option<SaTimes>,
    bytes_in: u64,
    bytes_out: u64,
    last_error: Option<LastError>,
}

/// `message` is the cause and the cure in one text.
#[derive(Debug, Serialize)]
struct LastError {
    reason: ConnectionFault,
    message: String,
    since: Timestamp,
}

impl From<Connection> for LiveConnection {
    fn from(connection: Connection) -> Self {
        let Connection {
            state,
            since,
            algorithms,
            peer,
            nat,
            ike_sa,
            child_sa,
            bytes_in,
            bytes_out,
            last_error,
        } = connection;
        let last_error =
            last_error.map(|e| LastError { reason: e.reason, message: e.to_string(), since: e.since });
        Self { state, since, algorithms, peer, nat, ike_sa, child_sa, bytes_in, bytes_out, last_error }
    }
}
