//! Whether what clients were answered could have happened in a database whose operations follow one another.
//!
//! Invariant: pure. A history is linearizable if each operation can be given a moment between its start and its end, so that the
//! answers are those of a share that changes at these moments. An operation whose outcome is unknown has no end: it may have been
//! carried out at any moment after its start, or never. Shares are checked one by one: a history is linearizable if that of each
//! share is.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

/// A time of a clock that all clients share. An operation that ends at the moment at which another one starts does not precede it.
pub type Moment = u64;

/// What a client asked of a share. Values stand for its properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareCall {
    Create(u64),
    Read,
    Update(u64),
    Delete,
}

/// What it was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareOutcome {
    /// A write was made.
    Done,
    /// A read has found this value.
    Found(u64),
    /// There is no such share.
    Missing,
    /// A share that was to be created is there already.
    Exists,
    /// No answer, or one that does not tell whether the write was made.
    Unknown,
}

/// One request of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareOperation {
    pub share: u64,
    pub call: ShareCall,
    pub outcome: ShareOutcome,
    pub start: Moment,
    /// Of no meaning if the outcome is unknown.
    pub end: Moment,
}

impl ShareOperation {
    fn is_known(&self) -> bool {
        self.outcome != ShareOutcome::Unknown
    }

    fn precedes(&self, other: &Self) -> bool {
        self.is_known() && self.end < other.start
    }

    /// The share's value after it, if its outcome is possible while the share has `value`. An unknown one that changes nothing
    /// is as one that was not carried out, which is considered apart.
    fn after(&self, value: Option<u64>) -> Option<Option<u64>> {
        use ShareCall::{Create, Delete, Read, Update};
        use ShareOutcome::{Done, Exists, Found, Missing, Unknown};
        match (self.call, self.outcome, value) {
            (Create(new), Done | Unknown, None) | (Update(new), Done | Unknown, Some(_)) => Some(Some(new)),
            (Delete, Done | Unknown, Some(_)) => Some(None),
            (Read, Found(found), Some(is)) if found == is => Some(value),
            (Create(_), Exists, Some(_)) | (Read | Update(_) | Delete, Missing, None) => Some(value),
            _ => None,
        }
    }
}

/// Why a history cannot have happened: the longest order of its operations that can, and what none of the others can follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counterexample {
    pub share: u64,
    /// In their order.
    pub order: Vec<ShareOperation>,
    /// The share's value after them.
    pub value: Option<u64>,
    /// One of these had to be the next.
    pub next: Vec<ShareOperation>,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { share, order, value, next } = self;
        writeln!(f, "share {share}: the longest possible order of {} operations ends with", order.len())?;
        for operation in order.iter().skip(order.len().saturating_sub(5)) {
            writeln!(f, "  {operation}")?;
        }
        writeln!(f, "after which its value is {value:?}, and none of these can be the next:")?;
        next.iter().try_for_each(|operation| writeln!(f, "  {operation}"))
    }
}

impl fmt::Display for ShareOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, outcome, start, end, .. } = self;
        match self.is_known() {
            true => write!(f, "{start}..{end} {call:?}: {outcome:?}"),
            false => write!(f, "{start}.. {call:?}: {outcome:?}"),
        }
    }
}

/// Checks that a history of operations on any number of shares is linearizable. Before its operations, there is no share.
///
/// # Errors
/// That of the first share whose operations cannot have happened.
pub fn check_register(history: &[ShareOperation]) -> Result<(), Counterexample> {
    let mut shares: BTreeMap<u64, Vec<ShareOperation>> = BTreeMap::new();
    for operation in history {
        // What is not known of a read tells nothing.
        if operation.is_known() || operation.call != ShareCall::Read {
            shares.entry(operation.share).or_default().push(*operation);
        }
    }
    shares.into_iter().try_for_each(|(share, mut operations)| {
        operations.sort_by_key(|operation| operation.start);
        Search { operations, seen: HashSet::new(), longest: Vec::new() }.run(share)
    })
}

/// The search of Wing and Gong, which tries each operation that can be the next, with the memory of Lowe: what can follow depends
/// on the set of operations that were carried out, and on the value, and not on their order.
struct Search {
    operations: Vec<ShareOperation>,
    /// From where all ways were tried.
    seen: HashSet<(Carried, Option<u64>)>,
    longest: Vec<usize>,
}

/// A place in the search.
struct Place {
    value: Option<u64>,
    /// The operations to try from here.
    untried: Vec<usize>,
}

impl Search {
    fn run(mut self, share: u64) -> Result<(), Counterexample> {
        let mut carried = Carried::none(self.operations.len());
        let mut order = Vec::new();
        let mut places = vec![Place { value: None, untried: self.candidates(&carried) }];
        if self.is_complete(&carried) {
            return Ok(());
        }
        while let Some(place) = places.last_mut() {
            let Some(next) = place.untried.pop() else {
                places.pop();
                if let Some(last) = order.pop() {
                    carried.remove(last);
                }
                continue;
            };
            let Some(value) = self.operations[next].after(place.value) else { continue };
            carried.insert(next);
            if !self.seen.insert((carried.clone(), value)) {
                carried.remove(next);
                continue;
            }
            order.push(next);
            if self.is_complete(&carried) {
                return Ok(());
            }
            if order.len() > self.longest.len() {
                self.longest.clone_from(&order);
            }
            places.push(Place { value, untried: self.candidates(&carried) });
        }
        Err(self.counterexample(share))
    }

    /// The operations that no other one has to precede.
    fn candidates(&self, carried: &Carried) -> Vec<usize> {
        let left = |n: &usize| !carried.contains(*n);
        let all = 0..self.operations.len();
        let ends =
            all.clone().filter(left).map(|n| &self.operations[n]).filter(|operation| operation.is_known());
        // The one that ends first decides for all.
        let Some(first) = ends.min_by_key(|operation| operation.end) else { return Vec::new() };
        let mut candidates: Vec<_> =
            all.filter(left).filter(|n| !first.precedes(&self.operations[*n])).collect();
        // Tried from the end: what has an end first, and of that what has started first.
        candidates
            .sort_by_key(|n| (self.operations[*n].is_known(), std::cmp::Reverse(self.operations[*n].start)));
        candidates
    }

    fn is_complete(&self, carried: &Carried) -> bool {
        let mut all = self.operations.iter().enumerate();
        all.all(|(n, operation)| !operation.is_known() || carried.contains(n))
    }

    fn counterexample(&self, share: u64) -> Counterexample {
        let of = |numbers: &[usize]| numbers.iter().map(|n| self.operations[*n]).collect::<Vec<_>>();
        let mut carried = Carried::none(self.operations.len());
        self.longest.iter().for_each(|n| carried.insert(*n));
        let order = of(&self.longest);
        let value = order.iter().fold(None, |value, operation| operation.after(value).unwrap_or(value));
        Counterexample { share, value, next: of(&self.candidates(&carried)), order }
    }
}

/// A set of operations, a bit each.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Carried(Vec<u64>);

impl Carried {
    fn none(of: usize) -> Self {
        Self(vec![0; of.div_ceil(64)])
    }

    fn contains(&self, n: usize) -> bool {
        (self.0[n / 64] >> (n % 64)) & 1 == 1
    }

    fn insert(&mut self, n: usize) {
        self.0[n / 64] |= 1 << (n % 64);
    }

    fn remove(&mut self, n: usize) {
        self.0[n / 64] &= !(1 << (n % 64));
    }
}

/// That a share certainly had a name, or a port of a tunnel: from the end of the write that gave it, to the start of the first write
/// that may have taken it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding<K> {
    pub key: K,
    pub share: u64,
    pub from: Moment,
    /// `None`: it has it still.
    pub until: Option<Moment>,
}

/// Checks that no two shares certainly had the same key at one moment.
///
/// # Errors
/// Two that had.
pub fn check_unique<K: Ord + Clone>(holdings: &[Holding<K>]) -> Result<(), Box<[Holding<K>; 2]>> {
    let end = |holding: &Holding<K>| holding.until.unwrap_or(Moment::MAX);
    // One of no length is certain at no moment.
    let mut sorted: Vec<_> = holdings.iter().filter(|holding| end(holding) > holding.from).collect();
    sorted.sort_by(|a, b| (&a.key, a.from).cmp(&(&b.key, b.from)));
    let mut lasting: Vec<&Holding<K>> = Vec::new();
    for holding in sorted {
        lasting.retain(|other| other.key == holding.key && end(other) > holding.from);
        if let Some(other) = lasting.iter().find(|other| other.share != holding.share) {
            return Err(Box::new([(*other).clone(), holding.clone()]));
        }
        lasting.push(holding);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
