//! Requests for certificates that wait for the server's answer.

use wicketgate_link::{CertificateAnswer, Pending};
use wicketgate_model::EnrolGrant;

/// Requests of each kind that wait for the server: several times what it answers at a time.
const WAITING: usize = 256;

/// Requests for certificates that wait for the server's answer.
pub(super) struct CertificateRequests {
    pub(super) enrol: Pending<CertificateAnswer<EnrolGrant>>,
    pub(super) renew: Pending<CertificateAnswer<Vec<u8>>>,
}

impl Default for CertificateRequests {
    fn default() -> Self {
        Self { enrol: Pending::new(WAITING), renew: Pending::new(WAITING) }
    }
}
