//! Which agents are served: those that the server has named, with the environment and the key that it has named.
//!
//! Others have a certificate of the authority, too: agents that were removed, agents that a restored database does not
//! have, and whatever was made with a stolen authority's key. Each is told why, so that its operator can mend it.

use super::{Agents, enrol::from_agent, roster::Admission};
use jiff::Timestamp;
use std::{
    net::IpAddr,
    pin::pin,
    time::{Duration, Instant},
};
use tokio::time::timeout;
use tracing::{debug, warn};
use wicketgate_model::{AgentDesired, AgentId, UnknownAgent};
use wicketgate_transport::{
    control::{Control, FromAgent, ToAgent},
    identity::{AgentIdentity, PresentedAgent},
    tls::ExpiredAgent,
};

/// For the hello of an agent that is refused: it sends one at once. Shorter than for others, since nothing follows.
const HELLO_WITHIN: Duration = Duration::from_secs(1);
/// For an agent that has just enrolled to be named; less than its patience with a gateway that is silent.
const NAMED_WITHIN: Duration = Duration::from_secs(5);
/// Between two warnings of agents that the server does not name: each tries again every few seconds.
const WARNED_EVERY: Duration = Duration::from_secs(60);
/// Agents with an expired certificate that the log names. As many are not expired unless this host's clock is wrong.
const MOST_EXPIRED: usize = 1000;

impl Agents {
    /// Takes in the agents that the server has named, and those that it does not name any longer. Ends all connections and
    /// streams of those that may not have them any longer.
    pub fn name(&self, named: &[(AgentId, AgentDesired)], forgotten: &[AgentId]) {
        self.with(|roster| {
            roster.is_informed = true;
            for (agent, desired) in named {
                roster.name(*agent, Some(*desired));
            }
            for agent in forgotten {
                roster.name(*agent, None);
            }
        });
        self.0.named.notify_waiters();
    }

    /// Waits until the agent is named, within a bound.
    pub(super) async fn admission(&self, agent: &PresentedAgent) -> Admission {
        let named = async {
            loop {
                let mut changed = pin!(self.0.named.notified());
                changed.as_mut().enable();
                let admission = self.admits(agent);
                if matches!(admission, Admission::Admitted | Admission::Barred) {
                    return admission;
                }
                changed.await;
            }
        };
        timeout(NAMED_WITHIN, named).await.unwrap_or_else(|_| self.admits(agent))
    }

    pub(super) fn admits(&self, agent: &PresentedAgent) -> Admission {
        self.with(|roster| roster.admits(agent))
    }

    /// Ends a new connection of an agent that is not admitted.
    pub(super) async fn turn_away(
        &self,
        PresentedAgent { identity, key_sha256 }: PresentedAgent,
        why: Admission,
        (mut control, address): (Control, IpAddr),
    ) {
        if why == Admission::Unknown && self.is_warning_due() {
            warn!(
                agent.id = %identity.agent, environment.id = %identity.environment,
                "refused an agent that the server does not know, or knows with another key: its certificate is of this \
                 authority, so the database is older than the agent, or the authority's key was copied"
            );
        } else {
            debug!(agent.id = %identity.agent, ?why, "refused an agent");
        }
        let hello = timeout(HELLO_WITHIN, control.receive()).await;
        if let (Admission::Unknown, Ok(Ok(FromAgent::Hello { name, .. }))) = (why, &hello) {
            let now = Timestamp::now();
            let AgentIdentity { frontdoor, environment, agent } = identity;
            let (name, first_seen_at, last_seen_at) = (from_agent(name), now, now);
            let unknown = UnknownAgent {
                agent,
                environment,
                frontdoor,
                key_sha256,
                name,
                address,
                first_seen_at,
                last_seen_at,
            };
            self.with(|roster| roster.met(unknown));
        }
        let understands =
            matches!(hello, Ok(Ok(FromAgent::Hello { learns_removal: true, .. } | FromAgent::Check)));
        tell(control, understands, why).await;
    }

    /// Those that were refused lately because the server does not name them.
    pub fn strangers(&self) -> Vec<UnknownAgent> {
        self.with(|roster| roster.strangers(Timestamp::now()))
    }

    /// Tells the log of an agent whose certificate has expired, once.
    pub(super) fn tell_expired(&self) {
        let Some(ExpiredAgent { identity, expired_at }) = self.0.identity.take_expired() else { return };
        let mut told = self.0.told_expired.lock();
        if told.len() < MOST_EXPIRED && told.insert(identity.agent) {
            let AgentIdentity { agent, environment, .. } = identity;
            warn!(
                agent.id = %agent, environment.id = %environment, %expired_at,
                "refused an agent whose certificate has expired by the clock of this host: if the clock is right, the agent was \
                 offline for too long, and is enrolled again with a code of `wicketgate agent enroll --env {environment}`"
            );
        }
    }

    fn is_warning_due(&self) -> bool {
        let (mut last, now) = (self.0.warned.lock(), Instant::now());
        let is_due = last.is_none_or(|last| now.duration_since(last) >= WARNED_EVERY);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

/// Tells the agent why it is refused, if it understands it, and ends the connection.
pub(super) async fn tell(mut control: Control, understands: bool, why: Admission) {
    let message = match why {
        Admission::Barred => Some(ToAgent::Removed),
        Admission::Unknown => Some(ToAgent::Unknown),
        // It tries again.
        Admission::Admitted | Admission::TooEarly => None,
    };
    if let Some(message) = message.filter(|_| understands) {
        let _ = control.send(&message).await;
    }
    control.close().await;
}
