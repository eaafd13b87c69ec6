//! The agent's control connection: made anew for ever, with everything that hangs on it.

use crate::{Agent, server_address::CONNECT_WITHIN};
use anyhow::{Context, anyhow, bail};
use jiff::{SignedDuration, Timestamp};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use wicketgate_model::SignedAssignment;
use wicketgate_system::backoff::Backoff;
use wicketgate_transport::{
    control::{Control, ControlError, FromAgent, SILENCE, ToAgent},
    tls::{Diagnosis, TlsStream},
};

/// The longest wait is what a gateway's restart costs at worst: shares are to work again within five seconds of it.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// A connection that has lasted this long was a good one: the next try is at once. A gateway that is restarted a few
/// times in a row is no reason to wait longer each time.
const STABLE: Duration = Duration::from_secs(1);
/// After a renewal that was refused or not answered. Twenty days are left for it.
const RENEW_AGAIN: SignedDuration = SignedDuration::from_mins(10);

/// How soon another cause of failure is told: two that take turns do not fill the log.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// What one connection needs besides itself.
struct Conversation {
    control: Control<TlsStream>,
    want: watch::Sender<u16>,
    /// Not before then is a certificate asked for.
    renew_at: Timestamp,
    end: CancellationToken,
}

/// What it means that the gateway shut the door right after the handshake. With TLS 1.3 a certificate that it does
/// not take shows here as well.
fn turned_away(error: ControlError) -> anyhow::Error {
    match error.diagnosis() {
        Some(Diagnosis::Expired) => anyhow!(
            "this agent was away for too long, and its certificate has expired: enrol it again with a new code and \
             an empty --state-dir"
        ),
        Some(Diagnosis::Refused) => anyhow!(
            "the gateway does not take this agent's certificate: enrol it again with a new code and an empty \
             --state-dir"
        ),
        _ if error.is_hang_up() => anyhow!(
            "the gateway turned this agent away: this agent was removed (enrol it again with a new code and an \
             empty --state-dir), or the gateway is just stopping"
        ),
        _ => error.into(),
    }
}

impl Agent {
    /// Connects, and again when the connection is lost, until `stop`. Then the connection goes on for as long as there
    /// are streams, so that the gateway knows about them what it has to.
    pub(crate) async fn stay_connected(self: Arc<Self>, stop: CancellationToken) {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let mut said: Option<(String, Instant)> = None;
        while !stop.is_cancelled() {
            let started = Instant::now();
            // What lives with this connection: parked carriers and probes.
            let end = CancellationToken::new();
            let mut welcomed = false;
            let lost = self.connection(&end, &mut welcomed, &stop).await;
            end.cancel();
            if let Err(error) = lost {
                let error = format!("{error:#}");
                if welcomed {
                    info!(error, "disconnected from the gateway");
                    said = None;
                } else if said.as_ref().is_none_or(|(e, at)| *e != error && at.elapsed() >= SAY_EVERY) {
                    warn!(server = %self.server, error, "can't connect to the gateway: trying again for ever");
                    said = Some((error, Instant::now()));
                } else {
                    debug!(error, "can't connect to the gateway");
                }
            }
            if welcomed && started.elapsed() >= STABLE {
                backoff.reset();
            }
            stop.run_until_cancelled(tokio::time::sleep(backoff.randomized())).await;
        }
    }

    async fn connection(
        self: &Arc<Self>,
        end: &CancellationToken,
        welcomed: &mut bool,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let Some(control) = stop.run_until_cancelled(self.be_welcomed()).await else { return Ok(()) };
        let control = control?;
        *welcomed = true;
        info!(server = %self.server, "connected to the gateway");
        self.assignments.clear();
        self.health.clear();
        let (want, wanted) = watch::channel(0);
        let carriers = Arc::clone(self).keep_carriers(wanted, end.clone());
        tokio::spawn(end.clone().run_until_cancelled_owned(carriers));
        let rounds = Arc::clone(self).make_rounds(end.clone());
        tokio::spawn(end.clone().run_until_cancelled_owned(rounds));
        let renew_at = self.state.renew_at();
        self.converse(Conversation { control, want, renew_at, end: end.clone() }, stop).await
    }

    async fn be_welcomed(&self) -> anyhow::Result<Control<TlsStream>> {
        let tcp = self.server.connect().await.context("can't connect")?;
        let stream = timeout(CONNECT_WITHIN, self.tls.connect_control(tcp)).await.context("no handshake")?;
        let mut control = Control::new(stream.map_err(|error| self.server.explain(error))?);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let hello = FromAgent::Hello { version, name: self.name.clone() };
        let welcome = async {
            control.send(&hello).await?;
            control.receive().await
        };
        match timeout(SILENCE, welcome).await {
            Ok(Ok(ToAgent::Welcome)) => Ok(control),
            Ok(Err(error)) => Err(turned_away(error)),
            _ => bail!("the gateway did not say welcome"),
        }
    }

    async fn converse(
        self: &Arc<Self>,
        mut talk: Conversation,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let mut heard = Instant::now();
        let mut draining = false;
        loop {
            tokio::select! {
                () = stop.cancelled(), if !draining => {
                    draining = true;
                    // The carriers only then: who hears it in time asks for nothing in vain.
                    talk.control.send(&FromAgent::Draining).await?;
                    talk.end.cancel();
                    info!("taking no new streams; those that are running may end");
                }
                () = self.streams.wait(), if draining => {
                    talk.control.close().await;
                    return Ok(());
                }
                message = timeout_at(heard + SILENCE, talk.control.receive()) => {
                    let message = message.context("the gateway was silent for too long")??;
                    heard = Instant::now();
                    self.act(&mut talk, message).await?;
                }
                () = self.health.changed.notified() => {
                    for message in self.health.take_untold() {
                        talk.control.send(&message).await?;
                    }
                }
            }
        }
    }

    async fn act(self: &Arc<Self>, talk: &mut Conversation, message: ToAgent) -> anyhow::Result<()> {
        match message {
            ToAgent::Welcome => {}
            ToAgent::Draining => bail!("the gateway is stopping"),
            ToAgent::Ping => {
                talk.control.send(&FromAgent::Pong).await?;
                let now = Timestamp::now();
                if now >= talk.renew_at {
                    talk.renew_at = now.saturating_add(RENEW_AGAIN).unwrap_or(now);
                    let public_key = self.tls.certificate().public_point();
                    talk.control.send(&FromAgent::Renew { public_key }).await?;
                }
            }
            ToAgent::Carriers { want } => {
                talk.want.send_replace(want);
            }
            ToAgent::Assign { assignments } => {
                for signed in &assignments {
                    if let Some(answer) = self.assigned(signed, &talk.end) {
                        talk.control.send(&answer).await?;
                    }
                }
            }
            ToAgent::Withdraw { shares } => {
                for share in shares {
                    info!(share.id = %share, "share withdrawn");
                    self.assignments.withdraw(share);
                    self.health.withdraw(share);
                }
            }
            ToAgent::Renewed { certificate } => self.renewed(talk, certificate),
            ToAgent::RenewRefused { refusal: Some(refusal) } => {
                warn!(%refusal, "the server does not renew the certificate");
            }
            ToAgent::RenewRefused { refusal: None } => debug!("the server can't renew the certificate now"),
        }
        Ok(())
    }

    fn assigned(self: &Arc<Self>, signed: &SignedAssignment, end: &CancellationToken) -> Option<FromAgent> {
        let Some(verdict) = self.assignments.take(signed) else {
            warn!("an assignment can't be read: is this agent too old?");
            return None;
        };
        let (share, generation) = (verdict.share, verdict.generation);
        Some(match verdict.outcome {
            Ok(target) => {
                info!(share.id = %share, %generation, "share assigned");
                debug!(share.id = %share, %target, "a share's target");
                self.watch(share, generation, end);
                FromAgent::Ack { share, generation }
            }
            Err(unfit) => {
                warn!(share.id = %share, %generation, reason = unfit.name(), "an assignment was refused");
                debug!(share.id = %share, reason = %unfit, "an assignment was refused");
                FromAgent::Refused { share, generation, reason: unfit.to_string() }
            }
        })
    }

    fn renewed(&self, talk: &mut Conversation, certificate: Vec<u8>) {
        let used = self.tls.certificate().replace(certificate.clone()).map_err(anyhow::Error::from);
        let kept = used.and_then(|()| Ok(self.state.renewed(certificate, Timestamp::now())?));
        match kept {
            Ok(()) => {
                talk.renew_at = self.state.renew_at();
                info!("certificate renewed");
            }
            Err(error) => warn!(error = format!("{error:#}"), "a renewed certificate could not be kept"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind};

    #[test]
    fn an_agent_that_is_turned_away_says_what_to_do() {
        let cut = Error::new(ErrorKind::UnexpectedEof, "see https://docs.rs/");
        for error in [ControlError::Closed, cut.into(), Error::from(ErrorKind::ConnectionReset).into()] {
            let text = format!("{:#}", turned_away(error));
            assert!(text.contains("was removed") && text.contains("an empty --state-dir"), "{text}");
            assert!(!text.contains("://") && !text.contains('\n'), "{text}");
        }
        assert!(!turned_away(ControlError::Stuck).to_string().contains("removed"));
    }
}
