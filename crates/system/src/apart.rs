//! Work that computes for longer than other tasks can wait.

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::block_in_place,
};

/// Runs work that computes for a millisecond or more, while another thread goes on with the tasks of this one. In a runtime of
/// one thread, there is none to do so.
pub fn apart<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(work),
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::mpsc, time::Duration};

    const BOUND: Duration = Duration::from_secs(10);

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn other_tasks_of_the_thread_go_on() {
        let (send, receive) = mpsc::channel();
        // Started from a worker: the test itself has a thread of its own.
        let working = tokio::spawn(async move {
            tokio::spawn(async move { send.send(7) });
            apart(|| receive.recv_timeout(BOUND))
        });
        assert_eq!(working.await.unwrap(), Ok(7));
    }

    #[tokio::test]
    async fn a_runtime_of_one_thread_does_the_work_itself() {
        assert_eq!(apart(|| 7), 7);
    }
}
