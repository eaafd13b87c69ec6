//! The gateway's end of an agent's control connection.

use super::{
    Agents,
    dial_failure::DialFailure,
    duplicate::refuse,
    enrol::plain,
    handshake_limits::Permit,
    pool_size, removal,
    roster::{Hearing, Session},
};
use jiff::Timestamp;
use std::{collections::VecDeque, net::IpAddr, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tracing::{debug, info, warn};
use wicketgate_link::ConnectedAgent;
use wicketgate_model::{Problem, Reason};
use wicketgate_transport::{
    control::{Control, ControlError, FromAgent, PING_EVERY, TargetHealth, ToAgent},
    frame::StreamRefusal,
    identity::AgentIdentity,
};

/// For the first message after the handshake.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// How long an agent whose control connection broke may take to return before its streams are aborted.
const RETURN_WITHIN: Duration = Duration::from_secs(30);
/// How often the size of the carrier pool is adapted. Its window is counted in these.
const POOL_EVERY: Duration = Duration::from_secs(1);

/// Pings without an answer: one a second until the connection counts as dead, and some for agents with the same identity.
const MOST_PINGS: usize = 32;

/// A ping without an answer yet.
struct Ping {
    at: Instant,
    /// A request for a sign of life.
    is_asked: bool,
}

impl Agents {
    pub(super) async fn control(
        &self,
        identity: AgentIdentity,
        mut control: Control,
        address: IpAddr,
        permit: Permit,
    ) {
        let agent = identity.agent;
        let hello = match timeout(HELLO_WITHIN, control.receive()).await {
            Ok(Ok(FromAgent::Hello { version, name, takes_duties, takes_over, learns_removal })) => {
                (plain(&version), plain(&name), takes_duties, takes_over, learns_removal)
            }
            other => return debug!(agent.id = %agent, ?other, "an agent sent no hello"),
        };
        let (version, name, takes_duties, takes_over, learns_removal) = hello;
        let about = ConnectedAgent { agent, environment: identity.environment, version, name, address };
        if !takes_over && let Some(older) = self.is_duplicate(&about).await {
            return refuse(control, takes_duties, older).await;
        }
        let now = std::time::Instant::now();
        let connected = self.with(|roster| roster.connect(about.clone(), takes_duties, now));
        let Some(session) = connected else {
            return removal::tell(control, learns_removal).await;
        };
        drop(permit);
        let ConnectedAgent { environment, version, name, .. } = about;
        info!(agent.id = %agent, environment.id = %environment, %version, agent.name = name, "agent connected");
        let end = tokio::select! {
            // First: a barred agent gets no further assignment.
            biased;
            () = session.end.cancelled() => None,
            () = self.0.drain.cancelled() => None,
            end = self.converse(&mut control, &session) => end.err(),
        };
        self.with(|roster| roster.disconnect(&session));
        session.end.cancel();
        session.carriers.close();
        match end {
            Some(error) => {
                info!(agent.id = %agent, agent.name = name, error = %error, "agent disconnected");
                self.0
                    .tasks
                    .spawn(self.0.drain.clone().run_until_cancelled_owned(self.clone().wait_for(session)));
            }
            None => {
                info!(agent.id = %agent, agent.name = name, "agent was disconnected");
                if self.is_barred(agent) {
                    return removal::tell(control, learns_removal).await;
                }
                if self.0.drain.is_cancelled() {
                    let _ = control.send(&ToAgent::Draining).await;
                }
                control.close().await;
            }
        }
    }

    /// Aborts the streams of an agent that does not return.
    async fn wait_for(self, session: Arc<Session>) {
        sleep(RETURN_WITHIN).await;
        let streams = self.with(|roster| roster.lost(&session));
        if streams > 0 {
            warn!(agent.id = %session.agent, agent.name = session.name, streams, "streams of a lost agent were aborted");
        }
    }

    async fn converse(&self, control: &mut Control, session: &Session) -> Result<(), ControlError> {
        let time = Some(Timestamp::now().as_second());
        control.send(&ToAgent::Welcome { assigns_duties: true, time }).await?;
        let mut want = pool_size::LEAST;
        control.send(&ToAgent::Carriers { want }).await?;
        let (mut second, mut ping) = (every(POOL_EVERY), every(PING_EVERY));
        // One renewal at a time: further requests before the answer are ignored.
        let (renewed, mut renewal) = mpsc::channel(1);
        let mut renewing = false;
        let (mut pings, mut last_message, mut hearing) = (VecDeque::new(), Instant::now(), Hearing::Answers);
        loop {
            tokio::select! {
                // First the messages: after a pause of this process, they are older than the time says.
                biased;
                message = control.receive() => {
                    last_message = Instant::now();
                    let message = message?;
                    if hearing != Hearing::Answers {
                        hearing = self.heard(session, Hearing::Answers, last_message);
                    }
                    match message {
                        FromAgent::Renew { public_key } if !renewing => {
                            renewing = true;
                            self.renew(session.agent, public_key, renewed.clone());
                        }
                        FromAgent::Pong => {
                            if let Some(ping) = pings.pop_front() {
                                self.answered(session, &ping);
                            }
                        }
                        message => self.record(session, message),
                    }
                }
                () = sleep_until(doubted_at(last_message, hearing, pings.front())), if !pings.is_empty() => {
                    let next = hearing.next().ok_or(ControlError::Silent)?;
                    hearing = self.heard(session, next, last_message);
                }
                () = session.outbox_filled.notified() => {
                    for message in self.with(|roster| roster.take_outbox(session)) {
                        control.send(&message).await?;
                    }
                }
                Some(message) = renewal.recv() => {
                    renewing = false;
                    control.send(&message).await?;
                }
                () = session.asked.notified(), if pings.len() < MOST_PINGS => {
                    send_ping(control, &mut pings, true).await?;
                }
                _ = second.tick() => {
                    let wanted = session.carriers.tend();
                    if wanted != want {
                        want = wanted;
                        control.send(&ToAgent::Carriers { want }).await?;
                    }
                }
                _ = ping.tick(), if pings.len() < MOST_PINGS => {
                    send_ping(control, &mut pings, false).await?;
                }
            }
        }
    }

    fn answered(&self, session: &Session, ping: &Ping) {
        self.with(|roster| roster.answered(session, ping.at.elapsed()));
        if ping.is_asked {
            session.answers.send_modify(|answers| *answers += 1);
        }
    }

    /// Records whether the agent answers; its last message was at `last_message`.
    fn heard(&self, session: &Session, hearing: Hearing, last_message: Instant) -> Hearing {
        let agent = session.agent;
        let quiet = last_message.elapsed();
        let since = Timestamp::now().checked_sub(quiet).unwrap_or(Timestamp::UNIX_EPOCH);
        let before = self.with(|roster| roster.hears(session, hearing, since));
        match (before, hearing) {
            (Hearing::Suspected, Hearing::Silent) => {
                warn!(agent.id = %agent, agent.name = session.name, ?quiet, "agent does not answer; it is asked every second");
            }
            (Hearing::Silent, Hearing::Answers) => {
                info!(agent.id = %agent, agent.name = session.name, "agent answers again")
            }
            _ => debug!(agent.id = %agent, ?hearing, ?quiet, "an agent's answers"),
        }
        hearing
    }

    /// Records the message in the roster.
    fn record(&self, session: &Session, message: FromAgent) {
        let agent = session.agent;
        match message {
            FromAgent::Ack { share, generation } => {
                self.with(|roster| roster.acknowledged(session, share, generation));
            }
            FromAgent::Refused { share, generation, reason } => {
                let reason = plain(&reason);
                // The reason may name a target.
                debug!(agent.id = %agent, share.id = %share, %generation, reason, "agent refused a share");
                if self.with(|roster| roster.refused(session, share, generation, reason)) {
                    info!(agent.id = %agent, share.id = %share, %generation, "agent refused a share");
                }
            }
            FromAgent::Health { share, health, agent_exhausted, cause } => {
                let reason = if agent_exhausted { Reason::AgentExhausted } else { Reason::TargetUnreachable };
                let problem = match (health, cause) {
                    (TargetHealth::Ok, _) => None,
                    (TargetHealth::Unreachable(text), None) => Some(Problem::new(reason, plain(&text))),
                    (TargetHealth::Unreachable(text), Some(StreamRefusal { reason, .. })) => {
                        Some(DialFailure::from(StreamRefusal { reason, text: plain(&text) }).problem())
                    }
                };
                self.with(|roster| roster.health(session, share, problem, std::time::Instant::now()));
            }
            FromAgent::Clock { seconds_ahead } => {
                if self.with(|roster| roster.clock(session, seconds_ahead, std::time::Instant::now())) {
                    warn!(agent.id = %agent, agent.name = session.name, seconds_ahead, "the clock of an agent's host is wrong: set it, for example with `timedatectl set-ntp true`");
                }
            }
            FromAgent::Draining => {
                if self.with(|roster| roster.draining(session)) {
                    info!(agent.id = %agent, agent.name = session.name, "agent is stopping");
                }
            }
            FromAgent::Hello { .. } | FromAgent::Renew { .. } | FromAgent::Pong => {}
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// When the agent is doubted more, unless a message arrives before. A gateway that has not asked for a while, because it got
/// no processor, asks first: the agent is as old as its oldest question without an answer.
fn doubted_at(last_message: Instant, hearing: Hearing, oldest: Option<&Ping>) -> Instant {
    let silent = last_message + hearing.lasts();
    oldest.map_or(silent, |ping| silent.max(ping.at + hearing.lasts().saturating_sub(PING_EVERY)))
}

async fn send_ping(
    control: &mut Control,
    pings: &mut VecDeque<Ping>,
    is_asked: bool,
) -> Result<(), ControlError> {
    pings.push_back(Ping { at: Instant::now(), is_asked });
    control.send(&ToAgent::Ping).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_of_the_gateway_casts_no_doubt_on_an_agent() {
        let second = Duration::from_secs(1);
        let last_message = Instant::now();
        let asked = |after| Ping { at: last_message + after, is_asked: false };
        // As a rule, the first ping without an answer follows within a second.
        let lasts = Hearing::Answers.lasts();
        assert_eq!(doubted_at(last_message, Hearing::Answers, Some(&asked(second))), last_message + lasts);
        // Nothing was asked for a minute.
        let late = doubted_at(last_message, Hearing::Answers, Some(&asked(60 * second)));
        assert_eq!(late, last_message + 59 * second + lasts);
    }
}
