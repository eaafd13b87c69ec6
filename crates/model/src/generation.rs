//! Generations tell an accepted change of a row from the ones before; eras tell a restored database from the one before.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The count of accepted changes of a row, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(pub(crate) u64);

impl Generation {
    pub const FIRST: Self = Self(1);

    pub fn new(n: u64) -> Self {
        Self(n)
    }

    /// That of the next change.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How often the database was restored, in the order of time: 0, and after each restore a greater number. Generations count
/// again from where the backup had them, so that they can be compared within an era only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Era(u64);

impl Era {
    /// That of a database that was never restored.
    pub const FIRST: Self = Self(0);

    pub fn new(n: u64) -> Self {
        Self(n)
    }

    /// The era that follows at the time `now`, in seconds since 1970. It is greater than this one. It is also greater than eras that
    /// the database has lost with a restore, if the clock was right when they began.
    #[must_use]
    pub fn next(self, now: u64) -> Self {
        Self(now.max(self.0.saturating_add(1)))
    }

    pub fn get(self) -> u64 {
        self.0
    }

    pub(crate) fn is_first(&self) -> bool {
        *self == Self::FIRST
    }
}

impl fmt::Display for Era {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
