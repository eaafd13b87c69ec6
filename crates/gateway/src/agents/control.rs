//! The gateway's end of an agent's control connection.

use super::{
    Agents, admission,
    dial_failure::DialFailure,
    duplicate::refuse,
    enrol::from_agent,
    handshake_limits::Permit,
    pool_size,
    roster::{Admission, Hearing, Session, Understood},
};
use jiff::Timestamp;
use std::{
    collections::VecDeque,
    mem,
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tracing::{debug, info, warn};
use wicketgate_link::ConnectedAgent;
use wicketgate_model::{Problem, Reason};
use wicketgate_transport::{
    control::{Control, ControlError, FromAgent, PING_EVERY, SILENCE, TargetHealth, ToAgent},
    frame::StreamRefusal,
    identity::PresentedAgent,
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

/// When something of the agent last arrived. On a line that streams fill, answers wait behind their bytes.
struct Signs {
    last: Instant,
    last_message: Instant,
    /// Reads of its carriers that were counted at the last look, and when that was.
    carriers: (u64, Instant),
}

impl Signs {
    fn new(now: Instant) -> Self {
        Self { last: now, last_message: now, carriers: (0, now) }
    }

    fn message(&mut self, now: Instant) {
        (self.last, self.last_message) = (now, now);
    }

    /// Looks at the number of reads. Returns whether there were some: they count as old as they may be.
    fn carriers(&mut self, reads: u64, now: Instant) -> bool {
        let (before, looked) = mem::replace(&mut self.carriers, (reads, now));
        let is_sign = reads != before;
        if is_sign {
            self.last = self.last.max(looked);
        }
        is_sign
    }

    /// Fails if the control connection is dead, whatever the agent's carriers do.
    fn speaks(&self, now: Instant, oldest: Option<&Ping>) -> Result<(), ControlError> {
        let is_old = |at| now.saturating_duration_since(at) >= SILENCE;
        let is_dead = is_old(self.last_message) && oldest.is_some_and(|ping| is_old(ping.at));
        if is_dead { Err(ControlError::Silent) } else { Ok(()) }
    }
}

impl Agents {
    pub(super) async fn control(
        &self,
        presented: PresentedAgent,
        mut control: Control,
        address: IpAddr,
        permit: Permit,
    ) {
        let identity = presented.identity;
        let agent = identity.agent;
        let hello = match timeout(HELLO_WITHIN, control.receive()).await {
            Ok(Ok(hello @ FromAgent::Hello { .. })) => hello,
            Ok(Ok(FromAgent::Check)) => return self.answer_check(identity, control).await,
            other => return debug!(agent.id = %agent, ?other, "an agent sent no hello"),
        };
        let FromAgent::Hello { version, name, takes_duties, takes_over, learns_removal, learns_gateways } =
            hello
        else {
            return;
        };
        let (version, name) = (from_agent(&version), from_agent(&name));
        let takes = Understood { duties: takes_duties, gateways: learns_gateways };
        let about = ConnectedAgent { agent, environment: identity.environment, version, name, address };
        if !takes_over && let Some(older) = self.is_duplicate(&about).await {
            return refuse(control, takes_duties, older).await;
        }
        let now = std::time::Instant::now();
        let connected = self.with(|roster| roster.connect(&presented, about.clone(), takes, now));
        let session = match connected {
            Ok(session) => session,
            Err(why) => return admission::tell(control, learns_removal, why).await,
        };
        drop(permit);
        let ConnectedAgent { environment, version, name, .. } = about;
        info!(agent.id = %agent, environment.id = %environment, %version, agent.name = name, "agent connected");
        let end = tokio::select! {
            // First: a removed agent gets no further assignment.
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
                let admission = self.admits(&presented);
                if admission != Admission::Admitted {
                    return admission::tell(control, learns_removal, admission).await;
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

    /// Waits for nothing but the next event: a blocked message delays no decision about the agent.
    async fn converse(&self, control: &mut Control, session: &Session) -> Result<(), ControlError> {
        let mut want = welcome(control)?;
        let (mut second, mut ping) = (every(POOL_EVERY), every(PING_EVERY));
        // One renewal at a time: further requests before the answer are ignored.
        let (renewed, mut renewal) = mpsc::channel(1);
        let mut renewing = false;
        let (mut pings, mut hearing) = (VecDeque::new(), Hearing::Answers);
        let mut signs = Signs::new(Instant::now());
        // Nothing more is read before this.
        let mut due = Instant::now();
        loop {
            tokio::select! {
                // First the messages: after a pause of this process, they are older than the time says.
                biased;
                message = next(control, due) => {
                    let Some(message) = message? else { continue };
                    due = session.allowance.spend(named_in(&message), Instant::now());
                    // An agent that has to wait is not silent meanwhile.
                    signs.message(due);
                    self.alive(session, &mut hearing, &signs);
                    match message {
                        FromAgent::Renew { public_key } if !renewing => {
                            renewing = true;
                            self.renew(session, public_key, renewed.clone());
                        }
                        FromAgent::Pong => {
                            if let Some(ping) = pings.pop_front() {
                                self.answered(session, &ping);
                            }
                        }
                        message => self.record(session, message),
                    }
                }
                () = sleep_until(doubted_at(signs.last, hearing, pings.front())), if !pings.is_empty() => {
                    let next = hearing.next().ok_or(ControlError::Silent)?;
                    hearing = self.heard(session, next, signs.last);
                }
                () = session.outbox_filled.notified(), if !control.is_behind() => {
                    for message in self.with(|roster| roster.take_outbox(session)) {
                        control.queue(&message)?;
                    }
                }
                // An agent that asks and does not read gets no further answers.
                Some(message) = renewal.recv(), if !control.is_behind() => {
                    renewing = false;
                    control.queue(&message)?;
                }
                () = session.asked.notified(), if pings.len() < MOST_PINGS => {
                    ask(control, &mut pings, true)?;
                }
                _ = second.tick() => {
                    let wanted = session.carriers.tend(&self.0.room);
                    if wanted != want && !control.is_behind() {
                        want = wanted;
                        control.queue(&ToAgent::Carriers { want })?;
                    }
                    if signs.carriers(session.carriers.streams.heard.load(Relaxed), Instant::now()) {
                        self.alive(session, &mut hearing, &signs);
                    }
                    signs.speaks(Instant::now(), pings.front())?;
                }
                _ = ping.tick(), if pings.len() < MOST_PINGS => {
                    ask(control, &mut pings, false)?;
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

    /// There was a sign of life of the agent.
    fn alive(&self, session: &Session, hearing: &mut Hearing, signs: &Signs) {
        if *hearing != Hearing::Answers {
            *hearing = self.heard(session, Hearing::Answers, signs.last);
        }
    }

    /// Records whether the agent answers; its last sign of life was at `last`.
    fn heard(&self, session: &Session, hearing: Hearing, last: Instant) -> Hearing {
        let agent = session.agent;
        let quiet = last.elapsed();
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
            FromAgent::Acks { shares } => self.with(|roster| {
                for (share, generation) in shares {
                    roster.acknowledged(session, share, generation);
                }
            }),
            FromAgent::Refused { share, generation, reason } => {
                let reason = from_agent(&reason);
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
                    (TargetHealth::Unreachable(text), None) => Some(Problem::new(reason, from_agent(&text))),
                    (TargetHealth::Unreachable(text), Some(StreamRefusal { reason, .. })) => {
                        Some(DialFailure::from(StreamRefusal { reason, text: from_agent(&text) }).problem())
                    }
                };
                self.with(|roster| roster.health(session, share, problem, std::time::Instant::now()));
            }
            FromAgent::Clock { seconds_ahead } => {
                if self.with(|roster| roster.clock(session, seconds_ahead, std::time::Instant::now())) {
                    warn!(agent.id = %agent, agent.name = session.name, seconds_ahead, "the clock of an agent's host is wrong: set it, for example with `timedatectl set-ntp true`");
                }
            }
            FromAgent::Report { report } => self.with(|roster| roster.reported(session, report)),
            FromAgent::Draining => {
                if self.with(|roster| roster.draining(session)) {
                    info!(agent.id = %agent, agent.name = session.name, "agent is stopping");
                }
            }
            FromAgent::Hello { .. } | FromAgent::Renew { .. } | FromAgent::Pong | FromAgent::Check => {}
        }
    }
}

/// The next message, which is not read before this time. Writes what was queued.
async fn next(control: &mut Control, due: Instant) -> Result<Option<FromAgent>, ControlError> {
    if due > Instant::now() {
        control.rest_until(due).await?;
        if due > Instant::now() {
            return Ok(None);
        }
    }
    control.next().await
}

/// The number of shares that the message names, each of which is looked at.
fn named_in(message: &FromAgent) -> usize {
    match message {
        FromAgent::Acks { shares } => shares.len(),
        _ => 1,
    }
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// When the agent is doubted more, unless a sign of life arrives before. A gateway that has not asked for a while, because it got
/// no processor, asks first: the agent is as old as its oldest question without an answer.
fn doubted_at(last: Instant, hearing: Hearing, oldest: Option<&Ping>) -> Instant {
    let silent = last + hearing.lasts();
    oldest.map_or(silent, |ping| silent.max(ping.at + hearing.lasts().saturating_sub(PING_EVERY)))
}

/// Greets the agent. Returns the number of carriers that it is told to park.
fn welcome(control: &mut Control) -> Result<u16, ControlError> {
    let time = Some(Timestamp::now().as_second());
    control.queue(&ToAgent::Welcome { assigns_duties: true, time, takes_reports: true, takes_acks: true })?;
    control.queue(&ToAgent::Carriers { want: pool_size::LEAST })?;
    Ok(pool_size::LEAST)
}

fn ask(control: &mut Control, pings: &mut VecDeque<Ping>, is_asked: bool) -> Result<(), ControlError> {
    pings.push_back(Ping { at: Instant::now(), is_asked });
    control.queue(&ToAgent::Ping)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_whose_carriers_are_read_is_alive_and_its_control_connection_may_be_dead() {
        let (second, begin) = (Duration::from_secs(1), Instant::now());
        let mut signs = Signs::new(begin);
        assert!(signs.carriers(7, begin + second) && signs.last == begin, "in the second that has passed");
        assert!(signs.carriers(8, begin + 2 * second) && signs.last == begin + second);
        assert!(!signs.carriers(8, begin + 3 * second) && signs.last == begin + second);
        let ping = Ping { at: begin, is_asked: false };
        assert!(signs.speaks(begin + SILENCE - second, Some(&ping)).is_ok());
        assert!(signs.speaks(begin + SILENCE, Some(&ping)).is_err());
        assert!(signs.speaks(begin + SILENCE, None).is_ok(), "it was not asked");
    }

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
