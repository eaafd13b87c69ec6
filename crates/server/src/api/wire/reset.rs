//! A request to reset the SAs of a tunnel in JSON.

use super::{
    fields::Fields,
    property::{Property, PropertyType::Enum},
};
use crate::error::ApiError;
use serde_json::{Map, Value};
use wicketgate_model::{ResetMode, ResetScope};

pub(in crate::api) static PROPERTIES: &[Property] = &[
    Property::new("scope", Enum(ResetScope::NAMES)).required().described_as("resetScope"),
    Property::new("mode", Enum(ResetMode::NAMES)).required().described_as("resetMode"),
];

#[derive(Debug)]
pub(in crate::api) struct ResetRequest {
    pub(in crate::api) scope: ResetScope,
    pub(in crate::api) mode: ResetMode,
}

pub(in crate::api) fn request(body: Map<String, Value>) -> Result<ResetRequest, ApiError> {
    let mut fields = Fields::new(body, PROPERTIES);
    let (scope, mode) = (fields.text("scope"), fields.text("mode"));
    fields.finish(|| Some(ResetRequest { scope: scope?, mode: mode? }))
}
