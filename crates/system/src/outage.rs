//! Logging a failure once until it ends.

use std::mem;

/// Distinguishes the first failure in a row from the following ones, and detects the success that ends the row. The
/// caller writes the log lines.
#[derive(Debug, Default)]
pub struct Outage {
    failing: bool,
}

impl Outage {
    /// Notes a failure. `true`: it is the first one, so it should be logged.
    pub fn failed(&mut self) -> bool {
        !mem::replace(&mut self.failing, true)
    }

    /// Notes a success. `true`: it ends a row of failures, so it should be logged.
    pub fn recovered(&mut self) -> bool {
        mem::take(&mut self.failing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_and_one_recovery_are_reported() {
        let mut outage = Outage::default();
        assert!(!outage.recovered());
        assert!(outage.failed());
        assert!(!outage.failed());
        assert!(outage.recovered());
        assert!(!outage.recovered());
        assert!(outage.failed());
    }
}
