//! What a charon's SAs and log lines say of the tunnel's connection. Pure: messages go in, a [`Connection`] comes out.

mod sa;
mod traffic;

use jiff::{SignedDuration, Timestamp};
use wicketgate_model::{
    Algorithms, Connection, ConnectionError, ConnectionFault, ConnectionState, Nat, SaTimes,
};
use wicketgate_vici::Message;

use super::{
    conf::Ends,
    fault::{Faults, PeerFault},
};
use sa::{ESP_PARTS, IKE_PARTS, id, is_established, is_installed, peer, proposal, steady, times};
use traffic::ChildTraffic;

/// For how long a peer that does not answer is no news: it said what it does not like.
const SAID: SignedDuration = SignedDuration::from_mins(10);

/// What was seen of the SAs so far.
#[derive(Debug)]
pub(super) struct ConnectionView {
    connection: Connection,
    traffic: ChildTraffic,
    /// The newest CHILD SA that was installed at the last look.
    newest: Option<u64>,
    /// The SAs whose times are shown, by their unique ids.
    timed: (Option<u64>, Option<u64>),
    line: Negotiation,
    faults: Faults,
    /// An IKE SA was given up since the last look: no fault of the connection's where there is another.
    silence: Option<PeerFault>,
    /// When anything but silence was last the fault.
    said_at: Option<Timestamp>,
}

/// Whether there is a reason to call the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Negotiation {
    /// A CHILD SA is installed.
    Up,
    /// An IKE SA is being made, by this side at least.
    Initiating,
    /// One is being made by the peer, or by whoever forges its address.
    Responding,
    Idle,
}

impl ConnectionView {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            connection: Connection::down(now),
            traffic: ChildTraffic::default(),
            newest: None,
            timed: (None, None),
            line: Negotiation::Idle,
            faults: Faults::default(),
            silence: None,
            said_at: None,
        }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn line(&self) -> Negotiation {
        self.line
    }

    /// The daemon is gone, and all SAs with it; the next one counts unique ids from 1 again.
    pub(super) fn lost(&mut self, now: Timestamp) {
        self.traffic.lost();
        self.line = Negotiation::Idle;
        (self.newest, self.faults, self.silence) = (None, Faults::default(), None);
        self.show(None, now);
    }

    /// A log line. Answers whether the SAs may be others than before.
    pub(super) fn log(&mut self, line: &str, ends: Option<&Ends>, now: Timestamp) -> bool {
        if let Some(fault) = self.faults.log(line, ends) {
            if fault.reason == ConnectionFault::PeerDoesNotAnswer {
                self.silence = Some(fault);
            } else {
                self.said_at = Some(now);
                self.fail(fault, now);
            }
            return true;
        }
        line.starts_with("parsed IKE_") || line.starts_with("generating IKE_")
    }

    /// An event with an IKE SA in it: a CHILD SA that ends is counted here for the last time.
    pub(super) fn event(&mut self, message: &Message) {
        for (_, ike) in message.sections() {
            self.traffic.count(ike);
        }
        self.traffic.show(&mut self.connection);
    }

    /// All that `list-sas` told.
    pub(super) fn look(&mut self, parts: &[Message], now: Timestamp) {
        let mut shown: Option<(&Message, Option<&Message>)> = None;
        let mut seen = Vec::new();
        let (mut is_calling, mut is_called) = (false, false);
        for (_, ike) in parts.iter().flat_map(Message::sections) {
            // One that is being deleted carries no more, and its children are still to be told apart.
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
            }
            // The newest CHILD SA is the one that traffic takes.
            if shown.is_none_or(|(_, best)| child.map(id) >= best.map(id)) {
                shown = Some((ike, child));
            }
        }
        self.traffic.forget(&seen);
        self.traffic.show(&mut self.connection);
        let newest = shown.and_then(|(_, child)| id(child?));
        // A rekey that fails leaves what was there before: only a new CHILD SA says that all is well.
        if newest > self.newest {
            self.connection.last_error = None;
        }
        if newest.is_some() {
            self.newest = newest;
        }
        self.line = match shown {
            Some((_, Some(_))) => Negotiation::Up,
            _ if is_calling => Negotiation::Initiating,
            _ if is_called => Negotiation::Responding,
            _ => Negotiation::Idle,
        };
        // Of two ends that call at once, the initiation of one may end in silence; and a peer that refuses is one that answers.
        if let Some(fault) = self.silence.take()
            && self.line != Negotiation::Up
            && !self.has_said(now)
        {
            self.fail(fault, now);
        }
        self.show(shown, now);
    }

    /// Whether something else than silence is the fault, and was so a short while ago.
    fn has_said(&self, now: Timestamp) -> bool {
        let is_fault = |e: &ConnectionError| e.reason != ConnectionFault::PeerDoesNotAnswer;
        self.connection.last_error.as_ref().is_some_and(is_fault)
            && self.said_at.is_some_and(|at| now.duration_since(at) < SAID)
    }

    /// The daemon works by other values now: what was wrong with the old ones accuses none of these.
    pub(super) fn changed(&mut self) {
        self.connection.last_error = None;
        self.said_at = None;
    }

    /// Records a fault; a device that retries every few seconds fails in the same way since its first attempt.
    fn fail(&mut self, fault: PeerFault, now: Timestamp) {
        let PeerFault { reason, cause, cure } = fault;
        let error = ConnectionError { reason, cause, cure, since: now };
        let before = self.connection.last_error.as_ref().filter(|before| before.is_same(&error));
        let since = before.map_or(now, |before| before.since);
        self.connection.last_error = Some(ConnectionError { since, ..error });
    }

    /// Shows an IKE SA and its CHILD SA, if they are there.
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
        self.connection.algorithms = ike.zip(child).map(|(ike, child)| Algorithms {
            ike: proposal(ike, &IKE_PARTS),
            esp: proposal(child, &ESP_PARTS),
        });
        self.connection.peer = ike.and_then(peer);
        self.connection.nat = ike.filter(|ike| is_established(ike)).map(|ike| Nat {
            gateway: ike.text("nat-local") == Some("yes"),
            peer: ike.text("nat-remote") == Some("yes"),
        });
        let state = match (ike, child) {
            (_, Some(_)) => ConnectionState::Up,
            (Some(_), None) => ConnectionState::Connecting,
            (None, None) => ConnectionState::Down,
        };
        self.enter(state, now);
    }

    fn enter(&mut self, state: ConnectionState, now: Timestamp) {
        if self.connection.state != state {
            self.connection.state = state;
            self.connection.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn child(id: u64, state: &str, bytes_in: u64, bytes_out: u64) -> (String, Message) {
        let child = Message::new()
            .set("uniqueid", id.to_string())
            .set("state", state)
            .set("encr-alg", "AES_GCM_16")
            .set("encr-keysize", "256")
            .set("dh-group", "ECP_384")
            .set("bytes-in", bytes_in.to_string())
            .set("bytes-out", bytes_out.to_string());
        (format!("site-{id}"), child)
    }

    fn sa(children: Vec<(String, Message)>) -> Vec<Message> {
        let children = children.into_iter().fold(Message::new(), |m, (name, child)| m.section(name, child));
        let ike = Message::new()
            .set("state", "ESTABLISHED")
            .set("encr-alg", "AES_GCM_16")
            .set("encr-keysize", "256")
            .set("prf-alg", "PRF_HMAC_SHA2_384")
            .set("dh-group", "ECP_384")
            .section("child-sas", children);
        vec![Message::new().section("tunnel", ike)]
    }

    #[test]
    fn bytes_add_up_over_a_rekey() {
        let mut view = ConnectionView::new(at(0));
        view.look(&sa(vec![child(1, "INSTALLED", 100, 10)]), at(1));
        view.look(&sa(vec![child(1, "REKEYED", 150, 15), child(2, "INSTALLED", 0, 0)]), at(2));
        view.look(&sa(vec![child(1, "REKEYED", 160, 15), child(2, "INSTALLED", 40, 4)]), at(3));
        view.look(&sa(vec![child(2, "INSTALLED", 50, 5)]), at(4));
        let seen = view.connection();
        assert_eq!((seen.bytes_in, seen.bytes_out), (210, 20));
        assert_eq!((seen.state, seen.since), (ConnectionState::Up, at(1)));
        view.lost(at(5));
        view.look(&sa(vec![child(1, "INSTALLED", 7, 0)]), at(6));
        assert_eq!((view.connection().bytes_in, view.connection().since), (217, at(6)));
    }

    #[test]
    fn what_ended_is_counted_from_its_last_event() {
        let mut view = ConnectionView::new(at(0));
        view.look(&sa(vec![child(1, "INSTALLED", 100, 10)]), at(1));
        view.event(&sa(vec![child(1, "DELETED", 130, 13)])[0]);
        view.look(&[], at(2));
        assert_eq!((view.connection().bytes_in, view.connection().state), (130, ConnectionState::Down));
        assert_eq!(view.connection().algorithms, None);
    }

    #[test]
    fn nothing_is_counted_twice_while_an_sa_is_deleted() {
        let deleting = |bytes_in, bytes_out| -> Vec<Message> {
            let child = Message::new().section("site-1", child(1, "INSTALLED", bytes_in, bytes_out).1);
            let ike = Message::new().set("state", "DELETING").section("child-sas", child);
            vec![Message::new().section("tunnel", ike)]
        };
        for looks in [vec![deleting(120, 12)], vec![deleting(120, 12), vec![]], vec![vec![]]] {
            let mut view = ConnectionView::new(at(0));
            view.look(&sa(vec![child(1, "INSTALLED", 100, 10)]), at(1));
            for look in &looks {
                view.look(look, at(2));
                assert_eq!(view.connection().state, ConnectionState::Down);
            }
            view.event(&sa(vec![child(1, "DELETED", 130, 13)])[0]);
            assert_eq!((view.connection().bytes_in, view.connection().bytes_out), (130, 13), "{looks:?}");
        }
    }

    #[test]
    fn algorithms_are_in_strongswans_notation() {
        let mut view = ConnectionView::new(at(0));
        view.look(&sa(vec![child(1, "INSTALLED", 0, 0)]), at(1));
        let algorithms = view.connection().algorithms.clone().unwrap();
        assert_eq!(algorithms.ike, "AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384");
        assert_eq!(algorithms.esp, "AES_GCM_16-256/ECP_384");
    }

    #[test]
    fn who_and_since_when_is_told_and_stays_while_nothing_happens() {
        let ike = |ike_id: &str, age: i64, child: &str, child_age: i64| -> Vec<Message> {
            let child = Message::new()
                .set("uniqueid", child)
                .set("state", "INSTALLED")
                .set("install-time", child_age.to_string())
                .set("rekey-time", (3600 - child_age).to_string());
            let ike = Message::new()
                .set("uniqueid", ike_id)
                .set("state", "ESTABLISHED")
                .set("remote-host", "203.0.113.2")
                .set("remote-port", "4500")
                .set("remote-id", "site.example")
                .set("nat-local", "yes")
                .set("established", age.to_string())
                .set("rekey-time", (28_800 - age).to_string())
                .section("child-sas", Message::new().section("site-1", child));
            vec![Message::new().section("tunnel", ike)]
        };
        let mut view = ConnectionView::new(at(0));
        view.look(&ike("1", 10, "1", 10), at(100));
        let first = view.connection().clone();
        let peer = first.peer.as_ref().unwrap();
        assert_eq!(
            (peer.address.to_string().as_str(), peer.port, peer.id.as_deref()),
            ("203.0.113.2", 4500, Some("site.example"))
        );
        assert_eq!(first.nat, Some(Nat { gateway: true, peer: false }));
        assert_eq!(first.ike_sa, Some(SaTimes { established_at: at(90), rekey_at: Some(at(28_890)) }));
        assert_eq!(first.child_sa, Some(SaTimes { established_at: at(90), rekey_at: Some(at(3690)) }));
        // Half a second of difference shows as a whole one.
        view.look(&ike("1", 61, "1", 60), at(150));
        assert_eq!(*view.connection(), first);
        // A rekey is seen, however soon it comes.
        view.look(&ike("1", 62, "2", 0), at(152));
        assert_eq!(view.connection().child_sa.unwrap().established_at, at(152));
        assert_eq!(view.connection().ike_sa, first.ike_sa);
        view.look(&ike("2", 0, "2", 1), at(153));
        assert_eq!(view.connection().ike_sa.unwrap().established_at, at(153));
        assert_eq!(view.connection().since, first.since);
        // A NAT gives the peer another port.
        let mut moved = ike("2", 1, "2", 2);
        moved[0] = Message::new().section(
            "tunnel",
            Message::new()
                .set("uniqueid", "2")
                .set("state", "CONNECTING")
                .set("remote-host", "203.0.113.2")
                .set("remote-port", "60001")
                .set("remote-id", "%any"),
        );
        view.look(&moved, at(154));
        let seen = view.connection();
        assert_eq!(seen.peer.as_ref().map(|p| (p.port, p.id.clone())), Some((60001, None)));
        assert_eq!((seen.nat, seen.ike_sa, seen.child_sa), (None, None, None));
        view.look(&[], at(155));
        assert_eq!(view.connection().peer, None);
    }

    #[test]
    fn a_call_of_ones_own_is_told_from_the_peers() {
        let connecting = |initiator: Option<&str>| {
            let ike = Message::new().set("state", "CONNECTING");
            Message::new().section("tunnel", initiator.into_iter().fold(ike, |m, i| m.set("initiator", i)))
        };
        let mut view = ConnectionView::new(at(0));
        for (ikes, line) in [
            (vec![], Negotiation::Idle),
            (vec![connecting(None)], Negotiation::Responding),
            (vec![connecting(Some("yes")), connecting(None)], Negotiation::Initiating),
            ([sa(vec![child(1, "INSTALLED", 0, 0)]), vec![connecting(None)]].concat(), Negotiation::Up),
        ] {
            view.look(&ikes, at(1));
            assert_eq!(view.line(), line);
        }
    }

    #[test]
    fn silence_is_a_fault_where_nothing_else_is_up_or_was_said() {
        const SILENCE: &str = "giving up after 4 retransmits";
        const REFUSED: &str = "generating IKE_AUTH response 1 [ N(AUTH_FAILED) ]";
        let fault = |s: &ConnectionView| s.connection().last_error.as_ref().map(|e| (e.reason, e.since));
        let mut view = ConnectionView::new(at(0));
        // A second IKE SA, or an old one, is given up after the new one is there.
        view.look(&sa(vec![child(1, "INSTALLED", 0, 0)]), at(1));
        assert!(view.log(SILENCE, None, at(2)));
        view.look(&sa(vec![child(1, "INSTALLED", 0, 0)]), at(2));
        assert_eq!(fault(&view), None);
        // It was the last one.
        view.log(SILENCE, None, at(3));
        view.look(&[], at(3));
        assert_eq!(fault(&view), Some((ConnectionFault::PeerDoesNotAnswer, at(3))));
        // The peer initiation and is refused, the gateway initiation and is not answered: one thing is wrong, and it was said.
        for second in [4, 5, 6] {
            view.log(REFUSED, None, at(second));
            view.look(&[], at(second));
            view.log(SILENCE, None, at(second));
            view.look(&[], at(second));
            assert_eq!(fault(&view), Some((ConnectionFault::NegotiationFailed, at(4))));
        }
        let later = at(6).checked_add(SAID).unwrap();
        view.log(SILENCE, None, later);
        view.look(&[], later);
        assert_eq!(fault(&view), Some((ConnectionFault::PeerDoesNotAnswer, later)));
        // Once it was up, nothing that was said before counts.
        view.log(REFUSED, None, later);
        view.look(&sa(vec![child(2, "INSTALLED", 0, 0)]), later);
        view.log(SILENCE, None, later);
        view.look(&[], later);
        assert_eq!(fault(&view), Some((ConnectionFault::PeerDoesNotAnswer, later)));
    }

    #[test]
    fn a_failure_is_kept_until_a_new_child_is_there() {
        const REFUSED: &str = "generating CREATE_CHILD_SA response 2 [ N(NO_PROP) ]";
        let mut view = ConnectionView::new(at(0));
        let since = |s: &ConnectionView| s.connection().last_error.as_ref().map(|e| e.since);
        assert!(view.log("generating IKE_AUTH response 1 [ N(AUTH_FAILED) ]", None, at(1)));
        view.look(&[], at(1));
        view.log("generating IKE_AUTH response 1 [ N(AUTH_FAILED) ]", None, at(2));
        assert_eq!(since(&view), Some(at(1)));
        view.log(REFUSED, None, at(3));
        assert_eq!(since(&view), Some(at(3)));
        view.look(&sa(vec![]), at(4));
        assert_eq!((view.connection().state, since(&view)), (ConnectionState::Connecting, Some(at(3))));
        view.look(&sa(vec![child(1, "INSTALLED", 0, 0)]), at(5));
        assert_eq!(since(&view), None);

        // A rekey fails, and the one that works.
        view.log(REFUSED, None, at(6));
        view.look(&sa(vec![child(1, "INSTALLED", 0, 0)]), at(7));
        assert_eq!((view.connection().state, since(&view)), (ConnectionState::Up, Some(at(6))));
        view.look(&sa(vec![child(1, "REKEYED", 0, 0), child(2, "INSTALLED", 0, 0)]), at(8));
        assert_eq!(since(&view), None);

        // The tunnel is corrected.
        view.log(REFUSED, None, at(9));
        view.changed();
        assert_eq!((view.connection().state, since(&view)), (ConnectionState::Up, None));

        // The next charon counts from 1 again.
        view.lost(at(9));
        view.log(REFUSED, None, at(9));
        view.look(&sa(vec![child(1, "INSTALLED", 0, 0)]), at(10));
        assert_eq!(since(&view), None);
    }
}
