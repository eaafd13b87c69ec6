//! Programs of iproute2 and nftables, run in this process's own namespace.

use std::{process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use super::NetworkError;

/// `ip` and `nft` answer in milliseconds, or wait for a kernel lock that others hold.
pub(crate) const TOOL_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs a program of iproute2, in this process's own namespace, and returns what it printed.
pub(crate) async fn tool(program: &str, arguments: &[&str]) -> Result<String, NetworkError> {
    let what = || format!("run {program} {}", arguments.join(" "));
    let child = Command::new(program).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(TOOL_TIMEOUT, child)
        .await
        .map_err(|_| NetworkError::Tool { what: what(), message: "it took too long".to_owned() })?
        .map_err(NetworkError::io(what()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(NetworkError::Tool { what: what(), message })
}
