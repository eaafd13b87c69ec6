//! The rows of one kind, as the reconciler keeps them.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use jiff::Timestamp;
use wicketgate_model::{Deadlines, Flapping, Generation, Observation, Standing, Status, next};
use wicketgate_store::{Resource, RowReport, StatusUpdate};

/// One row; there may be very many.
#[derive(Debug)]
pub(super) struct Row<S> {
    pub(super) generation: Generation,
    standing: Standing,
    flapping: Flapping,
    /// What only this kind of row has.
    pub(super) state: S,
}

/// Rows by id, and what is still to be done for them.
#[derive(Debug)]
pub(super) struct Rows<Id, S> {
    rows: BTreeMap<Id, Row<S>>,
    /// The delta in which a row's removal was sent, until the gateway has answered it. It may outlive the row.
    removed: BTreeMap<Id, u64>,
    /// Rows whose status has to be decided again.
    undecided: BTreeSet<Id>,
    /// Rows whose status may change because a deadline passes, or with the gateway's answer to a delta.
    waiting: BTreeSet<Id>,
    /// Rows that other gateways serve, too, with what was last told of each: their statuses are decided with the others' reports.
    shared: BTreeMap<Id, Option<(Generation, Observation)>>,
}

/// What is to be written of rows.
#[derive(Debug)]
pub(super) struct Decisions<Id> {
    pub(super) updates: Vec<StatusUpdate>,
    /// Of rows that other gateways serve, too.
    pub(super) reports: Vec<RowReport>,
    /// The row at which it stopped; `None`: none is left.
    pub(super) last: Option<Id>,
}

impl<Id, S> Default for Rows<Id, S> {
    fn default() -> Self {
        let (rows, removed, undecided, waiting, shared) = Default::default();
        Self { rows, removed, undecided, waiting, shared }
    }
}

impl<Id: Ord + Copy, S: Default> Rows<Id, S> {
    pub(super) fn get(&self, id: Id) -> Option<&Row<S>> {
        self.rows.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Row<S>> {
        self.rows.get_mut(&id)
    }

    /// Takes in a row that was written. Returns its state, and whether it had another generation before.
    pub(super) fn take(&mut self, id: Id, generation: Generation, standing: Standing) -> (&mut S, bool) {
        self.undecided.insert(id);
        let flapping = Flapping::default();
        let new = || Row { generation, standing: standing.clone(), flapping, state: S::default() };
        let row = self.rows.entry(id).or_insert_with(new);
        row.standing = standing;
        let before = mem::replace(&mut row.generation, generation);
        (&mut row.state, before != generation)
    }

    pub(super) fn forget(&mut self, id: Id) {
        self.rows.remove(&id);
        self.waiting.remove(&id);
        self.shared.remove(&id);
    }

    /// Whether other gateways serve the row, too.
    pub(super) fn share_with_others(&mut self, id: Id, is_shared: bool) {
        if is_shared {
            self.shared.entry(id).or_default();
        } else {
            self.shared.remove(&id);
        }
    }

    pub(super) fn is_shared(&self, id: Id) -> bool {
        self.shared.contains_key(&id)
    }

    /// What the gateway sees of a shared row was written.
    pub(super) fn reported(&mut self, id: Id, generation: Generation, seen: Observation) {
        if let Some(last) = self.shared.get_mut(&id) {
            *last = Some((generation, seen));
        }
    }

    /// The rows that are not among `ids`.
    pub(super) fn missing_in(&self, ids: &BTreeSet<Id>) -> Vec<Id> {
        self.rows.keys().filter(|id| !ids.contains(id)).copied().collect()
    }

    /// Removals of `ids` were sent in the delta of this number.
    pub(super) fn removal_sent(&mut self, ids: Vec<Id>, sequence: u64) {
        self.removed.extend(ids.into_iter().map(|id| (id, sequence)));
    }

    /// The gateway has answered the deltas up to `heard`.
    pub(super) fn heard(&mut self, heard: u64) {
        // At once: the number starts again from 0 when the link is lost.
        self.removed.retain(|_, sequence| *sequence > heard);
    }

    pub(super) fn touch(&mut self, ids: BTreeSet<Id>) {
        self.undecided.extend(ids);
    }

    pub(super) fn touch_all(&mut self) {
        self.undecided.extend(self.rows.keys());
    }

    pub(super) fn touch_waiting(&mut self) {
        self.undecided.extend(&self.waiting);
    }

    pub(super) fn each_undecided(&mut self, mut visit: impl FnMut(Id, &mut Row<S>)) {
        for id in &self.undecided {
            if let Some(row) = self.rows.get_mut(id) {
                visit(*id, row);
            }
        }
    }

    /// What is to be written of undecided rows, the newest rows first. Stops after `most` rows. `observe` is passed whether a removal
    /// of the row is under way.
    pub(super) fn decisions(
        &mut self,
        most: usize,
        deadlines: Deadlines,
        now: Timestamp,
        observe: impl Fn(Id, &S, bool) -> (Resource, Observation),
    ) -> Decisions<Id> {
        let (mut updates, mut reports) = (Vec::new(), Vec::new());
        for id in self.undecided.iter().rev() {
            let Some(row) = self.rows.get(id) else { continue };
            let (resource, seen) = observe(*id, &row.state, self.removed.contains_key(id));
            let generation = row.generation;
            let shared = self.shared.get(id);
            let decided = match shared {
                // What the others report may have passed it meanwhile.
                Some(_) => row.standing.clone(),
                None => next(&row.standing, generation, &seen, deadlines, now),
            };
            let is_held = shared.is_none() && row.flapping.holds(&row.standing, &decided, now);
            let standing = if is_held { row.standing.clone() } else { decided };
            let waits = is_held
                || matches!(standing.status, Status::New | Status::Deleting)
                || matches!(seen, Observation::Looking { .. })
                || (shared.is_some() && matches!(seen, Observation::Silent { .. }));
            if waits {
                self.waiting.insert(*id);
            } else {
                self.waiting.remove(id);
            }
            match shared {
                Some(told)
                    if waits || told.as_ref().is_none_or(|told| *told != (generation, seen.clone())) =>
                {
                    reports.push(RowReport { resource, generation, seen });
                }
                None if standing != row.standing => {
                    updates.push(StatusUpdate { resource, generation, standing });
                }
                Some(_) | None => continue,
            }
            if updates.len() + reports.len() == most {
                return Decisions { updates, reports, last: Some(*id) };
            }
        }
        Decisions { updates, reports, last: None }
    }

    /// An update was written. Returns the status before it.
    pub(super) fn updated(&mut self, id: Id, standing: Standing, now: Timestamp) -> Option<Status> {
        let row = self.rows.get_mut(&id)?;
        row.flapping.changed(&row.standing, &standing, now);
        Some(mem::replace(&mut row.standing, standing).status)
    }

    /// The undecided rows down to `last` are decided; `None`: all of them. Returns whether none is left.
    pub(super) fn decided(&mut self, last: Option<Id>) -> bool {
        match last {
            Some(last) => drop(self.undecided.split_off(&last)),
            None => self.undecided = BTreeSet::new(),
        }
        self.undecided.is_empty()
    }
}
