//! The task that keeps one tunnel's charon running and configured, and reports what it sees.
//!
//! charon may die at any time: the task starts another one with the same configuration. The task may end at any
//! time: charon lives on, and the task of the next run adopts it. The task alone talks to its charon.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, info, warn};
use wicketgate_model::{ConnectionState, Problem, Reason};
use wicketgate_vici::{Client, Events, Message};

use super::{
    charon::{Charon, CharonHome},
    conf::{CharonConfig, initiate},
    connection_view::ConnectionView,
    fault::peer_refuses,
    initiation::Initiation,
};
use crate::ground::{NetworkError, TunnelReporter};

/// Byte counters grow without an event: while they do, they are looked at this often, and while they rest, more and more
/// rarely. A gateway may have hundreds of tunnels, and most of them rest.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const LOOK_RARELY: Duration = Duration::from_secs(30);

/// A burst of events is answered by one look.
const LOOK_AFTER: Duration = Duration::from_millis(50);

/// Before charon is started again after it died; doubles up to the second while it dies soon after its start.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LONGEST: Duration = Duration::from_secs(30);
const LIVED_LONG: Duration = Duration::from_secs(60);

/// Orders that wait: there is one, or one and the order to stop.
const ORDERS: usize = 4;

/// From an order to its answer, a start of charon included. An order that was given up may still be carried out.
const ORDER_TIMEOUT: Duration = Duration::from_secs(15);

/// A charon that was killed ends in milliseconds, unless the kernel holds it.
const EXIT_TIMEOUT: Duration = Duration::from_secs(3);

const EVENTS: [&str; 6] = ["ike-updown", "child-updown", "ike-rekey", "child-rekey", "ike-update", "log"];

/// The way to a running task. Dropping it ends the task, and leaves charon.
#[derive(Debug)]
pub(super) struct Daemon {
    orders: mpsc::Sender<Order>,
}

#[derive(Debug)]
enum Order {
    Configure(CharonConfig, oneshot::Sender<Result<(), String>>),
    Stop(oneshot::Sender<Result<(), String>>),
}

impl Daemon {
    /// Starts the task, and the task charon, or adopts it.
    pub(super) fn start(home: CharonHome, report: Arc<TunnelReporter>) -> Self {
        let (orders, receive) = mpsc::channel(ORDERS);
        let task = Task {
            home,
            report,
            orders: receive,
            wanted: None,
            view: ConnectionView::new(Timestamp::now()),
            was_up: false,
            initiation: Initiation::default(),
            proved: 0,
        };
        tokio::spawn(task.run());
        Self { orders }
    }

    /// Has charon configured as `wanted`, and waits for it.
    pub(super) async fn configure(&self, wanted: CharonConfig) -> Result<(), String> {
        let configured = self.order(|done| Order::Configure(wanted, done)).await;
        configured.unwrap_or_else(|| Err("the IKE daemon's task has ended".to_owned()))
    }

    /// Ends charon and the task. A task that has ended is stopped: it was told so before, by somebody who did not
    /// wait for long enough. Whether its charon has ended, too, is for [`CharonHome::stop`].
    pub(super) async fn stop(&self) -> Result<(), String> {
        self.order(Order::Stop).await.unwrap_or(Ok(()))
    }

    /// Whether nobody takes orders any more.
    pub(super) fn has_ended(&self) -> bool {
        self.orders.is_closed()
    }

    /// The answer to an order; `None` if the task has ended.
    async fn order(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<(), String>>) -> Order,
    ) -> Option<Result<(), String>> {
        let (done, answer) = oneshot::channel();
        let ordered = async {
            self.orders.send(order(done)).await.ok()?;
            answer.await.ok()
        };
        let in_time = timeout(ORDER_TIMEOUT, ordered).await;
        in_time.unwrap_or_else(|_| Some(Err("the IKE daemon did not do what it was told in time".to_owned())))
    }
}

struct Task {
    home: CharonHome,
    report: Arc<TunnelReporter>,
    orders: mpsc::Receiver<Order>,
    wanted: Option<CharonConfig>,
    view: ConnectionView,
    /// The peer was connected to a charon that died: the peer does not know yet.
    was_up: bool,
    initiation: Initiation,
    /// The place of the key that charon proves to the peer.
    proved: usize,
}

/// Why a charon is running no longer.
enum End {
    /// It was asked for, or there is nobody left to ask.
    Stopped,
    Died(String),
}

impl Task {
    async fn run(mut self) {
        let mut pause = PAUSE_FIRST;
        loop {
            let started = Instant::now();
            let End::Died(why) = self.serve().await else { return };
            warn!(dir = %self.home.dir.display(), why, "IKE daemon died");
            self.was_up |= self.view.connection().state == ConnectionState::Up;
            self.view.lost(Timestamp::now());
            self.publish();
            self.report.set_problem(Some(Problem::new(Reason::TunnelFailed, why.clone())));
            pause = if started.elapsed() > LIVED_LONG { PAUSE_FIRST } else { pause };
            if let End::Stopped = self.pause(pause, &why).await {
                return;
            }
            pause = (pause * 2).min(PAUSE_LONGEST);
        }
    }

    /// Waits before the next start; who asks for something meanwhile is told why there is no charon.
    async fn pause(&mut self, pause: Duration, why: &str) -> End {
        let due = Instant::now() + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(due) => return End::Died(why.to_owned()),
                order = self.orders.recv() => match order {
                    None => return End::Stopped,
                    Some(Order::Stop(done)) => {
                        let _ = done.send(self.home.stop().await.map_err(|e| e.to_string()));
                        return End::Stopped;
                    }
                    Some(Order::Configure(wanted, done)) => {
                        self.wanted = Some(wanted);
                        let _ = done.send(Err(why.to_owned()));
                    }
                },
            }
        }
    }

    async fn serve(&mut self) -> End {
        let mut charon = match self.bring_up().await {
            Ok(charon) => charon,
            Err(error) => return End::Died(error.to_string()),
        };
        let end = match self.talk(&mut charon).await {
            Ok(end) => end,
            Err(wicketgate_vici::Error::Closed) => End::Died("the IKE daemon ended".to_owned()),
            Err(error) => End::Died(error.to_string()),
        };
        if let End::Died(_) = end {
            // It may be alive and not answer.
            charon.stop().await;
        }
        end
    }

    async fn bring_up(&self) -> Result<Charon, NetworkError> {
        if let Some(charon) = self.home.adopt().await? {
            info!(dir = %self.home.dir.display(), "IKE daemon was adopted");
            return Ok(charon);
        }
        let started = Instant::now();
        let charon = self.home.start().await?;
        info!(dir = %self.home.dir.display(), elapsed_ms = started.elapsed().as_millis(), "IKE daemon started");
        Ok(charon)
    }

    /// Talks to a charon until one of the two ends.
    async fn talk(&mut self, charon: &mut Charon) -> Result<End, wicketgate_vici::Error> {
        let socket = charon.socket();
        let client = Client::connect(&socket).await?;
        let mut events = Events::subscribe(&socket, &EVENTS).await?;
        if let Some(wanted) = &self.wanted {
            wanted.load(&client).await?;
            self.proved = 0;
            self.report.set_problem(None);
            if std::mem::take(&mut self.was_up) {
                // The peer notices only by its own dead peer detection; being called it notices at once.
                initiate(&client).await?;
            }
        }
        // Before any order is answered: whoever was answered takes what is reported for what is.
        self.look(&client).await?;
        let mut look_at = Instant::now() + LOOK_EVERY;
        let mut pause = LOOK_EVERY;
        loop {
            let call_at = self.initiation.at();
            tokio::select! {
                () = charon.exited() => return Ok(End::Died("the IKE daemon ended".to_owned())),
                order = self.orders.recv() => match order {
                    None => return Ok(End::Stopped),
                    Some(Order::Stop(done)) => {
                        let _ = done.send(self.home.stop().await.map_err(|e| e.to_string()));
                        if timeout(EXIT_TIMEOUT, charon.exited()).await.is_err() {
                            warn!(dir = %self.home.dir.display(), "IKE daemon was killed and is still there");
                        }
                        return Ok(End::Stopped);
                    }
                    Some(Order::Configure(wanted, done)) => {
                        self.configure(&client, wanted, done).await?;
                        look_at = look_at.min(Instant::now() + LOOK_AFTER);
                    }
                },
                event = events.receive() => {
                    let (name, message) = event?;
                    if message.text("msg").is_some_and(peer_refuses) {
                        self.prove_another(&client).await?;
                    }
                    if self.take(&name, &message) {
                        look_at = look_at.min(Instant::now() + LOOK_AFTER);
                    }
                }
                () = sleep_until(look_at) => {
                    let is_still = !self.look(&client).await?;
                    pause = if is_still { (pause * 2).min(LOOK_RARELY) } else { LOOK_EVERY };
                    look_at = Instant::now() + pause;
                }
                () = at(call_at) => {
                    self.initiation.called();
                    debug!(dir = %self.home.dir.display(), "the peer is called");
                    initiate(&client).await?;
                    look_at = look_at.min(Instant::now() + LOOK_AFTER);
                }
            }
        }
    }

    async fn configure(
        &mut self,
        client: &Client,
        wanted: CharonConfig,
        done: oneshot::Sender<Result<(), String>>,
    ) -> Result<(), wicketgate_vici::Error> {
        if self.wanted.as_ref() == Some(&wanted) {
            let _ = done.send(Ok(()));
            return Ok(());
        }
        match wanted.load(client).await {
            Ok(()) => {
                if self.wanted.replace(wanted).is_some() {
                    self.view.changed();
                    self.publish();
                }
                self.proved = 0;
                self.report.set_problem(None);
                let _ = done.send(Ok(()));
                Ok(())
            }
            // charon does not like it, and is well.
            Err(error @ wicketgate_vici::Error::Failed { .. }) => {
                self.wanted = None;
                let _ = done.send(Err(error.to_string()));
                Ok(())
            }
            Err(error) => {
                let _ = done.send(Err(error.to_string()));
                Err(error)
            }
        }
    }

    /// While a key is being changed, the peer may have an older one: at its next try it is shown the next of them.
    async fn prove_another(&mut self, client: &Client) -> Result<(), wicketgate_vici::Error> {
        if let Some(wanted) = self.wanted.as_ref().filter(|w| w.keys.len() > 1) {
            self.proved = (self.proved + 1) % wanted.keys.len();
            wanted.load_key(client, self.proved).await?;
        }
        Ok(())
    }

    /// Takes an event in; answers whether to look at the SAs.
    fn take(&mut self, name: &str, message: &Message) -> bool {
        if name != "log" {
            self.view.event(message);
            return true;
        }
        let line = message.text("msg").unwrap_or_default();
        debug!(dir = %self.home.dir.display(), group = message.text("group"), line, "IKE daemon");
        let ends = self.wanted.as_ref().map(|w| &w.ends);
        self.view.log(line, ends, Timestamp::now())
    }

    /// Looks at the SAs; answers whether anything is as it was not before, or is about to be.
    async fn look(&mut self, client: &Client) -> Result<bool, wicketgate_vici::Error> {
        let parts = client.stream_request("list-sas", "list-sa", Message::new()).await?;
        let before = self.view.connection().clone();
        self.view.look(&parts, Timestamp::now());
        self.publish();
        let is_wanted = self.wanted.as_ref().is_some_and(|w| w.initiate);
        self.initiation.look(is_wanted, self.view.line(), Instant::now());
        let now = self.view.connection();
        Ok(*now != before || now.state == ConnectionState::Connecting)
    }

    fn publish(&self) {
        self.report.set_connection(self.view.connection().clone());
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_has_ended_is_stopped_and_takes_no_configuration() {
        let (orders, mut receive) = mpsc::channel(ORDERS);
        let daemon = Daemon { orders };
        // The task takes the order late, when nobody waits any more, and ends.
        let gave_up = timeout(Duration::ZERO, daemon.stop()).await;
        assert!(gave_up.is_err() && !daemon.has_ended());
        assert!(matches!(receive.try_recv(), Ok(Order::Stop(_))));
        drop(receive);
        assert!(daemon.has_ended());
        assert_eq!(daemon.stop().await, Ok(()));
        assert!(daemon.order(Order::Stop).await.is_none());
    }
}
