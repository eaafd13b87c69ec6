//! `/livez`, `/readyz` and `/metrics` over HTTP/1.1, in clear and without a token.
//!
//! Invariant: a connection carries one request and ends within seconds, whatever its client does, and only a few are open.

use super::Status;
use anyhow::Context as _;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tracing::{debug, info};
use wicketgate_system::{accept::Acceptor, metrics_text::negotiated};

/// A service manager, Prometheus, and a person who looks.
const MOST_CONNECTIONS: usize = 16;
/// For the whole connection. Prometheus gives up after 10 s.
const WITHIN: Duration = Duration::from_secs(10);
/// Seconds after which a client that was told `503` looks again.
const SOON: HeaderValue = HeaderValue::from_static("5");
/// Bytes of a request's head.
const LARGEST_HEAD: usize = 16 * 1024;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

pub(crate) async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener
        .with_context(|| format!("cannot listen on {address}: choose another address with --status-listen"))
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, status: Arc<Status>) {
    if let Ok(address) = listener.local_addr() {
        info!(%address, "the agent's status is served");
    }
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut listener = Acceptor::new(listener, "status clients");
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (tcp, _) = listener.next().await;
        let status = Arc::clone(&status);
        tokio::spawn(async move {
            if timeout(WITHIN, connection(tcp, status)).await.is_err() {
                debug!("a status client took too long");
            }
            drop(place);
        });
    }
}

async fn connection(tcp: TcpStream, status: Arc<Status>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(&request, &status);
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).keep_alive(false).max_buf_size(LARGEST_HEAD);
    if let Err(error) = http.serve_connection(TokioIo::new(tcp), service).await {
        debug!(%error, "a status client was not answered");
    }
}

fn answer<B>(request: &Request<B>, status: &Status) -> Response<String> {
    let with = |code, kind, text| {
        let mut response = Response::new(text);
        *response.status_mut() = code;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = with(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".to_owned());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/livez" => with(StatusCode::OK, TEXT, "ok\n".to_owned()),
        "/readyz" => {
            let (is_ready, text) = status.ready();
            if is_ready {
                return with(StatusCode::OK, JSON, text);
            }
            let mut response = with(StatusCode::SERVICE_UNAVAILABLE, JSON, text);
            response.headers_mut().insert(RETRY_AFTER, SOON);
            response
        }
        "/metrics" => match status.metrics() {
            Ok(text) => {
                let accept = request.headers().get(ACCEPT).map(|accept| accept.to_str().unwrap_or_default());
                let (kind, text) = negotiated(text, accept);
                with(StatusCode::OK, kind, text)
            }
            Err(_) => {
                with(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the metrics cannot be encoded\n".to_owned())
            }
        },
        _ => with(StatusCode::NOT_FOUND, TEXT, "there are /livez, /readyz and /metrics\n".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        task::JoinSet,
    };

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        tcp.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn idle_clients_hold_up_nobody_for_longer_than_their_time() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(serve(listener, Arc::new(Status::new("gw".to_owned()))));
        let ready = ask(address, "GET /readyz").await;
        assert!(
            ready.starts_with("HTTP/1.1 503 ")
                && ready.contains("\r\nretry-after: 5\r\n")
                && ready.ends_with("{\"status\":\"enrolling\"}\n"),
            "{ready}"
        );
        assert!(ask(address, "GET /metrics").await.ends_with("# EOF\n"));
        assert!(ask(address, "POST /livez").await.starts_with("HTTP/1.1 405 "));
        assert!(ask(address, "GET /").await.starts_with("HTTP/1.1 404 "));
        let mut idle = Vec::new();
        for _ in 0..2 * MOST_CONNECTIONS {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let alive =
            timeout(3 * WITHIN, ask(address, "GET /livez")).await.expect("the idle clients had their time");
        assert!(alive.starts_with("HTTP/1.1 200 "), "{alive}");
        let taken = listen(address).await.unwrap_err();
        assert!(taken.to_string().contains("--status-listen"), "{taken}");
    }
}
