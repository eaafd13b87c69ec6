//! What agents report about shares.
//!
//! Invariant: reports of a connection that is not the agent's newest, and reports about shares that are not assigned to
//! its environment, are ignored.

use super::{Roster, Session, acknowledgement::Acknowledgement, newest};
use std::{
    mem,
    time::{Duration, Instant},
};
use wicketgate_model::{AgentId, AgentReport, Generation, Problem, ShareId};

/// An agent decides how often it reports its clock; this is how often one connection's reports are told at most.
const CLOCK_TOLD_EVERY: Duration = Duration::from_secs(60);
/// So is how often it reports of itself; each is a write to the database.
const REPORT_TOLD_EVERY: Duration = Duration::from_secs(5);

impl Roster {
    /// The reports about the share, and its newest generation.
    fn reports(&mut self, session: &Session, share: ShareId) -> Option<(&mut Acknowledgement, Generation)> {
        let connected = newest(&mut self.connected, session)?;
        let assigned = self.shares.get(&share).filter(|s| s.environment == connected.about.environment)?;
        self.changed.insert(share);
        self.unelected.insert(share);
        Some((connected.acknowledgements.entry(share).or_default(), assigned.generation))
    }

    pub(crate) fn acknowledged(&mut self, session: &Session, share: ShareId, generation: Generation) {
        if let Some((reports, newest)) = self.reports(session, share)
            && generation <= newest
        {
            *reports = Acknowledgement {
                acknowledged: Some(generation),
                newest_refused: reports.newest_refused,
                ..Acknowledgement::default()
            };
        }
    }

    /// Returns whether it is new: no generation as new as this one was refused before.
    pub(crate) fn refused(
        &mut self,
        session: &Session,
        share: ShareId,
        generation: Generation,
        why: String,
    ) -> bool {
        let Some((reports, newest)) = self.reports(session, share) else { return false };
        if generation > newest {
            return false;
        }
        let is_new = reports.newest_refused < Some(generation);
        *reports = Acknowledgement {
            refused: Some((generation, why)),
            newest_refused: reports.newest_refused.max(Some(generation)),
            ..Acknowledgement::default()
        };
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
        if let Some((reports, _)) = self.reports(session, share) {
            // The agent probes the target itself.
            if let (None, Some(record)) = (&problem, &mut reports.record) {
                record.worked(now);
            }
            reports.unreachable = problem;
        }
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
        super::tests::{agent, connect, share},
        *,
    };
    use wicketgate_link::AgentShareState;
    use wicketgate_model::Reason;

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
