//! The enrolment of an agent: its request, and what the server grants or why it refuses.

use crate::{AgentId, EnrollmentId, EnvironmentId, FrontdoorId, ZId, base64_text};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The request of an agent that enrols.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrolRequest {
    pub enrollment: EnrollmentId,
    /// The code's secret. Not shown by `Debug`.
    #[serde(with = "base64_text")]
    pub secret: Vec<u8>,
    /// The agent's public key: an uncompressed P-256 point (SEC 1 §2.3.3), 65 bytes.
    #[serde(with = "base64_text")]
    pub public_key: Vec<u8>,
    /// The agent's host name: the name of a new environment until a user changes it.
    pub name: String,
}

impl fmt::Debug for EnrolRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnrolRequest({}, …)", self.enrollment)
    }
}

/// The identity of an enrolled agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrolGrant {
    pub agent: AgentId,
    pub environment: EnvironmentId,
    pub frontdoor: FrontdoorId,
    pub z_id: ZId,
    /// DER.
    #[serde(with = "base64_text")]
    pub certificate: Vec<u8>,
    /// DER.
    #[serde(with = "base64_text")]
    pub ca_certificate: Vec<u8>,
}

/// Why an agent gets no certificate. The text is for the operator of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum EnrolRefusal {
    #[error("the enrolment code is wrong or unknown to the server: copy all of it, or create a new one")]
    WrongCode,
    #[error("the enrolment code has expired: create a new one")]
    Expired,
    #[error("the enrolment code was used already: each code enrols one agent, create a new one")]
    Used,
    #[error("the enrolment code was tried too often with a wrong secret: create a new one")]
    TooManyTries,
    #[error("the agent was barred: enrol it again")]
    Barred,
}
