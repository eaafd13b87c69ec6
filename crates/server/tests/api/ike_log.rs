//! A tunnel's IKE log. A task answers as a gateway would.

use crate::harness::{Answer, TOKEN, TestApp, at, hello};
use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use futures_util::StreamExt as _;
use insta::assert_snapshot;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;
use wicketgate_link::{IKE_LOG_LINES, IkeLogLine, ToGateway};
use wicketgate_model::EspMode;

fn line(number: u64) -> IkeLogLine {
    IkeLogLine {
        number,
        at: Timestamp::from_second(i64::try_from(number).unwrap()).unwrap(),
        group: "IKE".to_owned(),
        ike_sa: number.is_multiple_of(2).then_some(7),
        text: format!("line \"{number}\""),
    }
}

/// Has the lines 1 to `count`, and one more with each question.
fn gateway(app: &TestApp, mut count: u64) {
    let (mut asked, rpc) = (app.asked.lock().unwrap().take().unwrap(), app.gateway.rpc.clone());
    tokio::spawn(async move {
        while let Some(message) = asked.recv().await {
            if let ToGateway::IkeLog { request, after, .. } = message {
                rpc.ike_log_answered(request, (after + 1..=count).take(IKE_LOG_LINES).map(line).collect());
                count += 1;
            }
        }
    });
}

async fn with_tunnel() -> (TestApp, String) {
    let app = TestApp::new().await;
    let tunnel = app.post("ipsec-tunnels", crate::harness::tunnel("customer-a", 1)).await.body;
    let path = format!("{}/ike-log", at("ipsec-tunnels", &tunnel));
    (app, path)
}

fn request(app: &TestApp, path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let request = Request::get(app.path(path)).header("authorization", format!("Bearer {TOKEN}"));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(Body::empty()).unwrap()
}

fn numbers(answer: &Answer) -> Vec<Value> {
    let lines = answer.text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|line| line["number"].clone()).collect()
}

#[tokio::test]
async fn lines_are_read_as_json_lines_or_events_since_a_number_or_a_time() {
    let (app, path) = with_tunnel().await;
    gateway(&app, 3);
    let all = app.get(&path).await;
    assert_eq!(
        (all.status, all.headers["content-type"].to_str().unwrap()),
        (StatusCode::OK, "application/x-ndjson")
    );
    assert_snapshot!("json_lines", all.text);
    let events =
        app.send(request(&app, &format!("{path}?since=2"), &[("accept", "text/event-stream")])).await;
    assert_snapshot!("events", events.text);
    assert_eq!(numbers(&app.get(&format!("{path}?since=1970-01-01T00:00:04Z")).await), [4, 5]);
    let resumed = request(&app, &format!("{path}?since=0"), &[("last-event-id", "5"), ("accept", "*/*")]);
    assert_eq!(numbers(&app.send(resumed).await), [6]);
    for (query, message) in [
        ("since=yesterday", "since must be a time like 2030-12-31T23:59:59Z, or the number of a line"),
        ("follow=always", "follow must be true or false"),
    ] {
        let refused = app.get(&format!("{path}?{query}")).await;
        assert_eq!((refused.status, &refused.body["message"]), (StatusCode::BAD_REQUEST, &json!(message)));
    }
    let refused = app.send(request(&app, &path, &[("accept", "application/json")])).await;
    assert_eq!(refused.status, StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn a_full_log_is_read_in_parts() {
    let (app, path) = with_tunnel().await;
    gateway(&app, 2000);
    let all = numbers(&app.get(&path).await);
    assert_eq!((all.len(), &all[0], all.last()), (2004, &json!(1), Some(&json!(2004))));
}

#[tokio::test]
async fn a_reader_that_follows_gets_lines_as_they_are_written() {
    let (app, path) = with_tunnel().await;
    gateway(&app, 2);
    let response = app.open(request(&app, &format!("{path}?follow=true"), &[])).await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body().into_data_stream();
    let mut text = String::new();
    while text.lines().count() < 4 {
        let part =
            tokio::time::timeout(Duration::from_secs(10), body.next()).await.unwrap().unwrap().unwrap();
        text.push_str(std::str::from_utf8(&part).unwrap());
    }
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line["number"].clone()).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_log_that_cannot_be_read_says_why() {
    let (app, path) = with_tunnel().await;
    assert_eq!(app.get("ipsec-tunnels/tnl-1/ike-log").await.status, StatusCode::NOT_FOUND);
    app.gateway.view.linked(hello(EspMode::Off));
    let without = app.get(&path).await;
    let message = "The gateway runs without IPsec: there is no IKE log";
    assert_eq!((without.status, &without.body["message"]), (StatusCode::CONFLICT, &json!(message)));
    app.gateway.view.linked(hello(EspMode::Kernel));
    drop(app.asked.lock().unwrap().take());
    let silent = app.get(&path).await;
    assert_eq!(silent.body["message"], "The gateway does not answer: try again later");
    assert_eq!(silent.status, StatusCode::SERVICE_UNAVAILABLE);
}
