//! Rule sets, passed to `nft` on standard input. Each is one transaction: it takes effect completely or not at all.

use std::{
    collections::BTreeSet,
    io,
    process::{Output, Stdio},
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
    runtime::Handle,
    time::timeout,
};

use super::{
    Namespace, NetworkError,
    tool::{TOOL_TIMEOUT, tool},
};

const WHAT: &str = "apply packet rules";

/// Applies `rules` in `namespace`, or in this process's own.
pub(crate) async fn apply(namespace: Option<&Namespace>, rules: String) -> Result<(), NetworkError> {
    let child = match namespace {
        // A child inherits the namespace of the thread that starts it.
        Some(namespace) => {
            let runtime = Handle::current();
            let start = move || {
                let _entered = runtime.enter();
                start("nft", &["-f", "-"])
            };
            namespace.run_blocking("start nft", start).await?
        }
        None => start("nft", &["-f", "-"]).map_err(NetworkError::io("start nft"))?,
    };
    let output = feed(child, &rules, TOOL_TIMEOUT).await.map_err(NetworkError::io(WHAT))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let message = complaint.lines().next().unwrap_or("nft failed").to_owned();
    Err(NetworkError::Tool { what: WHAT.to_owned(), message })
}

/// The names of the IPv4 tables in this process's own namespace.
pub(crate) async fn tables() -> Result<BTreeSet<String>, NetworkError> {
    let listing = tool("nft", &["list", "tables", "ip"]).await?;
    Ok(listing.lines().filter_map(|line| line.strip_prefix("table ip ")).map(str::to_owned).collect())
}

/// The rules of a chain of an IPv4 table, as `nft` writes them.
pub(crate) async fn chain(table: &str, chain: &str) -> Result<String, NetworkError> {
    tool("nft", &["list", "chain", "ip", table, chain]).await
}

fn start(program: &str, arguments: &[&str]) -> io::Result<Child> {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// Hands `text` to a child and waits for its end, which is no longer than `bound` away: then it is killed.
async fn feed(mut child: Child, text: &str, bound: Duration) -> io::Result<Output> {
    let stdin = child.stdin.take();
    let write = async move {
        match stdin {
            Some(mut stdin) => stdin.write_all(text.as_bytes()).await,
            None => Ok(()),
        }
    };
    let exchange = async { tokio::join!(write, child.wait_with_output()) };
    let (written, output) = timeout(bound, exchange).await.map_err(|_| io::ErrorKind::TimedOut)?;
    let output = output?;
    // Who fails reads no further, and says why itself.
    if output.status.success() {
        written?;
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_gone(pid: u32) {
        let gone = async {
            while std::path::Path::new(&format!("/proc/{pid}")).exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(10), gone).await.unwrap();
    }

    #[tokio::test]
    async fn one_that_hangs_is_killed_and_waited_for() {
        let child = start("sleep", &["600"]).unwrap();
        let pid = child.id().unwrap();
        // More than a pipe holds, so that the writing waits, too.
        let text = "#".repeat(1 << 20);
        let error = feed(child, &text, Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        is_gone(pid).await;
    }

    #[tokio::test]
    async fn one_that_does_not_listen_says_why_and_is_waited_for() {
        let child = start("sh", &["-c", "echo no >&2; exit 3"]).unwrap();
        let pid = child.id().unwrap();
        let output = feed(child, &"#".repeat(1 << 20), TOOL_TIMEOUT).await.unwrap();
        assert_eq!((output.status.code(), &output.stderr[..]), (Some(3), &b"no\n"[..]));
        is_gone(pid).await;
    }
}
