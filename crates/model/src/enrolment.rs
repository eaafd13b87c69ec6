//! Enrolment of an agent, as far as both ends of it have to agree.

use serde::{Deserialize, Serialize};

/// Why an agent gets no certificate. The text is for whoever started the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum EnrolRefusal {
    #[error("the enrolment code is wrong: copy it whole, or ask for a new one")]
    WrongCode,
    #[error("the enrolment code has expired: ask for a new one")]
    Expired,
    #[error("the enrolment code was used already: each code enrols one agent, ask for a new one")]
    Used,
    #[error("the enrolment code was tried too often with a wrong secret: ask for a new one")]
    TooManyTries,
    #[error("the agent was barred: enrol it anew")]
    Barred,
}
