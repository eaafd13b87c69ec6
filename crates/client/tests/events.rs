//! Events over connections that end, break and answer nothing.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use wicketgate_client::{ApiClient, Failure};

const BOUND: Duration = Duration::from_secs(20);
const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

/// Answers the next request, and returns its head.
async fn answer(listener: &TcpListener, text: &str) -> String {
    let (mut stream, _) = timeout(BOUND, listener.accept()).await.unwrap().unwrap();
    let head = head(&mut stream).await;
    stream.write_all(text.as_bytes()).await.unwrap();
    head
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn server() -> (TcpListener, ApiClient) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    (listener, ApiClient::new(base, None, None).unwrap())
}

#[tokio::test]
async fn a_lost_connection_is_replaced_after_the_last_event() {
    let (listener, client) = server().await;
    let mut events = client.follow("events", &[], None);
    let serve = async {
        // Empty answers, an event, a fault that passes, and the next event.
        let first = answer(&listener, STREAM).await;
        answer(&listener, STREAM).await;
        answer(&listener, &format!("{STREAM}id: 7\nevent: a\ndata: {{}}\n\n")).await;
        let resumed = answer(&listener, "HTTP/1.1 503 Busy\r\nconnection: close\r\n\r\n").await;
        answer(&listener, &format!("{STREAM}id: 8\nevent: b\ndata: {{}}\n\n")).await;
        (first.to_lowercase(), resumed.to_lowercase())
    };
    let read = async { (events.next().await.unwrap(), events.next().await.unwrap()) };
    let ((first, resumed), (a, b)) = tokio::join!(serve, read);
    assert!(!first.contains("last-event-id"), "{first}");
    assert!(resumed.contains("last-event-id: 7"), "{resumed}");
    assert_eq!((a.id.as_str(), b.id.as_str()), ("7", "8"));
}

#[tokio::test]
async fn nothing_is_lost_between_the_beginning_and_the_first_event() {
    let (listener, client) = server().await;
    let mut events = client.follow("events", &[], None);
    let serve = async {
        answer(&listener, &format!("{STREAM}id: 5\nretry: 2000\n\n")).await;
        let resumed = answer(&listener, &format!("{STREAM}id: 6\nevent: a\ndata: {{}}\n\n")).await;
        resumed.to_lowercase()
    };
    let read = async {
        events.begin().await.unwrap();
        events.next().await.unwrap()
    };
    let (resumed, event) = tokio::join!(serve, read);
    assert!(resumed.contains("last-event-id: 5"), "{resumed}");
    assert_eq!(event.id, "6");
}

#[tokio::test]
async fn the_first_event_is_kept_by_the_beginning() {
    let (listener, client) = server().await;
    let mut events = client.follow("events", &[], Some("5"));
    let stream = format!("{STREAM}id: 6\nevent: a\ndata: {{}}\n\n");
    let serve = answer(&listener, &stream);
    let read = async {
        events.begin().await.unwrap();
        events.next().await.unwrap()
    };
    let (_, event) = tokio::join!(serve, read);
    assert_eq!(event.id, "6");
}

#[tokio::test]
async fn empty_answers_are_not_requested_in_a_busy_loop() {
    let (listener, client) = server().await;
    let mut events = client.follow("events", &[], None);
    let mut requests = 0;
    let serve = async {
        loop {
            answer(&listener, STREAM).await;
            requests += 1;
        }
    };
    let all = async { tokio::join!(serve, events.next()) };
    assert!(timeout(Duration::from_secs(2), all).await.is_err());
    assert!((2..20).contains(&requests), "{requests} requests in two seconds");
}

#[tokio::test]
async fn a_server_that_is_away_at_first_or_refuses_is_a_failure() {
    let (listener, client) = server().await;
    let mut events = client.follow("events", &[], None);
    let refuse = answer(&listener, "HTTP/1.1 401 No\r\nconnection: close\r\n\r\n");
    let (_, refused) = tokio::join!(refuse, events.next());
    assert!(matches!(refused, Err(Failure::NotSignedIn { .. })), "{refused:?}");
    drop(listener);
    assert!(matches!(events.next().await, Err(Failure::Unreachable { .. })));
}

#[tokio::test]
async fn an_endless_answer_is_refused() {
    let (listener, client) = server().await;
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n[").await.unwrap();
        let spaces = vec![b' '; 1 << 20];
        while stream.write_all(&spaces).await.is_ok() {}
    };
    let (_, answer) = tokio::join!(serve, client.get("list", &[]));
    assert!(matches!(answer, Err(Failure::TooLarge(_))), "{answer:?}");
}
