//! Generations: they tell an accepted change of a row from the ones before.

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
