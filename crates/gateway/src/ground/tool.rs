//! Programs of iproute2 and nftables: started, fed and waited for.

use std::{
    io,
    process::{Output, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
    time::timeout,
};

use super::NetworkError;

/// `ip` and `nft` answer in milliseconds, or wait for a kernel lock that others hold.
pub(crate) const TOOL_TIMEOUT: Duration = Duration::from_secs(10);

/// For a listing of what others own: it may be long, and nothing may wait for it.
const LISTING_TIMEOUT: Duration = Duration::from_secs(2);

/// What is read of a program's output at most. The rules of some hundred tunnels are a tenth of it.
const MAX_OUTPUT: u64 = 4 << 20;

/// Runs a program in this process's own namespace, and returns what it printed.
pub(crate) async fn tool(program: &str, arguments: &[&str]) -> Result<String, NetworkError> {
    let what = format!("run {program} {}", arguments.join(" "));
    let child = start((program, arguments)).map_err(NetworkError::io(what.as_str()))?;
    finish(child, "", &what).await
}

/// As [`tool`], within two seconds.
pub(super) async fn listing(program: &str, arguments: &[&str]) -> Result<String, NetworkError> {
    let what = format!("run {program} {}", arguments.join(" "));
    let listed = timeout(LISTING_TIMEOUT, tool(program, arguments)).await;
    listed.unwrap_or_else(|_| Err(NetworkError::io(what)(io::ErrorKind::TimedOut.into())))
}

/// Starts a program with its arguments, in the namespace of the calling thread.
pub(super) fn start((program, arguments): (&str, &[&str])) -> io::Result<Child> {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// Hands `input` to a program, waits for its end, and returns what it printed.
pub(super) async fn finish(child: Child, input: &str, what: &str) -> Result<String, NetworkError> {
    let output = feed(child, input, TOOL_TIMEOUT).await.map_err(NetworkError::io(what))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let message = complaint.lines().next().unwrap_or("it failed without a message");
    Err(NetworkError::refused(what, message))
}

/// As [`finish`]; a program that runs longer than `bound`, or prints more than is read, is killed.
async fn feed(mut child: Child, input: &str, bound: Duration) -> io::Result<Output> {
    let stdin = child.stdin.take();
    let write = async move {
        match stdin {
            Some(mut stdin) => stdin.write_all(input.as_bytes()).await,
            None => Ok(()),
        }
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let exchange = async {
        let (written, read) = tokio::join!(write, async { tokio::try_join!(whole(stdout), whole(stderr)) });
        let (stdout, stderr) = read?;
        Ok::<_, io::Error>((written, Output { status: child.wait().await?, stdout, stderr }))
    };
    let (written, output) = timeout(bound, exchange).await.map_err(|_| io::ErrorKind::TimedOut)??;
    // A program that fails reads no further, and reports the reason itself.
    if output.status.success() {
        written?;
    }
    Ok(output)
}

/// All that a program prints.
async fn whole(output: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    if let Some(output) = output {
        output.take(MAX_OUTPUT).read_to_end(&mut read).await?;
    }
    if read.len() as u64 >= MAX_OUTPUT {
        return Err(io::Error::other(format!("it prints more than {MAX_OUTPUT} bytes")));
    }
    Ok(read)
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
    async fn a_program_that_hangs_is_killed_and_reaped() {
        let child = start(("sleep", &["600"])).unwrap();
        let pid = child.id().unwrap();
        // More than a pipe's buffer holds, so that writing blocks, too.
        let text = "#".repeat(1 << 20);
        let error = feed(child, &text, Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        is_gone(pid).await;
    }

    #[tokio::test]
    async fn a_program_that_prints_without_end_is_killed() {
        let child = start(("yes", &[])).unwrap();
        let pid = child.id().unwrap();
        let error = feed(child, "", TOOL_TIMEOUT).await.unwrap_err();
        assert!(error.to_string().contains("prints more than"), "{error}");
        is_gone(pid).await;
    }

    #[tokio::test]
    async fn the_message_of_a_program_that_does_not_read_its_input_is_returned() {
        let child = start(("sh", &["-c", "echo no >&2; exit 3"])).unwrap();
        let pid = child.id().unwrap();
        let output = feed(child, &"#".repeat(1 << 20), TOOL_TIMEOUT).await.unwrap();
        assert_eq!((output.status.code(), &output.stderr[..]), (Some(3), &b"no\n"[..]));
        is_gone(pid).await;
    }
}
