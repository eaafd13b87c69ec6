//! A tunnel's live connection in JSON.

use jiff::Timestamp;
use serde::Serialize;
use wicketgate_model::{Algorithms, Connection, ConnectionFault, ConnectionState, Nat, Peer, SaTimes};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct LiveConnection {
    state: ConnectionState,
    since: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    algorithms: Option<Algorithms>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<Peer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nat: Option<Nat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ike_sa: Option<SaTimes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    child_sa: Option<SaTimes>,
    bytes_in: u64,
    bytes_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
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
