//! Lists of a server that is not the API.

use std::{pin::pin, time::Duration};

use futures_util::StreamExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::timeout,
};
use wicketgate_client::{ApiClient, Failure};

const BOUND: Duration = Duration::from_secs(20);

#[tokio::test]
async fn an_answer_that_is_no_list_is_of_no_api() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let client = ApiClient::new(base, None, None).unwrap();
    for body in ["\"sign in first\"", "[]", "7", "{}", "{\"content\": {}}"] {
        let answer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = Vec::new();
            while !heard.ends_with(b"\r\n\r\n") {
                heard.push(stream.read_u8().await.unwrap());
            }
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        };
        let mut list = pin!(client.list("a", &[], None));
        let (first, ()) = timeout(BOUND, async { tokio::join!(list.next(), answer) }).await.unwrap();
        assert!(matches!(first, Some(Err(Failure::NoApi { .. }))), "{body}: {first:?}");
    }
}
