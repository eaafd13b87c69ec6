//! A change of a tunnel's connection in JSON.

use jiff::Timestamp;
use serde::Serialize;
use wicketgate_model::{Algorithms, ConnectionFault, ConnectionState, Peer};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct ConnectionChange {
    number: u64,
    at: Timestamp,
    state: ConnectionState,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<Peer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    algorithms: Option<Algorithms>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<RecordedError>,
}

#[derive(Debug, Serialize)]
struct RecordedError {
    reason: ConnectionFault,
    message: String,
}

impl ConnectionChange {
    pub(in crate::api) fn of(row: wicketgate_store::ConnectionChange) -> Self {
        Self {
            number: row.number,
            at: row.at,
            state: row.state,
            peer: row.peer,
            algorithms: row.algorithms,
            last_error: row.last_error.map(|(reason, message)| RecordedError { reason, message }),
        }
    }
}
