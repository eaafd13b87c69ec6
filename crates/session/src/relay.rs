//! Moves bytes between a TCP connection and a carrier, both ways at once, until both sides have ended.
//!
//! A FIN becomes `END` and the other way round, so each side may go on after the other has finished; anything else
//! is a reset on the other side too. Invariant: a connection is closed in order only if its peer's `END` or FIN
//! was seen, so that a cut transfer never looks like a whole one.

use crate::{
    buffer::{Buffer, SLOTS},
    carrier::{BARE, Carrier, CarrierError, poll_frame},
    frame::{Kind, MAX_DATA},
    tls::{Incoming, Keys, Next, RECORD_HEADER, SLOT, Seal, TlsStream},
    unended::Unended,
};
use socket2::SockRef;
use std::{
    array,
    future::poll_fn,
    io::{self, IoSlice, IoSliceMut},
    net::Shutdown,
    ops::Range,
    pin::{Pin, pin},
    sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, Interest, ReadBuf},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    time::{Instant, sleep_until},
};

/// Records whose payload is written at once.
const GATHER: usize = 2 * SLOTS;

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
pub async fn relay(
    mut tcp: Unended,
    mut carrier: Carrier,
    counters: Counters<'_>,
    idle: Option<Duration>,
    cancel: impl Future<Output = ()>,
) -> Result<Carrier, Broken> {
    let pace = Pace::new();
    let end = both_ways(tcp.tcp(), &mut carrier, counters, &pace, idle, cancel).await;
    let Err(broken) = end else {
        tcp.end();
        return Ok(carrier);
    };
    drop(tcp);
    // In the middle of a record there is no place for a RESET; the missing END says the same.
    if !pace.mid_record.load(Ordering::Relaxed) && !matches!(broken, Broken::Carrier(_) | Broken::Reset) {
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
    mid_record: AtomicBool,
}

impl Pace {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            last: AtomicU64::new(0),
            ended: AtomicU8::new(0),
            mid_record: AtomicBool::new(false),
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

async fn both_ways(
    tcp: &mut TcpStream,
    carrier: &mut Carrier,
    counters: Counters<'_>,
    pace: &Pace,
    idle: Option<Duration>,
    cancel: impl Future<Output = ()>,
) -> Result<(), Broken> {
    let TlsStream { tcp: wire, keys, seal, input, .. } = &mut *carrier.stream;
    let keys = &*keys;
    let (mut tcp_in, mut tcp_out) = tcp.split();
    let (mut carrier_in, mut carrier_out) = wire.split();

    // Each direction, once it has ended, keeps watching its source for a break while the other goes on. The second
    // one to end is the end of all: a carrier may be closed right behind it.
    let up = async {
        to_carrier(&mut tcp_in, &mut carrier_out, seal, keys, counters.to_carrier, pace).await?;
        if pace.end() { Ok(()) } else { Err(watch_tcp(&tcp_in).await) }
    };
    let down = async {
        from_carrier(&mut carrier_in, input, keys, &mut tcp_out, counters.from_carrier, pace).await?;
        if pace.end() { Ok(()) } else { Err(watch_carrier(&mut carrier_in, input, keys).await) }
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
async fn to_carrier(
    tcp: &mut ReadHalf<'_>,
    carrier: &mut WriteHalf<'_>,
    seal: &mut Seal,
    keys: &Keys,
    counter: &AtomicU64,
    pace: &Pace,
) -> Result<(), Broken> {
    let mut buffer = Buffer::default();
    let mut slots = 1;
    loop {
        let n = poll_fn(|cx| poll_slots(tcp, &mut buffer, slots, cx)).await.map_err(Broken::Tcp)?;
        pace.mid_record.store(true, Ordering::Relaxed);
        if let Some(update) = seal.key_update(keys).map_err(lost)? {
            carrier.write_all(&update).await.map_err(lost)?;
        }
        if n == 0 {
            let mut end = [0; BARE];
            end[RECORD_HEADER] = Kind::End as u8;
            seal.data(&mut end, 1).map_err(lost)?;
            carrier.write_all(&end).await.map_err(lost)?;
            pace.mid_record.store(false, Ordering::Relaxed);
            return Ok(());
        }
        let (mut left, mut length) = (n, 0);
        for slot in buffer.bytes_mut().chunks_mut(SLOT) {
            if left == 0 {
                break;
            }
            let of_slot = left.min(MAX_DATA);
            slot[RECORD_HEADER] = Kind::Data as u8;
            // All but the last are full, and leave no gap behind them.
            length += seal.data(slot, 1 + of_slot).map_err(lost)?;
            left -= of_slot;
        }
        carrier.write_all(&buffer.bytes()[..length]).await.map_err(lost)?;
        pace.mid_record.store(false, Ordering::Relaxed);
        counter.fetch_add(n as u64, Ordering::Relaxed);
        pace.moved();
        slots = if n < MAX_DATA { 1 } else { SLOTS };
    }
}

/// Reads into so many slots, each where its frame's payload belongs. The buffer is given back where there is nothing
/// to read.
fn poll_slots(
    tcp: &mut ReadHalf<'_>,
    buffer: &mut Buffer,
    slots: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    const PAYLOAD: Range<usize> = RECORD_HEADER + 1..RECORD_HEADER + 1 + MAX_DATA;
    let read = if slots == 1 {
        let mut room = ReadBuf::new(&mut buffer.take()[PAYLOAD]);
        Pin::new(tcp).poll_read(cx, &mut room).map_ok(|()| room.filled().len())
    } else {
        loop {
            match tcp.as_ref().poll_read_ready(cx) {
                Poll::Pending => break Poll::Pending,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {}
            }
            let mut slots = buffer.take().chunks_mut(SLOT);
            let mut room: [IoSliceMut<'_>; SLOTS] =
                array::from_fn(|_| IoSliceMut::new(slots.next().map_or(&mut [], |slot| &mut slot[PAYLOAD])));
            match tcp.try_read_vectored(&mut room) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => break Poll::Ready(read),
            }
        }
    };
    if read.is_pending() {
        buffer.give_back();
    }
    read
}

/// From a carrier until `END`, which becomes a FIN.
async fn from_carrier(
    carrier: &mut ReadHalf<'_>,
    input: &mut Incoming,
    keys: &Keys,
    tcp: &mut WriteHalf<'_>,
    counter: &AtomicU64,
    pace: &Pace,
) -> Result<(), Broken> {
    loop {
        let (mut payloads, mut count, mut last) = ([const { 0..0 }; GATHER], 0, None);
        while count < GATHER && last.is_none() {
            let frame = match input.next(keys).map_err(lost)? {
                Next::Plain(frame) => frame,
                Next::Wanting => break,
                Next::Closed => return Err(Broken::Carrier(CarrierError::Closed)),
            };
            match Kind::of(input.bytes(frame.clone())).map_err(|e| Broken::Carrier(e.into()))? {
                (Kind::Data, []) => {}
                (Kind::Data, _) => {
                    payloads[count] = frame.start + 1..frame.end;
                    count += 1;
                }
                (other, _) => last = Some(other),
            }
        }
        write_all(tcp, input, &mut payloads[..count], counter, pace).await.map_err(Broken::Tcp)?;
        match last {
            None if count > 0 => {}
            None => {
                let n = poll_fn(|cx| input.poll_fill(carrier, cx)).await.map_err(lost)?;
                if n == 0 {
                    return Err(Broken::Carrier(CarrierError::Closed));
                }
            }
            Some(Kind::End) => {
                input.give_back();
                return SockRef::from(tcp.as_ref()).shutdown(Shutdown::Write).map_err(Broken::Tcp);
            }
            Some(Kind::Reset) => return Err(Broken::Reset),
            Some(other) => return Err(Broken::Carrier(CarrierError::Unexpected(other))),
        }
    }
}

/// Writes what is at these places of the input.
async fn write_all(
    tcp: &mut WriteHalf<'_>,
    input: &Incoming,
    payloads: &mut [Range<usize>],
    counter: &AtomicU64,
    pace: &Pace,
) -> io::Result<()> {
    let mut at = 0;
    while at < payloads.len() {
        let written = poll_fn(|cx| match &payloads[at..] {
            [one] => Pin::new(&mut *tcp).poll_write(cx, input.bytes(one.clone())),
            many => {
                let slices: [IoSlice<'_>; GATHER] = array::from_fn(|n| {
                    IoSlice::new(many.get(n).map_or(&[][..], |payload| input.bytes(payload.clone())))
                });
                Pin::new(&mut *tcp).poll_write_vectored(cx, &slices[..many.len()])
            }
        });
        let mut n = written.await?;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        counter.fetch_add(n as u64, Ordering::Relaxed);
        pace.moved();
        for payload in &mut payloads[at..] {
            let of_this = n.min(payload.len());
            payload.start += of_this;
            n -= of_this;
            if payload.start < payload.end {
                break;
            }
            at += 1;
        }
    }
    Ok(())
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
async fn watch_carrier(carrier: &mut ReadHalf<'_>, input: &mut Incoming, keys: &Keys) -> Broken {
    let frame = match poll_fn(|cx| poll_frame(carrier, keys, input, cx)).await {
        Ok(frame) => frame,
        Err(error) => return Broken::Carrier(error),
    };
    match Kind::of(input.bytes(frame.clone())) {
        Ok((Kind::Reset, _)) => Broken::Reset,
        Ok((Kind::Open, _)) => {
            input.put_back(frame);
            std::future::pending().await
        }
        Ok((kind, _)) => Broken::Carrier(CarrierError::Unexpected(kind)),
        Err(error) => Broken::Carrier(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::tests::{connected, pair};
    use tokio::{io::AsyncReadExt, task::JoinHandle, time::timeout};

    static COUNTED: AtomicU64 = AtomicU64::new(0);

    type Relay = JoinHandle<Result<Carrier, Broken>>;

    /// The far end of a carrier.
    struct Far(Carrier);

    impl Far {
        /// Frames as they are sent.
        fn seal(&mut self, frames: &[(Kind, &[u8])]) -> Vec<u8> {
            let mut all = Vec::new();
            for (kind, payload) in frames {
                let mut record = vec![0; BARE + payload.len()];
                record[RECORD_HEADER] = *kind as u8;
                record[RECORD_HEADER + 1..][..payload.len()].copy_from_slice(payload);
                self.0.stream.seal.data(&mut record, 1 + payload.len()).unwrap();
                all.extend(record);
            }
            all
        }

        async fn send_bytes(&mut self, bytes: &[u8]) {
            self.0.stream.tcp.write_all(bytes).await.unwrap();
        }

        async fn send(&mut self, frames: &[(Kind, &[u8])]) {
            let bytes = self.seal(frames);
            self.send_bytes(&bytes).await;
        }

        async fn expect(&mut self, kind: Kind, payload: &[u8]) {
            let TlsStream { tcp, keys, input, .. } = &mut *self.0.stream;
            let frame = poll_fn(|cx| poll_frame(tcp, keys, input, cx)).await.unwrap();
            assert_eq!(Kind::of(input.bytes(frame)).unwrap(), (kind, payload));
        }
    }

    /// A client, the far end of a carrier, and the relay between them.
    async fn relayed() -> (TcpStream, Far, Relay) {
        relayed_with(None).await
    }

    async fn relayed_with(idle: Option<Duration>) -> (TcpStream, Far, Relay) {
        let (client, inner) = connected().await;
        let (near, far) = pair().await;
        let counters = Counters { to_carrier: &COUNTED, from_carrier: &COUNTED };
        let relay = tokio::spawn(relay(Unended::new(inner), near, counters, idle, std::future::pending()));
        (client, Far(far), relay)
    }

    #[tokio::test]
    async fn an_end_without_end_is_a_reset() {
        let (whole, ended) = ([(Kind::Data, &b"hello"[..])], [(Kind::End, &b""[..])]);
        // Cut before a frame, in a header, in a payload; after a frame, after END of one side only.
        for (frames, length) in [(&whole, 0), (&whole, 3), (&whole, 12), (&whole, 28), (&ended, BARE)] {
            let (mut client, mut far, relay) = relayed().await;
            let bytes = far.seal(frames);
            far.send_bytes(&bytes[..length]).await;
            drop(far);
            let end = relay.await.unwrap();
            assert!(matches!(end, Err(Broken::Carrier(_))), "{end:?} after {length} bytes of {frames:?}");
            let mut got = Vec::new();
            let read = client.read_to_end(&mut got).await;
            // After END the client has its FIN already; the reset shows where it sends.
            let reset = read.is_err() || {
                let mut writes = 0;
                while client.write_all(b"x").await.is_ok() && writes < 100 {
                    writes += 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                writes < 100 && frames[0].0 == Kind::End
            };
            assert!(reset, "after {length} bytes of {frames:?}");
        }
    }

    #[tokio::test]
    async fn what_follows_the_end_stays_for_the_next_stream() {
        let (mut client, mut far, relay) = relayed().await;
        client.write_all(b"hi").await.unwrap();
        far.expect(Kind::Data, b"hi").await;
        client.shutdown().await.unwrap();
        far.expect(Kind::End, b"").await;
        let open = crate::frame::Open {
            share: wicketgate_model::ShareId::new(uuid::Uuid::nil()),
            generation: wicketgate_model::Generation::FIRST,
            client: "127.0.0.1:1".parse().unwrap(),
        };
        let next = serde_json::to_vec(&open).unwrap();
        far.send(&[(Kind::Data, b"yo"), (Kind::End, b""), (Kind::Open, &next)]).await;
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"yo");
        let mut carrier = relay.await.unwrap().unwrap();
        assert_eq!(carrier.next_open().await.unwrap(), open);
    }

    #[tokio::test]
    async fn a_carrier_may_be_closed_right_behind_the_last_end() {
        let (mut client, mut far, relay) = relayed().await;
        client.shutdown().await.unwrap();
        far.expect(Kind::End, b"").await;
        far.send(&[(Kind::Data, b"bye"), (Kind::End, b"")]).await;
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
        far.send(&[(Kind::End, b"")]).await;
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
        far.expect(Kind::Data, b"up").await;
        assert!(timeout(almost, &mut relay).await.is_err());
        far.send(&[(Kind::Data, b"down")]).await;
        client.read_exact(&mut [0; 4]).await.unwrap();
        assert!(timeout(almost, &mut relay).await.is_err());
        let end = timeout(Duration::from_secs(2), relay).await.unwrap().unwrap();
        assert!(matches!(end, Err(Broken::Idle(l)) if l == limit), "{end:?}");
        far.expect(Kind::Reset, b"").await;
        let error = client.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

        // Once one side has ended, no longer than any other stream.
        let (_client, mut far, mut relay) = relayed_with(Some(limit)).await;
        assert!(timeout(almost, &mut relay).await.is_err());
        far.send(&[(Kind::End, b"")]).await;
        let end = timeout(HALF_CLOSED_IDLE + Duration::from_secs(1), relay).await.unwrap().unwrap();
        assert!(matches!(end, Err(Broken::Idle(HALF_CLOSED_IDLE))), "{end:?}");
    }

    #[tokio::test]
    async fn a_relay_that_is_dropped_resets() {
        let (mut client, mut far, relay) = relayed().await;
        far.send(&[(Kind::Data, b"part")]).await;
        client.read_exact(&mut [0; 4]).await.unwrap();
        relay.abort();
        let error = client.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_stream_at_rest_holds_no_buffer_and_a_long_one_arrives_whole() {
        let (client, inner) = connected().await;
        let (near, far) = pair().await;
        let (target, outer) = connected().await;
        let counters = Counters { to_carrier: &COUNTED, from_carrier: &COUNTED };
        let near = tokio::spawn(relay(Unended::new(inner), near, counters, None, std::future::pending()));
        let far = tokio::spawn(relay(Unended::new(outer), far, counters, None, std::future::pending()));
        // Of a length that fills records and buffers and leaves a rest; no two blocks alike.
        let bytes: Vec<u8> =
            (0..3_000_017u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
        let both = [(client, &bytes), (target, &bytes)].map(|(tcp, bytes)| async move {
            let (mut read, mut write) = tcp.into_split();
            let mut got = Vec::new();
            let send = async {
                for piece in bytes.chunks(77_777) {
                    write.write_all(piece).await.unwrap();
                }
                write.shutdown().await.unwrap();
            };
            let (_, n) = tokio::join!(send, read.read_to_end(&mut got));
            n.unwrap();
            assert!(got == *bytes, "{} of {} bytes", got.len(), bytes.len());
        });
        let [a, b] = both;
        tokio::join!(a, b);
        for relay in [near, far] {
            let carrier = relay.await.unwrap().unwrap();
            assert!(carrier.stream.input.is_empty() && carrier.stream.input.holds_nothing());
        }
    }
}
