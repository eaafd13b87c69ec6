//! Daemons are replaced few at a time: what makes one hang or end, such as a host without memory, often affects all of them,
//! and hundreds that start at once would all be late.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::time::sleep;
use wicketgate_vici::Error;

use super::{Task, orders::Order};

impl Task {
    /// Few daemons are replaced at a time: waits for this one's turn, or the answer.
    pub(super) async fn turn_or<T>(
        &mut self,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            answer = answer => answer,
            turn = Arc::clone(&self.replacements).acquire_owned() => {
                self.turn = turn.ok();
                Err(Error::Timeout("a sign of life".to_owned()))
            }
        }
    }

    /// Waits for this time and for the turn to start another daemon. Orders in the meantime are answered with the reason.
    /// Returns whether to go on.
    pub(super) async fn pause(&mut self, pause: Duration, why: &str) -> bool {
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
            }
        }
    }
}
