//! Bytes carried by a tunnel's CHILD SAs, added up across rekeys.
//!
//! Invariant: nothing is counted twice. Counters start at 0 with each CHILD SA, while the old one still exists.

use std::collections::BTreeMap;

use wicketgate_model::Connection;
use wicketgate_vici::Message;

/// Ended CHILD SAs that are remembered. The last event of one may arrive after a listing without it; if it were
/// forgotten, its totals would be added again. Ids only grow, and events lag by a few.
const REMEMBERED: usize = 64;

/// See the module. Bytes in and out.
#[derive(Debug, Default)]
pub(super) struct ChildTraffic {
    /// The last known counters of each CHILD SA, by its unique id.
    children: BTreeMap<u64, (u64, u64)>,
    total: (u64, u64),
}

impl ChildTraffic {
    /// Adds the growth of the CHILD SAs' counters, and returns their ids.
    pub(super) fn count(&mut self, ike: &Message) -> Vec<u64> {
        let mut ids = Vec::new();
        for (_, child) in ike.sub("child-sas").into_iter().flat_map(Message::sections) {
            let Some(id) = child.number("uniqueid") else { continue };
            ids.push(id);
            let counters = child.number("bytes-in").zip(child.number("bytes-out"));
            let Some((bytes_in, bytes_out)) = counters else { continue };
            let before = self.children.insert(id, (bytes_in, bytes_out)).unwrap_or_default();
            self.total.0 += bytes_in.saturating_sub(before.0);
            self.total.1 += bytes_out.saturating_sub(before.1);
        }
        ids
    }

    /// Forgets all but the newest CHILD SAs, and those that are `seen`.
    pub(super) fn forget(&mut self, seen: &[u64]) {
        if let Some(oldest) = self.children.keys().rev().nth(REMEMBERED).copied() {
            self.children.retain(|id, _| *id > oldest || seen.contains(id));
        }
    }

    /// The daemon ended; the next one counts unique ids from 1.
    pub(super) fn lost(&mut self) {
        self.children.clear();
    }

    pub(super) fn show(&self, connection: &mut Connection) {
        (connection.bytes_in, connection.bytes_out) = self.total;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_retains_live_sas() {
        let child = |id: u64, bytes: u64| {
            let (bytes, none) = (bytes.to_string(), "0");
            Message::new().set("uniqueid", id.to_string()).set("bytes-in", bytes).set("bytes-out", none)
        };
        let mut carried = ChildTraffic::default();
        for id in 2..1000 {
            let both = Message::new().section("old", child(1, 100)).section("new", child(id, 1));
            let seen = carried.count(&Message::new().section("child-sas", both));
            carried.forget(&seen);
        }
        assert!(carried.children.len() <= REMEMBERED + 1, "{}", carried.children.len());
        assert_eq!(carried.total, (100 + 998, 0));
    }
}
