//! Futures that compute for long when they are polled, such as TLS handshakes.
//!
//! A runtime polls what is ready in the order in which it became ready, so a hundred of them that are ready together would delay
//! every other task by their sum. In turn, one goes to the end of the runtime's queue before it computes, and the others wait
//! beside that queue, in the order in which they came.
//!
//! Invariant: a turn is late by [`LATEST`] at most, whatever others do who have turns.

use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::{Poll, ready},
    thread::available_parallelism,
    time::Duration,
};

use tokio::{sync::Semaphore, time::sleep};
use tokio_util::sync::PollSemaphore;

/// How long a turn is waited for, when those who have turns are kept waiting themselves, or are very many.
const LATEST: Duration = Duration::from_millis(50);

/// Turns that futures of one kind share.
#[derive(Debug, Clone)]
pub struct TurnsToCompute(PollSemaphore);

impl TurnsToCompute {
    /// For half of the processors.
    pub fn for_half() -> Self {
        let processors = available_parallelism().map_or(1, usize::from);
        Self::new((processors / 2).max(1))
    }

    fn new(at_once: usize) -> Self {
        Self(PollSemaphore::new(Arc::new(Semaphore::new(at_once))))
    }

    /// Runs a future to its end. It holds a turn only while it is polled, so that one that waits for its client delays no other.
    /// The first poll is made without a turn: a connection that was just accepted has no bytes to compute with.
    pub async fn of<T>(&self, future: impl Future<Output = T>) -> T {
        let (mut turns, mut future, mut needs_turn) = (self.0.clone(), pin!(future), false);
        let (mut turn, mut latest) = (None, None);
        poll_fn(|context| {
            if needs_turn && turn.is_none() {
                match turns.poll_acquire(context) {
                    Poll::Ready(granted) => {
                        (turn, latest) = (granted, None);
                        // A task that is woken while it runs goes to the end of the queue.
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Poll::Pending => {
                        let latest = latest.get_or_insert_with(|| Box::pin(sleep(LATEST)));
                        ready!(latest.as_mut().poll(context));
                    }
                }
            }
            let polled = future.as_mut().poll(context);
            (turn, latest, needs_turn) = (None, None, true);
            polled
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::{sync::oneshot, task::yield_now, time::Instant};

    /// Is polled four times, and counts all but the first.
    async fn computes(polls: Arc<AtomicUsize>) {
        let mut left = 4;
        poll_fn(|context| {
            polls.fetch_add(usize::from(left < 4), Ordering::Relaxed);
            left -= 1;
            if left == 0 {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Tokio's own also waits for the driver, which is asked after some dozens of polls.
    async fn to_the_end_of_the_queue() {
        let mut was_polled = false;
        poll_fn(|context| {
            if std::mem::replace(&mut was_polled, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    // The time stands still, so that no turn is late.
    #[tokio::test(start_paused = true)]
    async fn other_tasks_run_between_any_two_turns() {
        const ALL: usize = 50;
        let (turns, polls) = (TurnsToCompute::new(1), Arc::new(AtomicUsize::new(0)));
        for _ in 0..ALL {
            let (turns, computes) = (turns.clone(), computes(Arc::clone(&polls)));
            tokio::spawn(async move { turns.of(computes).await });
        }
        // A task as they are: the test itself is not in the queue.
        let seen = tokio::spawn(async move {
            let (mut before, mut most) = (0, 0);
            while before < 3 * ALL {
                to_the_end_of_the_queue().await;
                let now = polls.load(Ordering::Relaxed);
                most = most.max(now - before);
                before = now;
            }
            most
        });
        assert_eq!(seen.await.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_waits_for_its_client_has_no_turn_and_a_turn_that_is_never_given_back_is_not_waited_for()
    {
        let turns = TurnsToCompute::new(1);
        let (send, receive) = oneshot::channel();
        let waiting = tokio::spawn({
            let turns = turns.clone();
            async move { turns.of(receive).await }
        });
        let begin = Instant::now();
        turns.of(yield_now()).await;
        assert_eq!(begin.elapsed(), Duration::ZERO);

        let _taken = turns.0.clone_inner().acquire_owned().await.unwrap();
        turns.of(yield_now()).await;
        assert!((LATEST..2 * LATEST).contains(&begin.elapsed()));
        send.send(7).unwrap();
        assert_eq!(waiting.await.unwrap(), Ok(7));
    }
}
