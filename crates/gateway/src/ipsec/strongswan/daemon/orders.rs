//! Orders to the task of a tunnel's charon, and their answers.

use std::time::Duration;

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::ipsec::strongswan::conf::CharonConfig;
use wicketgate_model::{ResetMode, ResetScope};

/// Waiting orders: one, or one and the order to stop.
const ORDERS: usize = 4;

/// From an order to its answer, including a start of charon. An order may be carried out after its sender gave up.
const ORDER_TIMEOUT: Duration = Duration::from_secs(15);

/// For the outcome of a reset, which the task reports earlier.
const RESET_TIMEOUT: Duration = Duration::from_secs(50);

/// For the answer to a check.
const ASKED_WITHIN: Duration = Duration::from_secs(1);

/// A handle of the running task. Dropping it ends the task, and leaves charon running.
#[derive(Debug)]
pub(in crate::ipsec::strongswan) struct Daemon {
    orders: mpsc::Sender<Order>,
}

/// Where the answer to an order goes.
pub(super) type Done = oneshot::Sender<Result<(), String>>;

/// Where the outcome of a reset goes: what was seen, or why it failed.
pub(super) type ResetDone = oneshot::Sender<Result<String, String>>;

#[derive(Debug)]
pub(super) enum Order {
    Configure(CharonConfig, Done),
    /// To read the SAs now.
    Look(Done),
    Reset(ResetScope, ResetMode, ResetDone),
    Stop(Done),
}

impl Daemon {
    /// A handle, and what its task receives.
    pub(super) fn new() -> (Self, mpsc::Receiver<Order>) {
        let (orders, receive) = mpsc::channel(ORDERS);
        (Self { orders }, receive)
    }

    /// Configures charon as `wanted`, and waits for the result.
    pub(in crate::ipsec::strongswan) async fn configure(&self, wanted: CharonConfig) -> Result<(), String> {
        let configured = self.order(ORDER_TIMEOUT, |done| Order::Configure(wanted, done)).await;
        configured.unwrap_or_else(|| Err("the IKE daemon's task has ended".to_owned()))
    }

    /// Has charon asked for its SAs now, and the connection updated.
    ///
    /// # Errors
    /// It does not answer within a second.
    pub(in crate::ipsec::strongswan) async fn ask(&self) -> Result<(), String> {
        let asked = self.order(ASKED_WITHIN, Order::Look).await;
        asked.unwrap_or_else(|| Err("the IKE daemon's task has ended".to_owned()))
    }

    /// Rekeys or restarts SAs, and waits for what is seen of that.
    pub(in crate::ipsec::strongswan) async fn reset(
        &self,
        scope: ResetScope,
        mode: ResetMode,
    ) -> Result<String, String> {
        let (done, outcome) = oneshot::channel();
        let reset = async {
            self.orders.send(Order::Reset(scope, mode, done)).await.ok()?;
            outcome.await.ok()
        };
        let in_time = timeout(RESET_TIMEOUT, reset).await;
        let late = || Some(Err(format!("the gateway's IKE daemon has not answered for {RESET_TIMEOUT:?}")));
        in_time
            .unwrap_or_else(|_| late())
            .unwrap_or_else(|| Err("the IKE daemon's task has ended".to_owned()))
    }

    /// Ends charon and the task. A task that has ended counts as stopped: an earlier caller gave up waiting.
    /// [`CharonHome::stop`] ends its charon if it still runs.
    pub(in crate::ipsec::strongswan) async fn stop(&self) -> Result<(), String> {
        self.order(ORDER_TIMEOUT, Order::Stop).await.unwrap_or(Ok(()))
    }

    /// Whether the task has ended.
    pub(in crate::ipsec::strongswan) fn has_ended(&self) -> bool {
        self.orders.is_closed()
    }

    /// The answer to an order; `None` if the task has ended.
    async fn order(&self, within: Duration, order: impl FnOnce(Done) -> Order) -> Option<Result<(), String>> {
        let (done, answer) = oneshot::channel();
        let ordered = async {
            self.orders.send(order(done)).await.ok()?;
            answer.await.ok()
        };
        let in_time = timeout(within, ordered).await;
        in_time.unwrap_or_else(|_| {
            Some(Err(format!("the gateway's IKE daemon has not answered for {within:?}")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_has_ended_is_stopped_and_takes_no_configuration() {
        let (daemon, mut receive) = Daemon::new();
        // The task receives the order after the caller gave up, and ends.
        let gave_up = timeout(Duration::ZERO, daemon.stop()).await;
        assert!(gave_up.is_err() && !daemon.has_ended());
        assert!(matches!(receive.try_recv(), Ok(Order::Stop(_))));
        drop(receive);
        assert!(daemon.has_ended());
        assert_eq!(daemon.stop().await, Ok(()));
        assert!(daemon.order(ORDER_TIMEOUT, Order::Stop).await.is_none());
    }
}
