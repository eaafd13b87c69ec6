//! Threads for what computes for long and can wait, such as the public-key operations of TLS handshakes: the system lets them run
//! when the rest of the process has less to do than processors, and otherwise for a small share of the time.

use std::{
    io,
    num::NonZero,
    panic::{self, AssertUnwindSafe},
    sync::Arc,
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::warn;

/// The niceness: against a busy thread, one of these has a tenth of a processor (sched(7)).
const NICE: i32 = 10;

/// How long work waits for a thread.
const LATEST: Duration = Duration::from_millis(50);

type Work = Box<dyn FnOnce() + Send>;

/// See the module. The threads end when it is dropped.
#[derive(Debug, Clone)]
pub struct PatientThreads(mpsc::UnboundedSender<Work>);

impl PatientThreads {
    /// Half as many as processors, and one at least. `name` is that of each.
    ///
    /// # Errors
    ///
    /// The system starts no more threads.
    pub fn start(name: &'static str) -> io::Result<Self> {
        let (queue, work) = mpsc::unbounded_channel::<Work>();
        let work = Arc::new(Mutex::new(work));
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        for _ in 0..(processors / 2).max(1) {
            let work = Arc::clone(&work);
            thread::Builder::new().name(name.to_owned()).spawn(move || {
                // On Linux, the niceness is one thread's.
                if let Err(error) = rustix::process::setpriority_process(None, NICE) {
                    warn!(%error, thread = name, "a thread has the priority of the others");
                }
                loop {
                    let next = work.lock().blocking_recv();
                    let Some(next) = next else { return };
                    // Its caller notices a panic, and others are not concerned.
                    let _ = panic::catch_unwind(AssertUnwindSafe(next));
                }
            })?;
        }
        Ok(Self(queue))
    }

    /// Runs `work` there, after what was asked before. What has not begun after [`LATEST`] runs where it is awaited, so that neither a
    /// busy host nor a queue of others holds it up. Work of a caller that has gone is not begun. `None`: it panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (caller, mut made) = oneshot::channel();
        let waiting = Arc::new(Mutex::new(Some(work)));
        let taken = Arc::clone(&waiting);
        let unless_gone = move || {
            let work = taken.lock().take();
            if let Some(work) = work.filter(|_| !caller.is_closed()) {
                let _ = caller.send(work());
            }
        };
        self.0.send(Box::new(unless_gone)).ok()?;
        if let Ok(made) = timeout(LATEST, &mut made).await {
            return made.ok();
        }
        let left = waiting.lock().take();
        match left {
            Some(work) => Some(work()),
            None => made.await.ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    const BOUND: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn work_runs_at_a_lower_priority_and_threads_outlive_a_panic() {
        let threads = PatientThreads::start("patient").unwrap();
        let own = || {
            let name = thread::current().name().map(str::to_owned);
            (name, rustix::process::getpriority_process(None).unwrap())
        };
        // On a busy host, it may have run here.
        let there = async || {
            let expected = Some((Some("patient".to_owned()), NICE));
            while threads.run(own).await != expected {}
        };
        timeout(BOUND, there()).await.unwrap();
        assert_eq!(rustix::process::getpriority_process(None), Ok(0), "the others' is as it was");

        let panicked: Option<()> = timeout(BOUND, threads.run(|| panic!("the work panics"))).await.unwrap();
        assert_eq!(panicked, None);
        timeout(BOUND, there()).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn work_of_a_caller_that_has_gone_is_not_begun() {
        let threads = PatientThreads::start("patient").unwrap();
        let count = thread::available_parallelism().unwrap().get();
        // Each thread waits.
        let (begin, begun) = channel();
        let (ends, waits): (Vec<_>, Vec<_>) = (0..(count / 2).max(1)).map(|_| channel::<()>()).unzip();
        for wait in waits {
            let begin = begin.clone();
            let waits = move || {
                let _ = begin.send(());
                let _ = wait.recv();
            };
            threads.0.send(Box::new(waits)).unwrap();
        }
        ends.iter().for_each(|_| begun.recv_timeout(BOUND).unwrap());
        let (ran, is_run) = channel();
        let gone = timeout(Duration::from_millis(10), threads.run(move || ran.send(()))).await;
        assert!(gone.is_err());
        let own = timeout(BOUND, threads.run(|| thread::current().name().map(str::to_owned))).await.unwrap();
        assert_ne!(own.flatten().as_deref(), Some("patient"), "it did not wait for the threads");
        drop(ends);
        timeout(BOUND, threads.run(|| ())).await.unwrap().unwrap();
        assert!(is_run.try_recv().is_err(), "work of a caller that has gone ran");
    }
}
