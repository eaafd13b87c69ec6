//! What one gateway assigns, until it withdraws it, begins another connection, or is not the environment's any more.

use jiff::Timestamp;
use std::collections::HashMap;
use wicketgate_model::{ShareId, SignedAssignment};

/// See the module.
pub(super) struct Given {
    /// Whether the gateway was told that the allow list permits the target.
    pub(super) shares: HashMap<ShareId, bool>,
    /// Those that have expired by this host's clock, which may be set right.
    pub(super) expired: HashMap<ShareId, (Timestamp, SignedAssignment)>,
    /// No assignment of these shares ends before it.
    pub(super) first_end: Timestamp,
}

impl Default for Given {
    fn default() -> Self {
        Self { shares: HashMap::new(), expired: HashMap::new(), first_end: Timestamp::MAX }
    }
}
