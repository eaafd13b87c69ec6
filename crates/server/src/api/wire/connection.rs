//! A tunnel's live connection in JSON.

use crate::reason_link::ReasonLinks;
use jiff::Timestamp;
use serde::Serialize;
use wicketgate_model::{
    Algorithms, ChildSa, Connection, ConnectionFault, ConnectionState, ConnectionWarning, Nat, Peer,
    PeerCidr, SaTimes,
};

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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    child_sas: Vec<Child>,
    bytes_in: u64,
    bytes_out: u64,
    last_error: Option<LastError>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

#[derive(Debug, Serialize)]
struct Child {
    #[serde(flatten)]
    child: ChildSa,
    /// The peer agreed to less than `peerCidr`.
    narrowed: bool,
}

#[derive(Debug, Serialize)]
struct Warning {
    #[serde(flatten)]
    warning: ConnectionWarning,
    #[serde(rename = "_links")]
    links: ReasonLinks,
}

/// `message` is the cause and the cure in one text.
#[derive(Debug, Serialize)]
struct LastError {
    reason: ConnectionFault,
    message: String,
    since: Timestamp,
    #[serde(rename = "_links")]
    links: ReasonLinks,
}

impl LiveConnection {
    pub(in crate::api) fn of(connection: Connection, peer_cidr: PeerCidr) -> Self {
        let Connection {
            state,
            since,
            algorithms,
            peer,
            nat,
            ike_sa,
            child_sa,
            child_sas,
            bytes_in,
            bytes_out,
            rekeys: _,
            last_error,
            warnings,
        } = connection;
        let last_error = last_error.map(|e| LastError {
            reason: e.reason,
            message: e.to_string(),
            since: e.since,
            links: ReasonLinks::of(e.reason.as_str()),
        });
        let warning =
            |warning: ConnectionWarning| Warning { links: ReasonLinks::of(warning.reason.as_str()), warning };
        let warnings = warnings.into_iter().map(warning).collect();
        let child = |child: ChildSa| Child { narrowed: child.selectors.is_narrower(peer_cidr), child };
        let child_sas = child_sas.into_iter().map(child).collect();
        Self {
            state,
            since,
            algorithms,
            peer,
            nat,
            ike_sa,
            child_sa,
            child_sas,
            bytes_in,
            bytes_out,
            last_error,
            warnings,
        }
    }
}
