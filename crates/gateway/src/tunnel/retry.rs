//! When a failed step is tried again. Each failure in a row doubles the pause.

use std::time::Duration;

use tokio::time::Instant;
use wicketgate_system::backoff::Backoff;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15);

/// See the module.
#[derive(Debug)]
pub(super) struct Retry {
    backoff: Backoff,
    /// When to try again; `None` without a failure.
    pub(super) at: Option<Instant>,
}

impl Default for Retry {
    fn default() -> Self {
        Self { backoff: Backoff::new(FIRST, LONGEST), at: None }
    }
}

impl Retry {
    pub(super) fn failed(&mut self) {
        self.at = Some(Instant::now() + self.backoff.doubled());
    }

    pub(super) fn worked(&mut self) {
        *self = Self::default();
    }
}
