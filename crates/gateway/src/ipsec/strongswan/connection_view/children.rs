//! The CHILD SAs of a tunnel, each across its rekeys.
//!
//! A CHILD SA is known by its traffic selectors: a rekey replaces the SA and keeps them. Invariant: its bytes only grow
//! until the peer connects again.

use std::collections::BTreeMap;

use jiff::Timestamp;
use wicketgate_model::{ChildSa, SaTimes, TrafficSelectors};
use wicketgate_vici::Message;

use super::{
    super::suite,
    sa::{id, is_installed, steady, times},
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Children(BTreeMap<TrafficSelectors, Lineage>);

/// The SAs with the same selectors, one after the other.
#[derive(Debug)]
struct Lineage {
    /// The unique ids of the newest SA and of its IKE SA.
    newest: u64,
    ike: Option<u64>,
    /// Of SAs that have ended.
    ended: (u64, u64),
    /// The last known counters of the SAs that are listed, by their unique ids.
    listed: BTreeMap<u64, (u64, u64)>,
    shown: ChildSa,
}

impl Children {
    /// Processes the complete answer to `list-sas`. Returns the selectors whose newest SA is another one than before.
    pub(super) fn look(&mut self, parts: &[Message], now: Timestamp) -> Vec<TrafficSelectors> {
        let mut renewed = Vec::new();
        let mut live: BTreeMap<TrafficSelectors, (u64, Option<u64>, &Message)> = BTreeMap::new();
        let mut listed: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        let is_going = |ike: &&Message| ike.text("state") == Some("DELETING");
        for ike in parts.iter().flat_map(Message::sections).map(|(_, ike)| ike) {
            for (_, child) in ike.sub("child-sas").into_iter().flat_map(Message::sections) {
                let Some(child_id) = id(child) else { continue };
                listed.insert(child_id, counters(child).unwrap_or_default());
                if is_going(&ike) || !is_installed(child) {
                    continue;
                }
                let newest = live.entry(selectors(child)).or_insert((child_id, id(ike), child));
                if newest.0 < child_id {
                    *newest = (child_id, id(ike), child);
                }
            }
        }
        self.0.retain(|selectors, _| live.contains_key(selectors));
        for (selectors, (newest, ike, child)) in live {
            let before = self.0.remove(&selectors);
            // A new SA under another IKE SA is no rekey: the peer has connected again, unless both ends did so at once.
            let is_same =
                |it: &Lineage| it.newest == newest || it.ike == ike || listed.contains_key(&it.newest);
            let before = before.filter(is_same);
            if before.as_ref().is_none_or(|before| before.newest != newest) {
                renewed.push(selectors.clone());
            }
            let lineage = Lineage::next(before, (newest, ike), child, now);
            self.0.insert(selectors, lineage);
        }
        for lineage in self.0.values_mut() {
            lineage.listed.entry(lineage.newest).or_default();
            lineage.count(&listed);
            lineage.end(|id| !listed.contains_key(&id));
        }
        renewed
    }

    /// Processes an event with an IKE SA: the last counters of a CHILD SA that ends.
    pub(super) fn event(&mut self, ike: &Message) {
        let children = ike.sub("child-sas").into_iter().flat_map(Message::sections);
        let listed = children.filter_map(|(_, child)| Some((id(child)?, counters(child)?))).collect();
        for lineage in self.0.values_mut() {
            lineage.count(&listed);
        }
    }

    pub(super) fn has(&self, selectors: &TrafficSelectors) -> bool {
        self.0.contains_key(selectors)
    }

    pub(super) fn selectors(&self) -> Vec<TrafficSelectors> {
        self.0.keys().cloned().collect()
    }

    pub(super) fn shown(&self) -> Vec<ChildSa> {
        self.0.values().map(|lineage| lineage.shown.clone()).collect()
    }
}

impl Lineage {
    /// The lineage after a look at its newest SA.
    fn next(
        before: Option<Self>,
        (newest, ike): (u64, Option<u64>),
        child: &Message,
        now: Timestamp,
    ) -> Self {
        let times = times(child, "install-time", now);
        let algorithms = suite::of_child_sa(child);
        let Some(mut it) = before else {
            let (since, rekey_at) = (times.map_or(now, |t| t.established_at), times.and_then(|t| t.rekey_at));
            let selectors = selectors(child);
            let shown =
                ChildSa { selectors, algorithms, since, rekey_at, rekeys: 0, bytes_in: 0, bytes_out: 0 };
            return Self { newest, ike, ended: (0, 0), listed: BTreeMap::new(), shown };
        };
        let is_rekeyed = it.newest != newest && it.ike == ike;
        it.shown.rekeys += u32::from(is_rekeyed);
        it.shown.rekey_at = match (it.shown.rekey_at, times) {
            (Some(before), Some(times)) if it.newest == newest => {
                let before = SaTimes { rekey_at: Some(before), ..times };
                steady(before, times).rekey_at
            }
            (_, times) => times.and_then(|times| times.rekey_at),
        };
        it.shown.algorithms = algorithms;
        (it.newest, it.ike) = (newest, ike);
        it
    }

    /// Takes the counters of this lineage's SAs.
    fn count(&mut self, listed: &BTreeMap<u64, (u64, u64)>) {
        for (id, (bytes_in, bytes_out)) in &mut self.listed {
            if let Some(now) = listed.get(id) {
                (*bytes_in, *bytes_out) = ((*bytes_in).max(now.0), (*bytes_out).max(now.1));
            }
        }
        let sum = |of: fn(&(u64, u64)) -> u64| of(&self.ended) + self.listed.values().map(of).sum::<u64>();
        (self.shown.bytes_in, self.shown.bytes_out) = (sum(|b| b.0), sum(|b| b.1));
    }

    fn end(&mut self, has_ended: impl Fn(u64) -> bool) {
        let ended = &mut self.ended;
        self.listed.retain(|id, (bytes_in, bytes_out)| {
            let is_over = has_ended(*id);
            if is_over {
                *ended = (ended.0 + *bytes_in, ended.1 + *bytes_out);
            }
            !is_over
        });
    }
}

fn counters(child: &Message) -> Option<(u64, u64)> {
    child.number("bytes-in").zip(child.number("bytes-out"))
}

fn selectors(child: &Message) -> TrafficSelectors {
    let of = |key| child.texts(key).into_iter().map(str::to_owned).collect();
    TrafficSelectors { gateway: of("local-ts"), peer: of("remote-ts") }
}
