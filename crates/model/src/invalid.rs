//! Why a text is not a value of a type.

/// The rule that a text breaks, worded to follow the property's name
/// (`ingressPort` + ` must be between 1 and 65535`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl Invalid {
    pub(crate) fn new(rule: impl Into<String>) -> Self {
        Self(rule.into())
    }

    /// For a text that is none of `names`: `must be a, b or c`.
    pub fn none_of(names: &[&str]) -> Self {
        match names.split_last() {
            Some((last, [])) => Self(format!("must be {last}")),
            Some((last, others)) => Self(format!("must be {} or {last}", others.join(", "))),
            None => Self(String::new()),
        }
    }
}
