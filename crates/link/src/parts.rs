//! Large messages on a network: they are cut into parts, which the receiver joins.
//!
//! Invariant: no part has more than a number of rows, and of bytes, so that both ends bound what they encode and decode at one time. The
//! last part makes the message complete: until then, nothing of it is seen.

use crate::{FromGateway, Part, ToGateway};
use serde::Serialize;
use std::{
    io::{self, Write},
    iter::Peekable,
    sync::Arc,
    vec::IntoIter,
};
use wicketgate_model::{DesiredDelta, ObservedDelta, SpooledTraffic};

/// Rows of a part: some hundred kilobytes, if each is a share with many options.
pub const ROWS_OF_PART: usize = 256;
/// Bytes of the rows of a part, unless it has one row. With what else it says, it stays below the megabyte of a frame.
const BYTES_OF_PART: usize = 512 * 1024;
/// Parts of a message, of a quarter of a million rows: more than a gateway can have.
const PARTS: u32 = 1024;

/// A part does not follow the one before, or is one too many.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message without one of its parts, or with too many of them")]
pub struct MissingPart;

/// Messages of one direction.
pub trait Parted: Sized {
    /// The parts of the message, of so many rows at most.
    fn cut(self, rows: usize) -> Vec<Self>;

    /// `None`: messages of this kind are not cut.
    fn part(&mut self) -> Option<&mut Part>;

    /// Adds the rows of the next part. Returns whether it is of the same message.
    fn join(&mut self, next: Self) -> bool;
}

/// Joins the parts that arrive.
#[derive(Debug)]
pub struct Joiner<M> {
    /// The parts until now, and the number of the next one.
    begun: Option<(M, u32)>,
}

impl<M> Default for Joiner<M> {
    fn default() -> Self {
        Self { begun: None }
    }
}

impl<M: Parted> Joiner<M> {
    /// Takes in what has arrived. Returns it if it is complete.
    ///
    /// # Errors
    ///
    /// A part is missing: the other end does not follow the protocol.
    pub fn take(&mut self, mut message: M) -> Result<Option<M>, MissingPart> {
        let Some(part) = message.part().copied() else { return Ok(Some(message)) };
        let joined = match self.begun.take() {
            None if part.number == 0 => message,
            Some((mut begun, next)) if part.number == next && next < PARTS => {
                if !begun.join(message) {
                    return Err(MissingPart);
                }
                begun
            }
            None | Some(_) => return Err(MissingPart),
        };
        Ok(self.keep(joined, part))
    }

    fn keep(&mut self, mut joined: M, last: Part) -> Option<M> {
        if !last.is_last {
            self.begun = Some((joined, last.number + 1));
            return None;
        }
        if let Some(part) = joined.part() {
            *part = Part::WHOLE;
        }
        Some(joined)
    }
}

impl Parted for ToGateway {
    fn cut(self, rows: usize) -> Vec<Self> {
        match self {
            Self::Desired { sequence, part: _, delta } => {
                let parts = numbered(cut_desired(delta, rows));
                parts.into_iter().map(|(part, delta)| Self::Desired { sequence, part, delta }).collect()
            }
            other => vec![other],
        }
    }

    fn part(&mut self) -> Option<&mut Part> {
        if let Self::Desired { part, .. } = self { Some(part) } else { None }
    }

    fn join(&mut self, next: Self) -> bool {
        match (self, next) {
            (Self::Desired { sequence, delta, .. }, Self::Desired { sequence: same, delta: next, .. })
                if *sequence == same =>
            {
                delta.tunnels.extend(next.tunnels);
                delta.shares.extend(next.shares);
                delta.removed_tunnels.extend(next.removed_tunnels);
                delta.removed_shares.extend(next.removed_shares);
                delta.agents.extend(next.agents);
                delta.forgotten_agents.extend(next.forgotten_agents);
                true
            }
            _ => false,
        }
    }
}

impl Parted for FromGateway {
    fn cut(self, rows: usize) -> Vec<Self> {
        match self {
            Self::Observed { heard, part: _, delta } => {
                let parts = numbered(cut_observed(delta, rows));
                parts.into_iter().map(|(part, delta)| Self::Observed { heard, part, delta }).collect()
            }
            Self::ConnectedAgents { agents, is_all, part: _ } => {
                let message = |(part, agents)| Self::ConnectedAgents { agents, is_all, part };
                cut_rows(agents, rows).into_iter().map(message).collect()
            }
            Self::Agents { request, agents, part: _ } => {
                let message = |(part, agents)| Self::Agents { request, agents, part };
                cut_rows(agents, rows).into_iter().map(message).collect()
            }
            Self::Traffic { report, part: _ } => {
                let SpooledTraffic { spool, number, at, deltas } = Arc::unwrap_or_clone(report);
                let report = |deltas| Arc::new(SpooledTraffic { spool, number, at, deltas });
                let message = |(part, deltas)| Self::Traffic { report: report(deltas), part };
                cut_rows(deltas, rows).into_iter().map(message).collect()
            }
            other => vec![other],
        }
    }

    fn part(&mut self) -> Option<&mut Part> {
        match self {
            Self::Observed { part, .. }
            | Self::ConnectedAgents { part, .. }
            | Self::Agents { part, .. }
            | Self::Traffic { part, .. } => Some(part),
            _ => None,
        }
    }

    fn join(&mut self, next: Self) -> bool {
        match (self, next) {
            (Self::Observed { heard, delta, .. }, Self::Observed { heard: same, delta: next, .. })
                if *heard == same =>
            {
                delta.tunnels.extend(next.tunnels);
                delta.shares.extend(next.shares);
                delta.gone_tunnels.extend(next.gone_tunnels);
                delta.gone_shares.extend(next.gone_shares);
                true
            }
            (
                Self::ConnectedAgents { agents, is_all, .. },
                Self::ConnectedAgents { agents: next, is_all: same, .. },
            ) if *is_all == same => {
                agents.extend(next);
                true
            }
            (Self::Agents { request, agents, .. }, Self::Agents { request: same, agents: next, .. })
                if *request == same =>
            {
                agents.extend(next);
                true
            }
            (Self::Traffic { report, .. }, Self::Traffic { report: next, .. })
                if (report.spool, report.number, report.at) == (next.spool, next.number, next.at) =>
            {
                Arc::make_mut(report).deltas.extend(Arc::unwrap_or_clone(next).deltas);
                true
            }
            _ => false,
        }
    }
}

fn cut_desired(delta: DesiredDelta, rows: usize) -> Vec<DesiredDelta> {
    let DesiredDelta { revision, read_at, digest, reset, is_partial, .. } = delta;
    let (mut tunnels, mut shares) =
        (delta.tunnels.into_iter().peekable(), delta.shares.into_iter().peekable());
    let mut removed_tunnels = delta.removed_tunnels.into_iter().peekable();
    let mut removed_shares = delta.removed_shares.into_iter().peekable();
    let (mut agents, mut forgotten_agents) =
        (delta.agents.into_iter().peekable(), delta.forgotten_agents.into_iter().peekable());
    let next = || {
        let mut room = Room::new(rows);
        DesiredDelta {
            revision,
            read_at,
            digest,
            reset,
            is_partial,
            tunnels: room.take(&mut tunnels),
            shares: room.take(&mut shares),
            removed_tunnels: room.take(&mut removed_tunnels),
            removed_shares: room.take(&mut removed_shares),
            agents: room.take(&mut agents),
            forgotten_agents: room.take(&mut forgotten_agents),
        }
    };
    until_empty(next, |part| DesiredDelta { reset: false, is_partial: false, ..part.clone() }.is_empty())
}

fn cut_observed(delta: ObservedDelta, rows: usize) -> Vec<ObservedDelta> {
    let ObservedDelta { reset, as_desired, .. } = delta;
    let (mut tunnels, mut shares) =
        (delta.tunnels.into_iter().peekable(), delta.shares.into_iter().peekable());
    let (mut gone_tunnels, mut gone_shares) =
        (delta.gone_tunnels.into_iter().peekable(), delta.gone_shares.into_iter().peekable());
    let next = || {
        let mut room = Room::new(rows);
        ObservedDelta {
            reset,
            as_desired,
            tunnels: room.take(&mut tunnels),
            shares: room.take(&mut shares),
            gone_tunnels: room.take(&mut gone_tunnels),
            gone_shares: room.take(&mut gone_shares),
        }
    };
    until_empty(next, |part| *part == ObservedDelta { reset, as_desired, ..ObservedDelta::default() })
}

fn cut_rows<T: Serialize>(all: Vec<T>, rows: usize) -> Vec<(Part, Vec<T>)> {
    let mut left = all.into_iter().peekable();
    numbered(until_empty(|| Room::new(rows).take(&mut left), Vec::is_empty))
}

/// What is left of a part.
struct Room {
    is_new: bool,
    rows: usize,
    bytes: usize,
}

impl Room {
    fn new(rows: usize) -> Self {
        Self { is_new: true, rows, bytes: BYTES_OF_PART }
    }

    /// The next rows, for which there is room. A row that is too long has a part of its own.
    fn take<T: Serialize>(&mut self, rows: &mut Peekable<IntoIter<T>>) -> Vec<T> {
        std::iter::from_fn(|| rows.next_if(|row| self.has_room(row))).collect()
    }

    fn has_room(&mut self, row: &impl Serialize) -> bool {
        let bytes = encoded_length(row);
        let is_room = self.rows > 0 && (bytes <= self.bytes || self.is_new);
        // Nothing of a later kind is taken before this row.
        self.rows = if is_room { self.rows - 1 } else { 0 };
        (self.bytes, self.is_new) = (self.bytes.saturating_sub(bytes), false);
        is_room
    }
}

/// With a comma. A row that cannot be encoded ends the link when its part is.
fn encoded_length(row: &impl Serialize) -> usize {
    let mut count = Count(1);
    let _ = serde_json::to_writer(&mut count, row);
    count.0
}

struct Count(usize);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// At least one part.
fn until_empty<D>(mut next: impl FnMut() -> D, is_empty: impl Fn(&D) -> bool) -> Vec<D> {
    let mut parts = vec![next()];
    loop {
        let part = next();
        if is_empty(&part) {
            return parts;
        }
        parts.push(part);
    }
}

fn numbered<D>(parts: Vec<D>) -> Vec<(Part, D)> {
    let last = parts.len().saturating_sub(1);
    let part =
        |(n, delta)| (Part { number: u32::try_from(n).unwrap_or(u32::MAX), is_last: n == last }, delta);
    parts.into_iter().enumerate().map(part).collect()
}

#[cfg(test)]
mod tests;
