//! The seeds of the fuzz targets in `fuzz/seeds`, and mutations of them, for ordinary tests: each run of the tests feeds a
//! target with a few thousand inputs, the same ones every time.
//!
//! Only tests depend on this crate. What it tries is broad and shallow: `make fuzz` searches with coverage as its guide.

#![expect(clippy::panic, clippy::expect_used, reason = "only tests use it, and tests may panic")]

mod mutation;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use mutation::Mutator;

/// Feeds `body` with the seeds of `target`, and with `rounds` mutations of them.
///
/// # Panics
/// If `body` does: the message has the input. Also if the target has no seeds.
pub fn replay(target: &str, rounds: u32, body: impl Fn(&[u8])) {
    let seeds = seeds(target);
    let run = |input: &[u8]| {
        if catch_unwind(AssertUnwindSafe(|| body(input))).is_err() {
            panic!("{target} fails for b\"{}\"", input.escape_ascii());
        }
    };
    seeds.iter().for_each(|seed| run(seed));
    let mut mutator = Mutator::new(target, &seeds);
    (0..rounds).for_each(|_| run(&mutator.next()));
}

/// In the order of their names, so that every machine makes the same mutations of them.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let files = fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut paths: Vec<_> = files.map(|file| file.expect("a directory can be read").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} has no seed", directory.display());
    paths.iter().map(|path| fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn the_inputs_are_the_same_every_time_and_differ_from_each_other() {
        let inputs = || {
            let all = RefCell::new(Vec::new());
            replay("target", 500, |input| all.borrow_mut().push(input.to_vec()));
            all.into_inner()
        };
        let mut one = inputs();
        assert_eq!(one, inputs());
        one.sort();
        one.dedup();
        assert!(one.len() > 400, "{}", one.len());
    }

    #[test]
    fn a_failure_has_its_input() {
        let failed = catch_unwind(|| replay("target", 2000, |input| assert!(!input.contains(&b'['))));
        let message = failed.expect_err("no input has a bracket");
        let message = message.downcast_ref::<String>().expect("a text");
        assert!(message.starts_with("target fails for b\"") && message.contains('['), "{message}");
    }
}
