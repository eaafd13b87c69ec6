//! Requests that wait for their answers.
//!
//! Invariant: a request is removed when its answer arrives, when its time is over or when its caller is dropped. There
//! are never more entries than callers.

use serde::{Deserialize, Serialize};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::timeout};
use uuid::Uuid;
use wicketgate_system::{Mutex, MutexGuard};

/// Identifies a request among those of one kind that an end has sent over a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RequestId(u64);

/// Requests of one kind whose answers are an `A`. Cheap to clone.
#[derive(Debug)]
pub struct Pending<A>(Arc<Mutex<Waiting<A>>>);

#[derive(Debug)]
struct Waiting<A> {
    callers: HashMap<RequestId, oneshot::Sender<A>>,
    most: usize,
    next: u64,
}

/// One request's place in [`Pending`]. When it is dropped, the request is removed and a late answer is ignored.
#[derive(Debug)]
pub struct Call<A> {
    id: RequestId,
    answer: oneshot::Receiver<A>,
    pending: Pending<A>,
}

impl<A> Pending<A> {
    /// At most `most` requests wait at one time.
    pub fn new(most: usize) -> Self {
        // At random: an answer that was under way on another link answers nothing here.
        let (_, random) = Uuid::now_v7().as_u64_pair();
        Self(Arc::new(Mutex::new(Waiting { callers: HashMap::new(), most, next: random >> 12 })))
    }

    /// Takes a place for a request that is about to be sent; `None` if all are taken.
    pub fn call(&self) -> Option<Call<A>> {
        let mut waiting = self.lock();
        if waiting.callers.len() >= waiting.most {
            return None;
        }
        waiting.next += 1;
        let id = RequestId(waiting.next);
        let (reply, answer) = oneshot::channel();
        waiting.callers.insert(id, reply);
        Some(Call { id, answer, pending: self.clone() })
    }

    /// Hands an answer to its caller. An answer without a waiting caller is dropped.
    pub fn answer(&self, id: RequestId, answer: A) {
        let caller = self.lock().callers.remove(&id);
        if let Some(caller) = caller {
            let _ = caller.send(answer);
        }
    }

    /// Ends all requests without an answer: the link has ended.
    pub fn abandon(&self) {
        self.lock().callers.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<A>> {
        self.0.lock()
    }
}

impl<A> Clone for Pending<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A> Call<A> {
    /// The id that the request carries, and its answer.
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// `None`: there is no answer in time, or the link has ended.
    pub async fn answer(mut self, within: Duration) -> Option<A> {
        timeout(within, &mut self.answer).await.ok()?.ok()
    }
}

impl<A> Drop for Call<A> {
    fn drop(&mut self) {
        self.pending.lock().callers.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest wait for an answer.
    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn each_answer_reaches_its_own_caller() {
        let pending = Pending::new(2);
        let (first, second) = (pending.call().unwrap(), pending.call().unwrap());
        assert!(pending.call().is_none(), "both places are taken");
        pending.answer(second.id(), "second");
        pending.answer(first.id(), "first");
        assert_eq!(first.answer(SOON).await, Some("first"));
        assert_eq!(second.answer(SOON).await, Some("second"));
        assert!(pending.lock().callers.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_an_answer_frees_its_place() {
        let pending = Pending::new(1);
        let late = pending.call().unwrap();
        let id = late.id();
        assert_eq!(late.answer(SOON).await, None);
        pending.answer(id, 1);
        drop(pending.call().unwrap());
        let call = pending.call().unwrap();
        assert_ne!(call.id(), id, "an id is never used twice");
        pending.abandon();
        assert_eq!(call.answer(SOON * 1000).await, None);
    }
}
