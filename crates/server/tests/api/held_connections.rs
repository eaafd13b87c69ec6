//! Clients that hold connections to the API and say nothing.

use crate::{harness::TOKEN, serving::Serving};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// Far longer than an answer takes, and far shorter than silence is borne.
const SOON: Duration = Duration::from_secs(5);

async fn hold(serving: &Serving, from: &str, count: usize) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(serving.connect(from).await);
    }
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_do_not_keep_others_out() {
    // Each connection has two ends in this process.
    assert!(wicketgate_system::open_files::raise_limit() > 3000, "raise the hard limit of open files");
    let serving = Serving::start(|_| {}).await;
    let valid = format!("authorization: Bearer {TOKEN}");
    let ask = async |from: &str| {
        let begin = Instant::now();
        assert_eq!(serving.ask(from, &["GET /frontdoor/v2 HTTP/1.1", &valid]).await, 200, "{from}");
        assert!(begin.elapsed() < SOON, "an answer to {from} took {:?}", begin.elapsed());
    };
    let _of_one = hold(&serving, "127.0.0.1", 600).await;
    ask("127.0.0.1").await;
    ask("127.0.0.2").await;
    // From so many addresses that all places are taken.
    let mut _of_many = Vec::new();
    for n in 10..16 {
        _of_many.push(hold(&serving, &format!("127.0.0.{n}"), 120).await);
    }
    ask("127.0.0.10").await;
    ask("127.0.0.2").await;
    serving.stop().await;
}
