//! The number of a part of a message.

use serde::{Deserialize, Serialize};

/// Which part of a message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Counts from 0.
    pub number: u32,
    pub is_last: bool,
}

impl Part {
    /// Of a message that was not cut, or was joined.
    pub const WHOLE: Self = Self { number: 0, is_last: true };
}
