//! `/frontdoor/v2/installation`: facts of the whole installation. They are of no organization, so only who administers all of them may
//! see this.

use super::{
    access::{Answer, Operates},
    wire::answer::Format,
};
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use wicketgate_store::LastBackup;

#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Facts {
    version: &'static str,
    last_backup: Option<MadeBackup>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MadeBackup {
    created_at: Timestamp,
    bytes: u64,
    version: String,
}

pub(super) async fn show(Operates(caller): Operates, format: Format) -> Answer {
    let last = caller.state.store.last_backup().await?;
    let facts = Facts {
        version: env!("CARGO_PKG_VERSION"),
        last_backup: last.map(|LastBackup { created_at, bytes, version }| MadeBackup {
            created_at,
            bytes,
            version,
        }),
    };
    let links = vec![("self", "/frontdoor/v2/installation".to_owned())];
    Ok(format.one(StatusCode::OK, &facts, links))
}
