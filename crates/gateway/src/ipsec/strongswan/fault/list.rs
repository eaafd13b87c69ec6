//! Lists in a sentence.

/// The most entries that are named.
const LISTED: usize = 3;

/// The first entries, and how many more there are.
pub(super) fn listed(mut all: Vec<String>) -> String {
    let more = all.len().saturating_sub(LISTED);
    all.truncate(LISTED);
    let shown = all.join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}
