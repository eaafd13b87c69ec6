//! The calls of the site page: who has a handover link gets one tunnel, and nothing else.

use crate::harness::{Answer, TestApp, at};
use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use insta::assert_json_snapshot;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::time::Duration;
use wicketgate_link::{IkeLogLine, ShareCheck, ToGateway, TunnelCheck};
use wicketgate_model::{
    Connection, ConnectionError, ConnectionFault, ConnectionState, EspMode, Generation, Problem, Reason,
    Status,
};

const KEY: &str = "the-key-that-nobody-else-has";
const TARGET: &str = "10.20.100.1";

struct SiteApp {
    app: TestApp,
    tunnel: Value,
    share: Value,
    /// The names of what a stranger must not see.
    inside: Vec<String>,
}

/// Answers as a gateway whose agent has trouble with the target, and whose log has a packet.
fn gateway(app: &TestApp, seen: ShareCheck) {
    let (mut asked, rpc) = (app.asked.lock().unwrap().take().unwrap(), app.gateway.rpc.clone());
    tokio::spawn(async move {
        while let Some(message) = asked.recv().await {
            match message {
                ToGateway::Check { request, .. } => rpc.checked(request, seen.clone()),
                ToGateway::IkeLog { request, after, .. } => {
                    let text = "received packet: from 203.0.113.1[500] to 100.64.0.1[500] (304 bytes)";
                    let line = IkeLogLine {
                        number: 7,
                        at: Timestamp::now(),
                        group: "NET".to_owned(),
                        ike_sa: None,
                        text: text.to_owned(),
                    };
                    rpc.ike_log_answered(request, (after < 7).then_some(line).into_iter().collect());
                }
                _ => {}
            }
        }
    });
}

fn seen(problem: &Problem) -> ShareCheck {
    ShareCheck {
        tunnel: TunnelCheck::default(),
        bound: Some(Generation::FIRST),
        listener_problem: None,
        refused: None,
        closed: false,
        acknowledged: Some(Generation::FIRST),
        agent_problem: None,
        dialled: Err(problem.clone()),
        failure: None,
        listener_took: Duration::ZERO,
        agent_took: None,
        dial_took: Duration::ZERO,
        took: Duration::ZERO,
    }
}

impl SiteApp {
    async fn new() -> Self {
        Self::of(TestApp::new().await).await
    }

    async fn of(app: TestApp) -> Self {
        let other = app.post("ipsec-tunnels", crate::harness::tunnel("customer-a", 1)).await;
        assert_eq!(other.status, StatusCode::ACCEPTED, "{}", other.text);
        let site = app.enrol().await;
        let body = crate::harness::with(crate::harness::tunnel("acme", 9), json!({"preSharedKey": KEY}));
        let tunnel = app.post("ipsec-tunnels", body).await.body;
        let share = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
        app.settle(&tunnel, Status::Deployed).await;
        let inside = vec![
            TARGET.to_owned(),
            site.z_id.to_string(),
            site.environment.to_string(),
            site.agent.to_string(),
            "dc-1".to_owned(),
            "customer-a".to_owned(),
            app.frontdoor.to_string(),
            "agt-".to_owned(),
            "tnl-".to_owned(),
            "env-".to_owned(),
        ];
        assert!(share["target"].as_str().unwrap().contains(TARGET), "{share}");
        Self { app, tunnel, share, inside }
    }

    async fn link(&self, body: Value) -> Value {
        let links = format!("{}/handover-links", at("ipsec-tunnels", &self.tunnel));
        let made = self.app.post(&links, body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        made.body
    }

    /// A call of the page, which has no account. Neither the answer nor its headers tell what is inside.
    async fn ask(&self, call: &str, body: Value) -> Answer {
        let request = Request::post(format!("/site/{call}")).header("content-type", "application/json");
        let answer = self.app.send(request.body(Body::from(body.to_string())).unwrap()).await;
        for name in &self.inside {
            assert!(!answer.text.contains(name.as_str()), "{call} tells {name}: {}", answer.text);
        }
        assert!(
            call == "configuration" || !answer.text.contains(KEY),
            "{call} tells the key: {}",
            answer.text
        );
        answer
    }

    async fn open(&self, link: &Value) -> Value {
        let opened = self.ask("open", json!({"token": link["token"]})).await;
        assert_eq!(opened.status, StatusCode::OK, "{}", opened.text);
        assert_eq!(opened.headers["cache-control"], "no-store");
        opened.body["session"].clone()
    }

    async fn error(&self, call: &str, body: Value) -> String {
        let answer = self.ask(call, body).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.text);
        answer.body["error"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_link_opens_a_page_about_one_tunnel() {
    let site = SiteApp::new().await;
    let agents = format!("10.20.100.1:8443 is refused to the agent dc-1 of {}", site.inside[2]);
    gateway(&site.app, seen(&Problem::new(Reason::TargetUnreachable, &agents)));
    let session = site.open(&site.link(json!({})).await).await;
    assert!(session.as_str().unwrap().starts_with("wgp_"));
    let shown = site.ask("tunnel", json!({"session": session})).await;
    assert!(shown.body["heard"]["lastPacketAt"].is_string(), "{}", shown.text);
    assert_eq!(shown.headers["cache-control"], "no-store");
    assert_json_snapshot!("connecting", site.app.shown(&shown));

    let id = site.tunnel["id"].as_str().unwrap().parse().unwrap();
    let mut connection = Connection::down("2026-01-01T00:00:00Z".parse().unwrap());
    connection.last_error = Some(ConnectionError {
        reason: ConnectionFault::PreSharedKeysDiffer,
        cause: "the pre-shared keys differ".to_owned(),
        cure: "give the tunnel the device's key (POST …/psk)".to_owned(),
        since: connection.since,
    });
    site.app.record_connection(id, &connection).await;
    assert_json_snapshot!("refused", site.app.shown(&site.ask("tunnel", json!({"session": session})).await));
    connection = Connection { state: ConnectionState::Up, last_error: None, ..connection };
    site.app.record_connection(id, &connection).await;
    let up = site.ask("tunnel", json!({"session": session})).await;
    assert_eq!((&up.body["heard"]["stage"], &up.body["connection"]["state"]), (&json!("UP"), &json!("UP")));

    let check = site.ask("check", json!({"session": session, "shareId": site.share["id"]})).await;
    assert_json_snapshot!("check", site.app.shown(&check));
    let other = site.app.post("ipsec-shares", json!({})).await;
    assert_eq!(other.status, StatusCode::BAD_REQUEST);
    let unknown = json!({"session": session, "shareId": "shr-0190f3a4c0de7000800000000000abcd"});
    assert_eq!(site.ask("check", unknown).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn of_a_gateway_that_tells_nothing_nothing_is_claimed() {
    let site = SiteApp::of(TestApp::unlinked(None).await).await;
    let session = site.open(&site.link(json!({})).await).await;
    let look = async || {
        let shown = site.ask("tunnel", json!({"session": session})).await;
        assert_eq!(shown.status, StatusCode::OK, "{}", shown.text);
        shown.body
    };
    let configuration = json!({"session": session, "format": "strongswan"});
    // It has not connected yet: its address is not known.
    let unlinked = look().await;
    assert_eq!(unlinked["heard"]["stage"], "UNKNOWN", "{unlinked}");
    assert!(unlinked["provider"].get("peerAddress").is_none(), "{unlinked}");
    let early = site.ask("configuration", configuration.clone()).await;
    assert_eq!(early.status, StatusCode::SERVICE_UNAVAILABLE, "{}", early.text);
    assert_eq!(early.body["error"], "gateway_not_connected");
    // It is connected, and does not tell its log.
    site.app.gateway.view.linked(crate::harness::hello(EspMode::Userland));
    let late = look().await;
    assert_eq!((&late["heard"]["stage"], &late["heard"]["logRead"]), (&json!("UNKNOWN"), &json!(false)));
    assert!(!late.to_string().contains("IKE message"), "{late}");
    gateway(&site.app, seen(&Problem::new(Reason::TargetUnreachable, "")));
    let heard = look().await["heard"].clone();
    assert_eq!((&heard["stage"], &heard["logRead"]), (&json!("CONNECTING"), &json!(true)), "{heard}");
    // It goes offline: what it has told before is all that is known.
    site.app.gateway.view.lost(Timestamp::now());
    let offline = look().await;
    assert_eq!(offline["heard"]["lastPacketAt"], heard["lastPacketAt"]);
    assert_json_snapshot!("offline", offline["heard"], {".lastPacketAt" => "[time]"});
    assert_eq!(site.ask("configuration", configuration).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_key_is_in_the_configuration_only_and_its_reading_is_recorded() {
    let site = SiteApp::new().await;
    let link = site.link(json!({})).await;
    let session = site.open(&link).await;
    let text = site.ask("configuration", json!({"session": session, "format": "strongswan"})).await;
    assert_eq!(text.status, StatusCode::OK, "{}", text.text);
    assert!(text.text.contains("secret = ") && text.headers["cache-control"] == "no-store");
    let whole = site.ask("configuration", json!({"session": session, "format": "json"})).await;
    assert_eq!(whole.body["preSharedKey"], KEY);
    let wrong = site.ask("configuration", json!({"session": session, "format": "typewriter"})).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);

    let actor = format!("handover:{}", link["id"].as_str().unwrap());
    let read = site.app.get(&format!("executions?action=READ_KEY&actor={actor}")).await.body;
    assert_eq!(read["totalElements"], 2, "{read}");
    assert_eq!(read["content"][0]["resourceId"], site.tunnel["id"]);
    let opened = site.app.get(&format!("executions?action=OPEN&actor={actor}")).await.body;
    assert_eq!(opened["content"][0]["resourceId"], link["id"], "{opened}");
}

#[tokio::test]
async fn whatever_is_wrong_with_a_link_the_answer_is_the_same() {
    let site = SiteApp::new().await;
    let soon = Timestamp::now() + SignedDuration::from_millis(1500);
    let (expired, used_up) =
        (site.link(json!({"expiresAt": soon})).await, site.link(json!({"maxUses": 1})).await);
    let revoked = site.link(json!({})).await;
    let sessions = [site.open(&expired).await, site.open(&used_up).await, site.open(&revoked).await];
    let path =
        format!("{}/handover-links/{}", at("ipsec-tunnels", &site.tunnel), revoked["id"].as_str().unwrap());
    assert_eq!(site.app.delete(&path).await.status, StatusCode::NO_CONTENT);
    let left = soon.duration_since(Timestamp::now()) + SignedDuration::from_millis(10);
    tokio::time::sleep(left.try_into().unwrap_or_default()).await;

    let unknown = json!("wgh_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let mut answers = Vec::new();
    for token in [&unknown, &json!(""), &expired["token"], &used_up["token"], &revoked["token"]] {
        answers.push(site.ask("open", json!({"token": token})).await);
    }
    assert!(answers.iter().all(|a| a.status == StatusCode::FORBIDDEN && a.text == answers[0].text));
    assert_json_snapshot!("invalid", site.app.shown(&answers[0]));

    // The pages that were open: those of a link that has ended are over, in the middle of whatever they do.
    for call in ["tunnel", "configuration", "check"] {
        for (session, is_open) in sessions.iter().chain([&unknown]).zip([false, true, false, false]) {
            let body = match call {
                "configuration" => json!({"session": session, "format": "strongswan"}),
                "check" => json!({"session": session, "shareId": "shr-0190f3a4c0de7000800000000000abcd"}),
                _ => json!({"session": session}),
            };
            let answer = site.ask(call, body).await;
            assert_eq!(answer.body["error"] == "link_invalid", !is_open, "{call}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn a_link_ends_with_the_key_that_it_was_made_for() {
    let site = SiteApp::new().await;
    let tunnel = at("ipsec-tunnels", &site.tunnel);
    let link = site.link(json!({})).await;
    let session = site.open(&link).await;
    let renamed = site.app.patch(&tunnel, json!({"name": "renamed"})).await;
    assert_eq!(renamed.status, StatusCode::ACCEPTED, "{}", renamed.text);
    // Not yet at the gateway: the page says so without the provider's words.
    let early = site.ask("configuration", json!({"session": session, "format": "json"})).await;
    assert_eq!(early.status, StatusCode::CONFLICT, "{}", early.text);
    site.app.settle(&site.tunnel, Status::Deployed).await;
    assert_eq!(site.ask("tunnel", json!({"session": session})).await.status, StatusCode::OK);

    let rotated = site.app.post(&format!("{tunnel}/psk"), json!({})).await;
    assert_eq!(rotated.status, StatusCode::ACCEPTED, "{}", rotated.text);
    site.app.settle(&site.tunnel, Status::Deployed).await;
    assert_eq!(
        site.error("configuration", json!({"session": session, "format": "json"})).await,
        "link_invalid"
    );
    assert_eq!(site.error("open", json!({"token": link["token"]})).await, "link_invalid");
    let after = site.link(json!({})).await;
    site.open(&after).await;
}

#[tokio::test]
async fn a_link_ends_with_its_tunnel() {
    let site = SiteApp::new().await;
    let link = site.link(json!({})).await;
    let session = site.open(&link).await;
    assert_eq!(site.app.delete(&at("ipsec-shares", &site.share)).await.status, StatusCode::ACCEPTED);
    assert_eq!(site.app.delete(&at("ipsec-tunnels", &site.tunnel)).await.status, StatusCode::ACCEPTED);
    assert_eq!(site.error("tunnel", json!({"session": session})).await, "link_invalid");
    assert_eq!(site.error("open", json!({"token": link["token"]})).await, "link_invalid");
}

#[tokio::test]
async fn a_passphrase_is_asked_for_and_cannot_be_guessed() {
    let site = SiteApp::new().await;
    let link = site.link(json!({"passphrase": "correct horse"})).await;
    let open =
        |passphrase: Value| site.ask("open", json!({"token": link["token"], "passphrase": passphrase}));
    assert_json_snapshot!("required", site.app.shown(&open(Value::Null).await));
    assert_eq!(open(json!("correct horse")).await.status, StatusCode::OK);
    // Of those that come at once, no more are compared than in a row.
    let tries = futures_util::future::join_all((0..8).map(|n| open(json!(format!("wrong horse {n}"))))).await;
    let wrong: Vec<_> = tries.iter().filter(|a| a.body["error"] == "passphrase_wrong").collect();
    let refused: Vec<_> = tries.iter().filter(|a| a.status == StatusCode::TOO_MANY_REQUESTS).collect();
    assert_eq!((wrong.len(), refused.len()), (5, 3));
    assert_json_snapshot!("wrong", site.app.shown(wrong[0]));
    let seconds: u64 = refused[0].headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((50..=61).contains(&seconds), "{seconds}");
    // The right one has to wait, too. Another link does not.
    assert_eq!(open(json!("correct horse")).await.status, StatusCode::TOO_MANY_REQUESTS);
    site.open(&site.link(json!({})).await).await;
    assert_eq!(site.app.get("executions?action=OPEN").await.body["totalElements"], 2);
}

#[tokio::test]
async fn the_pages_of_a_link_ask_for_so_much_and_bodies_are_small() {
    let site = SiteApp::new().await;
    let session = site.open(&site.link(json!({})).await).await;
    let read = || site.ask("configuration", json!({"session": session, "format": "json"}));
    let mut statuses = Vec::new();
    for _ in 0..60 {
        statuses.push(read().await.status);
    }
    // One more arrives in two seconds.
    let admitted = statuses.iter().filter(|s| **s == StatusCode::OK).count();
    assert!(
        statuses[..30].iter().all(|s| *s == StatusCode::OK) && (30..50).contains(&admitted),
        "{statuses:?}"
    );
    assert!(statuses.contains(&StatusCode::TOO_MANY_REQUESTS));

    let large = site.ask("open", json!({"token": "x".repeat(17_000)})).await;
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
    for body in [json!({}), json!({"token": 7, "unknown": "wgh_secret"}), json!([])] {
        assert_eq!(site.ask("open", body).await.status, StatusCode::BAD_REQUEST);
    }
    let get = site.app.call(Method::GET, "/site/tunnel", None).await;
    assert_eq!(get.status, StatusCode::METHOD_NOT_ALLOWED);
}
