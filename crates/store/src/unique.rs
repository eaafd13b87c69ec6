//! Errors of the database, of which those of unique indexes name a column.

use crate::{
    Column, StoreError,
    share::columns as share,
    tunnel::{self, columns},
};

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let taken = error.as_database_error().filter(|e| e.is_unique_violation()).and_then(|e| {
            let text = e.constraint().unwrap_or_else(|| e.message());
            UNIQUE.iter().find(|u| text == u.index || text.ends_with(u.columns))
        });
        match taken {
            Some(unique) => Self::Conflict { column: unique.column, with: None },
            None => Self::Database(error),
        }
    }
}

/// A unique index: PostgreSQL's error names the index, SQLite's its columns.
struct Unique {
    index: &'static str,
    columns: &'static str,
    column: &'static Column,
}

static UNIQUE: [Unique; 5] = [
    Unique {
        index: "ipsec_share_name",
        columns: "ipsec_share.frontdoor, ipsec_share.name",
        column: &share::NAME,
    },
    Unique {
        index: "ipsec_share_ingress_port",
        columns: "ipsec_share.tunnel, ipsec_share.ingress_port",
        column: &share::INGRESS_PORT,
    },
    Unique {
        index: "ipsec_tunnel_name",
        columns: "ipsec_tunnel.frontdoor, ipsec_tunnel.name",
        column: &columns::NAME,
    },
    Unique {
        index: "ipsec_tunnel_peer_address",
        columns: "ipsec_tunnel.location, ipsec_tunnel.peer_address",
        column: &columns::PEER_ADDRESS,
    },
    Unique {
        index: "ipsec_tunnel_slot",
        columns: "ipsec_tunnel.location, ipsec_tunnel.slot",
        column: &tunnel::SLOT,
    },
];
