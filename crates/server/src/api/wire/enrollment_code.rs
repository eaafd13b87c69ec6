//! An enrolment code in JSON, without its secret.

use super::{
    answer::{Links, Representation},
    property::{
        LINKS, Property,
        PropertyType::{Enum, Id, Text, Time},
    },
};
use jiff::Timestamp;
use serde::Serialize;
use wicketgate_model::{EnrollmentId, EnvironmentId, FrontdoorId};
use wicketgate_store::{EnrollmentCodeRow, EnrollmentCodeState, column::enrollment_code as column};

pub(in crate::api) static PROPERTIES: &[Property] = &[
    Property::new("id", Id("enr-")).column(&column::ID),
    Property::new("environmentId", Id("env-")).column(&column::ENVIRONMENT),
    Property::new("state", Enum(EnrollmentCodeState::NAMES)).described_as("codeState"),
    Property::new("expiresAt", Time).column(&column::EXPIRES_AT).described_as("codeExpiresAt"),
    Property::new("createdAt", Time).column(&column::CREATED_AT),
    Property::new("createdBy", Text).column(&column::CREATED_BY),
    LINKS,
];

#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct EnrollmentCode {
    #[serde(skip)]
    frontdoor: FrontdoorId,
    id: EnrollmentId,
    /// That gets one more agent; absent if the code makes a new one.
    environment_id: Option<EnvironmentId>,
    state: &'static str,
    expires_at: Timestamp,
    created_at: Timestamp,
    created_by: String,
}

impl EnrollmentCode {
    pub(in crate::api) fn of(row: EnrollmentCodeRow, now: Timestamp) -> Self {
        Self {
            state: row.state(now).as_str(),
            frontdoor: row.frontdoor,
            id: row.id,
            environment_id: row.environment,
            expires_at: row.expires_at,
            created_at: row.created_at,
            created_by: row.created_by,
        }
    }
}

impl Representation for EnrollmentCode {
    const LIST: &'static str = "enrollmentCodeList";

    fn links(&self) -> Links {
        let base = format!("/frontdoor/v2/{}", self.frontdoor);
        let environment = self.environment_id.map(|id| ("environment", format!("{base}/environments/{id}")));
        let own = ("self", format!("{base}/agents/enrollments/{}", self.id));
        [Some(own), environment].into_iter().flatten().collect()
    }
}
