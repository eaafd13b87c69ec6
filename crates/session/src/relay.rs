//! Moves bytes between a TCP connection and a carrier, both ways at once, until both sides have ended.
//!
//! A FIN becomes `END` and the other way round, so each side may go on after the other has finished; anything else
//! is a reset on the other side too. Invariant: a connection is closed in order only if its peer's `END` or FIN
//! was seen, so that a cut transfer never looks like a whole one.

use crate::{
    carrier::{Carrier, CarrierError, Input},
    frame::{HEADER, Header, Kind, MAX_DATA},
    unended::Unended,
};
use std::{
    future::poll_fn,
    io,
    pin::pin,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    task::Poll,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    time::{Instant, sleep_until},
};

/// How long a stream may rest once one side has ended. While both are open it may rest for ever, unless it was given
/// a limit: databases' pools do, and keepalive finds the dead.
pub const HALF_CLOSED_IDLE: Duration = Duration::from_secs(60);

/// Where a relay counts payload, as it is handed on.
#[derive(Debug, Clone, Copy)]
pub struct Counters<'a> {
    pub to_carrier: &'a AtomicU64,
    pub from_carrier: &'a AtomicU64,
}

/// Why a stream did not end cleanly. Its carrier is gone, its TCP connection was reset.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("the connection broke")]
    Tcp(#[source] io::Error),
    #[error("the other end reset the stream")]
    Reset,
    #[error(transparent)]
    Carrier(CarrierError),
    #[error("nothing came for {}s", .0.as_secs())]
    Idle(Duration),
    #[error("the stream was cut")]
    Cancelled,
}

/// Relays until both sides have ended, and gives the carrier back for the next stream. After `idle` without a byte
/// either way, and when `cancel` is ready, the stream is cut.
pub async fn relay<S: AsyncRead + AsyncWrite + Unpin>(
    mut tcp: Unended,
    mut carrier: Carrier<S>,
    counters: Counters<'_>,
    idle: Option<Duration>,
    cancel: impl Future<Output = ()>,
) -> Result<Carrier<S>, Broken> {
    let pace = Pace::new();
    let end = both_ways(tcp.tcp(), &mut carrier, counters, &pace, idle, cancel).await;
    let Err(broken) = end else {
        tcp.end();
        return Ok(carrier);
    };
    drop(tcp);
    // In the middle of a frame a RESET would be read as payload; the missing END says the same.
    if !pace.mid_frame.load(Ordering::Relaxed) && !matches!(broken, Broken::Carrier(_) | Broken::Reset) {
        carrier.reset().await;
    }
    Err(broken)
}

/// What the two directions tell each other.
struct Pace {
    began: Instant,
    /// Milliseconds from the beginning to the last byte.
    last: AtomicU64,
    ended: AtomicU8,
    mid_frame: AtomicBool,
}

impl Pace {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            last: AtomicU64::new(0),
            ended: AtomicU8::new(0),
            mid_frame: AtomicBool::new(false),
        }
    }

    fn moved(&self) {
        let at = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(at, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.began + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    /// One direction has ended. Answers whether it was the second: then nothing that follows on the carrier, its
    /// end either, belongs to this stream.
    fn end(&self) -> bool {
        self.moved();
        self.ended.fetch_add(1, Ordering::Relaxed) > 0
    }
}

async fn both_ways<S: AsyncRead + AsyncWrite + Unpin>(
    tcp: &mut TcpStream,
    carrier: &mut Carrier<S>,
    counters: Counters<'_>,
    pace: &Pace,
    idle: Option<Duration>,
    cancel: impl Future<Output = ()>,
) -> Result<(), Broken> {
    let Carrier { io, input, output } = carrier;
    input.grow();
    output.resize(HEADER + MAX_DATA, 0);
    let (mut tcp_in, mut tcp_out) = tcp.split();
    let (mut carrier_in, mut carrier_out) = tokio::io::split(io);

    // Each direction, once it has ended, keeps watching its source for a break while the other goes on. The second
    // one to end is the end of all: a carrier may be closed right behind it.
    let up = async {
        to_carrier(&mut tcp_in, &mut carrier_out, output, counters.to_carrier, pace).await?;
        if pace.end() { Ok(()) } else { Err(watch_tcp(&tcp_in).await) }
    };
    let down = async {
        from_carrier(&mut carrier_in, input, &mut tcp_out, counters.from_carrier, pace).await?;
        if pace.end() { Ok(()) } else { Err(watch_carrier(&mut carrier_in, input).await) }
    };
    let (mut up, mut down, mut cancel) = (pin!(up), pin!(down), pin!(cancel));
    let half_closed_idle = idle.map_or(HALF_CLOSED_IDLE, |idle| idle.min(HALF_CLOSED_IDLE));
    let mut rest = pin!(sleep_until(Instant::now() + half_closed_idle));
    let (mut up_first, mut half_closed) = (false, false);
    poll_fn(|cx| {
        // In turn, since the first may use up the task's budget each time.
        up_first = !up_first;
        for is_up in [up_first, !up_first] {
            let end: Poll<Result<(), Broken>> =
                if is_up { up.as_mut().poll(cx) } else { down.as_mut().poll(cx) };
            if let Poll::Ready(end) = end {
                return Poll::Ready(end);
            }
        }
        if !half_closed && pace.ended.load(Ordering::Relaxed) > 0 {
            half_closed = true;
            rest.as_mut().reset(pace.last() + half_closed_idle);
        }
        if let Some(limit) = if half_closed { Some(half_closed_idle) } else { idle } {
            // The clock is the moment of the last byte, looked at when the timer goes off.
            while rest.as_mut().poll(cx).is_ready() {
                let until = pace.last() + limit;
                if until <= Instant::now() {
                    return Poll::Ready(Err(Broken::Idle(limit)));
                }
                rest.as_mut().reset(until);
            }
        }
        cancel.as_mut().poll(cx).map(|()| Err(Broken::Cancelled))
    })
    .await
}

/// From a TCP connection until its FIN, which becomes `END`.
async fn to_carrier<W: AsyncWrite + Unpin>(
    tcp: &mut ReadHalf<'_>,
    carrier: &mut W,
    output: &mut [u8],
    counter: &AtomicU64,
    pace: &Pace,
) -> Result<(), Broken> {
    loop {
        let n = tcp.read(&mut output[HEADER..]).await.map_err(Broken::Tcp)?;
        let kind = if n == 0 { Kind::End } else { Kind::Data };
        output[..HEADER].copy_from_slice(&Header { kind, length: n }.encode());
        pace.mid_frame.store(true, Ordering::Relaxed);
        carrier.write_all(&output[..HEADER + n]).await.map_err(lost)?;
        carrier.flush().await.map_err(lost)?;
        pace.mid_frame.store(false, Ordering::Relaxed);
        if n == 0 {
            return Ok(());
        }
        counter.fetch_add(n as u64, Ordering::Relaxed);
        pace.moved();
    }
}

/// From a carrier until `END`, which becomes a FIN.
async fn from_carrier<R: AsyncRead + Unpin>(
    carrier: &mut R,
    input: &mut Input,
    tcp: &mut WriteHalf<'_>,
    counter: &AtomicU64,
    pace: &Pace,
) -> Result<(), Broken> {
    loop {
        let header = input.header(carrier).await.map_err(Broken::Carrier)?;
        match header.kind {
            Kind::Data => {}
            Kind::End => return tcp.shutdown().await.map_err(Broken::Tcp),
            Kind::Reset => return Err(Broken::Reset),
            other => return Err(Broken::Carrier(CarrierError::Unexpected(other))),
        }
        let mut left = header.length;
        while left > 0 {
            if input.is_empty() {
                input.fill(carrier).await.map_err(Broken::Carrier)?;
            }
            let bytes = input.bytes();
            let n = tcp.write(&bytes[..bytes.len().min(left)]).await.map_err(Broken::Tcp)?;
            if n == 0 {
                return Err(Broken::Tcp(io::ErrorKind::WriteZero.into()));
            }
            input.consume(n);
            left -= n;
            counter.fetch_add(n as u64, Ordering::Relaxed);
            pace.moved();
        }
    }
}

fn lost(e: io::Error) -> Broken {
    Broken::Carrier(CarrierError::Io(e))
}

/// Ends when a connection that has sent its FIN is reset.
async fn watch_tcp(tcp: &ReadHalf<'_>) -> Broken {
    match tcp.ready(Interest::ERROR).await {
        Ok(_) => Broken::Tcp(io::ErrorKind::ConnectionReset.into()),
        Err(e) => Broken::Tcp(e),
    }
}

/// Ends when the other end, which has sent `END`, resets the stream or is lost. An `OPEN`, which may follow as soon
/// as both have sent `END`, stays for the next stream.
async fn watch_carrier<R: AsyncRead + Unpin>(carrier: &mut R, input: &mut Input) -> Broken {
    match input.peek_header(carrier).await {
        Ok(Header { kind: Kind::Reset, .. }) => Broken::Reset,
        Ok(Header { kind: Kind::Open, .. }) => std::future::pending().await,
        Ok(Header { kind, .. }) => Broken::Carrier(CarrierError::Unexpected(kind)),
        Err(e) => Broken::Carrier(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{DuplexStream, duplex},
        net::TcpListener,
        task::JoinHandle,
        time::timeout,
    };

    static COUNTED: AtomicU64 = AtomicU64::new(0);

    type Relay = JoinHandle<Result<Carrier<DuplexStream>, Broken>>;

    /// A client, the far end of a carrier, and the relay between them.
    async fn relayed() -> (TcpStream, DuplexStream, Relay) {
        relayed_with(None).await
    }

    async fn relayed_with(idle: Option<Duration>) -> (TcpStream, DuplexStream, Relay) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, inner) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (near, far) = duplex(1 << 20);
        let counters = Counters { to_carrier: &COUNTED, from_carrier: &COUNTED };
        let inner = Unended::new(inner.unwrap().0);
        let relay = tokio::spawn(relay(inner, Carrier::new(near), counters, idle, std::future::pending()));
        (client.unwrap(), far, relay)
    }

    fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
        [&Header { kind, length: payload.len() }.encode()[..], payload].concat()
    }

    #[tokio::test]
    async fn an_end_without_end_is_a_reset() {
        let whole = frame(Kind::Data, b"hello");
        // Cut before a frame, in a header, in a payload; after END of one side only.
        let ended = [&frame(Kind::End, b"")[..], &whole].concat();
        for bytes in [&b""[..], &whole[..3], &whole[..7], &whole, &ended[..HEADER]] {
            let (mut client, mut far, relay) = relayed().await;
            far.write_all(bytes).await.unwrap();
            drop(far);
            let end = relay.await.unwrap();
            assert!(matches!(end, Err(Broken::Carrier(_))), "{end:?} after {bytes:?}");
            let mut got = Vec::new();
            let read = client.read_to_end(&mut got).await;
            // After END the client has its FIN already; the reset shows where it sends.
            let reset = read.is_err() || {
                let mut writes = 0;
                while client.write_all(b"x").await.is_ok() && writes < 100 {
                    writes += 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                writes < 100 && bytes.len() == HEADER
            };
            assert!(reset, "after {bytes:?}");
        }
    }

    #[tokio::test]
    async fn what_follows_the_end_stays_for_the_next_stream() {
        let (mut client, mut far, relay) = relayed().await;
        client.write_all(b"hi").await.unwrap();
        let mut got = vec![0; HEADER + 2];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(got, frame(Kind::Data, b"hi"));
        client.shutdown().await.unwrap();
        let mut got = vec![0; HEADER];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(got, frame(Kind::End, b""));
        let open = crate::frame::Open {
            share: wicketgate_model::ShareId::new(uuid::Uuid::nil()),
            generation: wicketgate_model::Generation::FIRST,
            client: "127.0.0.1:1".parse().unwrap(),
        };
        let next = frame(Kind::Open, &serde_json::to_vec(&open).unwrap());
        far.write_all(&[frame(Kind::Data, b"yo"), frame(Kind::End, b""), next].concat()).await.unwrap();
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"yo");
        let mut carrier = relay.await.unwrap().unwrap();
        carrier.rest();
        assert_eq!(carrier.next_open().await.unwrap(), open);
    }

    #[tokio::test]
    async fn a_carrier_may_be_closed_right_behind_the_last_end() {
        let (mut client, mut far, relay) = relayed().await;
        client.shutdown().await.unwrap();
        far.read_exact(&mut [0; HEADER]).await.unwrap();
        far.write_all(&[frame(Kind::Data, b"bye"), frame(Kind::End, b"")].concat()).await.unwrap();
        drop(far);
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"bye");
        let end = relay.await.unwrap();
        assert!(end.is_ok(), "{end:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_idle_limit_counts_once_one_side_has_ended() {
        let (_client, mut far, mut relay) = relayed().await;
        let hour = Duration::from_secs(3600);
        assert!(timeout(hour, &mut relay).await.is_err(), "both are open: for ever");
        far.write_all(&frame(Kind::End, b"")).await.unwrap();
        let from = Instant::now();
        let end = timeout(hour, relay).await.unwrap().unwrap();
        assert!(matches!(end, Err(Broken::Idle(_))), "{end:?}");
        let rested = from.elapsed();
        assert!(
            rested >= HALF_CLOSED_IDLE && rested < HALF_CLOSED_IDLE + Duration::from_secs(1),
            "{rested:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_with_a_limit_rests_no_longer_and_both_sides_are_reset() {
        let limit = Duration::from_secs(900);
        let (mut client, mut far, mut relay) = relayed_with(Some(limit)).await;
        let almost = limit - Duration::from_secs(1);
        // A byte either way begins it anew.
        assert!(timeout(almost, &mut relay).await.is_err());
        client.write_all(b"up").await.unwrap();
        far.read_exact(&mut [0; HEADER + 2]).await.unwrap();
        assert!(timeout(almost, &mut relay).await.is_err());
        far.write_all(&frame(Kind::Data, b"down")).await.unwrap();
        client.read_exact(&mut [0; 4]).await.unwrap();
        assert!(timeout(almost, &mut relay).await.is_err());
        let end = timeout(Duration::from_secs(2), relay).await.unwrap().unwrap();
        assert!(matches!(end, Err(Broken::Idle(l)) if l == limit), "{end:?}");
        let mut last = [0; HEADER];
        far.read_exact(&mut last).await.unwrap();
        assert_eq!(last[..], frame(Kind::Reset, b""));
        let error = client.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

        // Once one side has ended, no longer than any other stream.
        let (_client, mut far, mut relay) = relayed_with(Some(limit)).await;
        assert!(timeout(almost, &mut relay).await.is_err());
        far.write_all(&frame(Kind::End, b"")).await.unwrap();
        let end = timeout(HALF_CLOSED_IDLE + Duration::from_secs(1), relay).await.unwrap().unwrap();
        assert!(matches!(end, Err(Broken::Idle(HALF_CLOSED_IDLE))), "{end:?}");
    }

    #[tokio::test]
    async fn a_relay_that_is_dropped_resets() {
        let (mut client, mut far, relay) = relayed().await;
        far.write_all(&frame(Kind::Data, b"part")).await.unwrap();
        client.read_exact(&mut [0; 4]).await.unwrap();
        relay.abort();
        let error = client.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
