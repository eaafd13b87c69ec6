//! What the demo prints: steps with their times, checks with their results.

use std::{
    fmt::Display,
    io::{self, Write as _},
    time::Instant,
};

pub(super) struct Report {
    began: Instant,
    passed: usize,
    failed: usize,
}

impl Report {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), passed: 0, failed: 0 }
    }

    /// A step that was done.
    pub(super) fn step(&self, what: impl Display) {
        say(format_args!("{:6.2} s  {what}", self.began.elapsed().as_secs_f32()));
    }

    /// A check and its result.
    pub(super) fn check(&mut self, ok: bool, what: impl Display) {
        if ok {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
        say(format_args!("          {:4}  {what}", if ok { "ok" } else { "FAIL" }));
    }

    /// The last line; `true` when every check passed.
    pub(super) fn end(&self) -> bool {
        let seconds = self.began.elapsed().as_secs_f32();
        let (passed, failed) = (self.passed, self.failed);
        say(format_args!("\n{passed} checks passed, {failed} failed, in {seconds:.1} s"));
        failed == 0
    }
}

/// Prints a line. A closed pipe must not stop the demo from cleaning up.
pub(super) fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}
