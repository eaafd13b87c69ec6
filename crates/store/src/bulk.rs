//! Statements about many rows: one round trip to the database for all of them.
//!
//! Rows are split into parts of a few sizes only, so that each statement has few texts, and each text is prepared once.

/// The sizes of parts, largest first. The largest is bounded by PostgreSQL's 65,535 values of a statement, with many to
/// spare.
const SIZES: [usize; 4] = [64, 16, 4, 1];

/// The rows, in parts.
pub(crate) fn parts<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = SIZES.into_iter().find(|size| *size <= rows.len())?;
        let (part, rest) = rows.split_at(size);
        rows = rest;
        Some(part)
    })
}

/// `($1, $2), ($3, $4)` for two rows of two columns: what follows `VALUES`.
pub(crate) fn places(rows: usize, columns: usize) -> String {
    let row = |row: usize| format!("({})", numbered(row * columns, columns));
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// `$1, $2` for two values: the list in the parentheses of `IN`.
pub(crate) fn list(values: usize) -> String {
    numbered(0, values)
}

fn numbered(after: usize, values: usize) -> String {
    (after + 1..=after + values).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn placeholders_are_numbered_consecutively() {
        assert_eq!(places(2, 3), "($1, $2, $3), ($4, $5, $6)");
        assert_eq!(list(2), "$1, $2");
    }

    proptest! {
        #[test]
        fn the_parts_add_up_to_all_rows(rows in prop::collection::vec(any::<u8>(), 0..300)) {
            let parts: Vec<_> = parts(&rows).collect();
            prop_assert!(parts.iter().all(|part| SIZES.contains(&part.len())));
            prop_assert_eq!(parts.concat(), rows);
        }
    }
}
