//! A server that refuses requests for their rate.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use wicketgate_client::{ApiClient, Failure, Method};

const BOUND: Duration = Duration::from_secs(20);

async fn server() -> (TcpListener, ApiClient) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    (listener, ApiClient::new(base, None, None).unwrap())
}

fn refusal(seconds: u64) -> String {
    let body = r#"{"error":"too_many_requests","message":"wait"}"#;
    format!(
        "HTTP/1.1 429 Too Many Requests\r\nretry-after: {seconds}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Answers the next request, and returns it.
async fn answer(listener: &TcpListener, text: &str) -> String {
    let (mut stream, _) = timeout(BOUND, listener.accept()).await.unwrap().unwrap();
    let request = request(&mut stream).await;
    stream.write_all(text.as_bytes()).await.unwrap();
    request
}

async fn request(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    // The body of these tests ends with the only brace.
    while !read.ends_with(b"}") {
        read.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn a_request_is_sent_again_after_the_time_that_the_server_names() {
    let (listener, client) = server().await;
    let serve = async {
        let first = answer(&listener, &refusal(1)).await;
        let begin = Instant::now();
        let done = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\nconnection: close\r\n\r\n{\"a\": 1}";
        let second = answer(&listener, done).await;
        assert!(begin.elapsed() >= Duration::from_millis(900), "{:?}", begin.elapsed());
        assert_eq!(first, second);
    };
    let body = json!({"name": "x"});
    let write = client.write(Method::POST, "a", Some(&body), None);
    let (_, written) = tokio::join!(serve, write);
    assert_eq!(written.unwrap(), json!({"a": 1}));
}

#[tokio::test]
async fn a_wait_that_is_too_long_is_told_at_once() {
    let (listener, client) = server().await;
    let body = json!({"name": "x"});
    let write = client.write(Method::POST, "a", Some(&body), None);
    let told = refusal(3600);
    let (_, refused) = tokio::join!(answer(&listener, &told), write);
    assert!(
        matches!(refused, Err(Failure::Refused { status: 429, retry_after: Some(3600), .. })),
        "{refused:?}"
    );
}
