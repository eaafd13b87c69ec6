//! Agents that were refused because the server does not know them. An operator may adopt them.

use super::Roster;
use jiff::{SignedDuration, Timestamp};
use wicketgate_model::{AgentDesired, UnknownAgent};

/// More than a restore is likely to have lost; who has the authority's key can make any number.
const MOST: usize = 256;
/// One that has not come back since is gone: each tries again every few seconds.
const KEPT: SignedDuration = SignedDuration::from_hours(1);

impl Roster {
    /// An agent has just been refused.
    pub(in crate::agents) fn met(&mut self, mut unknown: UnknownAgent) {
        let now = unknown.last_seen_at;
        if let Some(before) = self.strangers.get(&unknown.agent) {
            unknown.first_seen_at = before.first_seen_at;
        }
        self.strangers.insert(unknown.agent, unknown);
        self.strangers.retain(|_, one| now.duration_since(one.last_seen_at) < KEPT);
        if self.strangers.len() > MOST {
            let oldest = self.strangers.values().min_by_key(|one| one.last_seen_at).map(|one| one.agent);
            oldest.and_then(|oldest| self.strangers.remove(&oldest));
        }
    }

    /// Those that are still unknown, the latest first.
    pub(in crate::agents) fn strangers(&mut self, now: Timestamp) -> Vec<UnknownAgent> {
        let named = &self.named;
        self.strangers.retain(|agent, one| {
            let AgentDesired::Enrolled { key_sha256, .. } = named.get(agent).unwrap_or(&AgentDesired::Barred)
            else {
                return !named.contains_key(agent) && now.duration_since(one.last_seen_at) < KEPT;
            };
            *key_sha256 != one.key_sha256 && now.duration_since(one.last_seen_at) < KEPT
        });
        let mut all: Vec<_> = self.strangers.values().cloned().collect();
        all.sort_by_key(|one| std::cmp::Reverse(one.last_seen_at));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::agent, *};
    use jiff::ToSpan as _;
    use uuid::Uuid;
    use wicketgate_model::{EnvironmentId, FrontdoorId};

    fn unknown(n: u128, at: Timestamp) -> UnknownAgent {
        UnknownAgent {
            agent: agent(n),
            environment: EnvironmentId::new(Uuid::nil()),
            frontdoor: FrontdoorId::new(Uuid::nil()),
            key_sha256: [7; 32],
            name: "dc-1".to_owned(),
            address: [192, 0, 2, 1].into(),
            first_seen_at: at,
            last_seen_at: at,
        }
    }

    #[test]
    fn strangers_are_kept_until_they_are_named_or_stay_away() {
        let (mut roster, begin) = (Roster::default(), Timestamp::UNIX_EPOCH);
        roster.met(unknown(1, begin));
        roster.met(unknown(2, begin + 1.second()));
        roster.met(unknown(1, begin + 2.seconds()));
        let ids =
            |roster: &mut Roster, at| roster.strangers(at).iter().map(|one| one.agent).collect::<Vec<_>>();
        assert_eq!(ids(&mut roster, begin + 3.seconds()), [agent(1), agent(2)]);
        assert_eq!(roster.strangers(begin)[0].first_seen_at, begin);
        // One with another key than the server names is still a stranger.
        let enrolled = |key| AgentDesired::Enrolled {
            environment: EnvironmentId::new(Uuid::nil()),
            key_sha256: [key; 32],
        };
        roster.name(agent(1), Some(enrolled(8)));
        assert_eq!(ids(&mut roster, begin + 3.seconds()).len(), 2);
        roster.name(agent(1), Some(enrolled(7)));
        assert_eq!(ids(&mut roster, begin + 3.seconds()), [agent(2)]);
        roster.name(agent(2), Some(AgentDesired::Barred));
        assert!(ids(&mut roster, begin + 3.seconds()).is_empty());
        for n in 0..=300 {
            roster.met(unknown(100 + n, begin + 10.seconds()));
        }
        assert_eq!(ids(&mut roster, begin + 10.seconds()).len(), MOST);
        assert!(ids(&mut roster, begin + 2.hours()).is_empty());
    }
}
