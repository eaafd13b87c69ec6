//! Daemons are replaced few at a time: what makes one hang or end, such as a host without memory, often affects all of them,
//! and hundreds that start at once would all be late.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::sleep,
};
use wicketgate_vici::Error;

use super::{
    Task,
    orders::{Done, Order},
};

const REPLACED_SOON: &str = "the gateway's IKE daemon does not answer, and is replaced soon";

/// What ends the wait for a daemon that hangs.
enum First<T> {
    Answer(Result<T, Error>),
    /// To be replaced; without a permit if no daemon is replaced any more.
    Turn(Option<OwnedSemaphorePermit>),
    Stop(Done),
}

/// Waits for the answer, for the turn to be replaced, or for an order to stop. Other orders are answered with the reason.
/// `held` is a turn that the daemon has already: a second one might never come.
async fn first<T>(
    answer: impl Future<Output = Result<T, Error>>,
    held: Option<OwnedSemaphorePermit>,
    replacements: &Arc<Semaphore>,
    orders: &mut mpsc::Receiver<Order>,
) -> First<T> {
    if held.is_some() {
        return First::Turn(held);
    }
    let (mut answer, mut turn) = (pin!(answer), pin!(Arc::clone(replacements).acquire_owned()));
    loop {
        let order = tokio::select! {
            biased;
            answer = &mut answer => return First::Answer(answer),
            turn = &mut turn => return First::Turn(turn.ok()),
            Some(order) = orders.recv() => order,
        };
        match order {
            Order::Stop(done) => return First::Stop(done),
            // Not kept: an answer may still come, and the daemon would not have this configuration.
            Order::Configure(_, done) | Order::Look(done) => {
                let _ = done.send(Err(REPLACED_SOON.to_owned()));
            }
            Order::Reset(.., done) => {
                let _ = done.send(Err(REPLACED_SOON.to_owned()));
            }
        }
    }
}

impl Task {
    /// Few daemons are replaced at a time: waits for this one's turn, or the answer.
    ///
    /// # Errors
    /// [`Error::Timeout`]: it is its turn, or the task is ordered to stop.
    pub(super) async fn turn_or<T>(
        &mut self,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match first(answer, self.turn.take(), &self.replacements, &mut self.orders).await {
            First::Answer(answer) => return answer,
            First::Turn(turn) => self.turn = turn,
            First::Stop(done) => self.stopping = Some(done),
        }
        Err(Error::Timeout("a sign of life".to_owned()))
    }

    /// Waits for this time and for the turn to start another daemon. Orders in the meantime are answered with the reason.
    /// Returns whether to go on.
    pub(super) async fn pause(&mut self, pause: Duration, why: &str) -> bool {
        if let Some(done) = self.stopping.take() {
            self.stop(done).await;
            return false;
        }
        let (replacements, turn) = (Arc::clone(&self.replacements), self.turn.take());
        let mut next = pin!(async move {
            sleep(pause).await;
            match turn {
                Some(turn) => Some(turn),
                None => replacements.acquire_owned().await.ok(),
            }
        });
        loop {
            let order = tokio::select! {
                turn = &mut next => {
                    self.turn = turn;
                    return true;
                }
                order = self.orders.recv() => order,
            };
            match order {
                None => return false,
                Some(Order::Stop(done)) => {
                    self.stop(done).await;
                    return false;
                }
                Some(Order::Configure(wanted, done)) => {
                    self.wanted = Some(wanted);
                    let _ = done.send(Err(why.to_owned()));
                }
                Some(Order::Look(done)) => {
                    let _ = done.send(Err(why.to_owned()));
                }
                Some(Order::Reset(.., done)) => {
                    let _ = done.send(Err(why.to_owned()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::{sync::oneshot, time::timeout};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_daemon_that_hangs_waits_for_one_turn_at_most_and_ends_when_ordered_meanwhile() {
        let replacements = Arc::new(Semaphore::new(1));
        let (send, mut orders) = mpsc::channel(4);
        let hangs = pending::<Result<(), Error>>;
        let First::Turn(held @ Some(_)) = first(hangs(), None, &replacements, &mut orders).await else {
            panic!("a turn is free")
        };
        // Its next daemon hangs, too, and no other turn is free.
        let again = timeout(PATIENCE, first(hangs(), held, &replacements, &mut orders)).await.unwrap();
        let First::Turn(_held @ Some(_)) = again else { panic!("it has its turn") };
        let answered = first(async { Ok(1) }, None, &replacements, &mut orders).await;
        assert!(matches!(answered, First::Answer(Ok(1))));
        let ((look, looked), (stop, _stopped)) = (oneshot::channel(), oneshot::channel());
        for order in [Order::Look(look), Order::Stop(stop)] {
            send.send(order).await.unwrap();
        }
        let stopped = timeout(PATIENCE, first(hangs(), None, &replacements, &mut orders)).await.unwrap();
        assert!(matches!(stopped, First::Stop(_)));
        assert!(looked.await.unwrap().is_err());
    }
}
