//! A program that is run to its end.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, bail};

/// Lines of a log in an error message: enough to see the last few seconds.
const TAIL: usize = 15;

/// Runs a program to its end, and returns what it printed.
///
/// # Errors
/// The program cannot be started, or it fails; the error contains its output.
pub fn run(command: &mut Command) -> Result<String> {
    feed(command, "")
}

/// Like [`run`], with `input` on its standard input.
pub(crate) fn feed(command: &mut Command, input: &str) -> Result<String> {
    let program = command.get_program().display().to_string();
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("can't run {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).with_context(|| format!("can't write to {program}"))?;
    }
    let Output { status, stdout, stderr } = child.wait_with_output()?;
    let printed = String::from_utf8_lossy(&stdout).trim().to_owned();
    if status.success() {
        return Ok(printed);
    }
    let complaint = String::from_utf8_lossy(&stderr).trim().to_owned();
    bail!("{program}: {status}\n{}{complaint}", last_lines(&printed))
}

/// The end of a log.
pub(crate) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}
