use crate::harness::{Answer, TestApp, at, hello, spooled};
use axum::http::{Method, StatusCode};
use insta::assert_json_snapshot;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;
use wicketgate_link::{ShareCheck, ToGateway, TunnelCheck};
use wicketgate_model::{
    AgentId, ChildSa, Connection, ConnectionDoubt, ConnectionError, ConnectionFault, ConnectionState,
    ConnectionWarning, EspMode, FailureReason, Generation, Problem, Reason, Status, TrafficDelta,
    TrafficSelectors, Unanswered,
};

fn all_well(agent: AgentId) -> ShareCheck {
    ShareCheck {
        tunnel: TunnelCheck::default(),
        bound: Some(Generation::FIRST),
        listener_problem: None,
        refused: None,
        closed: false,
        acknowledged: Some(Generation::FIRST),
        agent_problem: None,
        dialled: Ok(agent),
        failure: None,
        listener_took: Duration::from_micros(2),
        agent_took: Some(Duration::from_millis(1)),
        dial_took: Duration::from_millis(3),
        took: Duration::from_millis(4),
    }
}

/// Checks a share while a gateway answers with `seen`, or is gone for `None`. Masks the measured latencies.
async fn check(app: &TestApp, share: &Value, seen: Option<ShareCheck>) -> Answer {
    let mut answer = measured(app, share, seen).await;
    for hop in answer.body["hops"].as_array_mut().into_iter().flatten() {
        if let Some(latency) = hop.get_mut("latencyMs") {
            assert!(latency.as_f64().unwrap() >= 0.0);
            *latency = json!("[ms]");
        }
    }
    answer
}

/// The gateway takes as long as it says that it does.
async fn measured(app: &TestApp, share: &Value, seen: Option<ShareCheck>) -> Answer {
    let mut asked = app.asked.lock().unwrap().take().unwrap();
    let path = format!("{}/check", at("ipsec-shares", share));
    let gateway = async {
        while let Some(message) = asked.recv().await {
            if let ToGateway::Check { request, share: id } = message {
                assert_eq!(json!(id), share["id"]);
                match &seen {
                    Some(seen) => {
                        sleep(seen.took).await;
                        app.gateway.rpc.checked(request, seen.clone());
                    }
                    None => app.gateway.rpc.abandon(),
                }
                break;
            }
        }
    };
    let (answer, ()) = tokio::join!(app.call(Method::POST, &path, None), gateway);
    *app.asked.lock().unwrap() = Some(asked);
    answer
}

fn states(answer: &Answer) -> Vec<&str> {
    answer.body["hops"].as_array().unwrap().iter().map(|hop| hop["state"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_share_is_checked_hop_by_hop() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let share = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
    let well = all_well(site.agent);
    assert_json_snapshot!("silent", app.shown(&check(&app, &share, None).await));
    let not_yet = check(&app, &share, Some(well.clone())).await;
    assert_eq!(states(&not_yet), ["FAILED", "UNKNOWN", "OK", "OK", "OK"]);
    app.settle(&tunnel, Status::Deployed).await;
    let id = tunnel["id"].as_str().unwrap().parse().unwrap();
    let mut connection = Connection::down("2026-01-01T00:00:00Z".parse().unwrap());
    let unheard = check(&app, &share, Some(well.clone())).await;
    let advice = unheard.body["hops"][1]["advice"].as_str().unwrap();
    assert!(advice.contains("UDP 500 and 4500"), "{advice}");
    connection.last_error = Some(ConnectionError {
        reason: ConnectionFault::PreSharedKeysDiffer,
        cause: "the pre-shared keys, so to say: these, differ".to_owned(),
        cure: "change one".to_owned(),
        since: connection.since,
    });
    app.record_connection(id, &connection).await;
    assert_json_snapshot!("peer_is_down", app.shown(&check(&app, &share, Some(well.clone())).await));
    connection.state = ConnectionState::Up;
    app.record_connection(id, &connection).await;
    let failing = check(&app, &share, Some(well.clone())).await;
    let up = &failing.body["hops"][1];
    assert_eq!((&up["state"], &failing.body["ok"]), (&json!("OK"), &json!(true)));
    assert!(up["message"].as_str().unwrap().contains("an attempt failed: the pre-shared keys"), "{up}");
    connection.last_error = None;
    let words = |word: &str| vec![word.to_owned()];
    let selectors = TrafficSelectors { gateway: words("100.64.0.1/32"), peer: words("172.31.1.0/24") };
    let child = ChildSa {
        selectors,
        algorithms: String::new(),
        since: connection.since,
        rekey_at: None,
        rekeys: 0,
        bytes_in: 0,
        bytes_out: 0,
    };
    let asked = Connection { child_sas: vec![child], ..connection.clone() };
    let asked = TunnelCheck { problem: None, connection: Some(asked) };
    let narrowed = check(&app, &share, Some(ShareCheck { tunnel: asked, ..well.clone() })).await;
    let message = narrowed.body["hops"][1]["message"].as_str().unwrap();
    assert!(message.contains("only for 172.31.1.0/24 of peerCidr"), "{message}");
    let idle = Connection { state: ConnectionState::Idle, ..connection.clone() };
    let idle = TunnelCheck { problem: None, connection: Some(idle) };
    let idle = check(&app, &share, Some(ShareCheck { tunnel: idle, ..well.clone() })).await;
    let hop = &idle.body["hops"][1];
    assert_eq!(hop["state"], "FAILED");
    assert!(
        hop["advice"].as_str().unwrap().contains("CHILD SA") && !hop.to_string().contains("UDP"),
        "{hop}"
    );
    app.record_connection(id, &connection).await;
    let good = check(&app, &share, Some(well.clone())).await;
    assert_json_snapshot!("well", app.shown(&good));
    let lost = Connection { state: ConnectionState::Down, ..Connection::down(connection.since) };
    let lost = TunnelCheck { problem: None, connection: Some(lost) };
    let lost = check(&app, &share, Some(ShareCheck { tunnel: lost, ..well.clone() })).await;
    let message = lost.body["hops"][1]["message"].as_str().unwrap();
    assert_eq!(message, "the peer was connected, and is down since 2026-01-01T00:00:00Z");

    app.gateway.view.linked(hello(EspMode::Off));
    let off = check(&app, &share, Some(well.clone())).await;
    assert_eq!((&off.body["hops"][1]["state"], &off.body["ok"]), (&json!("SKIPPED"), &json!(true)));
    app.gateway.view.linked(hello(EspMode::Userland));

    let problem = |reason| Problem::new(reason, "as the gateway reports it");
    let taken =
        ShareCheck { bound: None, listener_problem: Some(problem(Reason::PortInUse)), ..well.clone() };
    let offline = ShareCheck {
        acknowledged: None,
        agent_problem: Some(problem(Reason::AgentOffline)),
        dialled: Err(problem(Reason::AgentOffline)),
        ..well.clone()
    };
    let refused = ShareCheck { dialled: Err(problem(Reason::AgentRefused)), ..well.clone() };
    let exhausted = ShareCheck { dialled: Err(problem(Reason::AgentExhausted)), ..well.clone() };
    let unreachable = ShareCheck { dialled: Err(problem(Reason::TargetUnreachable)), ..well.clone() };
    // The advice is that of the cause.
    for failure in [FailureReason::ConnectionRefused, FailureReason::NoRoute, FailureReason::NoNameServer] {
        let seen = ShareCheck { failure: Some(failure), ..unreachable.clone() };
        let answer = check(&app, &share, Some(seen)).await;
        let advice = answer.body["hops"][4]["advice"].as_str().unwrap().to_lowercase();
        assert_eq!(advice, failure.advice().to_lowercase());
    }
    let late = ShareCheck {
        dialled: Err(problem(Reason::AgentOffline)),
        failure: Some(FailureReason::AgentTimeout),
        ..well.clone()
    };
    let answer = check(&app, &share, Some(late)).await;
    assert!(answer.body["hops"][3]["advice"].as_str().unwrap().contains("its host"), "{}", answer.body);
    for (words, advice) in [
        (
            "the assignment is older than a restore of the server's database (era 7)",
            "wicketgate restore --in-place",
        ),
        ("the assignment has expired, on Monday", "the clock"),
        ("10.0.0.1:22 is not in the agent's allow list", "the agent's allow list"),
    ] {
        let refused = ShareCheck { dialled: Err(Problem::new(Reason::AgentRefused, words)), ..well.clone() };
        let answer = check(&app, &share, Some(refused)).await;
        let hops = answer.body["hops"].as_array().unwrap();
        let told: Vec<_> = hops.iter().filter_map(|hop| hop["advice"].as_str()).collect();
        assert!(matches!(told[..], [one] if one.contains(advice)), "{words}: {told:?}");
    }
    let old = ShareCheck { bound: None, acknowledged: None, ..well.clone() };
    let hung = TunnelCheck { problem: Some(problem(Reason::TunnelFailed)), connection: None };
    let hung = ShareCheck { tunnel: hung, ..well.clone() };
    let restored =
        TunnelCheck { problem: Some(problem(Reason::TunnelFailed)), connection: Some(connection.clone()) };
    let restored = ShareCheck { tunnel: restored, ..well.clone() };
    let full = ShareCheck { refused: Some(problem(Reason::ConnectionLimit)), ..well.clone() };
    let closed = ShareCheck { dialled: Err(problem(Reason::TargetClosed)), ..well };
    let mut shown = Vec::new();
    for (seen, expected) in [
        (taken, ["OK", "OK", "FAILED", "OK", "OK"]),
        (offline, ["OK", "OK", "OK", "FAILED", "UNKNOWN"]),
        (refused, ["OK", "OK", "OK", "FAILED", "UNKNOWN"]),
        (exhausted, ["OK", "OK", "OK", "FAILED", "UNKNOWN"]),
        (unreachable, ["OK", "OK", "OK", "OK", "FAILED"]),
        (old, ["OK", "OK", "FAILED", "FAILED", "OK"]),
        (hung, ["FAILED", "UNKNOWN", "OK", "OK", "OK"]),
        (restored, ["FAILED", "OK", "OK", "OK", "OK"]),
        (full, ["OK", "OK", "FAILED", "OK", "OK"]),
        (closed, ["OK", "OK", "OK", "OK", "FAILED"]),
    ] {
        let answer = check(&app, &share, Some(seen)).await;
        assert_eq!((states(&answer), &answer.body["ok"]), (expected.to_vec(), &json!(false)));
        let hops = answer.body["hops"].as_array().unwrap();
        let advised: Vec<_> = hops.iter().filter(|hop| hop.get("advice").is_some()).cloned().collect();
        assert!(advised.iter().all(|hop| hop["state"] == "FAILED"));
        assert_eq!(advised.len(), expected.iter().filter(|state| **state == "FAILED").count());
        shown.push(advised);
    }
    let shown = Answer { body: json!(shown), ..good };
    assert_json_snapshot!("advice", app.shown(&shown));
}

#[tokio::test]
async fn a_check_says_how_to_cure_a_silence() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let share = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
    app.settle(&tunnel, Status::Deployed).await;
    let well = all_well(site.agent);

    let since = "2026-01-01T00:00:00Z".parse().unwrap();
    let warning = ConnectionWarning {
        reason: ConnectionDoubt::PeerSilent,
        message: "no answer".to_owned(),
        since,
        ports: Vec::new(),
    };
    let up = Connection { state: ConnectionState::Up, warnings: vec![warning], ..Connection::down(since) };
    let peer = TunnelCheck { problem: None, connection: Some(up) };
    let peer = check(&app, &share, Some(ShareCheck { tunnel: peer, ..well.clone() })).await;
    let hop = &peer.body["hops"][1];
    let advice = hop["advice"].as_str().unwrap();
    assert_eq!((&hop["state"], &hop["reason"]), (&json!("FAILED"), &json!("PeerDown")));
    assert!(advice.contains("its line") && !advice.contains("Bring the tunnel up"), "{advice}");

    // A check names an agent as statusDetail does, by the gateway's words, also if it was given another name.
    app.connect(site.agent).await;
    let path = format!("agents/{}", site.agent);
    let reported = app.get(&path).await.body["name"].as_str().unwrap().to_owned();
    app.patch(&path, json!({"name": "rack-2.left"})).await;
    let message = format!("agent {} ({reported}) at 192.0.2.7 does not answer", site.agent);
    let silent = Problem::new(Reason::AgentSilent, message.clone());
    let silent = ShareCheck { dialled: Err(silent.clone()), agent_problem: Some(silent), ..well.clone() };
    let silent = check(&app, &share, Some(silent)).await;
    assert_eq!(silent.body["hops"][3]["message"], message);

    // The target takes connections, and answers no client.
    let id = share["id"].as_str().unwrap().parse().unwrap();
    let delta = TrafficDelta::new(id, tunnel["id"].as_str().unwrap().parse().unwrap());
    let missed = Unanswered { silent: 4, ended: 0 };
    let deltas = vec![TrafficDelta { unanswered: missed, ..delta }];
    app.gateway.view.carried(&spooled(deltas), jiff::Timestamp::now());
    let hung = check(&app, &share, Some(well)).await;
    let hop = &hung.body["hops"][4];
    assert_eq!((&hop["state"], &hop["reason"]), (&json!("OK"), &json!("ConnectionsUnanswered")));
    assert!(hop["message"].as_str().unwrap().contains("last 4 connections"), "{hop}");
    assert!(hop["advice"].as_str().unwrap().contains("Clients that only send"), "{hop}");
}

#[tokio::test]
async fn the_latency_of_the_gateway_is_without_the_wait_for_the_target() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let share = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
    app.settle(&tunnel, Status::Deployed).await;
    let took = Duration::from_secs(2);
    let slow = ShareCheck { dial_took: took, took, ..all_well(site.agent) };
    let hops = measured(&app, &share, Some(slow)).await.body["hops"].clone();
    let latency = |hop: usize| hops[hop]["latencyMs"].as_f64().unwrap();
    assert!(latency(0) < 2000.0 && latency(4) >= 2000.0, "{hops}");
}

#[tokio::test]
async fn a_check_of_an_undeployed_resource_is_refused() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let share = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
    let path = format!("{}/check", at("ipsec-shares", &share));
    let odd = app.post(&path, json!({"deep": true})).await;
    assert_eq!(odd.body["message"], "deep is not a known property");
    assert_eq!(app.post("ipsec-shares/shr-1/check", json!({})).await.status, StatusCode::NOT_FOUND);
    app.delete(&at("ipsec-shares", &share)).await;
    assert_eq!(app.post(&path, json!({})).await.status, StatusCode::CONFLICT);
}
