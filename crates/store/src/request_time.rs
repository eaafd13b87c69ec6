//! How long a request may wait for the database, all its statements together: each has a bound of its own, and a slow database would
//! make their sum many times as long.
//!
//! Invariant: what a request asks for after that is refused at once, and changes nothing. What belongs to no request, such as the writer's transactions and background tasks, has the bounds of its
//! statements alone.

use std::{sync::Arc, time::Duration};
use tokio::{
    task_local,
    time::{Instant, timeout, timeout_at},
};
use wicketgate_system::Mutex;

/// Longer than any one wait, so that a single one is told as what it is, and shorter than the 5 s in which a client is answered.
const WHOLE: Duration = Duration::from_millis(4700);

/// For what a request reads in one step. A host that is gone does not answer.
pub(crate) const READ: Duration = Duration::from_millis(4500);

task_local! {
    static OWN: RequestTime;
}

/// What is left of a request's time. Clones share it.
#[derive(Debug, Clone)]
pub struct RequestTime {
    left: Arc<Mutex<Duration>>,
}

impl Default for RequestTime {
    fn default() -> Self {
        Self { left: Arc::new(Mutex::new(WHOLE)) }
    }
}

impl RequestTime {
    /// Of the request that this task works for. A task that is spawned for it goes on with it by [`Self::bound`].
    pub fn of_task() -> Self {
        OWN.try_with(Self::clone).unwrap_or_default()
    }

    /// Runs a request, or a part of it, within this time.
    pub async fn bound<T>(self, request: impl Future<Output = T>) -> T {
        OWN.scope(self, request).await
    }
}

/// Waits for the database, at most for this time and for what is left of the request's. `None`: it has not answered.
pub(crate) async fn waited<T>(most: Duration, answer: impl Future<Output = T>) -> Option<T> {
    let Ok(time) = OWN.try_with(RequestTime::clone) else { return timeout(most, answer).await.ok() };
    let begin = Instant::now();
    let left = *time.left.lock();
    let answered = timeout_at(begin + left.min(most), answer).await.ok();
    // Also by several waits at the same time: each takes its own.
    let mut left = time.left.lock();
    *left = left.saturating_sub(begin.elapsed());
    answered
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_waits_of_a_request_share_its_time() {
        let request = async {
            assert_eq!(waited(4 * SECOND, sleep(3 * SECOND)).await, Some(()));
            // What is no wait for the database takes nothing.
            sleep(10 * SECOND).await;
            let begin = Instant::now();
            let spawned = RequestTime::of_task().bound(waited(4 * SECOND, sleep(3 * SECOND)));
            assert_eq!(tokio::spawn(spawned).await.unwrap(), None);
            assert_eq!(begin.elapsed(), Duration::from_millis(1700));
            assert_eq!(waited(SECOND, sleep(SECOND)).await, None);
        };
        RequestTime::default().bound(request).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_belongs_to_no_request_has_the_bound_of_each_wait() {
        for _ in 0..4 {
            assert_eq!(waited(4 * SECOND, sleep(3 * SECOND)).await, Some(()));
        }
        assert_eq!(waited(4 * SECOND, sleep(5 * SECOND)).await, None);
    }
}
