//! A request to reset connections in JSON, and its answer.

use super::{
    fields::Fields,
    property::{Property, PropertyType::Ip},
};
use crate::error::ApiError;
use serde::Serialize;
use serde_json::{Map, Value};
use std::net::Ipv4Addr;
use wicketgate_model::{ExecutionId, Invalid};

pub(in crate::api) static PROPERTIES: &[Property] = &[Property::new("source", Ip).write_only()];

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Closed {
    /// Connections that were reset.
    pub(in crate::api) closed: u64,
    pub(in crate::api) execution_id: ExecutionId,
}

/// The client whose connections are reset; `None`: those of all clients.
pub(in crate::api) fn source(body: Map<String, Value>) -> Result<Option<Ipv4Addr>, ApiError> {
    let mut fields = Fields::new(body, PROPERTIES);
    let source = fields.parsed("source", |text| {
        text.parse::<Ipv4Addr>().map_err(|_| Invalid("must be an IPv4 address, like 172.31.8.9".to_owned()))
    });
    fields.finish(|| Some(source))
}
