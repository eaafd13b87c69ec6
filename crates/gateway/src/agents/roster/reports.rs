//! What agents report about shares.
//!
//! Invariant: reports of a connection that is not the agent's newest, and reports about shares that are not assigned to
//! its environment, are ignored.

use super::{Roster, Session, acknowledgement::Acknowledgement, newest, words::Words};
use std::{
    mem,
    time::{Duration, Instant},
};
use wicketgate_model::{AgentId, AgentReport, Generation, Problem, Reason, ShareId};

/// An agent decides how often it reports its clock; this is how often one connection's reports are told at most.
const CLOCK_TOLD_EVERY: Duration = Duration::from_secs(60);
/// So is how often it reports of itself; each is a write to the database.
const REPORT_TOLD_EVERY: Duration = Duration::from_secs(5);

impl Roster {
    /// Takes in what the agent says of the share, in `generation` if it says it of one. `say` returns whether that changes anything:
    /// only then is the share looked at again, so that nothing follows from an agent that repeats itself.
    fn say(
        &mut self,
        session: &Session,
        (share, generation): (ShareId, Option<Generation>),
        say: impl FnOnce(&mut Acknowledgement, &mut Words) -> bool,
    ) {
        let Some(connected) = newest(&mut self.connected, session) else { return };
        let Some(assigned) = self.shares.get(&share) else { return };
        let is_its_own = assigned.environment == connected.about.environment;
        if !is_its_own || generation.is_some_and(|generation| generation > assigned.generation) {
            return;
        }
        let is_first = !connected.acknowledgements.contains_key(&share);
        let reports = connected.acknowledgements.entry(share).or_default();
        if say(reports, &mut connected.words) || is_first {
            self.touch(share);
        }
    }

    pub(crate) fn acknowledged(&mut self, session: &Session, share: ShareId, generation: Generation) {
        self.say(session, (share, Some(generation)), |reports, _| {
            let newest_refused = reports.newest_refused;
            reports.replace(Acknowledgement {
                acknowledged: Some(generation),
                newest_refused,
                ..Acknowledgement::default()
            })
        });
    }

    /// Returns whether it is new: no generation as new as this one was refused before.
    pub(crate) fn refused(
        &mut self,
        session: &Session,
        share: ShareId,
        generation: Generation,
        why: String,
    ) -> bool {
        let mut is_new = false;
        self.say(session, (share, Some(generation)), |reports, words| {
            is_new = reports.newest_refused < Some(generation);
            let newest_refused = reports.newest_refused.max(Some(generation));
            let why = words.keep(Problem::new(Reason::AgentRefused, why));
            reports.replace(Acknowledgement {
                refused: Some((generation, why)),
                newest_refused,
                ..Acknowledgement::default()
            })
        });
        is_new
    }

    /// `problem`: why the agent does not reach the target.
    pub(crate) fn health(
        &mut self,
        session: &Session,
        share: ShareId,
        problem: Option<Problem>,
        now: Instant,
    ) {
        self.say(session, (share, None), |reports, words| {
            // The agent probes the target itself.
            if let (None, Some(record)) = (&problem, &mut reports.record) {
                record.worked(now);
            }
            let unreachable = problem.map(|problem| words.keep(problem));
            let is_other = reports.unreachable != unreachable;
            reports.unreachable = unreachable;
            is_other
        });
    }

    /// Records the round-trip time of an answer.
    pub(crate) fn answered(&mut self, session: &Session, rtt: Duration) {
        if let Some(connected) = self.connected(session) {
            connected.rtt = Some(rtt);
        }
    }

    /// The clock of the agent's host is wrong. Returns whether to tell: it is new, and none was told lately.
    pub(crate) fn clock(&mut self, session: &Session, seconds_ahead: i64, now: Instant) -> bool {
        let Some(connected) = self.connected(session) else { return false };
        let is_new = connected.seconds_ahead.replace(seconds_ahead) != Some(seconds_ahead);
        let told = connected.clock_told.filter(|at| now.saturating_duration_since(*at) < CLOCK_TOLD_EVERY);
        let is_told = is_new && told.is_none();
        if is_told {
            connected.clock_told = Some(now);
        }
        is_told
    }

    /// What the agent has found on its own host. A later report replaces one that waits.
    pub(crate) fn reported(&mut self, session: &Session, report: Box<AgentReport>) {
        if let Some(connected) = self.connected(session) {
            connected.report = Some(report);
            self.moved.insert(session.agent);
        }
    }

    /// The report to tell the server, unless it was told one lately.
    pub(crate) fn take_report(&mut self, agent: AgentId, now: Instant) -> Option<Box<AgentReport>> {
        let connected = self.connected.get_mut(&agent)?;
        let told = connected.report_told.filter(|at| now.saturating_duration_since(*at) < REPORT_TOLD_EVERY);
        if told.is_some() {
            return None;
        }
        let report = connected.report.take()?;
        connected.report_told = Some(now);
        Some(report)
    }

    /// Has the reports that wait announced again.
    pub(crate) fn announce_waiting_reports(&mut self) {
        let waiting = self.connected.iter().filter(|(_, connected)| connected.report.is_some());
        self.moved.extend(waiting.map(|(agent, _)| *agent));
    }

    /// The agent is stopping: new streams use other agents, running ones continue. Returns whether it is new.
    pub(crate) fn draining(&mut self, session: &Session) -> bool {
        let Some(connected) = self.connected(session) else { return false };
        if mem::replace(&mut connected.draining, true) {
            return false;
        }
        let environment = connected.about.environment;
        let shares = self.environments.get(&environment).into_iter().flat_map(|e| &e.shares);
        self.changed.extend(shares.clone());
        self.unelected.extend(shares);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            tests::{agent, connect, share},
            words::MOST,
        },
        *,
    };
    use std::{collections::HashMap, sync::Arc};
    use uuid::Uuid;
    use wicketgate_link::AgentShareState;
    use wicketgate_model::ShareDesired;

    #[test]
    fn a_repeated_refusal_is_not_new() {
        let mut roster = Roster::default();
        roster.assign(&share(2));
        let (id, session) = (share(2).id, connect(&mut roster, 1));
        let [one, two, three] = [1, 2, 3].map(Generation::new);
        let mut refuse = |g| roster.refused(&session, id, g, "no".to_owned());
        assert_eq!([refuse(one), refuse(one), refuse(two), refuse(one)], [true, false, true, false]);
        assert!(!refuse(three), "never assigned");
        roster.acknowledged(&session, id, two);
        assert!(!roster.refused(&session, id, two, "no".to_owned()));
    }

    #[test]
    fn only_what_an_agent_changes_is_looked_at_again() {
        let mut roster = Roster::default();
        roster.assign(&share(2));
        let (id, session, now) = (share(2).id, connect(&mut roster, 1), Instant::now());
        let [two, three] = [2, 3].map(Generation::new);
        roster.elect();
        let mut says = |say: &dyn Fn(&mut Roster)| {
            roster.changed.clear();
            say(&mut roster);
            assert_eq!(roster.changed.is_empty(), roster.unelected.is_empty());
            roster.elect();
            !roster.changed.is_empty()
        };
        let unreachable = |text: &str| Some(Problem::new(Reason::TargetUnreachable, text));
        let refuses = |roster: &mut Roster| {
            roster.refused(&session, id, two, "no".to_owned());
        };
        assert!(!says(&|roster| roster.acknowledged(&session, id, three)), "it was never assigned");
        assert!(says(&|roster| roster.acknowledged(&session, id, two)));
        assert!(!says(&|roster| roster.acknowledged(&session, id, two)));
        assert!(!says(&|roster| roster.health(&session, id, None, now)));
        assert!(says(&|roster| roster.health(&session, id, unreachable("no"), now)));
        assert!(!says(&|roster| roster.health(&session, id, unreachable("no"), now)));
        assert!(says(&|roster| roster.health(&session, id, unreachable("never"), now)));
        assert!(says(&refuses));
        assert!(!says(&refuses));
        assert!(says(&|roster| roster.acknowledged(&session, id, two)));
    }

    #[test]
    fn the_memory_of_an_agent_does_not_grow_with_what_it_says() {
        let mut roster = Roster::default();
        let shares: Vec<_> =
            (0..4_000).map(|n| ShareDesired { id: ShareId::new(Uuid::from_u128(n)), ..share(1) }).collect();
        for share in &shares {
            roster.assign(share);
        }
        let session = connect(&mut roster, 1);
        for (n, share) in shares.iter().enumerate() {
            roster.refused(&session, share.id, Generation::FIRST, format!("{n} {}", "x".repeat(255)));
        }
        let connected = &roster.connected[&agent(1)];
        let mut texts = HashMap::new();
        for reports in connected.acknowledgements.values() {
            let why = &reports.refused.as_ref().unwrap().1;
            texts.insert(Arc::as_ptr(why), why.message.len());
        }
        assert!(texts.len() <= MOST + 1 && texts.values().sum::<usize>() < 128 * 1024, "{}", texts.len());
        assert!(size_of::<Acknowledgement>() <= 160, "{}", size_of::<Acknowledgement>());
    }

    #[test]
    fn an_agent_cannot_fill_the_log_with_its_clock_or_its_end() {
        let (mut roster, start) = (Roster::default(), Instant::now());
        let session = connect(&mut roster, 1);
        let mut told = |seconds, after| roster.clock(&session, seconds, start + after);
        let told = [(60, 0), (60, 1), (61, 2), (61, 70), (62, 71), (63, 72), (64, 200)]
            .map(|(ahead, after)| told(ahead, Duration::from_secs(after)));
        assert_eq!(told, [true, false, false, false, true, false, true]);
        assert_eq!(roster.agent_shares(agent(1)).unwrap().clock_seconds_ahead, Some(64));
        assert_eq!([(); 2].map(|()| roster.draining(&session)), [true, false]);
    }

    #[test]
    fn the_newest_report_is_told_and_not_more_often_than_the_server_can_write() {
        let mut roster = Roster::default();
        let (session, begin) = (connect(&mut roster, 1), Instant::now());
        let report = |os: &str| Box::new(AgentReport { os: os.to_owned(), ..AgentReport::default() });
        let mut told = |os: &str, after| {
            roster.reported(&session, report(os));
            let report = roster.take_report(agent(1), begin + after);
            roster.announce_waiting_reports();
            report.map(|report| report.os)
        };
        assert_eq!(told("one", Duration::ZERO).as_deref(), Some("one"));
        assert_eq!(told("two", REPORT_TOLD_EVERY / 2), None);
        assert_eq!(told("three", REPORT_TOLD_EVERY).as_deref(), Some("three"));
        roster.moved.clear();
        roster.announce_waiting_reports();
        assert!(roster.moved.is_empty(), "none waits");
        assert_eq!(roster.take_report(agent(1), begin + 9 * REPORT_TOLD_EVERY), None);
    }

    #[test]
    fn an_agents_reports_give_the_states_of_its_shares() {
        let mut roster = Roster::default();
        roster.assign(&share(2));
        let (id, session) = (share(2).id, connect(&mut roster, 1));
        let [one, two] = [1, 2].map(Generation::new);
        let states = |roster: &Roster| roster.agent_shares(agent(1)).unwrap().shares;
        assert_eq!(states(&roster), [(id, AgentShareState::Pending)]);
        roster.acknowledged(&session, id, one);
        assert_eq!(states(&roster), [(id, AgentShareState::Pending)], "an older one is not the newest");
        roster.acknowledged(&session, id, two);
        assert_eq!(states(&roster), [(id, AgentShareState::Serving)]);
        let now = Instant::now();
        roster.health(&session, id, Some(Problem::new(Reason::TargetUnreachable, "refused")), now);
        assert_eq!(states(&roster), [(id, AgentShareState::Unreachable("refused".to_owned()))]);
        roster.refused(&session, id, two, "not allowed".to_owned());
        assert_eq!(states(&roster), [(id, AgentShareState::Refused("not allowed".to_owned()))]);
        roster.answered(&session, Duration::from_millis(3));
        assert_eq!(roster.nearest(id), Some(Duration::from_millis(3)));
        roster.disconnect(&session);
        assert_eq!((roster.agent_shares(agent(1)), roster.nearest(id)), (None, None));
    }
}
