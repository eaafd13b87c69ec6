//! Serves HTTP/1.1 on one listener, in clear or with TLS, until the server stops.
//!
//! Invariants: the accept loop only accepts. A connection is served once it has a place ([`places`]). Every connection ends,
//! whatever its client does: the handshake, a request's head, a write without progress and the server's stop all have
//! bounds. A stream of events ends when the server stops.

pub(crate) mod places;
pub(crate) mod tls;

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Extension, Router,
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::header::CONTENT_TYPE,
    response::Response,
};
use futures_util::StreamExt as _;
use hyper::{
    body::{Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use places::{Connection, Places, Working};
use tls::ApiTls;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_io_timeout::TimeoutWriter;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service as _;
use tracing::debug;
use wicketgate_system::accept::Acceptor;

/// A TLS handshake over a bad line.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The head of a request, also of the next one on a connection that is kept: longer than pools of clients keep one.
const HEAD: Duration = Duration::from_secs(30);
/// How long a client may read nothing of its answer. TCP retransmits within this time even on a bad line; a client that
/// is away for longer repeats its request.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a request's head: several times a long token.
const LARGEST_HEAD: usize = 64 * 1024;
/// For requests that are being answered when the server stops. Less than the whole server has.
const DRAIN: Duration = Duration::from_secs(8);

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientAddress(pub(crate) SocketAddr);

/// Whether a request came over this server's own TLS.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encrypted(pub(crate) bool);

/// A listener and what answers on it.
#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) listener: TcpListener,
    /// `None`: in clear.
    pub(crate) tls: Option<Arc<ApiTls>>,
    pub(crate) router: Router,
    pub(crate) places: Places,
}

/// What serves the requests of one connection.
struct Serving {
    client: ClientAddress,
    connection: Connection,
    router: Router,
    stop: CancellationToken,
}

/// The body of an answer: its request is being carried out until it was taken.
struct Answering {
    body: Body,
    _working: Working,
}

impl Http {
    /// Serves until `stop`, and then until what is being answered is answered, or had its time.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let Self { listener, tls, router, places } = self;
        let router = router.layer(Extension(Encrypted(tls.is_some())));
        let connections = TaskTracker::new();
        let mut listener = Acceptor::new(listener, "API clients");
        let accepting = async {
            loop {
                let (tcp, client) = listener.next().await;
                let Some(place) = places.enter(client.ip()).await else {
                    debug!(client.address = %client, "a connection to the API was closed: its address has too many");
                    continue;
                };
                let connection = place.connection();
                let (client, router, stop) = (ClientAddress(client), router.clone(), stop.clone());
                let served = serve(tcp, tls.clone(), Serving { client, connection, router, stop });
                connections.spawn(async move {
                    if place.lost.run_until_cancelled(served).await.is_none() {
                        debug!(client.address = %client.0, "a connection to the API ended for a newer one");
                    }
                });
            }
        };
        stop.run_until_cancelled(accepting).await;
        drop(listener);
        connections.close();
        connections.wait().await;
    }
}

async fn serve(tcp: TcpStream, tls: Option<Arc<ApiTls>>, serving: Serving) {
    // Without it an answer of two packets waits for an acknowledgement.
    let _ = tcp.set_nodelay(true);
    let tcp = bounded_writes(tcp);
    let Some(tls) = tls else { return requests(tcp, serving).await };
    let client = serving.client;
    match serving.stop.clone().run_until_cancelled(timeout(HANDSHAKE, tls.accept(tcp))).await {
        Some(Ok(Ok(stream))) => requests(stream, serving).await,
        Some(Ok(Err(error))) => {
            debug!(client.address = %client.0, %error, "a TLS handshake with the API failed")
        }
        Some(Err(_)) => debug!(client.address = %client.0, "a TLS handshake with the API took too long"),
        None => {}
    }
}

/// A write without progress within [`PATIENCE`] is an error, and ends the connection. A reader that takes some bytes
/// in this time is not cut by it, however slow it is: only when its place, or the room of its answer, is needed.
fn bounded_writes<S: AsyncWrite>(stream: S) -> Pin<Box<TimeoutWriter<S>>> {
    let mut writer = TimeoutWriter::new(stream);
    writer.set_timeout(Some(PATIENCE));
    Box::pin(writer)
}

async fn requests<S>(stream: S, Serving { client, connection, router, stop }: Serving)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ended = stop.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(client);
        request.extensions_mut().insert(connection.clone());
        let working = connection.works();
        let (answer, ended) = (router.clone().call(request.map(Body::new)), ended.clone());
        async move {
            let response = answer.await.map(|response| until(ended, response))?;
            working.is_answered(response.body().size_hint().exact());
            Ok(response.map(|body| Body::new(Answering { body, _working: working })))
                as Result<Response, Infallible>
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(LARGEST_HEAD);
    let mut served = pin!(http.serve_connection(TokioIo::new(stream), service));
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = stop.cancelled() => {
            // Ends a kept connection that is idle at once.
            served.as_mut().graceful_shutdown();
            match timeout(DRAIN, served).await {
                Ok(result) => result,
                Err(_) => return debug!(client.address = %client.0, "a request was not answered in time to stop"),
            }
        }
    };
    if let Err(error) = result {
        debug!(client.address = %client.0, %error, "a connection to the API broke");
    }
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream of events has no end of its own.
fn until(stop: CancellationToken, response: Response) -> Response {
    let content_type = response.headers().get(CONTENT_TYPE).map(|v| v.as_bytes());
    if content_type.is_none_or(|t| !t.starts_with(b"text/event-stream")) {
        return response;
    }
    response.map(|body| Body::from_stream(body.into_data_stream().take_until(stop.cancelled_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{external::ExternalAddress, telemetry::ServerMetrics};
    use axum::{response::sse, routing::get};
    use futures_util::stream;
    use prometheus_client::registry::Registry;
    use std::io;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        sync::Notify,
        task::JoinHandle,
        time::{Instant, sleep},
    };

    /// The longest wait for each step.
    const BOUND: Duration = Duration::from_secs(5);
    /// More than the buffers of two sockets hold.
    const LARGE: usize = 64 << 20;

    struct Served {
        address: SocketAddr,
        stop: CancellationToken,
        running: JoinHandle<()>,
        asked: Arc<Notify>,
        answer: Arc<Notify>,
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_times_out() {
        let (near, _far) = duplex(10);
        let begin = Instant::now();
        let failed = bounded_writes(near).write_all(&[0; 100]).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        assert!((PATIENCE..PATIENCE * 2).contains(&begin.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_does_not_time_out() {
        let (near, mut far) = duplex(10);
        let reading = tokio::spawn(async move {
            let mut read = 0;
            while read < 100 {
                sleep(PATIENCE - Duration::from_secs(1)).await;
                read += far.read(&mut [0; 10]).await.unwrap();
            }
        });
        let mut stream = bounded_writes(near);
        timeout(PATIENCE * 20, stream.write_all(&[0; 100])).await.unwrap().unwrap();
        reading.await.unwrap();
    }

    async fn served() -> Served {
        served_with(16).await
    }

    async fn served_with(most: usize) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let (asked, answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = {
            let (asked, answer) = (Arc::clone(&asked), Arc::clone(&answer));
            async move |Extension(connection): Extension<Connection>| {
                connection.is_known();
                asked.notify_one();
                answer.notified().await;
                "the slow answer"
            }
        };
        let events = async || sse::Sse::new(stream::pending::<Result<sse::Event, Infallible>>());
        let router = Router::new()
            .route("/quick", get(async || "quick"))
            .route("/slow", get(slow))
            .route("/large", get(async || vec![b'x'; LARGE]))
            .route("/events", get(events));
        // As a proxy, the only client of these tests may have all places.
        let proxies = ExternalAddress { url: None, trusted_proxies: vec!["127.0.0.1".parse().unwrap()] };
        let places = Places::new(most, Arc::new(proxies), ServerMetrics::new(&mut Registry::default()));
        let running = tokio::spawn(Http { listener, tls: None, router, places }.run(stop.clone()));
        Served { address, stop, running, asked, answer }
    }

    async fn ask(address: SocketAddr, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        stream
    }

    async fn rest(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        timeout(BOUND, stream.read_to_string(&mut text)).await.unwrap().unwrap();
        text
    }

    #[tokio::test]
    async fn a_stop_ends_idle_connections_and_streams_and_waits_for_answers() {
        let server = served().await;
        let mut idle = ask(server.address, "/quick").await;
        let mut head = [0; 12];
        timeout(BOUND, idle.read_exact(&mut head)).await.unwrap().unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        let mut events = ask(server.address, "/events").await;
        timeout(BOUND, events.read_exact(&mut head)).await.unwrap().unwrap();
        let mut slow = ask(server.address, "/slow").await;
        timeout(BOUND, server.asked.notified()).await.unwrap();

        server.stop.cancel();
        rest(&mut idle).await;
        rest(&mut events).await;
        assert!(TcpStream::connect(server.address).await.is_err());
        server.answer.notify_one();
        assert!(rest(&mut slow).await.ends_with("the slow answer"));
        timeout(BOUND, server.running).await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_does_not_wait_forever() {
        let server = served().await;
        let _slow = ask(server.address, "/slow").await;
        server.asked.notified().await;
        server.stop.cancel();
        timeout(DRAIN * 2, server.running).await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_arrive_ends_the_connection() {
        let server = served().await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /quick HTTP/1.1\r\nhost:").await.unwrap();
        let mut text = String::new();
        timeout(HEAD * 2, stream.read_to_string(&mut text)).await.unwrap().unwrap();
        assert!(!text.contains("quick"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_read_ends_the_connection() {
        let server = served().await;
        let mut deaf = ask(server.address, "/large").await;
        let mut head = [0; 12];
        timeout(BOUND, deaf.read_exact(&mut head)).await.unwrap().unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        sleep(PATIENCE * 2).await;
        let mut read = Vec::new();
        let _ = timeout(BOUND, deaf.read_to_end(&mut read)).await.unwrap();
        assert!(read.len() < LARGE);
    }

    #[tokio::test]
    async fn a_connection_above_the_limit_ends_one_that_says_nothing() {
        let server = served_with(2).await;
        let mut working = ask(server.address, "/slow").await;
        timeout(BOUND, server.asked.notified()).await.unwrap();
        let mut silent = TcpStream::connect(server.address).await.unwrap();
        let mut answered = ask(server.address, "/quick").await;
        assert_eq!(rest(&mut silent).await, "");
        let mut head = [0; 12];
        timeout(BOUND, answered.read_exact(&mut head)).await.unwrap().unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        // Now that one is silent, too.
        let mut next = ask(server.address, "/quick").await;
        timeout(BOUND, next.read_exact(&mut head)).await.unwrap().unwrap();
        assert!(rest(&mut answered).await.ends_with("quick"));
        server.answer.notify_one();
        timeout(BOUND, working.read_exact(&mut head)).await.unwrap().unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
    }

    #[tokio::test]
    async fn a_connection_above_the_limit_waits_for_work_to_end() {
        let server = served_with(2).await;
        let first = ask(server.address, "/slow").await;
        timeout(BOUND, server.asked.notified()).await.unwrap();
        let mut second = ask(server.address, "/slow").await;
        timeout(BOUND, server.asked.notified()).await.unwrap();
        let mut third = ask(server.address, "/quick").await;
        let early = timeout(Duration::from_millis(200), third.read_u8()).await;
        assert!(early.is_err(), "the third connection was answered above the limit");
        drop(first);
        server.answer.notify_waiters();
        let mut head = [0; 12];
        timeout(BOUND, third.read_exact(&mut head)).await.unwrap().unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        timeout(BOUND, second.read_exact(&mut head)).await.unwrap().unwrap();
    }
}
