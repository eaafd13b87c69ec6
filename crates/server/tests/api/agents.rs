use crate::harness::{Answer, TestApp};
use axum::http::{Method, StatusCode};
use insta::assert_json_snapshot;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use uuid::Uuid;
use wicketgate_link::{AgentShareState, AgentShares, ToGateway};
use wicketgate_model::{AgentFinding, AgentReport, EnrolRefusal, FindingResult, ShareId};
use wicketgate_store::{EnrolAttempt, WriteContext};
use wicketgate_transport::code::{EnrolmentCode, secret_hash};

#[tokio::test]
async fn an_agent_is_listed_until_it_is_barred() {
    let app = TestApp::new().await;
    let site = app.enrol().await;
    app.connect(site.agent).await;
    let path = format!("agents/{}", site.agent);
    let share = |n| ShareId::new(Uuid::from_u128(n));
    let shares = vec![
        (share(1), AgentShareState::Serving),
        (share(2), AgentShareState::Pending),
        (share(3), AgentShareState::Refused("10.20.100.1:22 is not in the allow list".to_owned())),
        (share(4), AgentShareState::Unreachable("connection refused".to_owned())),
    ];
    let seen = AgentShares { agent: site.agent, shares, unanswered_since: None, clock_seconds_ahead: None };
    let connected = answered(&app, app.get_hal(&path), Some(seen.clone())).await;
    assert_json_snapshot!("connected", app.shown(&connected));
    let list = answered(&app, app.get("agents"), Some(seen)).await;
    assert_eq!(
        (&list.body["totalElements"], &list.body["content"][0]["shares"]),
        (&json!(1), &connected.body["shares"])
    );
    // The tag that a precondition is checked against excludes an agent's reports, which change without a write.
    let silent = answered(&app, app.get(&path), None).await;
    assert!(silent.body.get("shares").is_none());
    let tag =
        |answer: &Answer| answer.headers["etag"].to_str().unwrap().split('.').next().unwrap().to_owned();
    assert_ne!(silent.headers["etag"], connected.headers["etag"]);
    assert_eq!(tag(&silent).trim_end_matches('"'), tag(&connected));

    app.store.agent_disconnected(&app.epoch, site.agent, Timestamp::now()).await.unwrap();
    assert_json_snapshot!("offline", app.shown(&app.get(&path).await));
    assert_eq!(app.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(app.delete(&path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(app.get("agents").await.body["totalElements"], 0);
}

#[tokio::test]
async fn an_agents_report_is_shown_with_it_alone_until_it_is_barred() {
    let app = TestApp::new().await;
    let site = app.enrol().await;
    let path = format!("agents/{}", site.agent);
    assert!(app.get(&path).await.body.get("report").is_none());
    let finding = AgentFinding {
        check: "allow-list".to_owned(),
        subject: "10.20.0.20:5432".to_owned(),
        result: FindingResult::Fail,
        message: "10.20.0.20:5432: connection refused".to_owned(),
    };
    let report = AgentReport {
        os: "Debian GNU/Linux 12 (bookworm), Linux 6.1.0 (x86_64)".to_owned(),
        open_files: Some(524_288),
        name_servers: vec!["10.20.0.2".to_owned()],
        findings: vec![finding],
    };
    let older = AgentReport::default();
    for report in [&older, &report] {
        app.store.agent_reported(&app.epoch, site.agent, report, Timestamp::now()).await.unwrap();
    }
    let shown = app.get(&path).await;
    assert_json_snapshot!("reported", app.shown(&shown));
    app.store.agent_reported(&app.epoch, site.agent, &report, Timestamp::MAX).await.unwrap();
    assert_eq!(app.get(&path).await.body["report"]["at"], shown.body["report"]["at"], "sent again");
    let listed = app.get("agents").await;
    assert!(listed.body["content"][0].get("report").is_none(), "{}", listed.text);
    assert_eq!(app.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert!(app.store.agent_report(site.agent).await.unwrap().is_none());
}

#[tokio::test]
async fn an_agent_has_the_name_that_it_reports_until_it_is_given_another() {
    let app = TestApp::new().await;
    let site = app.enrol().await;
    let path = format!("agents/{}", site.agent);

    let renamed = app.patch(&path, json!({"name": "rack-2.left"})).await;
    assert_eq!((renamed.status, &renamed.body["name"]), (StatusCode::OK, &json!("rack-2.left")));
    app.connect(site.agent).await;
    app.store.agent_disconnected(&app.epoch, site.agent, Timestamp::now()).await.unwrap();
    assert_eq!(app.get(&path).await.body["name"], "rack-2.left", "also after it has connected again");
    assert_eq!(app.get("agents?name=rack-2.left").await.body["totalElements"], 1);
    let environment = app.get("environments").await;
    assert_eq!(environment.body["content"][0]["agents"][0]["name"], "rack-2.left");

    for bad in ["", "a b", &"x".repeat(65)] {
        assert_eq!(app.patch(&path, json!({"name": bad})).await.status, StatusCode::BAD_REQUEST, "{bad:?}");
    }
    assert_eq!(app.patch(&path, json!({"label": "x"})).await.status, StatusCode::BAD_REQUEST);
    // Nothing changes, so nothing is recorded.
    app.patch(&path, json!({"name": "rack-2.left"})).await;
    app.patch(&path, json!({})).await;
    let records = app.get(&format!("executions?resourceId={}&action=UPDATE", site.agent)).await;
    assert_eq!(records.body["totalElements"], 1, "{}", records.body);

    let back = app.patch(&path, json!({"name": null})).await;
    assert_eq!((back.status, &back.body["name"]), (StatusCode::OK, &json!("dc-1")), "as it reported last");
}

/// Sends a request while a gateway answers with `seen`, or is gone for `None`.
async fn answered(app: &TestApp, asking: impl Future<Output = Answer>, seen: Option<AgentShares>) -> Answer {
    let mut asked = app.asked.lock().unwrap().take().unwrap();
    let gateway = async {
        while let Some(message) = asked.recv().await {
            if let ToGateway::Agents { request, agents } = message {
                if let Some(seen) = seen {
                    assert_eq!(agents, [seen.agent]);
                    app.gateway.rpc.agents_answered(request, vec![seen]);
                } else {
                    app.gateway.rpc.abandon();
                }
                break;
            }
        }
    };
    let (answer, ()) = tokio::join!(asking, gateway);
    *app.asked.lock().unwrap() = Some(asked);
    answer
}

#[tokio::test]
async fn a_code_is_shown_once() {
    let app = TestApp::new().await;
    let made = app.call(Method::POST, "agents/enrollments", None).await;
    assert_json_snapshot!("code", app.shown(&made));
    assert_eq!(made.headers["cache-control"], "no-store");
    let end: Timestamp = made.body["expiresAt"].as_str().unwrap().parse().unwrap();
    let left = end.duration_since(Timestamp::now());
    assert!(left <= SignedDuration::from_hours(1) && left > SignedDuration::from_mins(59), "{left}");
    let code: EnrolmentCode = made.body["enrollmentCode"].as_str().unwrap().parse().unwrap();
    assert_ne!(code.secret(), &[0; 16]);
    assert_eq!(made.body["id"], json!(code.id()));
    let site = app.enrol().await;
    let replica = app.post("agents/enrollments", json!({"environmentId": site.environment})).await;
    assert_eq!(replica.body["environmentId"], json!(site.environment));
    let nowhere = json!({"environmentId": "env-00000000000000000000000000000000"});
    assert_json_snapshot!("nowhere", app.shown(&app.post("agents/enrollments", nowhere).await));
    assert_eq!(app.post("agents/enrollments", json!({"env": 1})).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn an_unused_code_is_listed_and_revoked() {
    let app = TestApp::new().await;
    let made = app.call(Method::POST, "agents/enrollments", None).await;
    // A code that an agent has used is none that could be revoked: the agent can be barred.
    app.enrol().await;
    let list = app.get("agents/enrollments").await;
    assert_json_snapshot!("codes", app.shown(&list));
    let secret = made.body["enrollmentCode"].as_str().unwrap();
    assert!(!list.text.contains(&secret[4..]));
    let path = format!("agents/enrollments/{}", made.body["id"].as_str().unwrap());
    assert_eq!(app.get(&path).await.body["state"], "ACTIVE");
    assert_eq!(app.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(app.get(&path).await.body["state"], "EXPIRED");
    let code: EnrolmentCode = secret.parse().unwrap();
    let asked = EnrolAttempt {
        enrollment: code.id(),
        secret_sha256: secret_hash(code.secret()),
        public_key_sha256: [7; 32],
        name: "late".to_owned(),
        z_id: "AAAAAAAAAA".parse().unwrap(),
    };
    let refused = app.store.enrol(&asked, &WriteContext::new("late", Timestamp::now(), Uuid::now_v7)).await;
    assert_eq!(refused.unwrap().unwrap_err(), EnrolRefusal::Expired);
    // Once is enough: the second one records nothing.
    assert_eq!(app.delete(&path).await.status, StatusCode::NO_CONTENT);
    let ends = app.get("executions?action=DELETE&resourceType=enrollment").await;
    assert_eq!(ends.body["totalElements"], 1);
    let other = "agents/enrollments/enr-00000000000000000000000000000000";
    for answer in [app.get(other).await, app.delete(other).await] {
        assert_eq!((answer.status, &answer.body["error"]), (StatusCode::NOT_FOUND, &json!("not_found")));
    }
}
