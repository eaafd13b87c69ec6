//! Which gateways have said that the agent was removed. One that is not what it seems must not end an agent that others serve.

use std::collections::BTreeMap;
use wicketgate_system::Mutex;

/// By the place of each connection, whether its gateway has said so.
#[derive(Debug, Default)]
pub(crate) struct Removals(Mutex<BTreeMap<usize, bool>>);

impl Removals {
    /// A connection that has said nothing yet, or that serves the agent.
    pub(crate) fn serves(&self, place: usize) {
        self.0.lock().insert(place, false);
    }

    /// The connection is another's gateway, or has ended.
    pub(crate) fn without(&self, place: usize) {
        self.0.lock().remove(&place);
    }

    /// Returns whether all have said so.
    pub(crate) fn removed(&self, place: usize) -> bool {
        let mut said = self.0.lock();
        said.insert(place, true);
        said.values().all(|removed| *removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_removed_when_every_gateway_says_so() {
        let removals = Removals::default();
        removals.serves(0);
        removals.serves(1);
        assert!(!removals.removed(0));
        removals.serves(0);
        assert!(!removals.removed(1));
        assert!(removals.removed(0));
        removals.serves(1);
        removals.without(1);
        assert!(removals.removed(0), "the other one is gone");
    }
}
