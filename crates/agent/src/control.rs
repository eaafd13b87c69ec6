//! The agent's control connection: reconnected until the agent stops, with everything that depends on it.

use crate::{
    agent::Agent,
    assignments::{Served, Unfit},
    clock::{CURE, ClockComparison, rounded},
    health::Watched,
    package::enrol_again,
    retry_log::RetryLog,
    server_address::ServerAddress,
    state::State,
    status::Phase,
};
use anyhow::{Context, anyhow, bail};
use jiff::Timestamp;
use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use wicketgate_model::SignedAssignment;
use wicketgate_system::{
    backoff::{Backoff, spread},
    program::LastingRefusal,
};
use wicketgate_transport::{
    control::{ACKS_PER_MESSAGE, Control, ControlError, FromAgent, SILENCE, ToAgent},
    tls::Diagnosis,
};

/// The longest pause bounds the outage after a gateway's restart: shares work again within five seconds.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// After a connection that lasted this long, the backoff starts again, so that a gateway which restarts a few times in
/// a row costs no longer pauses.
const STABLE: Duration = Duration::from_secs(1);
/// Between attempts to renew the certificate. Twenty days are left for it.
const RENEW_AGAIN: Duration = Duration::from_mins(10);

/// Between attempts while another agent has this agent's identity: soon enough to follow it when it ends.
const DUPLICATE_PAUSE: Duration = Duration::from_secs(5);

/// The gateway serves another agent with this agent's identity.
#[derive(Debug, thiserror::Error)]
#[error(
    "another agent with this identity is connected, from {address} ({name}): the state directory was copied. Stop this agent, \
     empty {state_dir} and enrol it with a new code; or start it with --take-over, which ends the other one"
)]
struct Duplicate {
    address: IpAddr,
    name: String,
    state_dir: String,
}

/// The gateway does not serve this agent any more: no retry succeeds.
pub(crate) fn removed(server: &ServerAddress, state: &State) -> LastingRefusal {
    let environment = state.environment();
    let again = enrol_again(state.path(), environment);
    let code = if state.has_used_code() { ", and its enrolment code is used up" } else { "" };
    LastingRefusal(format!(
        "refused by {server}: this agent was removed from environment {environment}{code}. {again}"
    ))
}

/// The server does not know this agent. It may know it later: a database can be restored.
pub(crate) fn unknown(server: &ServerAddress, state: &State) -> anyhow::Error {
    let environment = state.environment();
    let again = enrol_again(state.path(), environment);
    anyhow!(
        "refused by {server}: the server does not know this agent of environment {environment}, so its database was \
         restored from a backup of before the enrolment: its operator can take it in with `wicketgate agent adopt {}`. {again}",
        state.agent()
    )
}

/// What the gateway of a connection understands.
#[derive(Debug, Clone, Copy)]
struct Takes {
    /// [`FromAgent::Report`].
    reports: bool,
    /// [`FromAgent::Acks`].
    acks: bool,
}

/// The state of one connection.
struct Conversation {
    control: Control,
    takes: Takes,
    want: watch::Sender<u16>,
    /// When a new certificate was last requested.
    asked_to_renew: Option<Instant>,
    end: CancellationToken,
}

/// Explains why the gateway closed the connection right after the handshake. With TLS 1.3, a rejected client
/// certificate shows here, too.
pub(crate) fn rejected(error: ControlError, state: &State, now: Timestamp) -> anyhow::Error {
    let (expires_at, again) = (state.expires_at(), enrol_again(state.path(), state.environment()));
    match error.diagnosis() {
        Some(Diagnosis::Expired) if now < expires_at => anyhow!(
            "the gateway says that this agent's certificate is not valid at its time, and by the clock of this host it is valid \
             until {expires_at}: one of the two clocks is wrong. If it is this one, {CURE}"
        ),
        Some(Diagnosis::Expired) => {
            anyhow!("this agent's certificate has expired while it was offline. {again}")
        }
        Some(Diagnosis::Refused) => anyhow!("the gateway rejects this agent's certificate. {again}"),
        _ if error.is_hang_up() => anyhow!(
            "the gateway closed the connection: it is stopping, or this agent was removed. If this lasts, look for this agent in \
             `wicketgate agent list` on the server"
        ),
        _ => error.into(),
    }
}

impl Agent {
    /// Keeps the agent connected until `stop`. After that, the connection stays up while streams are running, so that the
    /// gateway can abort them.
    ///
    /// # Errors
    /// The agent was removed.
    pub(crate) async fn stay_connected(
        self: Arc<Self>,
        stop: CancellationToken,
    ) -> Result<(), LastingRefusal> {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let mut log = RetryLog::default();
        self.status.certified(self.state.expires_at());
        while !stop.is_cancelled() {
            self.status.enter(Phase::Connecting);
            let started = Instant::now();
            // Ends what depends on this connection: parked carriers and probes.
            let end = CancellationToken::new();
            let mut welcomed = false;
            let lost = self.connection(&end, &mut welcomed, &stop).await;
            end.cancel();
            let is_duplicate = lost.as_ref().is_err_and(|error| error.is::<Duplicate>());
            if let Err(error) = lost {
                let error = match error.downcast::<LastingRefusal>() {
                    Ok(removed) => return Err(removed),
                    Err(error) => error,
                };
                let error = format!("{error:#}");
                self.status.failed(&error);
                if welcomed {
                    info!(error, "disconnected from the gateway");
                    log = RetryLog::default();
                } else if log.is_news(&error, Instant::now()) {
                    warn!(server = %self.route.server, error, "cannot connect to the gateway; retrying until the agent stops");
                } else {
                    debug!(error, "cannot connect to the gateway");
                }
            }
            if welcomed && started.elapsed() >= STABLE {
                backoff.reset();
            }
            let pause = if is_duplicate { spread(DUPLICATE_PAUSE) } else { backoff.randomized() };
            stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
        Ok(())
    }

    fn removed(&self) -> LastingRefusal {
        removed(&self.route.server, &self.state)
    }

    async fn connection(
        self: &Arc<Self>,
        end: &CancellationToken,
        welcomed: &mut bool,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let Some(control) = stop.run_until_cancelled(self.hello()).await else { return Ok(()) };
        let (control, takes) = control?;
        *welcomed = true;
        self.report.connected();
        self.status.enter(Phase::Connected);
        info!(server = %self.route.server, "connected to the gateway");
        let (want, wanted) = watch::channel(0);
        let carriers = Arc::clone(self).keep_carriers(wanted, end.clone());
        tokio::spawn(end.clone().run_until_cancelled_owned(carriers));
        let probes = Arc::clone(self).probe_due_targets(end.clone());
        tokio::spawn(end.clone().run_until_cancelled_owned(probes));
        let talk = Conversation { control, takes, want, asked_to_renew: None, end: end.clone() };
        self.converse(talk, stop).await
    }

    /// A welcomed connection.
    async fn hello(&self) -> anyhow::Result<(Control, Takes)> {
        let tcp = self.route.connect().await?;
        let address = tcp.peer_addr().ok();
        self.greet(tcp).await.inspect_err(|_| self.route.avoid(address))
    }

    async fn greet(&self, tcp: TcpStream) -> anyhow::Result<(Control, Takes)> {
        let control = self.route.handshake(self.tls.connect_control(tcp)).await;
        let mut control = control.map_err(|failed| failed.error)?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let takes_over = self.takes_over.load(Ordering::Relaxed);
        let hello = FromAgent::Hello {
            version,
            name: self.name.clone(),
            takes_duties: true,
            takes_over,
            learns_removal: true,
        };
        let welcome = async {
            control.send(&hello).await?;
            control.receive().await
        };
        match timeout(SILENCE, welcome).await {
            Ok(Ok(ToAgent::Welcome { assigns_duties, time, takes_reports: reports, takes_acks: acks })) => {
                self.compare_clocks(&mut control, time).await?;
                self.assignments.clear();
                self.health.connected(assigns_duties);
                // The agent that it replaces may be started to take over, too.
                self.takes_over.store(false, Ordering::Relaxed);
                Ok((control, Takes { reports, acks }))
            }
            Ok(Ok(ToAgent::Duplicate { address, name })) => {
                let state_dir = self.state.path().display().to_string();
                Err(Duplicate { address, name, state_dir }.into())
            }
            Ok(Ok(ToAgent::Removed)) => Err(self.removed().into()),
            Ok(Ok(ToAgent::Unknown)) => Err(unknown(&self.route.server, &self.state)),
            Ok(Err(error)) => Err(rejected(error, &self.state, Timestamp::now())),
            _ => bail!("the gateway did not answer the hello message"),
        }
    }

    /// Tells the gateway and the operator if the clocks differ: sooner or later, certificates are not valid by one of them.
    async fn compare_clocks(&self, control: &mut Control, server: Option<i64>) -> anyhow::Result<()> {
        let compared = server.and_then(ClockComparison::with);
        *self.report.clock.lock() = compared;
        if let Some(ahead) = compared.and_then(|compared| compared.ahead) {
            let side = if ahead < 0 { "behind" } else { "ahead of" };
            warn!("the clock of this host is {} {side} the server's: {CURE}", rounded(ahead.unsigned_abs()));
            control.send(&FromAgent::Clock { seconds_ahead: ahead }).await?;
        }
        Ok(())
    }

    async fn converse(
        self: &Arc<Self>,
        mut talk: Conversation,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let mut last_message = Instant::now();
        let mut draining = false;
        let mut allow = self.assignments.allow.clone();
        allow.mark_unchanged();
        loop {
            tokio::select! {
                Ok(()) = allow.changed() => {
                    self.assign(&mut talk, &self.assignments.to_take_again()).await?;
                }
                () = stop.cancelled(), if !draining => {
                    draining = true;
                    self.status.enter(Phase::Draining);
                    // Before the carriers end, so that the gateway opens no stream on them.
                    talk.control.send(&FromAgent::Draining).await?;
                    talk.end.cancel();
                    info!("stopping: no new streams are accepted, running ones may end");
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
                () = self.report.filled.notified(), if talk.takes.reports && !draining => {
                    self.report.send(&mut talk.control).await?;
                }
                () = self.health.changed.notified() => {
                    for message in self.health.take_unreported() {
                        talk.control.send(&message).await?;
                    }
                    self.count_shares();
                }
            }
        }
    }

    /// A gateway that is well has sent the next ones for days: it is the gateway, or the clock, which may be set right later.
    async fn end_expired(&self, talk: &mut Conversation) -> anyhow::Result<()> {
        self.assign(talk, &self.assignments.take_valid_again(Timestamp::now())).await?;
        for (share, generation, why) in self.assignments.take_expired(Timestamp::now()) {
            self.health.withdraw(share);
            warn!(share.id = %share, reason = %why, "an assignment has ended");
            let reason = why.to_string();
            talk.control.send(&FromAgent::Refused { share, generation, reason }).await?;
        }
        Ok(())
    }

    fn count_shares(&self) {
        let (shares, unreachable) = self.health.counts();
        self.status.serves(shares, unreachable);
    }

    async fn act(self: &Arc<Self>, talk: &mut Conversation, message: ToAgent) -> anyhow::Result<()> {
        match message {
            ToAgent::Welcome { .. } | ToAgent::Duplicate { .. } => {}
            ToAgent::Removed => return Err(self.removed().into()),
            ToAgent::Unknown => return Err(unknown(&self.route.server, &self.state)),
            ToAgent::ProbeDuty { on, off } => self.health.duty(&on, &off, Instant::now()),
            ToAgent::Draining => bail!("the gateway is stopping"),
            ToAgent::Ping => {
                talk.control.send(&FromAgent::Pong).await?;
                let may_ask = talk.asked_to_renew.is_none_or(|at| at.elapsed() >= RENEW_AGAIN);
                if may_ask && self.state.is_renewal_due(Timestamp::now()) {
                    talk.asked_to_renew = Some(Instant::now());
                    let public_key = self.tls.certificate().public_point();
                    talk.control.send(&FromAgent::Renew { public_key }).await?;
                }
            }
            ToAgent::Carriers { want } => {
                talk.want.send_replace(want);
            }
            ToAgent::Assign { assignments } => self.assign(talk, &assignments).await?,
            ToAgent::Withdraw { shares } => {
                for share in shares {
                    info!(share.id = %share, "share withdrawn");
                    self.assignments.withdraw(share);
                    self.health.withdraw(share);
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
            match self.assigned(signed) {
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

    fn assigned(&self, signed: &SignedAssignment) -> Option<FromAgent> {
        let Some((share, generation, served)) = self.assignments.take(signed, Timestamp::now()) else {
            warn!(
                "an assignment cannot be parsed, and its share is not served here: install the version of the server on this host"
            );
            return None;
        };
        Some(match served {
            Ok(Served { target, health_check, name }) => {
                let share_name = name.as_deref().unwrap_or_default();
                info!(share.id = %share, share.name = share_name, %generation, %target, "share assigned");
                self.health.add(share, Watched::new(target, health_check.interval(), name), Instant::now());
                FromAgent::Ack { share, generation }
            }
            Err(unfit) => {
                warn!(share.id = %share, %generation, reason = %unfit, "an assignment was refused");
                if matches!(unfit, Unfit::NotAllowed(_)) {
                    self.health.withdraw(share);
                }
                FromAgent::Refused { share, generation, reason: unfit.to_string() }
            }
        })
    }

    fn renewed(&self, talk: &mut Conversation, certificate: Vec<u8>) {
        let used = self.tls.certificate().replace(certificate.clone()).map_err(anyhow::Error::from);
        let kept = used.and_then(|()| Ok(self.state.renewed(certificate, Timestamp::now())?));
        match kept {
            Ok(()) => {
                talk.asked_to_renew = None;
                self.status.certified(self.state.expires_at());
                info!("certificate renewed");
            }
            Err(error) => {
                let (error, dir) = (format!("{error:#}"), self.state.path().display());
                warn!(error, %dir, "cannot save the renewed certificate, retrying: free space there, or make it writable");
            }
        }
    }
}
