//! When to try again. Each failure in a row doubles the pause.

use std::time::Duration;

use tokio::time::Instant;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Retry(Option<(Instant, Duration)>);

impl Retry {
    const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(15);

    pub(super) fn failed(&mut self) {
        let pause = self.0.map_or(Self::FIRST, |(_, last)| (last * 2).min(Self::LONGEST));
        self.0 = Some((Instant::now() + pause, pause));
    }

    pub(super) fn worked(&mut self) {
        self.0 = None;
    }

    pub(super) fn at(&self) -> Option<Instant> {
        self.0.map(|(at, _)| at)
    }
}
