//! What of a tunnel's packets passed the chains of others. Pure: counters in, a judgement out.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use serde_json::Value;
use tokio::time::Instant;

use crate::ground::ruleset::RulesetGeneration;

/// The sets of the steering table that count, by the engine's own address and the protocol.
pub(in crate::ground) const COUNTED: [&str; 4] = ["to_arrived", "from_arrived", "to_passed", "from_passed"];

/// So many packets in a row that do not pass block a tunnel that is up: one may be damaged. One that is down has none to
/// spare: IKE waits for seconds before it repeats a message.
const BLOCKED_UP: u64 = 2;
const BLOCKED_DOWN: u64 = 1;

/// How long a judgement holds without packets after a change of the rules: IKE repeats a message within this time.
const FADES_AFTER: Duration = Duration::from_secs(15);
/// How long a judgement holds without packets in any case: neither end tries to connect any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);

/// A direction and a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Flow {
    is_from_tunnel: bool,
    is_esp: bool,
}

impl Flow {
    /// Whether probes are counted here.
    pub(super) fn carries_probes(self) -> bool {
        self.is_from_tunnel && !self.is_esp
    }
}

/// Packets since the table exists.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) arrived: u64,
    pub(super) passed: u64,
}

/// What is known of one flow of a tunnel.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Passage {
    before: Count,
    /// The most packets that were missing. A packet between the readings of two sets makes it less, never more.
    missing: u64,
    /// Packets that were dropped since the last one passed.
    blocked: u64,
    passes: bool,
    /// When packets were last dropped, under which rules.
    seen: Option<(Instant, Option<RulesetGeneration>)>,
}

/// With nothing known about what was counted so far.
impl From<Count> for Passage {
    fn from(before: Count) -> Self {
        Self { before, missing: before.missing(), ..Self::default() }
    }
}

impl Passage {
    /// Takes the counters as they are `at` a time under `rules`; `None`: these may change unnoticed.
    pub(super) fn look(&mut self, now: Count, rules: Option<RulesetGeneration>, at: Instant) {
        if now.arrived < self.before.arrived || now.passed < self.before.passed {
            // Another table, which counts from zero.
            (self.before, self.missing) = (Count::default(), 0);
        }
        let dropped = now.missing().saturating_sub(self.missing);
        let passed = now.passed - self.before.passed;
        self.missing += dropped;
        self.before = now;
        if passed > 0 {
            (self.blocked, self.passes) = (0, true);
        } else if dropped > 0 {
            (self.passes, self.seen) = (false, Some((at, rules)));
            self.blocked += dropped;
        }
        self.fade(rules, at);
    }

    /// Forgets what was dropped under other rules and not since, or long ago.
    pub(super) fn fade(&mut self, rules: Option<RulesetGeneration>, at: Instant) {
        if let Some((seen, under)) = self.seen
            && let Some(ago) = at.checked_duration_since(seen)
            && (ago > FORGOTTEN_AFTER || (ago > FADES_AFTER && (rules.is_none() || rules != under)))
        {
            (self.blocked, self.seen) = (0, None);
        }
    }

    /// Whether `sent` packets have arrived since the last look, and none is missing that was not before.
    pub(super) fn is_settled(&self, now: Count, sent: u64) -> bool {
        now.arrived >= self.before.arrived + sent && now.missing() <= self.missing
    }

    pub(super) fn is_blocked(&self, is_up: bool) -> bool {
        self.blocked >= if is_up { BLOCKED_UP } else { BLOCKED_DOWN }
    }

    /// Whether the last packets passed.
    pub(super) fn passes(&self) -> bool {
        self.passes
    }
}

impl Count {
    fn missing(self) -> u64 {
        self.arrived.saturating_sub(self.passed)
    }
}

/// The counters in `nft -j list table` of the steering table, by the engine's own address.
pub(super) fn counts(listing: &str) -> BTreeMap<(Ipv4Addr, Flow), Count> {
    let mut counts = BTreeMap::<_, Count>::new();
    let Ok(listing) = serde_json::from_str::<Value>(listing) else { return counts };
    let sets = listing["nftables"].as_array().into_iter().flatten().filter_map(|it| it.get("set"));
    for set in sets {
        let Some(name) = set["name"].as_str().filter(|name| COUNTED.contains(name)) else { continue };
        for elem in set["elem"].as_array().into_iter().flatten().map(|it| &it["elem"]) {
            let key = &elem["val"]["concat"];
            let (Some(inside), Some(packets)) =
                (key[0].as_str().and_then(|ip| ip.parse().ok()), elem["counter"]["packets"].as_u64())
            else {
                continue;
            };
            let flow = Flow { is_from_tunnel: name.starts_with("from"), is_esp: key[1] == "esp" };
            let count = counts.entry((inside, flow)).or_default();
            if name.ends_with("arrived") { count.arrived = packets } else { count.passed = packets }
        }
    }
    counts
}

#[cfg(any(test, fuzzing))]
pub(in crate::ground) mod fuzz {
    use super::*;

    /// Whatever is counted, no judgement is of more packets than arrived.
    pub fn nft_counters(listing: &[u8]) {
        let listing = String::from_utf8_lossy(listing);
        for count in counts(&listing).into_values() {
            let mut passage = Passage::default();
            passage.look(count, None, Instant::now());
            assert!(passage.blocked <= count.arrived && (passage.passes || count.passed == 0), "{count:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn after(counts: &[(u64, u64)]) -> Passage {
        let mut passage = Passage::default();
        for (arrived, passed) in counts.iter().copied() {
            passage.look(Count { arrived, passed }, Some(RulesetGeneration(1)), Instant::now());
        }
        passage
    }

    #[test]
    fn only_packets_that_do_not_pass_block() {
        let blocked = |counts: &[(u64, u64)]| [true, false].map(|is_up| after(counts).is_blocked(is_up));
        assert_eq!(blocked(&[]), [false, false]);
        assert_eq!(blocked(&[(0, 0), (5, 5)]), [false, false]);
        assert_eq!(blocked(&[(5, 5), (6, 5)]), [false, true]);
        assert_eq!(blocked(&[(5, 5), (6, 5), (7, 5)]), [true, true]);
        // Some pass.
        assert_eq!(blocked(&[(5, 5), (9, 6)]), [false, false]);
        assert_eq!(blocked(&[(5, 5), (9, 5), (10, 6)]), [false, false]);
        // Packets between the readings of two sets.
        assert_eq!(blocked(&[(5, 9), (9, 9), (9, 12), (12, 12)]), [false, false]);
        assert_eq!(blocked(&[(5, 9), (11, 9)]), [true, true]);
        // The table was restored.
        assert_eq!(blocked(&[(50, 40), (3, 3)]), [false, false]);
    }

    #[test]
    fn a_judgement_fades_once_the_rules_may_have_changed() {
        let (start, later) = (Instant::now(), Instant::now() + FADES_AFTER + Duration::from_millis(1));
        let [old, new] = [1, 2].map(|n| Some(RulesetGeneration(n)));
        let count = Count { arrived: 3, passed: 0 };
        let judged = |rules, at| {
            let mut passage = Passage::default();
            passage.look(count, old, start);
            passage.look(count, rules, at);
            passage.is_blocked(true)
        };
        assert!(judged(old, later) && judged(new, start));
        assert!(!judged(new, later) && !judged(None, later));
        assert!(!judged(old, start + FORGOTTEN_AFTER + Duration::from_millis(1)));
    }

    #[test]
    fn packets_under_way_are_waited_for() {
        let passage = after(&[(5, 5)]);
        let is_settled = |arrived, passed| passage.is_settled(Count { arrived, passed }, 2);
        assert_eq!(
            [(5, 5), (7, 6), (7, 7), (8, 8)].map(|(a, p)| is_settled(a, p)),
            [false, false, true, true]
        );
    }

    #[test]
    fn counters_are_read_from_the_table() {
        let set = |name: &str, protocol: &str, packets: u64| {
            json!({"set": {"name": name, "elem": [
                {"elem": {"val": {"concat": ["169.254.4.2", protocol]}, "counter": {"packets": packets, "bytes": 9}}}]}})
        };
        let listing = json!({"nftables": [
            {"metainfo": {}}, set("to_arrived", "udp", 3), set("to_passed", "udp", 2),
            set("from_arrived", "esp", 1), set("other", "udp", 9),
        ]});
        let counts = counts(&listing.to_string());
        let of = |is_from_tunnel, is_esp| {
            counts.get(&(Ipv4Addr::new(169, 254, 4, 2), Flow { is_from_tunnel, is_esp })).copied()
        };
        assert_eq!(of(false, false), Some(Count { arrived: 3, passed: 2 }));
        assert_eq!(of(true, true), Some(Count { arrived: 1, passed: 0 }));
        assert_eq!(counts.len(), 2);
    }
}
