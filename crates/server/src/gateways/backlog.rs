//! Reports of a gateway that wait to be recorded in the database.
//!
//! Invariants: a report of one kind never waits for those of another, and the link waits for none. What waits is about one agent, of
//! which the last report counts, or one of the few reports of traffic that a gateway sends before it hears that they are recorded: these
//! are never merged, since the gateway may send one of them again. What is reported of an agent is recorded in order, so that one that
//! connected and disconnected is never left as connected; and so are reports of traffic.

use std::{array, collections::VecDeque};

use jiff::Timestamp;
use tokio::sync::Notify;
use wicketgate_link::UNRECORDED_REPORTS;
use wicketgate_model::{AgentId, AgentReport};
use wicketgate_store::{AgentLink, TrafficReport};
use wicketgate_system::Mutex;

wicketgate_model::text_enum!(
    /// What is recorded one after another.
    ReportKind {
        /// Agents that connected or disconnected.
        Links = "agent-links",
        /// What agents say of themselves.
        Agents = "agent-reports",
        Traffic = "traffic",
    }
);

/// What has to be written to the database.
#[derive(Debug)]
pub(crate) enum LinkRecord {
    Link(LinkChange),
    Agent(AgentId, Box<AgentReport>, Timestamp),
    Traffic(TrafficReport),
}

/// How an agent's link has changed since it was last recorded.
#[derive(Debug)]
pub(crate) struct LinkChange {
    pub(crate) agent: AgentId,
    pub(crate) connected: Option<(AgentLink, Timestamp)>,
    /// After it was connected, if it was.
    pub(crate) disconnected: Option<Timestamp>,
}

impl LinkRecord {
    pub(crate) fn connected(link: AgentLink, at: Timestamp) -> Self {
        Self::Link(LinkChange { agent: link.agent, connected: Some((link, at)), disconnected: None })
    }

    pub(crate) fn disconnected(agent: AgentId, at: Timestamp) -> Self {
        Self::Link(LinkChange { agent, connected: None, disconnected: Some(at) })
    }

    fn kind(&self) -> ReportKind {
        match self {
            Self::Link(_) => ReportKind::Links,
            Self::Agent(..) => ReportKind::Agents,
            Self::Traffic(_) => ReportKind::Traffic,
        }
    }

    /// Adds a later record. Returns it if it is about something else.
    fn add(&mut self, later: Self) -> Option<Self> {
        match (self, later) {
            (Self::Link(this), Self::Link(later)) if this.agent == later.agent => {
                this.connected = later.connected.or(this.connected.take());
                this.disconnected = later.disconnected;
            }
            (Self::Agent(agent, this, at), Self::Agent(same, later, later_at)) if *agent == same => {
                (*this, *at) = (later, later_at);
            }
            (_, later) => return Some(later),
        }
        None
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Backlog([Lane; ReportKind::ALL.len()]);

/// Of one kind.
#[derive(Debug, Default)]
struct Lane {
    inner: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The oldest first, and since when each waits.
    records: VecDeque<(Timestamp, LinkRecord)>,
    /// Since when the one waited that is being written.
    writing: Option<Timestamp>,
    is_closed: bool,
}

impl Default for Backlog {
    fn default() -> Self {
        Self(array::from_fn(|_| Lane::default()))
    }
}

impl Backlog {
    fn lane(&self, kind: ReportKind) -> &Lane {
        &self.0[kind as usize]
    }

    /// Returns whether there was room: there is, for a gateway that follows the protocol.
    pub(crate) fn push(&self, record: LinkRecord, now: Timestamp) -> bool {
        let lane = self.lane(record.kind());
        let is_taken = lane.inner.lock().push(record, now);
        lane.arrived.notify_one();
        is_taken
    }

    /// No record follows.
    pub(crate) fn close(&self) {
        for lane in &self.0 {
            lane.inner.lock().is_closed = true;
            lane.arrived.notify_one();
        }
    }

    /// The next record to write; the one before is written. `None` after the last one.
    pub(crate) async fn next(&self, kind: ReportKind) -> Option<LinkRecord> {
        let lane = self.lane(kind);
        loop {
            if let Some(record) = self.take(kind) {
                return Some(record);
            }
            if lane.inner.lock().is_closed {
                return None;
            }
            lane.arrived.notified().await;
        }
    }

    /// As [`Backlog::next`], without waiting.
    pub(crate) fn take(&self, kind: ReportKind) -> Option<LinkRecord> {
        let mut waiting = self.lane(kind).inner.lock();
        let (since, record) = waiting.records.pop_front().unzip();
        waiting.writing = since;
        record
    }

    /// Since when the oldest report waits that is not recorded yet.
    pub(crate) fn oldest(&self, kind: ReportKind) -> Option<Timestamp> {
        let waiting = self.lane(kind).inner.lock();
        waiting.writing.or_else(|| waiting.records.front().map(|(since, _)| *since))
    }
}

impl Waiting {
    fn push(&mut self, record: LinkRecord, now: Timestamp) -> bool {
        let mut left = Some(record);
        for (_, waiting) in &mut self.records {
            let Some(record) = left.take() else { return true };
            left = waiting.add(record);
        }
        let has_room =
            !matches!(left, Some(LinkRecord::Traffic(_))) || self.records.len() < UNRECORDED_REPORTS;
        if has_room {
            self.records.extend(left.map(|record| (now, record)));
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::ToSpan as _;
    use uuid::Uuid;
    use wicketgate_model::SpooledTraffic;

    fn start() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_link_that_ended_is_recorded_as_ended() {
        let (backlog, agent) = (Backlog::default(), AgentId::new(Uuid::now_v7()));
        let link = |version: &str| {
            let (name, version) = ("a".to_owned(), version.to_owned());
            AgentLink { agent, name, version, address: [192, 0, 2, 1].into() }
        };
        let at = |second: i64| start() + second.seconds();
        let changed = |backlog: &Backlog| match backlog.take(ReportKind::Links) {
            Some(LinkRecord::Link(change)) => {
                (change.connected.map(|(link, at)| (link.version, at)), change.disconnected)
            }
            other => panic!("{other:?}"),
        };
        backlog.push(LinkRecord::connected(link("1"), at(1)), at(1));
        backlog.push(LinkRecord::disconnected(agent, at(2)), at(2));
        assert_eq!(changed(&backlog), (Some(("1".to_owned(), at(1))), Some(at(2))));
        // While it is written, others arrive.
        backlog.push(LinkRecord::disconnected(agent, at(3)), at(3));
        backlog.push(LinkRecord::connected(link("2"), at(4)), at(4));
        assert_eq!(backlog.oldest(ReportKind::Links), Some(at(1)));
        assert_eq!(changed(&backlog), (Some(("2".to_owned(), at(4))), None));
        assert_eq!(backlog.oldest(ReportKind::Links), Some(at(3)));
        assert!(backlog.take(ReportKind::Links).is_none());
        assert_eq!(backlog.oldest(ReportKind::Links), None);
    }

    #[test]
    fn reports_of_traffic_wait_in_order_and_within_their_bound() {
        let (backlog, spool) = (Backlog::default(), Uuid::now_v7());
        let most = UNRECORDED_REPORTS as u64;
        for number in 1..=most + 1 {
            let report = SpooledTraffic { spool, number, at: start(), deltas: Vec::new() };
            let report = TrafficReport::new(&report, start());
            assert_eq!(backlog.push(LinkRecord::Traffic(report), start()), number <= most);
        }
        assert_eq!(backlog.oldest(ReportKind::Traffic), Some(start()));
        for number in 1..=most {
            let Some(LinkRecord::Traffic(report)) = backlog.take(ReportKind::Traffic) else {
                panic!("{number}")
            };
            assert_eq!(report.number(), number);
        }
        assert!(backlog.take(ReportKind::Traffic).is_none());
    }
}
