use crate::harness::{Answer, TOKEN, TestApp, at, error, tunnel};
use axum::{
    body::{Body, BodyDataStream},
    http::{Request, StatusCode},
};
use futures_util::StreamExt;
use insta::assert_json_snapshot;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;
use wicketgate_model::Status;

/// The longest wait for one event. Only a failed test waits that long.
const BOUND: Duration = Duration::from_secs(10);

/// A client that follows the event stream.
struct Reader {
    stream: BodyDataStream,
    text: String,
    /// The id of the newest event at the beginning of a stream without `Last-Event-ID`.
    begins_after: Option<String>,
}

impl Reader {
    async fn new(app: &TestApp, last: Option<&str>) -> Self {
        Self::with_token(app, TOKEN, last).await
    }

    async fn with_token(app: &TestApp, token: &str, last: Option<&str>) -> Self {
        let mut request = Request::get(app.path("events")).header("authorization", format!("Bearer {token}"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = app.open(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut reader =
            Self { stream: response.into_body().into_data_stream(), text: String::new(), begins_after: None };
        let greeting = reader.block().await.unwrap();
        let (begins_after, rest) = greeting.rsplit_once('\n').unwrap_or(("", &greeting));
        reader.begins_after = begins_after.strip_prefix("id: ").map(str::to_owned);
        assert_eq!((rest, reader.begins_after.is_some()), ("retry: 2000", last.is_none()));
        reader
    }

    /// Reads up to the next empty line. Returns `None` at the end of the stream.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let block = block.to_owned();
                self.text = rest.to_owned();
                return Some(block);
            }
            let more = timeout(BOUND, self.stream.next()).await.unwrap()?.unwrap();
            self.text.push_str(std::str::from_utf8(&more).unwrap());
        }
    }

    /// Reads one event, and returns its id and its data.
    async fn event(&mut self) -> (String, Value) {
        let block = self.block().await.unwrap();
        let field = |name: &str| block.lines().find_map(|l| l.strip_prefix(name)).unwrap().to_owned();
        let data: Value = serde_json::from_str(&field("data: ")).unwrap();
        assert_eq!(field("event: "), data["type"].as_str().unwrap());
        (field("id: "), data)
    }
}

async fn refused(app: &TestApp, name: &str, value: &str) -> Answer {
    let request = Request::get(app.path("events"))
        .header("authorization", format!("Bearer {TOKEN}"))
        .header(name, value);
    app.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_reader_gets_new_events_and_those_it_missed() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let mut reader = Reader::new(&app, None).await;
    let share = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
    let (first, event) = reader.event().await;
    assert_eq!((&event["id"], &event["status"]), (&share["id"], &json!("NEW")));
    app.settle(&share, Status::Deployed).await;
    app.connect(site.agent).await;
    let seen = [event, reader.event().await.1, reader.event().await.1];
    drop(reader);
    let mut again = Reader::new(&app, Some(&first)).await;
    assert_eq!([again.event().await.1, again.event().await.1], seen[1..]);
    app.delete(&at("ipsec-shares", &share)).await;
    let last = again.event().await.1;
    let shown = Answer {
        body: json!([seen, last]),
        text: "x".to_owned(),
        status: StatusCode::OK,
        headers: Default::default(),
    };
    assert_json_snapshot!("events", app.shown(&shown));
}

#[tokio::test]
async fn a_reader_that_has_seen_no_event_resumes_where_it_began() {
    let app = TestApp::new().await;
    app.post("ipsec-tunnels", tunnel("before", 1)).await;
    let begins_after = Reader::new(&app, None).await.begins_after.unwrap();
    let made = app.post("ipsec-tunnels", tunnel("between", 2)).await.body;
    let mut again = Reader::new(&app, Some(&begins_after)).await;
    assert_eq!(again.event().await.1["id"], made["id"]);
}

#[tokio::test]
async fn readers_are_limited_in_number_and_see_their_own_frontdoor_only() {
    let app = TestApp::new().await;
    let mut readers = Vec::new();
    for _ in 0..32 {
        readers.push(Reader::new(&app, None).await);
    }
    let one_more = refused(&app, "accept", "text/event-stream").await;
    assert_eq!(
        (one_more.status, &one_more.headers["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &"5".parse().unwrap())
    );
    let message = format!(
        "The quota of event streams of the Frontdoor {} is used up: limit 32, in use 32. End clients that follow its events or \
         logs, or ask the operator to raise it",
        app.frontdoor
    );
    assert_eq!(one_more.body, error("too_many_requests", &message));
    let body = json!({"organizationId": "acme", "defaultNamespaceName": "prod", "ipsecSharesEnabled": true});
    let other = app.post("/frontdoor/v2", body).await.body;
    let path = format!("/frontdoor/v2/{}/ipsec-tunnels", other["id"].as_str().unwrap());
    assert_eq!(app.post(&path, tunnel("theirs", 9)).await.status, StatusCode::ACCEPTED);
    let ours = app.post("ipsec-tunnels", tunnel("ours", 1)).await.body;
    for reader in &mut readers {
        assert_eq!(reader.event().await.1["id"], ours["id"]);
    }
}

#[tokio::test]
async fn the_stream_of_a_revoked_account_ends() {
    let app = TestApp::new().await;
    let account = app.account(json!({"organizationId": "default"})).await;
    let mut reader = Reader::with_token(&app, account["clientSecret"].as_str().unwrap(), None).await;
    let mut others = Reader::new(&app, None).await;
    let ours = app.post("ipsec-tunnels", tunnel("ours", 1)).await.body;
    assert_eq!(reader.event().await.1["id"], ours["id"]);
    let path = format!("/frontdoor/v2/api-accounts/{}", account["clientId"].as_str().unwrap());
    assert_eq!(app.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(reader.block().await, None, "it goes on");
    assert_eq!(others.event().await.1["id"], ours["id"]);
}

#[tokio::test]
async fn a_position_before_the_kept_events_causes_a_reset() {
    let app = TestApp::new().await;
    app.post("ipsec-tunnels", tunnel("a", 1)).await;
    let far = Reader::new(&app, Some("9999")).await.event().await;
    assert_eq!(far, ("1".to_owned(), json!({"type": "reset"})));
    app.store.prune(Timestamp::now() + jiff::SignedDuration::from_hours(8 * 24)).await.unwrap();
    let old = Reader::new(&app, Some("0")).await.event().await;
    assert_eq!(old, ("1".to_owned(), json!({"type": "reset"})));
    let mut reader = Reader::new(&app, Some("1")).await;
    app.post("ipsec-tunnels", tunnel("b", 2)).await;
    assert_eq!(reader.event().await.0, "2");
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_disconnected_and_can_resume() {
    let app = TestApp::new().await;
    let made = app.post("ipsec-tunnels", tunnel("a", 1)).await.body;
    let mut slow = Reader::new(&app, None).await;
    let path = at("ipsec-tunnels", &made);
    for n in 0..200 {
        assert_eq!(app.patch(&path, json!({"name": format!("b{n}")})).await.status, StatusCode::ACCEPTED);
    }
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(60)).await;
    tokio::time::resume();
    let mut last = None;
    while let Some(block) = slow.block().await {
        last = block.lines().find_map(|l| l.strip_prefix("id: ")).map(str::to_owned).or(last);
    }
    let last = last.unwrap();
    assert!(last.parse::<u64>().unwrap() < 201);
    let mut again = Reader::new(&app, Some(&last)).await;
    for id in last.parse::<u64>().unwrap() + 1..=201 {
        assert_eq!(again.event().await.0, id.to_string());
    }
}

#[tokio::test]
async fn an_invalid_request_for_events_is_refused() {
    let app = TestApp::new().await;
    for bad in ["x", "-1", "99999999999999999999"] {
        let answer = refused(&app, "last-event-id", bad).await;
        assert_eq!(answer.body["message"], "Last-Event-ID must be the id of an event", "{bad}");
    }
    assert_eq!(refused(&app, "accept", "application/json").await.status, StatusCode::NOT_ACCEPTABLE);
    assert_eq!(app.get("events?x=1").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_quiet_stream_has_a_heartbeat() {
    let app = TestApp::new().await;
    let mut reader = Reader::new(&app, None).await;
    // After the first event, the stream has finished reading the table and only waits for its timer.
    app.post("ipsec-tunnels", tunnel("a", 1)).await;
    reader.event().await;
    tokio::time::pause();
    let beat = reader.stream.next().await.unwrap().unwrap();
    assert_eq!(&beat[..], b":\n\n");
}
