use crate::harness::{Answer, TOKEN, TestApp, at, share, with};
use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use serde_json::{Value, json};
use wicketgate_model::{Connection, ConnectionState, Status};

async fn ask(app: &TestApp, method: Method, path: &str, header: (&str, &str), body: Option<Value>) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(app.path(path))
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("content-type", "application/json")
        .header(header.0, header.1);
    app.send(request.body(body.map_or(Body::empty(), |b| b.to_string().into())).unwrap()).await
}

fn tag(answer: &Answer) -> String {
    answer.headers["etag"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_etag_changes_with_every_visible_property() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let made = app.post("ipsec-shares", share(&tunnel, &site.z_id, "app-db", 8443)).await;
    let path = at("ipsec-shares", &made.body);
    let get = async || app.get(&path).await;
    let mut tags = vec![tag(&made)];
    assert_eq!(tag(&get().await), tags[0]);
    app.settle(&made.body, Status::Deployed).await;
    tags.push(tag(&get().await));
    let patched = app.patch(&path, json!({"tags": {"a": "b"}})).await;
    tags.push(tag(&patched));
    assert_eq!(tag(&get().await), tags[2]);
    tags.push(tag(&app.delete(&path).await));
    app.settle(&made.body, Status::Deleted).await;
    tags.push(tag(&get().await));
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 5);
    assert!(tags.iter().all(|t| t.starts_with('"') && t.ends_with('"')));
    assert_ne!(tag(&app.get_hal(&path).await), tag(&get().await));
}

#[tokio::test]
async fn an_unchanged_answer_is_not_sent_again() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let made = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
    let paths = [
        at("ipsec-shares", &made),
        at("ipsec-tunnels", &tunnel),
        format!("environments/{}", site.environment),
        format!("agents/{}", site.agent),
        format!("/frontdoor/v2/{}", app.frontdoor),
        at("executions", &app.get("executions").await.body["content"][0]),
        format!("/frontdoor/v2/api-accounts/{}", app.account(json!({})).await["clientId"].as_str().unwrap()),
    ];
    for path in &paths {
        let first = app.get(path).await;
        let same = ask(&app, Method::GET, path, ("if-none-match", &tag(&first)), None).await;
        assert_eq!((same.status, same.text.as_str()), (StatusCode::NOT_MODIFIED, ""), "{path}");
        assert_eq!((tag(&same), &same.headers["vary"]), (tag(&first), &first.headers["vary"]));
        assert_eq!(first.headers["cache-control"], "private, no-cache");
        for other in ["\"x\"", "\"x\", W/\"y\""] {
            let sent = ask(&app, Method::GET, path, ("if-none-match", other), None).await;
            assert_eq!((sent.status, sent.body), (StatusCode::OK, first.body.clone()));
        }
        for known in ["*", &format!("\"x\", W/{}", tag(&first))] {
            let same = ask(&app, Method::GET, path, ("if-none-match", known), None).await;
            assert_eq!(same.status, StatusCode::NOT_MODIFIED);
        }
        let garbage = ask(&app, Method::GET, path, ("if-none-match", "x"), None).await;
        assert_eq!(garbage.status, StatusCode::BAD_REQUEST);
    }
    let missing = ask(&app, Method::GET, "ipsec-shares/shr-1", ("if-none-match", "*"), None).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_write_with_an_outdated_etag_does_nothing() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let made = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
    let share_path = at("ipsec-shares", &made);
    let env_path = format!("environments/{}", site.environment);
    let agent_path = format!("agents/{}", site.agent);
    let frontdoor_path = format!("/frontdoor/v2/{}", app.frontdoor);
    for (path, patch) in [
        (&share_path, json!({"ingressPort": 9443})),
        (&at("ipsec-tunnels", &tunnel), json!({"peerCidr": "172.30.0.0/16"})),
        (&env_path, json!({"name": "frankfurt"})),
        (&agent_path, json!({"name": "frankfurt-1"})),
        (&frontdoor_path, json!({"defaultNamespaceName": "other"})),
    ] {
        let before = app.get(path).await;
        for stale in ["\"x\"", "W/\"x\""] {
            let refused = ask(&app, Method::PATCH, path, ("if-match", stale), Some(patch.clone())).await;
            assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED, "{path}: {}", refused.text);
            assert_eq!(refused.body["error"], "precondition_failed");
        }
        let none = ask(&app, Method::PATCH, path, ("if-match", ""), Some(patch.clone())).await;
        assert_eq!(none.status, StatusCode::PRECONDITION_FAILED, "a list of nothing names no state");
        let refused = ask(&app, Method::DELETE, path, ("if-match", "\"x\""), None).await;
        assert!(matches!(refused.status, StatusCode::PRECONDITION_FAILED | StatusCode::CONFLICT), "{path}");
        let refused = ask(&app, Method::PATCH, path, ("if-none-match", "*"), Some(patch.clone())).await;
        assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED);
        assert_eq!(app.get(path).await.body, before.body);
        // A proxy that compresses makes the tag weak.
        let list = format!("\"x\", W/{}", tag(&before));
        let done = ask(&app, Method::PATCH, path, ("if-match", &list), Some(patch.clone())).await;
        assert!(done.status.is_success(), "{path}: {}", done.text);
        assert_ne!(tag(&done), tag(&before));
        let again = ask(&app, Method::PATCH, path, ("if-match", &tag(&before)), Some(patch)).await;
        assert_eq!(again.status, StatusCode::PRECONDITION_FAILED);
        let garbage = ask(&app, Method::PATCH, path, ("if-match", "x"), Some(json!({}))).await;
        assert_eq!(garbage.body["message"], "If-Match must be * or entity tags in double quotes");
    }
    // A changed status changes the tag, the tag of the HAL format is accepted, and `*` matches any state.
    let known = tag(&app.get(&share_path).await);
    app.settle(&made, Status::Deployed).await;
    let body = with(made.clone(), json!({"target": "10.0.0.9:1"}));
    let refused = ask(&app, Method::PUT, &share_path, ("if-match", &known), Some(body.clone())).await;
    assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED);
    let hal = tag(&app.get_hal(&share_path).await);
    assert_eq!(
        ask(&app, Method::PUT, &share_path, ("if-match", &hal), Some(body)).await.status,
        StatusCode::ACCEPTED
    );
    assert_eq!(
        ask(&app, Method::DELETE, &share_path, ("if-match", "*"), None).await.status,
        StatusCode::ACCEPTED
    );
    // A conflict that is independent of the precondition is reported first.
    assert_eq!(
        ask(&app, Method::DELETE, &share_path, ("if-match", "\"x\""), None).await.status,
        StatusCode::CONFLICT
    );
    let nothing = ask(&app, Method::DELETE, "ipsec-shares/shr-1", ("if-match", "*"), None).await;
    assert_eq!(nothing.status, StatusCode::NOT_FOUND);
    let agent = format!("agents/{}", site.agent);
    let refused = ask(&app, Method::DELETE, &agent, ("if-match", "\"x\""), None).await;
    assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED);
    let known = tag(&app.get(&agent).await);
    assert_eq!(
        ask(&app, Method::DELETE, &agent, ("if-match", &known), None).await.status,
        StatusCode::NO_CONTENT
    );
}

/// Writing the values that a resource already has creates no generation, status, execution or event.
#[tokio::test]
async fn a_write_that_changes_nothing_writes_nothing() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let body = with(share(&tunnel, &site.z_id, "app-db", 8443), json!({"tags": {"a": "b"}}));
    let made = app.post("ipsec-shares", body).await.body;
    let (share_path, tunnel_path) = (at("ipsec-shares", &made), at("ipsec-tunnels", &tunnel));
    app.settle(&made, Status::Deployed).await;
    app.settle(&tunnel, Status::Deployed).await;
    let env_path = format!("environments/{}", site.environment);
    let name = app.get(&env_path).await.body["name"].clone();
    let frontdoor_path = format!("/frontdoor/v2/{}", app.frontdoor);
    let writes = async || app.get("executions?size=1").await.body["totalElements"].clone();
    let events = async || app.store.events(None, 0, 1000).await.unwrap().len();
    let before = (writes().await, events().await);
    for (path, patch) in [
        (
            &share_path,
            json!({"target": format!("tcp://{}", made["target"].as_str().unwrap()), "tags": {"a": "b", "c": null}}),
        ),
        (&share_path, json!({"status": "NEW", "id": "another"})),
        (&tunnel_path, json!({"peerCidr": tunnel["peerCidr"], "initiate": false})),
        (&env_path, json!({"name": name})),
        (&frontdoor_path, json!({"ipsecSharesEnabled": true})),
        (&share_path, json!({})),
        (&tunnel_path, json!({})),
        (&env_path, json!({})),
        (&frontdoor_path, json!({})),
    ] {
        let read = app.get(path).await;
        let done = ask(&app, Method::PATCH, path, ("if-match", &tag(&read)), Some(patch.clone())).await;
        assert!(done.status.is_success(), "{path} {patch}: {}", done.text);
        assert_eq!((tag(&done), &done.body), (tag(&read), &read.body), "{path} {patch}");
        let refused = ask(&app, Method::PATCH, path, ("if-match", "\"x\""), Some(patch)).await;
        assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED);
    }
    for path in [&share_path, &tunnel_path] {
        let read = app.get(path).await;
        let put = app.put(path, read.body.clone()).await;
        assert_eq!((put.status, tag(&put), &put.body), (StatusCode::ACCEPTED, tag(&read), &read.body));
    }
    let after = (writes().await, events().await);
    assert_eq!(after, before);
    for (path, of) in [(&share_path, &made), (&tunnel_path, &tunnel)] {
        app.settle(of, Status::Error).await;
        let again = app.put(path, app.get(path).await.body).await;
        assert_eq!((again.status, &again.body["status"]), (StatusCode::ACCEPTED, &json!("NEW")), "{path}");
    }
}

#[tokio::test]
async fn of_two_writes_with_the_same_etag_one_succeeds() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let made = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
    let path = at("ipsec-shares", &made);
    let known = tag(&app.get(&path).await);
    let write =
        |port: u16| ask(&app, Method::PATCH, &path, ("if-match", &known), Some(json!({"ingressPort": port})));
    let (a, b, c) = tokio::join!(write(1), write(2), write(3));
    let mut statuses = [a.status, b.status, c.status];
    statuses.sort();
    assert_eq!(
        statuses,
        [StatusCode::ACCEPTED, StatusCode::PRECONDITION_FAILED, StatusCode::PRECONDITION_FAILED]
    );
}

#[tokio::test]
async fn what_a_peer_does_does_not_invalidate_a_precondition() {
    let (app, tunnel, _) = TestApp::with_site().await;
    let path = at("ipsec-tunnels", &tunnel);
    let id = tunnel["id"].as_str().unwrap().parse().unwrap();
    let mut connection = Connection {
        state: ConnectionState::Up,
        ..Connection::down("2026-01-01T00:00:00Z".parse().unwrap())
    };
    app.record_connection(id, &connection).await;
    let known = tag(&app.get(&path).await);
    // The site's device comes and goes, and traffic passes: none of it was written by anybody.
    for (bytes_in, state) in [(7, ConnectionState::Up), (7, ConnectionState::Down)] {
        connection = Connection { bytes_in, state, ..connection };
        app.record_connection(id, &connection).await;
        // A conditional read returns what is new.
        assert_eq!(
            ask(&app, Method::GET, &path, ("if-none-match", &known), None).await.status,
            StatusCode::OK
        );
    }
    let patch = Some(json!({"name": "other"}));
    let changed = ask(&app, Method::PATCH, &path, ("if-match", &known), patch.clone()).await;
    assert_eq!(changed.status, StatusCode::ACCEPTED);
    let refused = ask(&app, Method::PATCH, &path, ("if-match", &known), patch).await;
    assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED);
}
