//! What an agent may have the gateway do: messages of its control connections, and certificates.
//!
//! Whoever has the key of an agent speaks for it, as on a customer's own machine. Invariants: what the agents of an environment say is
//! taken in at a rate at most, over all of their connections, and the rest waits on the line; an agent has one renewal under way, and is
//! given one certificate in [`RENEWED_EVERY`].

use jiff::{SignedDuration, Timestamp};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::Instant;
use wicketgate_link::CertificateAnswer;
use wicketgate_model::{AgentId, EnvironmentId};
use wicketgate_system::{
    Mutex,
    bucket::{Bucket, Rate},
};

/// An agent's messages, and shares that they name: 32,768 at once, which are two restarts with 12,000 shares and more, and 500 a second.
const OF_AGENT: Rate = Rate::within(Duration::from_millis(65_536), 32_768);
/// Those of all agents of an environment: four times as many.
const OF_ENVIRONMENT: Rate = Rate::within(Duration::from_millis(65_536), 131_072);

/// Between two certificates of an agent, which asks once in ten days, and again after ten minutes if it cannot use the answer.
const RENEWED_EVERY: Duration = Duration::from_mins(10);
/// After an answer that the server could not give.
const ASKED_EVERY: Duration = Duration::from_secs(10);
/// A clock that was set by more than this: a certificate of before may not be valid any more, and a new one is given.
const CLOCK_SET: SignedDuration = SignedDuration::from_mins(1);

type Answer = CertificateAnswer<Vec<u8>>;

/// The allowances of agents that are connected, or have lately used theirs. There are as many as the server names agents.
#[derive(Default)]
pub(super) struct Allowances {
    agents: HashMap<AgentId, Arc<OfAgent>>,
    environments: HashMap<EnvironmentId, Arc<Mutex<Bucket>>>,
}

/// An agent's, with that of its environment. Its connections share it.
#[derive(Clone)]
pub(super) struct Allowance {
    agent: Arc<OfAgent>,
    environment: Arc<Mutex<Bucket>>,
}

#[derive(Default)]
struct OfAgent {
    messages: Mutex<Bucket>,
    renewal: Mutex<Renewal>,
}

#[derive(Default)]
struct Renewal {
    is_under_way: bool,
    last: Option<LastRenewal>,
}

struct LastRenewal {
    key: Vec<u8>,
    answer: Answer,
    at: Instant,
    time: Timestamp,
}

/// What becomes of a request for a certificate.
pub(super) enum RenewalTurn {
    /// The server is to be asked.
    Ask(RenewalPlace),
    /// This is the answer.
    Told(Answer),
}

/// The one place for a request of the agent, until it is dropped.
pub(super) struct RenewalPlace(Arc<OfAgent>);

impl Allowances {
    /// That of an agent that connects. Those that nobody uses, and that would be the same if they were new, are forgotten.
    pub(super) fn of(&mut self, agent: AgentId, environment: EnvironmentId, now: Instant) -> Allowance {
        let is_full = |bucket: &Bucket| bucket.full_at().is_none_or(|at| at <= now);
        self.agents.retain(|_, one| {
            let is_new = || is_full(&one.messages.lock()) && one.renewal.lock().is_over(now);
            Arc::strong_count(one) > 1 || !is_new()
        });
        self.environments.retain(|_, one| Arc::strong_count(one) > 1 || !is_full(&one.lock()));
        Allowance {
            agent: Arc::clone(self.agents.entry(agent).or_default()),
            environment: Arc::clone(self.environments.entry(environment).or_default()),
        }
    }
}

impl Allowance {
    /// Takes what a message costs that names so many shares. Returns when the next message may be read.
    pub(super) fn spend(&self, shares: usize, now: Instant) -> Instant {
        let cost = u32::try_from(shares.max(1)).unwrap_or(u32::MAX);
        let own = self.agent.messages.lock().reserve_many(OF_AGENT, cost, now);
        now + own.max(self.environment.lock().reserve_many(OF_ENVIRONMENT, cost, now))
    }

    /// The agent asks for a certificate for this key.
    pub(super) fn renew(&self, key: &[u8], (now, time): (Instant, Timestamp)) -> RenewalTurn {
        let mut renewal = self.agent.renewal.lock();
        if renewal.is_under_way {
            return RenewalTurn::Told(Answer::Unavailable);
        }
        match &renewal.last {
            Some(last) if last.holds(now, time) => RenewalTurn::Told(last.answer_for(key)),
            _ => {
                renewal.is_under_way = true;
                RenewalTurn::Ask(RenewalPlace(Arc::clone(&self.agent)))
            }
        }
    }
}

impl RenewalPlace {
    pub(super) fn answered(self, key: Vec<u8>, answer: Answer, (at, time): (Instant, Timestamp)) {
        self.0.renewal.lock().last = Some(LastRenewal { key, answer, at, time });
    }
}

impl Drop for RenewalPlace {
    fn drop(&mut self) {
        self.0.renewal.lock().is_under_way = false;
    }
}

impl Renewal {
    fn is_over(&self, now: Instant) -> bool {
        !self.is_under_way && self.last.as_ref().is_none_or(|last| last.is_old(now))
    }
}

impl LastRenewal {
    fn is_old(&self, now: Instant) -> bool {
        let every = match self.answer {
            Answer::Granted(_) | Answer::Refused(_) => RENEWED_EVERY,
            Answer::Unavailable => ASKED_EVERY,
        };
        now.saturating_duration_since(self.at) >= every
    }

    /// Whether the server would answer the same. By a clock that was wrong, the certificate has another end.
    fn holds(&self, now: Instant, time: Timestamp) -> bool {
        let passed = SignedDuration::try_from(now.saturating_duration_since(self.at)).unwrap_or_default();
        !self.is_old(now) && (time.duration_since(self.time) - passed).abs() < CLOCK_SET
    }

    /// A certificate is for the key that it was asked for.
    fn answer_for(&self, key: &[u8]) -> Answer {
        match &self.answer {
            Answer::Granted(_) if self.key != key => Answer::Unavailable,
            answer => answer.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn agent(n: u128) -> AgentId {
        AgentId::new(Uuid::from_u128(n))
    }

    fn environment(n: u128) -> EnvironmentId {
        EnvironmentId::new(Uuid::from_u128(n))
    }

    /// Seconds until the agent may send more, after so many messages of 128 shares.
    fn waits(allowance: &Allowance, messages: u32, now: Instant) -> f64 {
        let mut due = now;
        for _ in 0..messages {
            due = allowance.spend(128, now);
        }
        (due - now).as_secs_f64()
    }

    #[test]
    fn two_restarts_with_12000_shares_do_not_wait_and_a_flood_is_held_to_its_rate() {
        let (mut all, now) = (Allowances::default(), Instant::now());
        let mut connect = |n| all.of(agent(n), environment(1), now);
        let (first, restart) = (connect(1), 12_000_u32.div_ceil(128));
        assert_eq!(waits(&first, restart, now), 0.0);
        // Another connection does not have another allowance.
        drop(first);
        let second = connect(1);
        assert_eq!(waits(&second, restart, now), 0.0);
        // 24,064 were taken: with 78,704 more, and one message at most more than there was room for, it waits for the rate.
        let waited = waits(&second, 615, now);
        assert!((139.0..141.0).contains(&waited), "{waited}");
        // Others of the environment have a part of their own, and all together a bound.
        assert_eq!(waits(&connect(2), restart, now), 0.0);
        let waited = (3..9).fold(0.0, |_, n| waits(&connect(n), restart, now));
        assert!((20.0..50.0).contains(&waited), "{waited}");
        // Other environments notice nothing.
        assert_eq!(waits(&all.of(agent(9), environment(2), now), restart, now), 0.0);
    }

    #[test]
    fn allowances_of_those_that_are_gone_are_forgotten_once_they_are_full_again() {
        let (mut all, now) = (Allowances::default(), Instant::now());
        all.of(agent(1), environment(1), now).spend(500, now);
        drop(all.of(agent(2), environment(2), now));
        assert_eq!((all.agents.len(), all.environments.len()), (2, 2));
        drop(all.of(agent(3), environment(3), now));
        assert!(all.agents.contains_key(&agent(1)) && !all.agents.contains_key(&agent(2)));
        drop(all.of(agent(3), environment(3), now + Duration::from_secs(1)));
        assert_eq!((all.agents.len(), all.environments.len()), (1, 1));
    }

    #[test]
    fn one_certificate_in_ten_minutes_and_one_request_at_a_time() {
        let (mut all, begin, clock) = (Allowances::default(), Instant::now(), Timestamp::UNIX_EPOCH);
        let at = |seconds: i64| {
            (begin + Duration::from_secs(seconds.unsigned_abs()), clock + SignedDuration::from_secs(seconds))
        };
        let mut connect = || all.of(agent(1), environment(1), begin);
        let granted = || Answer::Granted(vec![7]);
        let told = |allowance: &Allowance, key: &[u8], at| match allowance.renew(key, at) {
            RenewalTurn::Told(answer) => Some(answer),
            RenewalTurn::Ask(_) => None,
        };
        let RenewalTurn::Ask(place) = connect().renew(&[1], at(0)) else { panic!("it is the first") };
        assert_eq!(told(&connect(), &[1], at(1)), Some(Answer::Unavailable), "also on another connection");
        place.answered(vec![1], granted(), at(2));
        assert_eq!(told(&connect(), &[1], at(3)), Some(granted()), "the earlier one");
        assert_eq!(told(&connect(), &[2], at(3)), Some(Answer::Unavailable), "it was for another key");
        assert_eq!(told(&connect(), &[1], at(600)), Some(granted()));
        assert_eq!(told(&connect(), &[1], at(603)), None, "ten minutes are over");
        // The gateway's clock is set right: what was given by the wrong one may have ended.
        let (now, time) = at(60);
        assert_eq!(told(&connect(), &[1], (now, time + SignedDuration::from_hours(48))), None);
        // A server without its database is asked again sooner.
        let RenewalTurn::Ask(place) = connect().renew(&[1], at(700)) else { panic!("none is under way") };
        place.answered(vec![1], Answer::Unavailable, at(700));
        assert_eq!(told(&connect(), &[1], at(709)), Some(Answer::Unavailable));
        assert_eq!(told(&connect(), &[1], at(710)), None);
    }
}
