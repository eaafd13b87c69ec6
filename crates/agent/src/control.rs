//! The control connection to a gateway: reconnected until the agent stops or the gateway is none of the environment's any more, with
//! everything that depends on it.

use crate::{
    assignments::{Served, Unfit},
    claims::Claim,
    clock::{CURE, ClockComparison, rounded},
    connection::GatewayConnection,
    health::Watched,
    refusal::{Duplicate, rejected, removed, unknown},
    retry_log::RetryLog,
    status::Phase,
};
use anyhow::{Context, bail};
use jiff::Timestamp;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::{Notify, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use wicketgate_model::{AgentReport, GatewayId, SignedAssignment};
use wicketgate_system::{
    backoff::{Backoff, spread},
    program::LastingRefusal,
};
use wicketgate_transport::control::{ACKS_PER_MESSAGE, Control, FromAgent, SILENCE, ToAgent};

/// The longest pause bounds the outage after a gateway's restart: shares work again within five seconds.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// After a connection that lasted this long, the backoff starts again, so that a gateway which restarts a few times in
/// a row costs no longer pauses.
const STABLE: Duration = Duration::from_secs(1);
/// Between attempts to renew the certificate. Twenty days are left for it.
const RENEW_AGAIN: Duration = Duration::from_mins(10);

/// Between attempts while another agent has this agent's identity: soon enough to follow it when it ends.
const DUPLICATE_PAUSE: Duration = Duration::from_secs(5);

/// Between attempts at a gateway that says that the agent was removed, while others serve it.
const REMOVED_PAUSE: Duration = Duration::from_mins(1);
/// For another connection to a gateway to come back before this one takes its place.
const OTHER_RETURNS_WITHIN: Duration = Duration::from_secs(5);

/// Another connection of this agent has the gateway.
#[derive(Debug, thiserror::Error)]
#[error("the gateway {0} is connected already, under another address")]
struct Elsewhere(GatewayId);

/// What the gateway of a connection understands.
#[derive(Debug, Clone, Copy)]
struct Takes {
    /// [`FromAgent::Report`].
    reports: bool,
    /// [`FromAgent::Acks`].
    acks: bool,
}

/// A welcomed connection.
struct Greeted<'a> {
    control: Control,
    gateway: GatewayId,
    takes: Takes,
    /// The reachability of a target has changed.
    health: Arc<Notify>,
    claim: Claim<'a>,
}

/// The state of one connection.
struct Conversation {
    control: Control,
    gateway: GatewayId,
    takes: Takes,
    health: Arc<Notify>,
    reports: watch::Receiver<Option<Arc<AgentReport>>>,
    want: watch::Sender<u16>,
    /// When a new certificate was last requested.
    asked_to_renew: Option<Instant>,
    end: CancellationToken,
}

impl GatewayConnection {
    /// Keeps the connection until `stop`. After that, it stays up while its streams are running, so that the gateway can abort them.
    ///
    /// # Errors
    /// The agent was removed, as all gateways say.
    pub(crate) async fn stay_connected(self: Arc<Self>) -> Result<(), LastingRefusal> {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let mut log = RetryLog::default();
        self.agent.status.certified(self.agent.state.expires_at());
        while !self.stop.is_cancelled() {
            if self.waits_for_another().await {
                continue;
            }
            self.agent.status.enter(self.place, Phase::Connecting);
            let started = Instant::now();
            let mut welcomed = false;
            let lost = self.connection(&mut welcomed).await;
            if welcomed && started.elapsed() >= STABLE {
                backoff.reset();
            }
            let pause = match lost {
                Ok(()) => None,
                Err(error) => self.lost(error, welcomed, &mut log)?,
            };
            let pause = pause.unwrap_or_else(|| backoff.randomized());
            self.stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
        Ok(())
    }

    /// Waits while another connection has the gateway, and for its return. Returns whether there was one.
    async fn waits_for_another(&self) -> bool {
        let another = |gateway: &GatewayId| self.agent.claims.is_anothers(*gateway, self.place);
        let Some(gateway) = self.gateway().filter(another) else { return false };
        debug!(server = %self.route.server, gateway.id = %gateway, "the gateway is connected under another address");
        self.agent.status.hide(self.place);
        self.agent.removals.without(self.place);
        let freed = async {
            self.agent.claims.free(gateway).await;
            tokio::time::sleep(OTHER_RETURNS_WITHIN).await;
        };
        self.stop.run_until_cancelled(freed).await;
        self.agent.removals.serves(self.place);
        true
    }

    /// Tells the operator why there is no connection. Returns the pause before the next attempt, if it is a special one.
    fn lost(
        &self,
        error: anyhow::Error,
        welcomed: bool,
        log: &mut RetryLog,
    ) -> Result<Option<Duration>, LastingRefusal> {
        if error.is::<Elsewhere>() {
            return Ok(Some(Duration::ZERO));
        }
        let mut pause = error.is::<Duplicate>().then(|| spread(DUPLICATE_PAUSE));
        let error = match error.downcast::<LastingRefusal>() {
            Ok(removed) if self.agent.removals.removed(self.place) => return Err(removed),
            Ok(removed) => {
                pause = Some(spread(REMOVED_PAUSE));
                removed.into()
            }
            Err(error) => error,
        };
        let error = format!("{error:#}");
        self.agent.status.failed(self.place, &error);
        let server = &self.route.server;
        if welcomed {
            info!(%server, error, "disconnected from the gateway");
            *log = RetryLog::default();
        } else if log.is_news(&error, Instant::now()) {
            warn!(%server, error, "cannot connect to the gateway; retrying until the agent stops");
        } else {
            debug!(%server, error, "cannot connect to the gateway");
        }
        Ok(pause)
    }

    fn removed(&self) -> LastingRefusal {
        removed(&self.route.server, &self.agent.state)
    }

    async fn connection(self: &Arc<Self>, welcomed: &mut bool) -> anyhow::Result<()> {
        let Some(greeted) = self.stop.run_until_cancelled(self.hello()).await else { return Ok(()) };
        let Greeted { control, gateway, takes, health, claim } = greeted?;
        *welcomed = true;
        self.agent.removals.serves(self.place);
        let reports = self.agent.report.connected();
        self.agent.status.connected(self.place, gateway);
        info!(server = %self.route.server, gateway.id = %gateway, "connected to the gateway");
        // Ends the parked carriers of this connection.
        let end = CancellationToken::new();
        let (want, wanted) = watch::channel(0);
        let carriers = Arc::clone(self).keep_carriers(gateway, wanted, end.clone());
        tokio::spawn(end.clone().run_until_cancelled_owned(carriers));
        let asked_to_renew = None;
        let talk =
            Conversation { control, gateway, takes, health, reports, want, asked_to_renew, end: end.clone() };
        let ended = self.converse(talk).await;
        end.cancel();
        self.agent.health.disconnected(gateway);
        if self.stop.is_cancelled() {
            self.forget_own(gateway);
        }
        drop(claim);
        ended
    }

    /// A welcomed connection.
    async fn hello(&self) -> anyhow::Result<Greeted<'_>> {
        let tcp = self.route.connect().await?;
        let address = tcp.peer_addr().ok();
        self.greet(tcp).await.inspect_err(|error| {
            if !error.is::<Elsewhere>() {
                self.route.avoid(address);
            }
        })
    }

    async fn greet(&self, tcp: TcpStream) -> anyhow::Result<Greeted<'_>> {
        let named = self.route.handshake(self.tls.connect_named(tcp)).await;
        let (gateway, mut control) = named.map_err(|failed| failed.error)?;
        let claim = self.meets(gateway).ok_or(Elsewhere(gateway))?;
        let agent = &self.agent;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let takes_over = self.takes_over.load(Ordering::Relaxed);
        let hello = FromAgent::Hello {
            version,
            name: agent.name.clone(),
            takes_duties: true,
            takes_over,
            learns_removal: true,
            learns_gateways: true,
        };
        let welcome = async {
            control.send(&hello).await?;
            control.receive().await
        };
        match timeout(SILENCE, welcome).await {
            Ok(Ok(ToAgent::Welcome { assigns_duties, time, takes_reports: reports, takes_acks: acks })) => {
                self.compare_clocks(&mut control, time).await?;
                agent.assignments.clear(gateway);
                let health = agent.health.connected(gateway, assigns_duties);
                // The agent that it replaces may be started to take over, too.
                self.takes_over.store(false, Ordering::Relaxed);
                Ok(Greeted { control, gateway, takes: Takes { reports, acks }, health, claim })
            }
            Ok(Ok(ToAgent::Duplicate { address, name })) => {
                let state_dir = agent.state.path().display().to_string();
                Err(Duplicate { address, name, state_dir }.into())
            }
            Ok(Ok(ToAgent::Removed)) => Err(self.removed().into()),
            Ok(Ok(ToAgent::Unknown)) => Err(unknown(&self.route.server, &agent.state)),
            Ok(Err(error)) => Err(rejected(error, &agent.state, Timestamp::now())),
            _ => bail!("the gateway did not answer the hello message"),
        }
    }

    /// Tells the gateway and the operator if the clocks differ: sooner or later, certificates are not valid by one of them.
    async fn compare_clocks(&self, control: &mut Control, server: Option<i64>) -> anyhow::Result<()> {
        let compared = server.and_then(ClockComparison::with);
        *self.agent.report.clock.lock() = compared;
        if let Some(ahead) = compared.and_then(|compared| compared.ahead) {
            let side = if ahead < 0 { "behind" } else { "ahead of" };
            warn!("the clock of this host is {} {side} the server's: {CURE}", rounded(ahead.unsigned_abs()));
            control.send(&FromAgent::Clock { seconds_ahead: ahead }).await?;
        }
        Ok(())
    }

    async fn converse(&self, mut talk: Conversation) -> anyhow::Result<()> {
        let mut last_message = Instant::now();
        let mut draining = false;
        let agent = &self.agent;
        let mut allow = agent.assignments.allow.clone();
        allow.mark_unchanged();
        loop {
            tokio::select! {
                Ok(()) = allow.changed() => {
                    let again = agent.assignments.to_take_again(talk.gateway);
                    self.assign(&mut talk, &again).await?;
                }
                () = self.stop.cancelled(), if !draining => {
                    draining = true;
                    self.streams.close();
                    agent.status.enter(self.place, Phase::Draining);
                    // Before the carriers end, so that the gateway opens no stream on them.
                    talk.control.send(&FromAgent::Draining).await?;
                    talk.end.cancel();
                    info!(server = %self.route.server, "stopping: no new streams are accepted from the gateway, running ones may end");
                }
                () = self.streams.wait(), if draining => {
                    talk.control.close().await;
                    return Ok(());
                }
                message = timeout_at(last_message + SILENCE, talk.control.receive()) => {
                    let message = message.context("the gateway was silent for too long")??;
                    last_message = Instant::now();
                    let is_ping = matches!(message, ToAgent::Ping);
                    self.act(&mut talk, message).await?;
                    self.end_expired(&mut talk).await?;
                    if !is_ping {
                        self.count_shares();
                    }
                }
                Ok(()) = talk.reports.changed(), if talk.takes.reports && !draining => {
                    let report = talk.reports.borrow_and_update().clone();
                    if let Some(report) = report {
                        let report = Box::new(AgentReport::clone(&report));
                        talk.control.send(&FromAgent::Report { report }).await?;
                    }
                }
                () = talk.health.notified() => {
                    for message in agent.health.take_unreported(talk.gateway) {
                        talk.control.send(&message).await?;
                    }
                    self.count_shares();
                }
            }
        }
    }

    /// A gateway that is well has sent the next ones for days: it is the gateway, or the clock, which may be set right later.
    async fn end_expired(&self, talk: &mut Conversation) -> anyhow::Result<()> {
        let (assignments, gateway) = (&self.agent.assignments, talk.gateway);
        self.assign(talk, &assignments.take_valid_again(gateway, Timestamp::now())).await?;
        for (share, generation, why) in assignments.take_expired(gateway, Timestamp::now()) {
            self.agent.health.withdraw(gateway, share);
            warn!(share.id = %share, reason = %why, "an assignment has ended");
            let reason = why.to_string();
            talk.control.send(&FromAgent::Refused { share, generation, reason }).await?;
        }
        Ok(())
    }

    fn count_shares(&self) {
        let (shares, unreachable) = self.agent.health.counts();
        self.agent.status.serves(shares, unreachable);
    }

    async fn act(&self, talk: &mut Conversation, message: ToAgent) -> anyhow::Result<()> {
        let agent = &self.agent;
        match message {
            ToAgent::Welcome { .. } | ToAgent::Duplicate { .. } => {}
            ToAgent::Removed => return Err(self.removed().into()),
            ToAgent::Unknown => return Err(unknown(&self.route.server, &agent.state)),
            ToAgent::ProbeDuty { on, off } => {
                agent.health.duty(talk.gateway, (&on, &off), Instant::now());
            }
            ToAgent::Gateways { list } => agent.gateways.take(list, &agent.state).await,
            ToAgent::Draining => bail!("the gateway is stopping"),
            ToAgent::Ping => {
                talk.control.send(&FromAgent::Pong).await?;
                let may_ask = talk.asked_to_renew.is_none_or(|at| at.elapsed() >= RENEW_AGAIN);
                if may_ask && agent.state.is_renewal_due(Timestamp::now()) {
                    talk.asked_to_renew = Some(Instant::now());
                    let public_key = agent.tls.certificate().public_point();
                    talk.control.send(&FromAgent::Renew { public_key }).await?;
                }
            }
            ToAgent::Carriers { want } => {
                talk.want.send_replace(want);
            }
            ToAgent::Assign { assignments } => self.assign(talk, &assignments).await?,
            ToAgent::Withdraw { shares } => {
                for share in shares {
                    info!(share.id = %share, gateway.id = %talk.gateway, "share withdrawn");
                    agent.assignments.withdraw(talk.gateway, share);
                    agent.health.withdraw(talk.gateway, share);
                }
            }
            ToAgent::Renewed { certificate } => self.renewed(talk, certificate),
            ToAgent::RenewRefused { refusal: Some(refusal) } => {
                warn!(%refusal, "the server refused to renew the certificate");
            }
            ToAgent::RenewRefused { refusal: None } => {
                debug!("the server cannot renew the certificate at the moment")
            }
        }
        Ok(())
    }

    /// Takes the assignments, and answers the gateway.
    async fn assign(&self, talk: &mut Conversation, assignments: &[SignedAssignment]) -> anyhow::Result<()> {
        let mut served = Vec::new();
        for signed in assignments {
            match self.assigned(talk.gateway, signed) {
                Some(FromAgent::Ack { share, generation }) if talk.takes.acks => {
                    served.push((share, generation))
                }
                Some(answer) => talk.control.send(&answer).await?,
                None => {}
            }
        }
        for shares in served.chunks(ACKS_PER_MESSAGE) {
            talk.control.send(&FromAgent::Acks { shares: shares.to_vec() }).await?;
        }
        Ok(())
    }

    fn assigned(&self, from: GatewayId, signed: &SignedAssignment) -> Option<FromAgent> {
        let agent = &self.agent;
        let Some((share, generation, served)) = agent.assignments.take(from, signed, Timestamp::now()) else {
            warn!(
                "an assignment cannot be parsed, and its share is not served here: install the version of the server on this host"
            );
            return None;
        };
        Some(match served {
            Ok(Served { target, health_check, name }) => {
                let share_name = name.as_deref().unwrap_or_default();
                info!(share.id = %share, share.name = share_name, %generation, %target, "share assigned");
                let watched = Watched::new(target, health_check.interval(), name);
                agent.health.add((from, share), watched, Instant::now());
                FromAgent::Ack { share, generation }
            }
            Err(unfit) => {
                warn!(share.id = %share, %generation, reason = %unfit, "an assignment was refused");
                if matches!(unfit, Unfit::NotAllowed(_)) {
                    agent.health.withdraw(from, share);
                }
                FromAgent::Refused { share, generation, reason: unfit.to_string() }
            }
        })
    }

    fn renewed(&self, talk: &mut Conversation, certificate: Vec<u8>) {
        let agent = &self.agent;
        let used = agent.tls.certificate().replace(certificate.clone()).map_err(anyhow::Error::from);
        let kept = used.and_then(|()| Ok(agent.state.renewed(certificate, Timestamp::now())?));
        match kept {
            Ok(()) => {
                talk.asked_to_renew = None;
                agent.status.certified(agent.state.expires_at());
                info!("certificate renewed");
            }
            Err(error) => {
                let (error, dir) = (format!("{error:#}"), agent.state.path().display());
                warn!(error, %dir, "cannot save the renewed certificate, retrying: free space there, or make it writable");
            }
        }
    }
}
