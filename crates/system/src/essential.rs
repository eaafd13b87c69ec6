//! Tasks without which a process gives no service.
//!
//! A task that panics ends alone, and the process goes on without it. Where everything needs the task, the process ends
//! instead: its supervisor starts it again, and probes do not find it healthy meanwhile.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
};

use crate::log::last_words;

/// As after a panic of the main thread.
const EXIT_STATUS: i32 = 101;

/// Runs a task; if it panics, ends the process. `name` says what the task does, after "the task that".
pub async fn essential<T>(name: &str, task: impl Future<Output = T>) -> T {
    let mut task = pin!(task);
    poll_fn(|context| {
        let poll = catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context)));
        poll.unwrap_or_else(|_| end(name))
    })
    .await
}

/// The panic's message was written before.
#[expect(clippy::exit, reason = "nothing that is still running can be trusted to end in order")]
fn end(name: &str) -> ! {
    last_words(&format!(
        "the process ends because the task that {name} has panicked, which is a fault of this program"
    ));
    std::process::exit(EXIT_STATUS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[tokio::test]
    async fn a_task_that_ends_returns_its_value() {
        assert_eq!(essential("counts", async { 7 }).await, 7);
    }

    /// Set in the process that the test starts: the test itself, which ends it there.
    const ENDS: &str = "WICKETGATE_TEST_ENDS";

    #[tokio::test]
    async fn a_panic_ends_the_process_and_is_told() {
        if std::env::var_os(ENDS).is_some() {
            return essential("panics", async { assert_eq!(1, 2) }).await;
        }
        let out = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "essential::tests::a_panic_ends_the_process_and_is_told", "--nocapture"])
            .env(ENDS, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(EXIT_STATUS), "{said}");
        assert!(said.contains("the task that panics has panicked"), "{said}");
    }
}
