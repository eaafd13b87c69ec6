//! Moves bytes between a TCP connection and a carrier, both ways at once, until both sides have ended.
//!
//! A FIN becomes `END` and the other way round, so each side may go on after the other has finished; anything else
//! is a reset on the other side too. Invariant: a connection is closed in order only if its peer's `END` or FIN
//! was seen, so that a cut transfer never looks like a whole one.

use crate::{
    carrier::{Carrier, CarrierError, Input},
    frame::{HEADER, Header, Kind, MAX_DATA},
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

/// How long a stream may rest once one side has ended. While both are open it may rest for ever: databases' pools
/// do, and keepalive finds the dead.
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
    #[error("nothing came for {}s after one side had ended", HALF_CLOSED_IDLE.as_secs())]
    Idle,
    #[error("the stream was cut")]
    Cancelled,
}

/// Relays until both sides have ended, and gives the carrier back for the next stream. When `cancel` is ready, the
/// stream is cut.
pub async fn relay<S: AsyncRead + AsyncWrite + Unpin>(
    tcp: TcpStream,
    mut carrier: Carrier<S>,
    counters: Counters<'_>,
    cancel: impl Future<Output = ()>,
) -> Result<Carrier<S>, Broken> {
    let pace = Pace::new();
    let mut tcp = ResetUnlessEnded { tcp, ended: false };
    let end = both_ways(&mut tcp.tcp, &mut carrier, counters, &pace, cancel).await;
    tcp.ended = end.is_ok();
    drop(tcp);
    let Err(broken) = end else {
        return Ok(carrier);
    };
    // In the middle of a frame a RESET would be read as payload; the missing END says the same.
    if !pace.mid_frame.load(Ordering::Relaxed) && !matches!(broken, Broken::Carrier(_) | Broken::Reset) {
        carrier.reset().await;
    }
    Err(broken)
}

/// Closes with a reset, also when the relay itself is dropped: the peer must not take what it has for the whole.
struct ResetUnlessEnded {
    tcp: TcpStream,
    ended: bool,
}

impl Drop for ResetUnlessEnded {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.tcp.set_zero_linger();
        }
    }
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

    fn end(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.moved();
    }
}

async fn both_ways<S: AsyncRead + AsyncWrite + Unpin>(
    tcp: &mut TcpStream,
    carrier: &mut Carrier<S>,
    counters: Counters<'_>,
    pace: &Pace,
    cancel: impl Future<Output = ()>,
) -> Result<(), Broken> {
    let Carrier { io, input, output } = carrier;
    input.grow();
    output.resize(HEADER + MAX_DATA, 0);
    let (mut tcp_in, mut tcp_out) = tcp.split();
    let (mut carrier_in, mut carrier_out) = tokio::io::split(io);

    // Each direction, once it has ended, keeps watching its source for a break while the other goes on.
    let up = async {
        to_carrier(&mut tcp_in, &mut carrier_out, output, counters.to_carrier, pace).await?;
        pace.end();
        Err(watch_tcp(&tcp_in).await)
    };
    let down = async {
        from_carrier(&mut carrier_in, input, &mut tcp_out, counters.from_carrier, pace).await?;
        pace.end();
        Err(watch_carrier(&mut carrier_in, input).await)
    };
    let (mut up, mut down, mut cancel) = (pin!(up), pin!(down), pin!(cancel));
    let mut idle = pin!(sleep_until(Instant::now() + HALF_CLOSED_IDLE));
    let mut up_first = false;
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
        match pace.ended.load(Ordering::Relaxed) {
            0 => {}
            1 => {
                // The clock is the moment of the last byte, looked at when the timer goes off.
                while idle.as_mut().poll(cx).is_ready() {
                    let until = pace.last() + HALF_CLOSED_IDLE;
                    if until <= Instant::now() {
                        return Poll::Ready(Err(Broken::Idle));
                    }
                    idle.as_mut().reset(until);
                }
            }
            _ => return Poll::Ready(Ok(())),
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
