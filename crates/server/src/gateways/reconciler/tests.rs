//! The reconciler with a real database and the gateway's end of a real link: the tests run it and read the database.

mod any_order;
mod bench;
mod doubts;
mod flapping;
mod progress;
mod reconnect;
mod repair;
mod two_endpoints;
mod two_gateways;

use super::*;
use bench::Bench;
use jiff::ToSpan as _;
use wicketgate_link::{FromGateway, GatewayHello, Part};
use wicketgate_model::{
    AgentDesired, AgentId, ConnectionError, ConnectionFault, ConnectionState, EspMode, FailureReason,
    Problem, Reason, SpooledTraffic, Status, TrafficDelta,
};

impl Bench {
    /// As [`Bench::restart`], of a server with its gateway in one process.
    pub(super) async fn restart_together(&mut self) {
        self.restart().await;
        self.reconciler.parts.kind = LinkKind::InProcess;
    }
}

#[tokio::test]
async fn a_share_is_sent_reported_and_deployed() {
    let mut b = Bench::new().await;
    let id = b.create().await;
    b.activate().await;
    let [delta] = &b.gateway.receive()[..] else { panic!("expected one delta") };
    assert_eq!((delta.tunnels.len(), delta.shares.len()), (1, 1));
    assert_eq!(b.share(id).await.standing.status, Status::New);
    b.gateway.report(&b.reconciler).await;
    b.activate().await;
    let row = b.share(id).await;
    assert_eq!(
        (row.standing.status, row.standing.observed_generation),
        (Status::Deployed, Some(row.generation))
    );
    // Without a change, nothing more is sent.
    b.activate().await;
    assert!(b.gateway.receive().is_empty());
}

#[tokio::test]
async fn a_tunnel_that_has_lost_its_address_is_withdrawn_and_comes_back_when_it_is_free() {
    let mut b = Bench::new().await;
    let share = b.create().await;
    b.settle().await;
    let other = b.take_address(b.tunnel).await;
    b.activate().await;
    let [delta] = &b.gateway.receive()[..] else { panic!("expected one delta") };
    let sent: Vec<_> = delta.tunnels.iter().map(|tunnel| (tunnel.id, tunnel.enabled)).collect();
    assert_eq!(sent, [(b.tunnel, false), (other.id, true)]);
    // At once, whatever the gateway has done by now.
    let reason = |standing: &wicketgate_model::Standing| standing.detail.as_ref().map(|d| d.problem.reason);
    for standing in [b.tunnel_row(b.tunnel).await.standing, b.share(share).await.standing] {
        assert_eq!((standing.status, reason(&standing)), (Status::Error, Some(Reason::PeerAddressTaken)));
    }
    b.settle().await;
    assert_eq!(b.tunnel_row(b.tunnel).await.standing.status, Status::Error);
    b.store.delete_tunnel(other.frontdoor, other.id, &b.act()).await.unwrap();
    b.settle().await;
    b.store.return_peer_addresses(&b.act()).await.unwrap();
    b.settle().await;
    assert_eq!(b.tunnel_row(b.tunnel).await.standing.status, Status::Deployed);
    assert_eq!(b.share(share).await.standing.status, Status::Deployed);
}

#[tokio::test]
async fn the_newest_share_does_not_wait_for_the_others() {
    let mut b = Bench::new().await;
    let mut ids = Vec::new();
    for _ in 0..=SETTLED_AT_ONCE {
        ids.push(b.create().await);
    }
    b.activate().await;
    b.gateway.receive();
    b.gateway.report(&b.reconciler).await;
    assert_eq!(b.reconciler.reconcile(b.now).await.unwrap(), Outcome::More);
    let (oldest, newest) = (ids[0], ids[SETTLED_AT_ONCE]);
    assert_eq!(b.share(newest).await.standing.status, Status::Deployed);
    assert_eq!(b.share(oldest).await.standing.status, Status::New);
    assert_eq!(b.reconciler.reconcile(b.now).await.unwrap(), Outcome::Done);
    for id in ids {
        assert_eq!(b.share(id).await.standing.status, Status::Deployed);
    }
}

#[tokio::test]
async fn an_unreadable_row_does_not_delay_the_others() {
    let mut b = Bench::new().await;
    let broken = b.create().await;
    b.settle().await;
    b.edit(broken, "target = ''");
    b.now += FULL_READ_EVERY;
    let new = b.create().await;
    b.settle().await;
    assert_eq!(b.share(new).await.standing.status, Status::Deployed);
    assert!(b.gateway.desired().shares.contains_key(&broken), "the unreadable share is served as before");
}

#[tokio::test]
async fn assignments_are_renewed_long_before_their_end_and_not_all_at_once() {
    let mut b = Bench::new().await;
    let ids = [b.create().await, b.create().await, b.create().await];
    b.settle().await;
    let end = |b: &Bench, id| {
        let signed = &b.gateway.desired().shares[&id].assignment;
        b.ca.certificate().verify(signed).unwrap().expires_at.unwrap()
    };
    let first = ids.map(|id| end(&b, id));
    let begin = b.now;
    let day = SignedDuration::from_hours(24);
    // A full read between them renews those that are due.
    let mut renewed = [None; 3];
    for hours in (0..=11 * 24).step_by(2) {
        b.now = begin + SignedDuration::from_hours(hours);
        b.settle().await;
        for (n, id) in ids.into_iter().enumerate() {
            let end = end(&b, id);
            let lasts = end.duration_since(b.now);
            assert!(20 * day - SignedDuration::from_hours(2) < lasts && lasts <= 30 * day, "{lasts}");
            renewed[n] = renewed[n].or((end != first[n]).then_some(hours));
            assert_eq!(b.share(id).await.standing.status, Status::Deployed);
        }
    }
    let renewed = renewed.map(Option::unwrap);
    assert!(renewed[0] != renewed[1] || renewed[1] != renewed[2], "{renewed:?}");
    // The clock was a year ahead: what was signed then would be valid for a year.
    b.now = begin - SignedDuration::from_hours(24);
    b.reconciler.read_all_at = None;
    b.settle().await;
    assert!(ids.iter().all(|id| end(&b, *id).duration_since(b.now) <= 30 * day));
}

#[tokio::test]
async fn an_assignment_is_signed_by_the_server() {
    let mut b = Bench::new().await;
    let id = b.create().await;
    b.activate().await;
    b.gateway.receive();
    let signed = &b.gateway.desired().shares[&id].assignment;
    let assignment = b.ca.certificate().verify(signed).unwrap();
    assert_eq!((assignment.share, assignment.environment), (id, b.environment));
    assert_eq!(assignment.target.to_string(), "10.1.2.3:80");
}

#[tokio::test]
async fn a_deleted_share_is_deleted_only_after_the_gateway_has_applied_the_change() {
    let mut b = Bench::new().await;
    let id = b.create().await;
    b.settle().await;
    b.delete(id).await;
    b.activate().await;
    // The gateway reports before it receives the change: it still serves the share.
    let heard = b.gateway.heard;
    b.gateway.report(&b.reconciler).await;
    assert_eq!(b.gateway.heard, heard);
    b.activate().await;
    assert_eq!(b.share(id).await.standing.status, Status::Deleting);
    b.gateway.receive();
    b.gateway.report(&b.reconciler).await;
    b.activate().await;
    assert_eq!(b.share(id).await.standing.status, Status::Deleted);
}

#[tokio::test]
async fn a_share_that_was_never_reported_is_not_considered_deleted() {
    let mut b = Bench::new().await;
    b.settle().await;
    let id = b.create().await;
    b.activate().await;
    b.delete(id).await;
    b.activate().await;
    // Two deltas were sent and none is applied yet: the gateway may still start to serve the share.
    assert_eq!(b.share(id).await.standing.status, Status::Deleting);
    b.settle().await;
    assert_eq!(b.share(id).await.standing.status, Status::Deleted);
}

#[tokio::test]
async fn a_share_that_is_not_deployed_in_time_becomes_an_error_and_recovers() {
    let mut b = Bench::new().await;
    let id = b.create().await;
    b.gateway.problem = Some(Problem::new(Reason::AgentOffline, "no agent is connected"));
    b.settle().await;
    let row = b.share(id).await;
    assert_eq!(row.standing.status, Status::New);
    b.now += 31.seconds();
    b.activate().await;
    let row = b.share(id).await;
    assert_eq!(row.standing.status, Status::Error);
    assert_eq!(row.standing.detail.unwrap().problem.reason, Reason::AgentOffline);
    b.gateway.problem = None;
    b.gateway.report(&b.reconciler).await;
    b.activate().await;
    let row = b.share(id).await;
    assert_eq!((row.standing.status, row.standing.detail), (Status::Deployed, None));
}

#[tokio::test]
async fn after_a_restart_a_status_is_kept_briefly_and_is_then_confirmed_or_lost() {
    let mut b = Bench::new().await;
    let id = b.create().await;
    b.settle().await;
    b.now += 1.hour();
    b.restart_together().await;
    let restarted = b.now;
    b.activate().await;
    assert_eq!(b.share(id).await.standing.status, Status::Deployed);
    while b.share(id).await.standing.status == Status::Deployed && b.now < restarted + 4.seconds() {
        b.now += 500.milliseconds();
        b.activate().await;
    }
    wicketgate_lab::named("GatewayOffline", b.now.duration_since(restarted).unsigned_abs());
    let row = b.share(id).await;
    assert_eq!(row.standing.status, Status::Error);
    assert_eq!(row.standing.detail.unwrap().problem.reason, Reason::GatewayOffline);
    b.settle().await;
    assert_eq!(b.share(id).await.standing.status, Status::Deployed);
}

#[tokio::test]
async fn a_restart_leaves_unchanged_connections_as_recorded() {
    let mut b = Bench::new().await;
    let share = b.create().await;
    let up = Connection { state: ConnectionState::Up, ..Connection::down(b.now) };
    b.gateway.connection = up.clone();
    b.settle().await;
    let recorded = async |b: &Bench| b.store.tunnel(b.frontdoor, b.tunnel).await.unwrap().unwrap().connection;
    assert_eq!(recorded(&b).await, Some(up.clone()));
    // The gateway drains, and its connections take a while to end.
    b.gateway.send(FromGateway::Draining).await;
    // Uses the test's clock.
    b.reconciler.parts.view.lock().silent_since = Some(b.now);
    b.now += 10.seconds();
    b.activate().await;
    assert_eq!(recorded(&b).await, Some(up.clone()));
    let detail = b.share(share).await.standing.detail.unwrap().problem;
    assert_eq!(detail.reason, Reason::GatewayOffline);
    assert!(detail.message.starts_with("the gateway is stopping"), "{}", detail.message);
    b.restart().await;
    // The gateway has applied the tunnel and not checked its connection yet.
    b.gateway.tunnels_problem = Some(Problem::new(Reason::Pending, "soon"));
    b.settle().await;
    assert_eq!(recorded(&b).await, Some(up.clone()));
    b.gateway.tunnels_problem = None;
    b.gateway.connection = up.clone();
    b.settle().await;
    assert_eq!(recorded(&b).await, Some(up));
    // A gateway that reports nothing may have ended, and its tunnels with it.
    b.restart_together().await;
    b.activate().await;
    b.now += 10.seconds();
    b.activate().await;
    assert_eq!(recorded(&b).await.map(|c| c.state), Some(ConnectionState::Down));
}

#[tokio::test]
async fn a_gateway_in_a_process_of_its_own_that_is_silent_leaves_statuses_and_connections_as_they_were() {
    let mut b = Bench::new().await;
    let share = b.create().await;
    let up = Connection { state: ConnectionState::Up, ..Connection::down(b.now) };
    b.gateway.connection = up.clone();
    b.settle().await;
    b.restart().await;
    b.activate().await;
    b.now += 29.seconds();
    b.activate().await;
    assert_eq!(b.share(share).await.standing.detail, None);
    b.now += 2.seconds();
    b.activate().await;
    let standing = b.share(share).await.standing;
    let reason = standing.detail.map(|detail| detail.problem.reason);
    assert_eq!((standing.status, reason), (Status::Deployed, Some(Reason::GatewayUnreachable)));
    let recorded = b.store.tunnel(b.frontdoor, b.tunnel).await.unwrap().unwrap().connection;
    assert_eq!(recorded, Some(up.clone()));
    b.gateway.connection = up;
    b.settle().await;
    assert_eq!(b.share(share).await.standing.detail, None);
}

#[tokio::test]
async fn a_delta_that_does_not_fit_into_the_link_is_sent_later() {
    let mut b = Bench::new().await;
    let mut shares = Vec::new();
    // More deltas than the link's queue holds, while the gateway receives none.
    for _ in 0..100 {
        shares.push(b.create().await);
        b.activate().await;
    }
    b.settle().await;
    for id in shares {
        assert_eq!(b.share(id).await.standing.status, Status::Deployed);
    }
}

#[tokio::test]
async fn a_barred_agent_is_sent_to_the_gateway() {
    let mut b = Bench::new().await;
    b.settle().await;
    let agents = b.store.agents(b.frontdoor, &wicketgate_store::ListRequest::default()).await.unwrap();
    let agent: AgentId = agents.rows[0].id;
    assert!(matches!(b.gateway.desired().agents[&agent], AgentDesired::Enrolled { .. }));
    b.store.bar_agent(b.frontdoor, agent, &b.act()).await.unwrap();
    b.settle().await;
    assert_eq!(b.gateway.desired().agents[&agent], AgentDesired::Barred);
    b.restart().await;
    b.settle().await;
    assert_eq!(b.gateway.desired().agents[&agent], AgentDesired::Barred);
}

/// The reason and the message of a share that is `DEPLOYED`, and whether it serves.
async fn impaired(b: &Bench, id: ShareId) -> (Option<Reason>, String, bool) {
    let standing = b.share(id).await.standing;
    assert_eq!(standing.status, Status::Deployed);
    let serves = standing.serves();
    let problem = standing.detail.map(|detail| detail.problem);
    (problem.as_ref().map(|p| p.reason), problem.map(|p| p.message).unwrap_or_default(), serves)
}

#[tokio::test]
async fn a_deployed_share_says_that_its_peer_is_down() {
    let mut b = Bench::new().await;
    b.reconciler.parts.view.linked(GatewayHello { esp: EspMode::Kernel, ..bench::hello() });
    let id = b.create().await;
    b.settle().await;
    let (reason, _, serves) = impaired(&b, id).await;
    assert_eq!((reason, serves), (Some(Reason::PeerDown), false));

    b.gateway.connection.state = ConnectionState::Up;
    b.settle().await;
    assert_eq!(impaired(&b, id).await, (None, String::new(), true));

    // A short loss writes nothing.
    b.gateway.connection.state = ConnectionState::Down;
    b.settle().await;
    b.now += 3.seconds();
    b.activate().await;
    assert_eq!(impaired(&b, id).await, (None, String::new(), true));
    b.gateway.connection.state = ConnectionState::Up;
    b.settle().await;
    b.now += 10.seconds();
    b.activate().await;
    assert_eq!(impaired(&b, id).await, (None, String::new(), true));

    b.gateway.connection.state = ConnectionState::Connecting;
    b.gateway.connection.last_error = Some(ConnectionError {
        reason: ConnectionFault::PreSharedKeysDiffer,
        cause: "c".into(),
        cure: "c".into(),
        since: b.now,
    });
    b.settle().await;
    b.now += 4.seconds();
    b.activate().await;
    let (reason, message, serves) = impaired(&b, id).await;
    assert_eq!((reason, serves), (Some(Reason::PeerDown), false));
    assert!(message.contains("PreSharedKeysDiffer") && message.contains("\"customer-1\""), "{message}");
    b.rename_tunnel(b.tunnel, "head-office").await;
    b.settle().await;
    let (_, message, _) = impaired(&b, id).await;
    assert!(message.contains("\"head-office\""), "{message}");

    // A share that has moved to this tunnel, and away from it, has the state of the tunnel it is on.
    let other = b.create_tunnel().await;
    b.settle().await;
    let row = b.share(id).await;
    let spec = wicketgate_store::ShareSpec { tunnel: other, ..row.spec };
    b.store.replace_share(b.frontdoor, id, row.generation, &spec, &b.act()).await.unwrap();
    b.settle().await;
    let (_, message, _) = impaired(&b, id).await;
    let name = b.tunnel_row(other).await.spec.name;
    assert!(message.contains(&format!("\"{name}\"")), "{message}");
}

#[tokio::test]
async fn a_deployed_share_says_how_most_of_its_last_connections_failed() {
    let mut b = Bench::new().await;
    let id = b.create().await;
    b.settle().await;
    assert_eq!(impaired(&b, id).await.0, None);
    let report = |opened, failures: &[(FailureReason, u64)]| {
        let delta = TrafficDelta::new(id, TunnelId::new(uuid::Uuid::nil()));
        let failures = failures.iter().copied().collect();
        let deltas = vec![TrafficDelta { connections: opened, failures, ..delta }];
        let (spool, at) = (uuid::Uuid::now_v7(), Timestamp::now());
        let report = Arc::new(SpooledTraffic { spool, number: 1, at, deltas });
        FromGateway::Traffic { report, part: Part::WHOLE }
    };
    b.gateway.send(report(1, &[(FailureReason::DialTimeout, 4)])).await;
    b.activate().await;
    let (reason, message, serves) = impaired(&b, id).await;
    assert_eq!((reason, serves), (Some(Reason::ConnectionsFail), false));
    let expected = "most of the last connections were not served (dial-timeout)";
    assert!(message.starts_with(expected), "{message}");

    // More of the same is no change of the status, however long after.
    let before = b.share(id).await.standing;
    b.gateway.send(report(1, &[(FailureReason::DialTimeout, 3)])).await;
    b.activate().await;
    b.now = Timestamp::now() + 61.seconds();
    b.activate().await;
    assert_eq!(b.share(id).await.standing, before);

    // A check has reached the target.
    b.reconciler.parts.view.reached(id);
    b.activate().await;
    assert_eq!(impaired(&b, id).await, (None, String::new(), true));

    b.gateway.send(report(0, &[(FailureReason::ShareFull, 10)])).await;
    b.activate().await;
    let (reason, message, serves) = impaired(&b, id).await;
    assert_eq!((reason, serves), (Some(Reason::ConnectionsRefused), true));
    assert!(message.contains("maxConnections"), "{message}");

    // Earlier connections say nothing about a share that was changed.
    b.retarget(id).await;
    b.settle().await;
    assert_eq!(impaired(&b, id).await, (None, String::new(), true));

    b.gateway.send(report(0, &[(FailureReason::NoAgent, 3)])).await;
    b.activate().await;
    assert_eq!(impaired(&b, id).await.0, Some(Reason::ConnectionsFail));
    b.now = Timestamp::now() + 61.seconds();
    b.activate().await;
    assert_eq!(impaired(&b, id).await.0, Some(Reason::ConnectionsFail), "nothing shows otherwise");
    // The gateway saw what was wrong, and that it was mended.
    b.gateway.problem = Some(Problem::new(Reason::AgentOffline, "no agent is connected"));
    b.settle().await;
    assert_eq!(b.share(id).await.standing.status, Status::Error);
    b.gateway.problem = None;
    b.settle().await;
    assert_eq!(impaired(&b, id).await, (None, String::new(), true));
}
