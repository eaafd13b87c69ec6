//! Rule sets, given to `nft` on its standard input: each one is a transaction, and takes effect whole or not at all.

use std::{
    io::{self, Read as _, Write as _},
    process::{Command, Stdio},
};

use super::{Namespace, NetnsError};

/// Applies `rules` in `namespace`, or where there is none in this process's own.
pub(crate) async fn apply(namespace: Option<&Namespace>, rules: String) -> Result<(), NetnsError> {
    const WHAT: &str = "apply packet rules";
    match namespace {
        Some(namespace) => namespace.run_blocking(WHAT, move || run(&rules)).await,
        None => tokio::task::spawn_blocking(move || run(&rules))
            .await
            .map_err(|e| NetnsError::io(WHAT)(io::Error::other(e)))?
            .map_err(NetnsError::io(WHAT)),
    }
}

/// Blocks. The program inherits the namespace of the calling thread.
fn run(rules: &str) -> io::Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(rules.as_bytes())?;
    }
    let mut complaint = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut complaint)?;
    }
    if child.wait()?.success() {
        return Ok(());
    }
    Err(io::Error::other(complaint.lines().next().unwrap_or("nft failed").to_owned()))
}
