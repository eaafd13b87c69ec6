//! A connection as charon's SAs, events and log lines show it.

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn line(text: &str) -> LogLine<'_> {
    LogLine { ike_sa: Some(1), text }
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
    view.died("it ended", at(5));
    view.look(&sa(vec![child(1, "INSTALLED", 7, 0)]), at(6));
    assert_eq!((view.connection().bytes_in, view.connection().since), (217, at(6)));
}

#[test]
fn an_ended_sa_is_counted_from_its_last_event() {
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
fn peer_and_times_are_shown_and_stay_while_nothing_changes() {
    let ike = |ike_id: &str, age: i64, child: &str, child_age: i64| -> Vec<Message> {
        let child = Message::new()
            .set("uniqueid", child)
            .set("state", "INSTALLED")
            .set("bytes-in", "1")
            .set("bytes-out", "1")
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
    // Times are in whole seconds: a difference of half a second can show as one second.
    view.look(&ike("1", 61, "1", 60), at(150));
    assert_eq!(*view.connection(), first);
    // A rekey is detected, however soon it happens.
    view.look(&ike("1", 62, "2", 0), at(152));
    assert_eq!(view.connection().child_sa.unwrap().established_at, at(152));
    assert_eq!(view.connection().ike_sa, first.ike_sa);
    view.look(&ike("2", 0, "2", 1), at(153));
    assert_eq!(view.connection().ike_sa.unwrap().established_at, at(153));
    assert_eq!(view.connection().since, first.since);
    // A NAT maps the peer to another port.
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
fn the_gateways_attempts_are_distinguished_from_the_peers() {
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
        assert_eq!(view.line, line);
    }
}

#[test]
fn silence_is_a_fault_only_without_another_connection_or_fault() {
    const SILENCE: &str = "giving up after 4 retransmits";
    const REFUSED: &str = "generating IKE_AUTH response 1 [ N(AUTH_FAILED) ]";
    let fault = |s: &ConnectionView| s.connection().last_error.as_ref().map(|e| (e.reason, e.since));
    let mut view = ConnectionView::new(at(0));
    // A second IKE SA, or an old one, is given up after the new one is there.
    view.look(&sa(vec![child(1, "INSTALLED", 0, 0)]), at(1));
    assert!(view.log(line(SILENCE), None, at(2)));
    view.look(&sa(vec![child(1, "INSTALLED", 0, 0)]), at(2));
    assert_eq!(fault(&view), None);
    // The last IKE SA is given up.
    view.log(line(SILENCE), None, at(3));
    view.look(&[], at(3));
    assert_eq!(fault(&view), Some((ConnectionFault::PeerDoesNotAnswer, at(3))));
    // The peer initiates and is refused, and the gateway's attempt is not answered: only the refusal is reported.
    for second in [4, 5, 6] {
        view.log(line(REFUSED), None, at(second));
        view.look(&[], at(second));
        view.log(line(SILENCE), None, at(second));
        view.look(&[], at(second));
        assert_eq!(fault(&view), Some((ConnectionFault::NegotiationFailed, at(4))));
    }
    let later = at(6).checked_add(SAID).unwrap();
    view.log(line(SILENCE), None, later);
    view.look(&[], later);
    assert_eq!(fault(&view), Some((ConnectionFault::PeerDoesNotAnswer, later)));
    // A fault of the line may be imitated: it does not hide the silence for long.
    for text in
        ["generating IKE_AUTH request 1 [ IDi AUTH SA TSi TSr ]", "retransmit 3 of request with message ID 1"]
    {
        view.log(line(text), None, later);
    }
    for (second, reason) in
        [(119, ConnectionFault::NatTraversalBlocked), (120, ConnectionFault::PeerDoesNotAnswer)]
    {
        let now = later.checked_add(SignedDuration::from_secs(second)).unwrap();
        view.log(line(SILENCE), None, now);
        view.look(&[], now);
        assert_eq!(fault(&view).map(|(reason, _)| reason), Some(reason));
    }
    // After the connection was up, earlier faults no longer count.
    view.log(line(REFUSED), None, later);
    view.look(&sa(vec![child(2, "INSTALLED", 0, 0)]), later);
    view.log(line(SILENCE), None, later);
    view.look(&[], later);
    assert_eq!(fault(&view), Some((ConnectionFault::PeerDoesNotAnswer, later)));
}

#[test]
fn a_connection_is_lost_if_its_peer_was_silent_and_not_if_the_peer_ended_it() {
    const SILENCE: &str = "giving up after 4 retransmits";
    let up = sa(vec![child(1, "INSTALLED", 0, 0)]);
    let mut view = ConnectionView::new(at(0));
    for (silent_at, looks) in [
        (Some(2), vec![(2, true), (3, false)]),
        // The log line comes after the end of the SAs.
        (Some(4), vec![(2, false), (4, true), (5, false)]),
        (None, vec![(2, false), (4, false)]),
        // Another attempt fails later.
        (Some(20), vec![(2, false), (20, false)]),
    ] {
        assert!(!view.look(&up, at(1)));
        for (second, is_lost) in looks {
            if silent_at == Some(second) {
                view.log(line(SILENCE), None, at(second));
            }
            assert_eq!(view.look(&[], at(second)), is_lost, "{silent_at:?} {second}");
        }
    }
    // A duplicate is given up.
    view.look(&up, at(1));
    view.log(line(SILENCE), None, at(2));
    assert!(!view.look(&up, at(2)) && !view.look(&[], at(3)));
}

#[test]
fn a_failure_is_kept_until_a_new_child_sa_is_installed() {
    const REFUSED: &str = "generating CREATE_CHILD_SA response 2 [ N(NO_PROP) ]";
    let mut view = ConnectionView::new(at(0));
    let since = |s: &ConnectionView| s.connection().last_error.as_ref().map(|e| e.since);
    assert!(view.log(line("generating IKE_AUTH response 1 [ N(AUTH_FAILED) ]"), None, at(1)));
    view.look(&[], at(1));
    view.log(line("generating IKE_AUTH response 1 [ N(AUTH_FAILED) ]"), None, at(2));
    assert_eq!(since(&view), Some(at(1)));
    view.log(line(REFUSED), None, at(3));
    assert_eq!(since(&view), Some(at(3)));
    view.look(&sa(vec![]), at(4));
    assert_eq!((view.connection().state, since(&view)), (ConnectionState::Connecting, Some(at(3))));
    view.look(&sa(vec![child(1, "INSTALLED", 0, 0)]), at(5));
    assert_eq!(since(&view), None);

    // A rekey fails, and the next one succeeds.
    view.log(line(REFUSED), None, at(6));
    view.look(&sa(vec![child(1, "INSTALLED", 0, 0)]), at(7));
    assert_eq!((view.connection().state, since(&view)), (ConnectionState::Up, Some(at(6))));
    view.look(&sa(vec![child(1, "REKEYED", 0, 0), child(2, "INSTALLED", 0, 0)]), at(8));
    assert_eq!(since(&view), None);

    // The tunnel is corrected.
    view.log(line(REFUSED), None, at(9));
    view.changed();
    assert_eq!((view.connection().state, since(&view)), (ConnectionState::Up, None));

    // The unique ids of the next charon start at 1 again.
    view.died("it ended", at(9));
    view.log(line(REFUSED), None, at(9));
    view.look(&sa(vec![child(1, "INSTALLED", 0, 0)]), at(10));
    assert_eq!(since(&view), None);
}

/// A CHILD SA with these selectors of the peer.
fn child_for(peer: &str, id: u64, state: &str, bytes_in: u64) -> (String, Message) {
    let (name, child) = child(id, state, bytes_in, 0);
    (name, child.list("local-ts", ["100.64.0.1/32".to_owned()]).list("remote-ts", [peer.to_owned()]))
}

#[test]
fn a_child_sa_is_shown_across_its_rekeys() {
    let mut view = ConnectionView::new(at(0));
    let shown = |view: &ConnectionView| -> Vec<_> {
        let children = &view.connection().child_sas;
        children.iter().map(|c| (c.selectors.peer.concat(), c.rekeys, c.bytes_in)).collect()
    };
    let is = |all: &[(&str, u32, u64)]| -> Vec<_> {
        all.iter().map(|(peer, rekeys, bytes)| ((*peer).to_owned(), *rekeys, *bytes)).collect()
    };
    let (a, b) = ("10.0.1.0/24", "10.0.2.0/24");
    view.look(&sa(vec![child_for(a, 1, "INSTALLED", 5), child_for(b, 2, "INSTALLED", 7)]), at(1));
    assert_eq!(shown(&view), is(&[(a, 0, 5), (b, 0, 7)]));
    let both =
        [child_for(a, 1, "REKEYED", 6), child_for(b, 2, "INSTALLED", 7), child_for(a, 3, "INSTALLED", 1)];
    view.look(&sa(both.to_vec()), at(2));
    assert_eq!(shown(&view), is(&[(a, 1, 7), (b, 0, 7)]));
    view.event(&sa(vec![child_for(a, 1, "DELETED", 9)])[0]);
    view.look(&sa(vec![child_for(b, 2, "INSTALLED", 7), child_for(a, 3, "INSTALLED", 2)]), at(3));
    assert_eq!(shown(&view), is(&[(a, 1, 11), (b, 0, 7)]));
    // One ends, and the other goes on.
    view.look(&sa(vec![child_for(b, 2, "INSTALLED", 8)]), at(4));
    assert_eq!(shown(&view), is(&[(b, 0, 8)]));
    view.look(&[], at(5));
    assert_eq!(shown(&view), is(&[]));
    view.look(&sa(vec![child_for(b, 4, "INSTALLED", 3)]), at(6));
    assert_eq!(shown(&view), is(&[(b, 0, 3)]), "another connection");
}

#[test]
fn an_error_of_one_child_sa_outlasts_the_rekey_of_another() {
    let mut view = ConnectionView::new(at(0));
    let (a, b) = ("10.0.1.0/24", "10.0.2.0/24");
    view.look(&sa(vec![child_for(a, 1, "INSTALLED", 0), child_for(b, 2, "INSTALLED", 0)]), at(1));
    view.log(line("parsed CREATE_CHILD_SA request 5 [ N(REKEY_SA) SA No TSi TSr ]"), None, at(2));
    view.log(line("generating CREATE_CHILD_SA response 5 [ N(NO_PROP) ]"), None, at(2));
    view.look(&sa(vec![child_for(a, 3, "INSTALLED", 0), child_for(b, 2, "INSTALLED", 0)]), at(3));
    assert!(view.connection().last_error.is_some(), "the other CHILD SA may be failing");
    view.look(&sa(vec![child_for(a, 3, "INSTALLED", 0), child_for(b, 4, "INSTALLED", 0)]), at(4));
    assert_eq!(view.connection().last_error, None);
}

#[test]
fn an_ike_sa_without_a_child_sa_is_idle() {
    let mut view = ConnectionView::new(at(0));
    let ike = Message::new().set("state", "ESTABLISHED").set("established", "3");
    view.look(&[Message::new().section("tunnel", ike)], at(3));
    assert_eq!(view.connection().state, ConnectionState::Idle);
}

#[test]
fn a_late_line_about_an_attempt_before_the_connection_is_no_error_of_it() {
    let up = |ids: &[u64]| -> Vec<Message> {
        let child = Message::new().section("site-1", child(1, "INSTALLED", 0, 0).1);
        let ike = |id: &u64| {
            let ike = Message::new().set("uniqueid", id.to_string()).set("state", "ESTABLISHED");
            Message::new().section("tunnel", ike.section("child-sas", child.clone()))
        };
        ids.iter().map(ike).collect()
    };
    const REFUSED: &str = "generating IKE_AUTH response 1 [ N(AUTH_FAILED) ]";
    let mut view = ConnectionView::new(at(0));
    view.look(&up(&[2]), at(1));
    view.log(LogLine { ike_sa: Some(1), text: REFUSED }, None, at(1));
    assert_eq!(view.connection().last_error, None);
    // One that is up beside it, and a later attempt.
    for (listed, sa) in [(&[1, 2][..], 1), (&[2], 3)] {
        let mut view = ConnectionView::new(at(0));
        view.look(&up(listed), at(1));
        view.log(LogLine { ike_sa: Some(sa), text: REFUSED }, None, at(1));
        assert!(view.connection().last_error.is_some(), "{sa}");
    }
}
