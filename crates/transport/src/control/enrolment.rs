//! The two messages of an enrolment.

use super::base64_text;
use serde::{Deserialize, Serialize};
use std::fmt;
use wicketgate_model::{AgentId, EnrolRefusal, EnrollmentId, EnvironmentId, FrontdoorId, ZId};

/// The request of an agent that enrols.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrolAsk {
    pub enrollment: EnrollmentId,
    #[serde(with = "base64_text")]
    pub secret: Vec<u8>,
    #[serde(with = "base64_text")]
    pub public_key: Vec<u8>,
    pub name: String,
}

impl fmt::Debug for EnrolAsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnrolAsk({}, …)", self.enrollment)
    }
}

/// The answer to an [`EnrolAsk`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum EnrolAnswer {
    #[serde(rename_all = "camelCase")]
    Enrolled {
        agent: AgentId,
        environment: EnvironmentId,
        frontdoor: FrontdoorId,
        z_id: ZId,
        #[serde(with = "base64_text")]
        certificate: Vec<u8>,
        #[serde(with = "base64_text")]
        ca_certificate: Vec<u8>,
    },
    Refused {
        refusal: EnrolRefusal,
    },
    /// The gateway cannot reach the server at the moment.
    Unavailable,
}
