//! A runtime with threads of its own, for a part of a program whose work must not delay the rest's.

use std::io;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::context::RuntimeExt as _;

/// Of this process.
static RUNNING: Mutex<Vec<Handle>> = Mutex::new(Vec::new());

/// See the module. Dropped, it ends at once, without waiting for its tasks.
#[derive(Debug)]
pub struct SecondRuntime(Option<Runtime>);

impl SecondRuntime {
    /// `name` is that of its threads.
    ///
    /// # Errors
    ///
    /// The system has no descriptors left. The runtime panics if it has no threads.
    pub fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().enable_all().thread_name(name).build()?;
        RUNNING.lock().push(runtime.handle().clone());
        Ok(Self(Some(runtime)))
    }

    /// Has what a future spawns and opens run there. The future itself stays where it is awaited.
    pub async fn carry<T>(&self, future: impl Future<Output = T>) -> T {
        match &self.0 {
            Some(runtime) => runtime.wrap(future).await,
            None => future.await,
        }
    }
}

impl Drop for SecondRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Waits until each runtime of this kind has executed a task.
pub(crate) async fn all_execute() {
    let running = RUNNING.lock().clone();
    for (number, runtime) in running.iter().enumerate().rev() {
        if runtime.spawn(async {}).await.is_err() {
            // It has ended. Others are added behind it only.
            RUNNING.lock().remove(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::mpsc, thread, time::Duration};
    use tokio::time::timeout;

    const BOUND: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn what_is_spawned_runs_on_its_threads_and_a_runtime_that_hangs_is_noticed() {
        let second = SecondRuntime::start("second").unwrap();
        let own_name = async { thread::current().name().map(str::to_owned) };
        let name = second.carry(async { tokio::spawn(own_name).await.unwrap() }).await;
        assert_eq!(name.as_deref(), Some("second"));
        timeout(BOUND, all_execute()).await.unwrap();

        let processors = thread::available_parallelism().unwrap().get();
        let ends: Vec<_> = (0..processors).map(|_| mpsc::channel::<()>()).collect();
        let (ends, waits): (Vec<_>, Vec<_>) = ends.into_iter().unzip();
        let (tell, begun) = mpsc::channel();
        for wait in waits {
            let tell = tell.clone();
            let hangs = async move { tell.send(()).map(|()| wait.recv()) };
            second.carry(async { drop(tokio::spawn(hangs)) }).await;
        }
        ends.iter().for_each(|_| begun.recv_timeout(BOUND).unwrap());
        assert!(timeout(Duration::from_millis(100), all_execute()).await.is_err(), "all its threads hang");
        drop(ends);
        timeout(BOUND, all_execute()).await.unwrap();
        drop(second);
        timeout(BOUND, all_execute()).await.unwrap();
        assert!(RUNNING.lock().is_empty());
    }
}
