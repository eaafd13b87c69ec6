//! A tunnel's [`Connection`] as charon's SAs, events and log lines show it. Pure: messages in, a connection out.

mod answers;
mod children;
mod sa;
#[cfg(test)]
mod tests;
mod traffic;
mod twins;
mod withdrawal;

use std::{collections::BTreeSet, net::Ipv4Addr};

use jiff::{SignedDuration, Timestamp};
use wicketgate_model::{
    Algorithms, Connection, ConnectionDoubt, ConnectionError, ConnectionFault, ConnectionState,
    ConnectionWarning, Nat, SaTimes, TrafficSelectors,
};
use wicketgate_vici::Message;

use crate::ipsec::{OutsideSelectors, stray_esp::StrayPacket};

use super::{
    conf::Ends,
    fault::{Faults, LogLine, Passages},
    peer_fault::PeerFault,
    suite,
};
use answers::Answers;
use children::Children;
use sa::{id, is_established, is_installed, peer, steady, times};
use traffic::ChildTraffic;
use twins::Twins;
use withdrawal::Withdrawal;

/// How long after the end of a connection charon may report that its peer was silent: its threads do not log in order.
const REPORTED_LATE: SignedDuration = SignedDuration::from_secs(5);

/// How long a connection may carry nothing before that is said. Most devices send something at once: what had them connect.
const UNUSED: SignedDuration = SignedDuration::from_secs(30);
const NO_TRAFFIC: &str = "no packet has come through the tunnel since it came up: if hosts at the site have tried, the device does not send \
     traffic for loadBalancerIp into the tunnel (see its routes, and exempt it from address translation), or a firewall on the way \
     drops ESP";

/// How long a reported fault outranks a peer that does not answer.
const SAID: SignedDuration = SignedDuration::from_mins(10);

/// The same for a fault of the line, which anyone can imitate with a packet from a forged address. An end that goes on trying shows
/// it again sooner.
const LINE_SAID: SignedDuration = SignedDuration::from_mins(2);

/// See the module.
#[derive(Debug)]
pub(super) struct ConnectionView {
    connection: Connection,
    traffic: ChildTraffic,
    children: Children,
    /// The CHILD SAs that existed at the last error, and have not been renewed since: one of them may be failing.
    failing: Vec<TrafficSelectors>,
    /// The newest CHILD SA that was installed when the SAs were last read.
    newest: Option<u64>,
    /// The SAs whose times are shown, by their unique ids.
    timed: (Option<u64>, Option<u64>),
    /// The IKE SAs that existed when they were last read.
    ikes: BTreeSet<u64>,
    pub(super) line: Negotiation,
    /// The port that a NAT gave the peer, in the last connection.
    pub(super) nat_port: Option<u16>,
    faults: Faults,
    passages: Passages,
    answers: Answers,
    withdrawal: Withdrawal,
    outside: OutsideSelectors,
    twins: Twins,
    /// The SPIs of the last CHILD SAs, which the peer uses in its ESP.
    spis: Vec<u32>,
    /// charon gave up an IKE SA since the SAs were last read. A fault only if there is no other.
    silence: Option<PeerFault>,
    /// When the last CHILD SA ended, until a reason is known.
    ended_at: Option<Timestamp>,
    /// When the peer last reported a fault.
    said_at: Option<Timestamp>,
}

/// Whether there is a reason to initiate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Negotiation {
    /// A CHILD SA is installed.
    Up,
    /// An IKE SA is being negotiated, initiated by the gateway.
    Initiating,
    /// One is being negotiated, initiated by the peer or from its forged address.
    Responding,
    Idle,
}

impl Negotiation {
    fn of(is_up: bool, is_calling: bool, is_called: bool) -> Self {
        match (is_up, is_calling, is_called) {
            (true, ..) => Self::Up,
            (false, true, _) => Self::Initiating,
            (false, false, true) => Self::Responding,
            (false, false, false) => Self::Idle,
        }
    }
}

impl ConnectionView {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            connection: Connection::down(now),
            traffic: ChildTraffic::default(),
            children: Children::default(),
            failing: Vec::new(),
            newest: None,
            timed: (None, None),
            ikes: BTreeSet::new(),
            line: Negotiation::Idle,
            nat_port: None,
            faults: Faults::default(),
            passages: Passages::default(),
            answers: Answers::default(),
            withdrawal: Withdrawal::default(),
            outside: OutsideSelectors::default(),
            twins: Twins::default(),
            spis: Vec::new(),
            silence: None,
            ended_at: None,
            said_at: None,
        }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The daemon ended, and all SAs with it; the next one counts unique ids from 1.
    pub(super) fn died(&mut self, why: &str, now: Timestamp) {
        let reason = ConnectionFault::GatewayFailed;
        self.fail(PeerFault::new(reason, why), now);
        self.traffic.lost();
        self.line = Negotiation::Idle;
        (self.newest, self.faults, self.silence, self.ended_at) = (None, Faults::default(), None, None);
        self.passages = Passages::default();
        self.show(None, now);
        (self.children, self.failing) = (Children::default(), Vec::new());
        self.connection.child_sas = Vec::new();
    }

    /// Processes a log line. Returns whether SAs may have changed.
    pub(super) fn log(&mut self, line: LogLine<'_>, ends: Option<&Ends>, now: Timestamp) -> bool {
        if self.outside.log(line.text, now) {
            self.warn(now);
            return true;
        }
        let withdrawn = self.withdrawal.log(line.text, now);
        if self.is_outdated(line) {
            return false;
        }
        let is_shown = line.ike_sa.is_some() && line.ike_sa == self.timed.0;
        if self.line == Negotiation::Up && is_shown && self.answers.log(line, now) {
            self.warn(now);
            return true;
        }
        let blocked = self.passages.log(line, now).filter(|_| self.line != Negotiation::Up);
        if blocked.as_ref().is_some_and(|fault| fault.reason == ConnectionFault::PeerDoesNotAnswer) {
            if let Some(fault) = blocked.filter(|_| !self.has_reported_fault(now)) {
                self.fail(fault, now);
            }
            return true;
        }
        if let Some(fault) = withdrawn.or(blocked).or_else(|| self.faults.log(line, ends, now)) {
            if fault.reason == ConnectionFault::PeerDoesNotAnswer {
                self.silence = Some(fault);
            } else {
                self.said_at = Some(now);
                self.fail(fault, now);
            }
            return true;
        }
        line.text.starts_with("parsed IKE_") || line.text.starts_with("generating IKE_")
    }

    /// Whether the peer may be silent: then the counters show soon that it is not.
    pub(super) fn is_doubtful(&self) -> bool {
        self.answers.warning().is_some()
    }

    /// How long until an attempt of the peer is overdue.
    pub(super) fn due(&self, now: Timestamp) -> Option<SignedDuration> {
        self.passages.due(now)
    }

    /// Whether the first packet is awaited.
    pub(super) fn is_unused(&self) -> bool {
        self.connection.state == ConnectionState::Up
            && self.connection.child_sas.iter().all(|child| child.bytes_in == 0)
    }

    /// The unique ids of the IKE SA and of the CHILD SA that are shown.
    pub(super) fn shown_ids(&self) -> (Option<u64>, Option<u64>) {
        self.timed
    }

    /// What the peer's ESP is recognised by, also from another address.
    pub(super) fn spis(&self) -> &[u32] {
        &self.spis
    }

    /// ESP of the peer arrives from another address than the tunnel's: its SPI is the gateway's secret choice.
    pub(super) fn moved(&mut self, from: Ipv4Addr, peer: Ipv4Addr, now: Timestamp) {
        let reason = ConnectionFault::PeerAddressDiffers;
        let cause =
            format!("the device with this tunnel's keys sends from {from}, and peerPublicIp is {peer}");
        let cure = format!(
            "set peerPublicIp to {from} if the site's address has changed; else have the device, or the NAT in front of it, use \
             {peer}"
        );
        self.said_at = Some(now);
        self.fail(PeerFault::with_cure(reason, cause, cure), now);
    }

    fn warn(&mut self, now: Timestamp) {
        let silence = self.answers.warning().cloned();
        let since = self.connection.child_sas.iter().map(|child| child.since).min();
        let unused = since.filter(|since| self.is_unused() && now.duration_since(*since) >= UNUSED);
        let unused =
            unused.map(|since| ConnectionWarning::new(ConnectionDoubt::NoTrafficReceived, NO_TRAFFIC, since));
        let outside = self.outside.warning(&self.connection.child_sas, now);
        self.connection.warnings = silence.into_iter().chain(unused).chain(outside).collect();
    }

    /// Whether a line is about an attempt before the one that is up, and arrives late.
    fn is_outdated(&self, line: LogLine<'_>) -> bool {
        let is_before = |(sa, shown): (u64, u64)| sa < shown && !self.ikes.contains(&sa);
        self.line == Negotiation::Up && line.ike_sa.zip(self.timed.0).is_some_and(is_before)
    }

    /// charon reports by this event that an SA was rekeyed.
    pub(super) fn rekeyed(&mut self, event: &str) {
        let rekeys = &mut self.connection.rekeys;
        rekeys.ike += u64::from(event == "ike-rekey");
        rekeys.child += u64::from(event == "child-rekey");
    }

    /// Processes an event with an IKE SA: a CHILD SA that ends is counted here for the last time.
    pub(super) fn event(&mut self, message: &Message) {
        for (_, ike) in message.sections() {
            self.traffic.count(ike);
            self.children.event(ike);
        }
        self.traffic.show(&mut self.connection);
        self.connection.child_sas = self.children.shown();
    }

    /// Processes the complete answer to `list-sas`. Returns whether the connection was lost: the peer became silent, and may
    /// still have its SAs.
    pub(super) fn look(&mut self, parts: &[Message], now: Timestamp) -> bool {
        let was_up = self.line == Negotiation::Up;
        let mut shown: Option<(&Message, Option<&Message>)> = None;
        let mut seen = Vec::new();
        let (mut is_calling, mut is_called) = (false, false);
        let mut overdue = None;
        for (_, ike) in parts.iter().flat_map(Message::sections) {
            // A deleted SA carries nothing more, but its children are still counted apart.
            seen.extend(self.traffic.count(ike));
            if ike.text("state") == Some("DELETING") {
                continue;
            }
            let children = ike.sub("child-sas").into_iter().flat_map(Message::sections);
            let child = children.map(|(_, child)| child).filter(|c| is_installed(c)).max_by_key(|c| id(c));
            if ike.text("state") == Some("CONNECTING") {
                let is_own = ike.text("initiator") == Some("yes");
                is_calling |= is_own;
                is_called |= !is_own;
                overdue = overdue.or_else(|| self.passages.overdue(id(ike).filter(|_| !is_own)?, now));
            }
            // Traffic takes the newest CHILD SA.
            if shown.is_none_or(|(_, best)| child.map(id) >= best.map(id)) {
                shown = Some((ike, child));
            }
        }
        self.identify(parts);
        self.traffic.forget(&seen);
        self.traffic.show(&mut self.connection);
        let newest = shown.and_then(|(_, child)| id(child?));
        let renewed = self.children.look(parts, now);
        self.connection.child_sas = self.children.shown();
        // A failed rekey leaves the previous CHILD SA: only a new one clears the error, and not one of others that work.
        if newest > self.newest {
            self.answers.end();
            self.twins.renewed();
            self.failing.retain(|it| self.children.has(it) && !renewed.contains(it));
            if self.failing.is_empty() {
                self.connection.last_error = None;
            }
        }
        if newest.is_some() {
            self.newest = newest;
        }
        self.line = Negotiation::of(newest.is_some(), is_calling, is_called);
        if was_up || self.line == Negotiation::Up {
            self.ended_at = (self.line != Negotiation::Up).then_some(now);
        }
        // When both ends initiate at once, one attempt may end without an answer; and a peer that refuses does answer.
        let silence = self.silence.take().filter(|_| self.line != Negotiation::Up);
        let is_lost = silence.is_some()
            && self.ended_at.take().is_some_and(|at| now.duration_since(at) <= REPORTED_LATE);
        if let Some(fault) = silence.filter(|_| !self.has_reported_fault(now)) {
            self.fail(fault, now);
        }
        if let Some(fault) = overdue.filter(|_| self.line != Negotiation::Up) {
            self.said_at = Some(now);
            self.fail(fault, now);
        }
        self.answers.look(self.connection.bytes_in, self.line == Negotiation::Up);
        self.find_twins(shown.map(|(ike, _)| ike), now);
        self.show(shown, now);
        self.warn(now);
        is_lost
    }

    /// Looks whether two devices take turns.
    fn find_twins(&mut self, shown: Option<&Message>, now: Timestamp) {
        let is_by_peer = |ike: &&Message| is_established(ike) && ike.text("initiator") != Some("yes");
        let is_new = |ike: &&Message| id(ike).is_some() && id(ike) != self.timed.0;
        if let Some(peer) = shown.filter(is_by_peer).filter(is_new).and_then(peer) {
            self.twins.connected(peer.port, now);
        }
        if let Some(fault) = self.twins.turns(now) {
            self.said_at = Some(now);
            self.fail(fault, now);
        }
    }

    /// Processes ESP that belongs to no SA, while a connection is up.
    pub(super) fn stray(&mut self, packet: StrayPacket, now: Timestamp) {
        let port = self.connection.peer.as_ref().map(|peer| peer.port);
        if let Some(fault) = self.twins.stray(packet, port) {
            self.said_at = Some(now);
            self.fail(fault, now);
        }
    }

    /// Notes the ids of all SAs.
    fn identify(&mut self, parts: &[Message]) {
        let ikes = || parts.iter().flat_map(Message::sections).map(|(_, ike)| ike);
        self.ikes = ikes().filter_map(id).collect();
        let spis: Vec<_> = ikes().flat_map(sa::spis).collect();
        self.twins.chosen(&spis);
        // Those of a connection that ended are kept: its peer may not have noticed.
        if !spis.is_empty() {
            self.spis = spis;
        }
    }

    /// Whether the peer reported a fault recently.
    fn has_reported_fault(&self, now: Timestamp) -> bool {
        let counts = match self.connection.last_error.as_ref().map(|error| error.reason) {
            None | Some(ConnectionFault::PeerDoesNotAnswer) => return false,
            Some(ConnectionFault::NatTraversalBlocked | ConnectionFault::AnswersLost) => LINE_SAID,
            Some(_) => SAID,
        };
        self.said_at.is_some_and(|at| now.duration_since(at) < counts)
    }

    /// The configuration changed: an error of the previous one no longer applies.
    pub(super) fn changed(&mut self) {
        self.connection.last_error = None;
        self.failing = Vec::new();
        self.said_at = None;
        self.outside = OutsideSelectors::default();
    }

    /// Records a fault; a device that retries every few seconds fails in the same way since its first attempt.
    fn fail(&mut self, fault: PeerFault, now: Timestamp) {
        let PeerFault { reason, cause, cure } = fault;
        self.failing = self.children.selectors();
        let error = ConnectionError { reason, cause, cure, since: now };
        let before = self.connection.last_error.as_ref().filter(|before| before.is_same(&error));
        let since = before.map_or(now, |before| before.since);
        self.connection.last_error = Some(ConnectionError { since, ..error });
    }

    /// Shows an IKE SA and its CHILD SA, if present.
    fn show(&mut self, shown: Option<(&Message, Option<&Message>)>, now: Timestamp) {
        let (ike, child) = (shown.map(|(ike, _)| ike), shown.and_then(|(_, child)| child));
        let timed = (ike.and_then(id), child.and_then(id));
        let of = |sa: Option<&Message>, age, is_same, before: Option<SaTimes>| {
            let times = times(sa?, age, now)?;
            Some(before.filter(|_| is_same).map_or(times, |before| steady(before, times)))
        };
        self.connection.ike_sa = of(ike, "established", timed.0 == self.timed.0, self.connection.ike_sa);
        self.connection.child_sa =
            of(child, "install-time", timed.1 == self.timed.1, self.connection.child_sa);
        self.timed = timed;
        self.connection.algorithms = ike
            .zip(child)
            .map(|(ike, child)| Algorithms { ike: suite::of_ike_sa(ike), esp: suite::of_child_sa(child) });
        self.connection.peer = ike.and_then(peer);
        self.connection.nat = ike.filter(|ike| is_established(ike)).map(|ike| Nat {
            gateway: ike.text("nat-local") == Some("yes"),
            peer: ike.text("nat-remote") == Some("yes"),
        });
        if let (Some(nat), Some(peer)) = (self.connection.nat, &self.connection.peer) {
            self.nat_port = nat.peer.then_some(peer.port);
        }
        let state = match (ike, child) {
            (_, Some(_)) => ConnectionState::Up,
            (Some(ike), None) if is_established(ike) => ConnectionState::Idle,
            (Some(_), None) => ConnectionState::Connecting,
            (None, None) => ConnectionState::Down,
        };
        if self.connection.state != state {
            (self.connection.state, self.connection.since) = (state, now);
        }
    }
}
