//! The task that keeps one tunnel's charon running and configured, and reports its connection.
//!
//! charon may die at any time: the task starts another one with the same configuration. The task may end at any time:
//! charon keeps running, and the task of the next run adopts it. Only the task talks to its charon.

mod calls;
mod on_request;
mod orders;
mod process_time;
mod replacement;
mod reset;
mod sign_of_life;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, info, warn};
use wicketgate_model::{ConnectionState, Problem, Reason};
use wicketgate_system::backoff::Backoff;
use wicketgate_vici::{Client, Error, Events, Message};

pub(super) use orders::Daemon;
use orders::{Done, Order, ResetDone};
use reset::Reset;

use super::{
    charon::{Charon, CharonHome},
    conf::{self, CharonConfig},
    connection_view::{ConnectionView, Negotiation},
    fault::{LogLine, peer_refuses},
    initiation::Initiation,
    stray_watch::StrayWatch,
};
use crate::ground::{KnownPeers, NetworkError, TunnelHandle, UnknownPeers, return_route};
use crate::ipsec::ike_log::IkeLog;

/// Byte counters grow without an event: they are read this often while they grow, and less and less often while they
/// rest. Most of hundreds of tunnels rest.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const LOOK_RARELY: Duration = Duration::from_secs(30);

/// How often the daemon of a tunnel that is up is asked for a sign of life.
const ALIVE_EVERY: Duration = Duration::from_millis(2500);

/// The same while an IKE SA is being negotiated, or while the peer may be silent.
const LOOK_OFTEN: Duration = Duration::from_secs(1);

/// A burst of events causes one reading.
const LOOK_AFTER: Duration = Duration::from_millis(50);

/// The pause before a dead charon is started again; doubles up to the second value while it dies soon after its start.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LONGEST: Duration = Duration::from_secs(30);
const LIVED_LONG: Duration = Duration::from_secs(60);

/// A killed charon ends in milliseconds, unless the kernel holds it.
const EXIT_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a daemon's SAs are gone.
const ENDED: &str = "the gateway's IKE daemon ended, and is started again";

const EVENTS: [&str; 6] = ["ike-updown", "child-updown", "ike-rekey", "child-rekey", "ike-update", "log"];

impl Daemon {
    /// Starts the task, which starts or adopts charon. `replacements` has a permit for each daemon that may be replaced at a
    /// time.
    pub(super) fn start(
        home: CharonHome,
        (report, log): (Arc<TunnelHandle>, Arc<IkeLog>),
        replacements: Arc<Semaphore>,
        peers: (Arc<KnownPeers>, Arc<UnknownPeers>),
    ) -> Self {
        let (daemon, orders) = Self::new();
        let task = Task {
            strays: StrayWatch::new(home.namespace.clone()),
            home,
            report,
            log,
            known_peers: peers.0,
            unknown_peers: peers.1,
            orders,
            wanted: None,
            view: ConnectionView::new(Timestamp::now()),
            is_suspected: false,
            replacements,
            turn: None,
            stopping: None,
            initiation: Initiation::default(),
            proved: 0,
            aimed_at: None,
            reset: None,
        };
        tokio::spawn(task.run());
        daemon
    }
}

struct Task {
    home: CharonHome,
    report: Arc<TunnelHandle>,
    log: Arc<IkeLog>,
    known_peers: Arc<KnownPeers>,
    unknown_peers: Arc<UnknownPeers>,
    orders: mpsc::Receiver<Order>,
    wanted: Option<CharonConfig>,
    view: ConnectionView,
    /// charon is silent, and the problem says so.
    is_suspected: bool,
    replacements: Arc<Semaphore>,
    /// Held from the end of one daemon until the next one answers.
    turn: Option<OwnedSemaphorePermit>,
    /// The task was ordered to stop while its daemon hung.
    stopping: Option<Done>,
    initiation: Initiation,
    /// Finds a peer that has not noticed that its SAs are gone.
    strays: StrayWatch,
    /// The index of the key that charon uses to authenticate to the peer.
    proved: usize,
    /// The port of a NAT to which charon initiates.
    aimed_at: Option<u16>,
    /// A reset that waits for its outcome.
    reset: Option<(Reset, ResetDone)>,
}

/// Why the task stopped talking to a charon.
enum End {
    /// A stop was ordered, or the handle was dropped.
    Stopped,
    Died(String),
}

impl Task {
    async fn run(mut self) {
        let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_LONGEST);
        loop {
            let started = Instant::now();
            let End::Died(why) = self.serve().await else { return };
            warn!(dir = %self.home.dir.display(), why, "IKE daemon died");
            if self.view.line == Negotiation::Up {
                // Without this, the peer notices only through its dead peer detection.
                self.initiation.call_back(Instant::now());
                self.initiation.at = Some(Instant::now());
            }
            self.end_reset(Err(why.clone()));
            self.view.died(&why, Timestamp::now());
            self.publish();
            self.is_suspected = false;
            self.report.set_problem(Some(Problem::new(Reason::TunnelFailed, why.clone())));
            if started.elapsed() > LIVED_LONG {
                backoff.reset();
            }
            let pause = backoff.doubled();
            if pause > PAUSE_FIRST {
                self.turn = None;
            }
            if !self.pause(pause, &why).await {
                return;
            }
        }
    }

    async fn stop(&self, done: Done) {
        let _ = done.send(self.home.stop().await.map_err(|e| e.to_string()));
    }

    async fn serve(&mut self) -> End {
        let mut charon = match self.report.starting(self.bring_up()).await {
            Ok(charon) => charon,
            Err(error) => return End::Died(error.to_string()),
        };
        let end = match self.talk(&mut charon).await {
            Ok(end) => end,
            Err(Error::Closed) => End::Died(ENDED.to_owned()),
            Err(Error::Timeout(_)) => {
                // A daemon that hangs would not act on a request to end.
                charon.kill().await;
                return End::Died("the gateway's IKE daemon did not answer, and is replaced".to_owned());
            }
            Err(error) => End::Died(error.to_string()),
        };
        if let End::Died(_) = end {
            // It may run without answering.
            charon.stop().await;
        }
        end
    }

    async fn bring_up(&self) -> Result<Charon, NetworkError> {
        let dir = self.home.dir.display();
        let charon = if let Some(charon) = self.home.adopt().await? {
            info!(%dir, "IKE daemon adopted");
            charon
        } else {
            let started = Instant::now();
            let charon = self.home.start().await?;
            info!(%dir, elapsed_ms = started.elapsed().as_millis(), "IKE daemon started");
            charon
        };
        // Its device exists by now.
        return_route::open(&self.home.namespace, self.home.packets).await?;
        Ok(charon)
    }

    /// Serves a charon until it or the task ends.
    async fn talk(&mut self, charon: &mut Charon) -> Result<End, Error> {
        let opened = charon.socket().map_err(Error::Connect)?;
        let socket = opened.path();
        let pid = charon.pid;
        let mut client = self.answered(pid, Client::connect(&socket)).await?;
        let mut events = self.answered(pid, Events::subscribe(&socket, &EVENTS)).await?;
        if let Some(wanted) = self.wanted.clone() {
            self.answered(pid, wanted.load(&mut client, None)).await?;
            self.cut(pid, &mut client, &wanted).await?;
            (self.proved, self.aimed_at) = (0, None);
            self.report.set_problem(None);
        }
        // Before any order is answered: the caller relies on the reported connection.
        self.look(pid, &mut client).await?;
        self.turn = None;
        let mut look_at = Instant::now() + LOOK_EVERY;
        let mut pause = LOOK_EVERY;
        let mut alive_at = Instant::now() + ALIVE_EVERY;
        loop {
            let call_at = self.initiation.at;
            tokio::select! {
                () = charon.exited() => return Ok(End::Died(ENDED.to_owned())),
                order = self.orders.recv() => match order {
                    None => return Ok(End::Stopped),
                    Some(Order::Stop(done)) => {
                        self.stop(done).await;
                        if timeout(EXIT_TIMEOUT, charon.exited()).await.is_err() {
                            warn!(dir = %self.home.dir.display(), "IKE daemon was killed but still runs");
                        }
                        return Ok(End::Stopped);
                    }
                    Some(order) => {
                        if self.obey(order, pid, &mut client).await? {
                            look_at = look_at.min(Instant::now() + LOOK_AFTER);
                        }
                    }
                },
                event = events.receive() => {
                    let (name, message) = event?;
                    if message.text("msg").is_some_and(peer_refuses) {
                        self.prove_another(pid, &mut client).await?;
                    }
                    if self.take(&name, &message) {
                        look_at = look_at.min(Instant::now() + LOOK_AFTER);
                    }
                }
                () = sleep_until(alive_at), if self.view.line == Negotiation::Up => {
                    self.answered(pid, client.request("version", Message::new())).await?;
                    alive_at = Instant::now() + ALIVE_EVERY;
                }
                () = sleep_until(look_at) => {
                    let is_still = !self.look(pid, &mut client).await?;
                    pause = self.next_pause(pause, is_still);
                    look_at = Instant::now() + pause;
                }
                stray = self.strays.packet() => self.take_stray(stray, pid, &mut client).await?,
                () = sleep_until(call_at.unwrap_or(look_at)), if call_at.is_some() => {
                    self.call(pid, &mut client).await?;
                    look_at = look_at.min(Instant::now() + LOOK_AFTER);
                }
            }
        }
    }

    /// The pause before the next look, from the one before the last.
    fn next_pause(&self, pause: Duration, is_still: bool) -> Duration {
        match self.view.line {
            Negotiation::Initiating | Negotiation::Responding => {
                let due = self.view.due(Timestamp::now()).and_then(|due| Duration::try_from(due).ok());
                due.map_or(LOOK_OFTEN, |due| LOOK_OFTEN.min(due + LOOK_AFTER))
            }
            _ if self.reset.is_some() => LOOK_OFTEN,
            Negotiation::Up if self.view.is_doubtful() => LOOK_OFTEN,
            Negotiation::Up if self.view.is_unused() => LOOK_EVERY,
            _ if is_still => (pause * 2).clamp(LOOK_EVERY, LOOK_RARELY),
            _ => LOOK_EVERY,
        }
    }

    /// Carries out an order; returns whether SAs may change soon.
    async fn obey(&mut self, order: Order, pid: i32, client: &mut Client) -> Result<bool, Error> {
        match order {
            Order::Stop(done) => self.stop(done).await,
            Order::Look(done) => {
                let looked = self.look(pid, client).await.map(|_| ());
                let _ = done.send(looked.as_ref().copied().map_err(ToString::to_string));
                looked?;
            }
            Order::Reset(scope, mode, done) => {
                self.begin_reset((scope, mode, done), pid, client).await?;
                return Ok(true);
            }
            Order::Configure(wanted, done) if self.wanted.as_ref() == Some(&wanted) => {
                let _ = done.send(Ok(()));
            }
            Order::Configure(wanted, done) => {
                let configured = self.configure(pid, client, wanted).await;
                let _ = done.send(configured.as_ref().copied().map_err(ToString::to_string));
                return match configured {
                    // charon rejected the configuration, and still runs.
                    Ok(()) | Err(Error::Failed { .. }) => Ok(true),
                    Err(error) => Err(error),
                };
            }
        }
        Ok(false)
    }

    async fn configure(&mut self, pid: i32, client: &mut Client, wanted: CharonConfig) -> Result<(), Error> {
        let before = self.wanted.clone();
        if let Err(error) = self.answered(pid, wanted.load(client, before.as_ref())).await {
            if matches!(error, Error::Failed { .. }) {
                self.wanted = None;
            }
            return Err(error);
        }
        self.cut(pid, client, &wanted).await?;
        if self.wanted.replace(wanted).is_some() {
            self.view.changed();
            self.publish();
        }
        (self.proved, self.aimed_at) = (0, None);
        self.report.set_problem(None);
        Ok(())
    }

    /// Processes an event; returns whether to read the SAs.
    fn take(&mut self, name: &str, message: &Message) -> bool {
        if name != "log" {
            if let Some((reset, _)) = &mut self.reset {
                reset.event(name);
            }
            self.view.rekeyed(name);
            self.view.event(message);
            return true;
        }
        let line = LogLine::read(message);
        if let Some((reset, _)) = &mut self.reset {
            reset.log(line);
        }
        debug!(dir = %self.home.dir.display(), group = message.text("group"), line = line.text, "IKE daemon");
        let (group, now) = (message.text("group").unwrap_or_default(), Timestamp::now());
        let keys = self.wanted.as_ref().map(|w| &w.keys[..]).unwrap_or_default();
        self.log.add((group, line.ike_sa), line.text, keys, now);
        let ends = self.wanted.as_ref().map(|w| &w.ends);
        self.view.log(line, ends, Timestamp::now())
    }

    /// Reads the SAs; returns whether the connection changed or is about to.
    async fn look(&mut self, pid: i32, client: &mut Client) -> Result<bool, Error> {
        let parts = client.stream_request("list-sas", "list-sa", Message::new());
        let mut parts = self.answered(pid, parts).await?;
        if let Some(peer) = self.wanted.as_ref().map(|wanted| wanted.peer) {
            self.answered(pid, conf::end_others(client, &mut parts, peer)).await?;
        }
        let before = self.view.connection().clone();
        if self.view.look(&parts, Timestamp::now()) {
            info!(dir = %self.home.dir.display(), "the peer was lost: calling it back");
            self.initiation.call_back(Instant::now());
        }
        if let Some(wanted) = &self.wanted
            && let Some(from) = self.unknown_peers.source_of(self.view.spis())
        {
            self.view.moved(from, wanted.peer, Timestamp::now());
        }
        self.publish();
        self.judge_reset();
        self.plan();
        match &self.wanted {
            Some(wanted) if self.view.line != Negotiation::Up => self.strays.watch(wanted.inside, &[]),
            Some(wanted) => {
                self.known_peers.add(wanted.peer);
                self.strays.watch(wanted.inside, self.view.spis());
            }
            None => self.strays.end(),
        }
        let now = self.view.connection();
        Ok(*now != before || now.state == ConnectionState::Connecting)
    }

    fn publish(&self) {
        self.report.set_connection(self.view.connection().clone());
    }
}
