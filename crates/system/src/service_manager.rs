//! What a program tells the service manager that started it (sd_notify(3)). Without one, nothing is sent.

use std::time::Duration;

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::second_runtime::all_execute;

/// The program serves. `status` is one line for `systemctl status`.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// What the program does now: one line for `systemctl status`.
pub fn status(status: &str) {
    notify(&[NotifyState::Status(status)]);
}

/// The program begins to stop.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// The stop may take this long, which is more than the service manager expects.
pub fn stop_takes(longest: Duration) {
    let microseconds = u32::try_from(longest.as_micros()).unwrap_or(u32::MAX);
    notify(&[NotifyState::ExtendTimeoutUsec(microseconds)]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be notified");
    }
}

/// Keeps a watchdog satisfied for as long as all runtimes execute tasks. Without a watchdog, it returns at once.
pub(crate) async fn satisfy_watchdog() {
    let Some(within) = sd_notify::watchdog_enabled() else { return };
    loop {
        all_execute().await;
        notify(&[NotifyState::Watchdog]);
        // A third: one may be late.
        tokio::time::sleep(within.max(Duration::from_millis(3)) / 3).await;
    }
}

/// SIGHUP: the configuration file is to be read again. A program without one is stopped by it, as when its terminal is closed.
#[derive(Debug)]
pub struct ReloadSignals(Option<Signal>);

impl ReloadSignals {
    /// From now on, a signal does not end the program and is remembered, if the program has a file.
    pub fn new(has_file: bool) -> anyhow::Result<Self> {
        let signals = has_file.then(|| signal(SignalKind::hangup()).context("cannot receive signals"));
        Ok(Self(signals.transpose()?))
    }

    pub fn are_expected(&self) -> bool {
        self.0.is_some()
    }

    /// Waits for the next one. The reload is over when what it returns is dropped. Cancel-safe.
    pub async fn next(&mut self) -> Reload {
        match &mut self.0 {
            Some(signals) => drop(signals.recv().await),
            None => std::future::pending().await,
        }
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            notify(&[NotifyState::Reloading, now]);
        }
        Reload(())
    }
}

/// A reload in progress.
#[derive(Debug)]
pub struct Reload(());

impl Drop for Reload {
    fn drop(&mut self) {
        notify(&[NotifyState::Ready]);
    }
}
