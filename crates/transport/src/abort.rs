//! Aborts many connections at once.
//!
//! Invariant: a waiting connection checks an atomic at every poll and takes no lock that other connections take. A
//! [`CancellationToken`] alone would take two locks at every poll of every connection.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Waker},
};
use tokio_util::sync::CancellationToken;

/// See the module. Clones share their state.
#[derive(Debug, Clone, Default)]
pub struct Abort(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    triggered: AtomicBool,
    parent: Option<Abort>,
    token: CancellationToken,
}

impl Abort {
    /// An `Abort` that is triggered by itself or together with this one.
    pub fn child(&self) -> Self {
        let token = self.token().child_token();
        Self(Arc::new(Inner { triggered: AtomicBool::new(false), parent: Some(self.clone()), token }))
    }

    pub fn trigger(&self) {
        self.0.triggered.store(true, Ordering::Release);
        self.0.token.cancel();
    }

    /// Whether the two are clones.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// For waits that are polled rarely.
    pub fn token(&self) -> &CancellationToken {
        &self.0.token
    }

    fn is_triggered(&self) -> bool {
        self.0.triggered.load(Ordering::Acquire) || self.0.parent.as_ref().is_some_and(Self::is_triggered)
    }

    /// Ready once it is triggered.
    pub async fn triggered(&self) {
        let mut cancelled = pin!(self.0.token.cancelled());
        let mut waker: Option<Waker> = None;
        poll_fn(|cx| {
            if self.is_triggered() {
                return Poll::Ready(());
            }
            // A task that has left its waker is woken and need not poll the token again.
            if waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                return Poll::Pending;
            }
            waker = Some(cx.waker().clone());
            cancelled.as_mut().poll(cx)
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{task::Context, time::Duration};
    use tokio::time::timeout;

    /// The longest wait for a wake-up.
    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn all_waiting_tasks_are_woken_by_the_abort_or_its_parent() {
        for by_parent in [false, true] {
            let parent = Abort::default();
            let (abort, other) = (parent.child(), parent.child());
            let waiting: Vec<_> = (0..10)
                .map(|_| {
                    let abort = abort.clone();
                    tokio::spawn(async move { abort.triggered().await })
                })
                .collect();
            tokio::task::yield_now().await;
            if by_parent { &parent } else { &abort }.trigger();
            for one in waiting {
                timeout(SOON, one).await.unwrap().unwrap();
            }
            timeout(SOON, abort.triggered()).await.unwrap();
            assert_eq!((other.is_triggered(), other.token().is_cancelled()), (by_parent, by_parent));
        }
    }

    #[tokio::test]
    async fn a_wait_that_moves_to_another_task_is_woken_there() {
        let abort = Abort::default();
        let waits = abort.clone();
        let mut made = Box::pin(async move { waits.triggered().await });
        assert!(made.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let there = tokio::spawn(made);
        tokio::task::yield_now().await;
        abort.trigger();
        timeout(SOON, there).await.unwrap().unwrap();
    }
}
