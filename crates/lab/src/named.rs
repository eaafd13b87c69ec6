//! For how long a fault has no name. docs/TROUBLESHOOTING.md says it for each row, as it was measured.

use std::{env, fs::OpenOptions, io::Write as _, time::Duration};

/// The file to which measurements are appended. `make named` sets it.
const FILE: &str = "WICKETGATE_NAMED";

/// Records that the fault of a row of docs/TROUBLESHOOTING.md was named `after` the first moment at which a client, a device or an
/// operator could complain. `row` is the row's first cell without backquotes. A test calls it instead of asserting a time, which a
/// busy machine would break.
#[expect(clippy::print_stderr, reason = "the output is that of a test")]
pub fn named(row: &str, after: Duration) {
    let seconds = after.as_secs_f64();
    eprintln!("named {row} in {seconds:.1} s");
    let Some(file) = env::var_os(FILE) else { return };
    // In one write: tests run at the same time.
    let line = format!("{row}\t{seconds:.3}\n");
    let appended = OpenOptions::new().create(true).append(true).open(file);
    if let Err(error) = appended.and_then(|mut file| file.write_all(line.as_bytes())) {
        eprintln!("the measurement cannot be recorded: {error}");
    }
}
