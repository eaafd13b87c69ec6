//! Background tasks and their last runs.
//!
//! A background task is activated at its start, periodically and by a signal. An activation takes no input: it reads
//! what is, brings it closer to what should be, and may be repeated or cut at any point without harm. The
//! [`Activator`] bounds each activation, logs the first failure and the recovery, and records every result.

use std::{
    collections::BTreeMap,
    future,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use jiff::Timestamp;
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use wicketgate_store::Store;
use wicketgate_system::{Mutex, Outage};

use crate::metric::registered;

/// See the module.
pub trait BackgroundTask: Send + 'static {
    /// As metrics and `/readyz?verbose` name it.
    const NAME: &'static str;
    /// From the end of an activation to the next one without a signal.
    const PERIOD: Duration;
    /// The bound of an activation: longer than any takes that does not hang.
    const WITHIN: Duration;

    /// Waits for an event that needs an activation. Cancel-safe.
    fn signal(&self) -> impl Future<Output = ()> + Send {
        future::pending()
    }

    fn activate(&mut self, now: Timestamp) -> impl Future<Output = anyhow::Result<Outcome>> + Send;
}

/// A task of the whole database, which one server carries out for all: the one that has started first. When it is not there any more, the
/// next one goes on. Two may do so for a moment, which a background task bears.
#[derive(Debug)]
pub(crate) struct OfEldest<T> {
    pub(crate) store: Store,
    pub(crate) task: T,
}

impl<T: BackgroundTask> BackgroundTask for OfEldest<T> {
    const NAME: &'static str = T::NAME;
    const PERIOD: Duration = T::PERIOD;
    const WITHIN: Duration = T::WITHIN;

    fn signal(&self) -> impl Future<Output = ()> + Send {
        self.task.signal()
    }

    async fn activate(&mut self, now: Timestamp) -> anyhow::Result<Outcome> {
        if self.store.is_eldest() { self.task.activate(now).await } else { Ok(Outcome::Done) }
    }
}

/// What an activation has left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// There is more than one activation does: the next one follows at once.
    More,
}

/// The last activation of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastRun {
    /// When it began.
    pub at: Timestamp,
    pub took: Duration,
    /// Why it failed, if it did. For the log only: it may contain internals.
    pub error: Option<String>,
}

/// The last run of every background task, by the task's name. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BackgroundTasks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    last_runs: Mutex<BTreeMap<&'static str, LastRun>>,
    runs: Family<[(&'static str, &'static str); 1], Counter>,
    failures: Family<[(&'static str, &'static str); 1], Counter>,
    last_at: Family<[(&'static str, &'static str); 1], Gauge>,
    last_took: Family<[(&'static str, &'static str); 1], Gauge<f64, AtomicU64>>,
}

impl BackgroundTasks {
    pub fn new(registry: &mut Registry) -> Self {
        let shown = registry.sub_registry_with_prefix("wicketgate_background_task");
        Self(Arc::new(Inner {
            last_runs: Mutex::default(),
            runs: registered(shown, "runs", "Activations of background tasks"),
            failures: registered(shown, "failures", "Activations that failed"),
            last_at: registered(
                shown,
                "last_run_timestamp_seconds",
                "When the task was last activated, Unix time",
            ),
            last_took: registered(shown, "last_run_duration_seconds", "How long the last activation took"),
        }))
    }

    /// The end of an activation of `task`.
    pub fn record(&self, task: &'static str, run: LastRun) {
        let label = [("task", task)];
        self.0.runs.get_or_create(&label).inc();
        let failures = self.0.failures.get_or_create(&label);
        if run.error.is_some() {
            failures.inc();
        }
        drop(failures);
        self.0.last_at.get_or_create(&label).set(run.at.as_second());
        self.0.last_took.get_or_create(&label).set(run.took.as_secs_f64());
        self.0.last_runs.lock().insert(task, run);
    }

    /// By name.
    pub(crate) fn last_runs(&self) -> BTreeMap<&'static str, LastRun> {
        self.0.last_runs.lock().clone()
    }

    pub(crate) fn last_run(&self, task: &str) -> Option<LastRun> {
        self.0.last_runs.lock().get(task).cloned()
    }
}

/// Runs one task until `stop`.
#[derive(Debug, Clone)]
pub(crate) struct Activator {
    pub(crate) tasks: BackgroundTasks,
    pub(crate) stop: CancellationToken,
}

impl Activator {
    /// The last activation is not cut by `stop`; it has its bound.
    pub(crate) async fn run<T: BackgroundTask>(self, mut task: T) {
        let mut outage = Outage::default();
        while !self.stop.is_cancelled() {
            let (at, begin) = (Timestamp::now(), Instant::now());
            let run = timeout(T::WITHIN, task.activate(at)).await;
            let result = run.unwrap_or_else(|_| Err(anyhow::anyhow!("it took longer than {:?}", T::WITHIN)));
            let error = result.as_ref().err().map(|error| format!("{error:#}"));
            match &error {
                Some(error) if outage.failed() => {
                    warn!(task = T::NAME, error, "background task failed; it is retried");
                }
                None if outage.recovered() => info!(task = T::NAME, "background task works again"),
                Some(_) | None => {}
            }
            self.tasks.record(T::NAME, LastRun { at, took: begin.elapsed(), error });
            if matches!(result, Ok(Outcome::More)) {
                continue;
            }
            tokio::select! {
                () = task.signal() => {}
                () = tokio::time::sleep(T::PERIOD) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use tokio::sync::{Notify, mpsc};

    /// Reports each activation, and ends it with the outcome that the test sends.
    struct Probe {
        activated: mpsc::UnboundedSender<Instant>,
        outcomes: mpsc::UnboundedReceiver<Option<anyhow::Result<Outcome>>>,
        wake: Arc<Notify>,
    }

    impl BackgroundTask for Probe {
        const NAME: &'static str = "probe";
        const PERIOD: Duration = Duration::from_secs(60);
        const WITHIN: Duration = Duration::from_secs(5);

        async fn signal(&self) {
            self.wake.notified().await;
        }

        async fn activate(&mut self, _now: Timestamp) -> anyhow::Result<Outcome> {
            self.activated.send(Instant::now()).unwrap();
            match self.outcomes.recv().await.unwrap() {
                Some(outcome) => outcome,
                None => future::pending().await,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_runs_at_once_by_time_and_by_signal() {
        let mut registry = Registry::default();
        let (tasks, stop) = (BackgroundTasks::new(&mut registry), CancellationToken::new());
        let (activated, mut activations) = mpsc::unbounded_channel();
        let (outcomes, ends) = mpsc::unbounded_channel();
        let wake = Arc::new(Notify::new());
        let probe = Probe { activated, outcomes: ends, wake: Arc::clone(&wake) };
        let begin = Instant::now();
        let activator = Activator { tasks: tasks.clone(), stop: stop.clone() };
        let running = tokio::spawn(activator.run(probe));
        let mut after = async || activations.recv().await.unwrap().duration_since(begin).as_secs();

        assert_eq!(after().await, 0);
        outcomes.send(Some(Ok(Outcome::More))).unwrap();
        assert_eq!(after().await, 0, "what is left is done at once");
        outcomes.send(Some(Err(anyhow::anyhow!("no database")))).unwrap();
        assert_eq!(after().await, 60);
        assert_eq!(tasks.last_run("probe").unwrap().error.unwrap(), "no database");
        outcomes.send(Some(Ok(Outcome::Done))).unwrap();
        wake.notify_one();
        assert_eq!(after().await, 60, "a signal shortens the period");
        assert_eq!(tasks.last_run("probe").unwrap().error, None);
        outcomes.send(None).unwrap();
        assert_eq!(after().await, 60 + 5 + 60, "a task that hangs is cut");
        assert!(tasks.last_run("probe").unwrap().error.unwrap().contains("longer than 5s"));

        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "wicketgate_background_task_runs_total{task=\"probe\"} 4",
            "wicketgate_background_task_failures_total{task=\"probe\"} 2",
            "wicketgate_background_task_last_run_duration_seconds{task=\"probe\"} 5.0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        outcomes.send(Some(Ok(Outcome::Done))).unwrap();
        stop.cancel();
        running.await.unwrap();
    }
}
