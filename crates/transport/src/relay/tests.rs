//! A relay between real sockets.

use super::{
    watch::{KEEPALIVE, SETTLED},
    *,
};
use crate::{
    carrier::{BARE, poll_frame},
    frame::{FrameKind, MAX_DATA},
    tls::{
        RECORD_HEADER,
        tests::{connected, pair},
    },
};
use std::{
    io,
    sync::{LazyLock, atomic::AtomicU64},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
    time::{Instant, timeout},
};

mod pauses;

static COUNTED: AtomicU64 = AtomicU64::new(0);

type Relay = JoinHandle<Result<Carrier, Broken>>;

/// Of a stream that nothing aborts.
fn ends(idle: Option<Duration>) -> Ends<'static> {
    static NEVER: LazyLock<Abort> = LazyLock::new(Abort::default);
    Ends { idle, finish: &NEVER, abort: &NEVER }
}

/// The remote end of a carrier.
struct Far(Carrier);

impl Far {
    /// The TLS records of some frames.
    fn seal(&mut self, frames: &[(FrameKind, &[u8])]) -> Vec<u8> {
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

    async fn send(&mut self, frames: &[(FrameKind, &[u8])]) {
        let bytes = self.seal(frames);
        self.send_bytes(&bytes).await;
    }

    async fn expect(&mut self, kind: FrameKind, payload: &[u8]) {
        let RecordStream { tcp, keys, input, .. } = &mut *self.0.stream;
        let frame = poll_fn(|cx| poll_frame(tcp, keys, input, cx)).await.unwrap();
        assert_eq!(FrameKind::of(input.bytes(frame)).unwrap(), (kind, payload));
    }
}

impl Far {
    /// Receives this many bytes of data, and returns the kind of the next frame.
    async fn until_no_data(&mut self, length: usize) -> FrameKind {
        let RecordStream { tcp, keys, input, .. } = &mut *self.0.stream;
        let mut got = 0;
        loop {
            let frame = poll_fn(|cx| poll_frame(tcp, keys, input, cx)).await.unwrap();
            match FrameKind::of(input.bytes(frame)).unwrap() {
                (FrameKind::Data, payload) => got += payload.len(),
                (other, _) => {
                    assert_eq!(got, length);
                    return other;
                }
            }
        }
    }
}

/// A client, the far end of a carrier, and the relay between them.
async fn relayed() -> (TcpStream, Far, Relay) {
    relayed_with(None).await
}

async fn relayed_with(idle: Option<Duration>) -> (TcpStream, Far, Relay) {
    let (client, inner) = connected().await;
    let (near, far) = pair().await;
    let counters = Counters::of_bytes(&COUNTED, &COUNTED);
    let relay = tokio::spawn(async move { relay(ResetOnDrop::new(inner), near, counters, ends(idle)).await });
    (client, Far(far), relay)
}

#[tokio::test]
async fn a_connection_that_ends_without_an_end_frame_is_a_reset() {
    let (whole, ended) = ([(FrameKind::Data, &b"hello"[..])], [(FrameKind::End, &b""[..])]);
    // Truncated before a frame, in a header and in a payload; after a frame, and after the END of only one side.
    for (frames, length) in [(&whole, 0), (&whole, 3), (&whole, 12), (&whole, 28), (&ended, BARE)] {
        let (mut client, mut far, relay) = relayed().await;
        let bytes = far.seal(frames);
        far.send_bytes(&bytes[..length]).await;
        drop(far);
        let end = relay.await.unwrap();
        assert!(matches!(end, Err(Broken::Carrier(_))), "{end:?} after {length} bytes of {frames:?}");
        let mut got = Vec::new();
        let read = client.read_to_end(&mut got).await;
        // After END, the client has received a FIN already: the reset shows when it sends.
        let reset = read.is_err() || {
            let mut writes = 0;
            while client.write_all(b"x").await.is_ok() && writes < 100 {
                writes += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            writes < 100 && frames[0].0 == FrameKind::End
        };
        assert!(reset, "after {length} bytes of {frames:?}");
    }
}

#[tokio::test]
async fn a_frame_after_the_end_is_kept_for_the_next_stream() {
    let (mut client, mut far, relay) = relayed().await;
    client.write_all(b"hi").await.unwrap();
    far.expect(FrameKind::Data, b"hi").await;
    client.shutdown().await.unwrap();
    far.expect(FrameKind::End, b"").await;
    let open = crate::frame::OpenRequest {
        share: wicketgate_model::ShareId::new(uuid::Uuid::nil()),
        generation: wicketgate_model::Generation::FIRST,
        client: "127.0.0.1:1".parse().unwrap(),
    };
    let next = serde_json::to_vec(&open).unwrap();
    far.send(&[(FrameKind::Data, b"yo"), (FrameKind::End, b""), (FrameKind::Open, &next)]).await;
    let mut got = Vec::new();
    client.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"yo");
    let mut carrier = relay.await.unwrap().unwrap();
    assert_eq!(carrier.next_open().await.unwrap(), open);
}

#[tokio::test]
async fn a_carrier_may_be_closed_right_after_the_last_end() {
    let (mut client, mut far, relay) = relayed().await;
    client.shutdown().await.unwrap();
    far.expect(FrameKind::End, b"").await;
    far.send(&[(FrameKind::Data, b"bye"), (FrameKind::End, b"")]).await;
    drop(far);
    let mut got = Vec::new();
    client.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"bye");
    let end = relay.await.unwrap();
    assert!(end.is_ok(), "{end:?}");
}

#[tokio::test]
async fn an_end_or_a_reset_right_behind_some_bytes_follows_them() {
    for length in [1, MAX_DATA - 1, MAX_DATA, MAX_DATA + 1, 3 * MAX_DATA + 7] {
        for resets in [false, true] {
            let (mut client, mut far, relay) = relayed().await;
            // What a new connection has announced is not known before its first read.
            client.write_all(b"first").await.unwrap();
            far.expect(FrameKind::Data, b"first").await;
            let bytes = vec![5; length];
            // The relay runs on this thread, and reads after what follows.
            client.write_all(&bytes).await.unwrap();
            if resets {
                socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
                drop(client);
                let last = far.until_no_data(length).await;
                let end = relay.await.unwrap();
                assert!(last == FrameKind::Reset && matches!(end, Err(Broken::Tcp(_))), "{last:?}, {end:?}");
                continue;
            }
            client.shutdown().await.unwrap();
            assert_eq!(far.until_no_data(length).await, FrameKind::End);
            far.send(&[(FrameKind::Data, b"answer"), (FrameKind::End, b"")]).await;
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"answer");
            relay.await.unwrap().unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_idle_limit_applies_once_one_side_has_ended() {
    let (_client, mut far, mut relay) = relayed().await;
    let hour = Duration::from_secs(3600);
    assert!(
        timeout(hour, &mut relay).await.is_err(),
        "a stream that is open on both sides has no idle limit"
    );
    far.send(&[(FrameKind::End, b"")]).await;
    let from = Instant::now();
    let end = timeout(hour, relay).await.unwrap().unwrap();
    assert!(matches!(end, Err(Broken::Idle(_))), "{end:?}");
    let rested = from.elapsed();
    assert!(rested >= HALF_CLOSED_IDLE && rested < HALF_CLOSED_IDLE + Duration::from_secs(1), "{rested:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_exceeds_its_idle_limit_is_reset_on_both_sides() {
    let limit = Duration::from_secs(900);
    let (mut client, mut far, mut relay) = relayed_with(Some(limit)).await;
    let almost = limit - Duration::from_secs(1);
    // A byte in either direction restarts it.
    assert!(timeout(almost, &mut relay).await.is_err());
    client.write_all(b"up").await.unwrap();
    far.expect(FrameKind::Data, b"up").await;
    assert!(timeout(almost, &mut relay).await.is_err());
    far.send(&[(FrameKind::Data, b"down")]).await;
    client.read_exact(&mut [0; 4]).await.unwrap();
    assert!(timeout(almost, &mut relay).await.is_err());
    let end = timeout(Duration::from_secs(2), relay).await.unwrap().unwrap();
    assert!(matches!(end, Err(Broken::Idle(l)) if l == limit), "{end:?}");
    far.expect(FrameKind::Reset, b"").await;
    let error = client.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

    // Once one side has ended, the general limit for half-closed streams applies.
    let (_client, mut far, mut relay) = relayed_with(Some(limit)).await;
    assert!(timeout(almost, &mut relay).await.is_err());
    far.send(&[(FrameKind::End, b"")]).await;
    let end = timeout(HALF_CLOSED_IDLE + Duration::from_secs(1), relay).await.unwrap().unwrap();
    assert!(matches!(end, Err(Broken::Idle(HALF_CLOSED_IDLE))), "{end:?}");
}

#[tokio::test]
async fn dropping_a_relay_resets_the_stream() {
    let (mut client, mut far, relay) = relayed().await;
    far.send(&[(FrameKind::Data, b"part")]).await;
    client.read_exact(&mut [0; 4]).await.unwrap();
    relay.abort();
    let error = client.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn an_idle_stream_holds_no_buffer_and_a_long_one_arrives_completely() {
    let (client, inner) = connected().await;
    let (near, far) = pair().await;
    let (target, outer) = connected().await;
    let counters = Counters::of_bytes(&COUNTED, &COUNTED);
    let near = tokio::spawn(async move { relay(ResetOnDrop::new(inner), near, counters, ends(None)).await });
    let far = tokio::spawn(async move { relay(ResetOnDrop::new(outer), far, counters, ends(None)).await });
    // The length fills records and buffers and leaves a remainder. No two blocks are equal.
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

/// A clone of the socket shows the options that the relay sets.
#[tokio::test]
async fn a_long_lived_connection_is_probed() {
    let (_client, inner) = connected().await;
    let (near, _far) = pair().await;
    let shown = socket2::SockRef::from(&inner).try_clone().unwrap();
    let relay = tokio::spawn(async move {
        let counters = Counters::of_bytes(&COUNTED, &COUNTED);
        relay(ResetOnDrop::new(inner), near, counters, ends(None)).await
    });
    assert!(!shown.keepalive().unwrap());
    let probed = async {
        while !shown.keepalive().unwrap() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(10 * SETTLED, probed).await.unwrap();
    assert!((KEEPALIVE..2 * KEEPALIVE).contains(&shown.tcp_keepalive_time().unwrap()));
    relay.abort();
}

/// A client with a small receive buffer, a relay to it with a large send buffer, and the far end of the carrier.
async fn slow_reader(idle: Duration) -> (TcpStream, Far, Relay) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = tokio::net::TcpSocket::new_v4().unwrap();
    client.set_recv_buffer_size(8192).unwrap();
    let client = client.connect(listener.local_addr().unwrap()).await.unwrap();
    let (inner, _) = listener.accept().await.unwrap();
    socket2::SockRef::from(&inner).set_send_buffer_size(4 << 20).unwrap();
    let (near, far) = pair().await;
    let counters = Counters::of_bytes(&COUNTED, &COUNTED);
    let relay =
        tokio::spawn(async move { relay(ResetOnDrop::new(inner), near, counters, ends(Some(idle))).await });
    (client, Far(far), relay)
}

/// The longest wait for the next bytes of a stream that is not stuck.
const STEP: Duration = Duration::from_secs(20);

/// The bytes that a server sends, in frames, and the length of all of them.
const BLOCK: [u8; 16_000] = [7; 16_000];
const BLOCKS: usize = 20;

async fn send_blocks(far: &mut Far, blocks: usize) {
    for _ in 0..blocks {
        far.send(&[(FrameKind::Data, &BLOCK)]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_waits_for_bytes_that_the_kernel_delivers() {
    let idle = Duration::from_millis(400);
    for ends in [false, true] {
        let (mut client, mut far, relay) = slow_reader(idle).await;
        send_blocks(&mut far, BLOCKS).await;
        if ends {
            far.send(&[(FrameKind::End, b"")]).await;
        }
        let (began, mut got, mut piece) = (Instant::now(), 0, [0; 8192]);
        while got < BLOCKS * BLOCK.len() {
            assert!(!relay.is_finished(), "the stream ended after {got} bytes");
            got += client.read(&mut piece).await.unwrap();
            // The reader is slow; the relay has written everything before.
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        assert!(began.elapsed() > 2 * idle, "the reader was too fast: {:?}", began.elapsed());
        // The far end has been informed of the progress.
        far.expect(FrameKind::Data, b"").await;
        let end = timeout(20 * idle, relay).await.unwrap().unwrap();
        assert!(matches!(end, Err(Broken::Idle(_))), "{end:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_is_idle_and_its_rest_is_delivered_after_an_end_only() {
    let idle = Duration::from_millis(400);
    for ends in [true, false] {
        let (mut client, mut far, relay) = slow_reader(idle).await;
        // As many as the kernel takes for a reader that stops.
        const TAKEN: usize = 2;
        send_blocks(&mut far, TAKEN).await;
        if ends {
            far.send(&[(FrameKind::End, b"")]).await;
        }
        let end = timeout(20 * idle, relay).await.unwrap().unwrap();
        assert!(matches!(end, Err(Broken::Idle(_))), "{end:?}");
        let mut all = Vec::new();
        let read = client.read_to_end(&mut all).await.map_err(|e| e.kind());
        let whole = (Ok(TAKEN * BLOCK.len()), TAKEN * BLOCK.len());
        assert_eq!((read, all.len()) == whole, ends, "{read:?} after {} bytes", all.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_stream_delivers_what_was_read_before_its_reset() {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let (mut client, inner) = connected().await;
    let (near, far) = pair().await;
    let (mut far, finish) = (Far(far), Abort::default());
    let relay = {
        let finish = finish.clone();
        tokio::spawn(async move {
            let counters = Counters::of_bytes(&COUNTED, &WRITTEN);
            let ends = Ends { finish: &finish, ..ends(None) };
            relay(ResetOnDrop::new(inner), near, counters, ends).await
        })
    };
    client.write_all(b"up").await.unwrap();
    far.expect(FrameKind::Data, b"up").await;
    // More than the client's kernel takes, so that the rest waits in ours.
    while timeout(Duration::from_millis(300), send_blocks(&mut far, 1)).await.is_ok() {}
    finish.trigger();
    let (mut got, mut piece) = (0, vec![0; 8192]);
    let end = loop {
        match timeout(STEP, client.read(&mut piece)).await.unwrap() {
            Ok(0) => panic!("an end after {got} bytes looks complete"),
            Ok(n) => got += n,
            Err(error) => break error,
        }
    };
    assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
    assert!(got > BLOCK.len());
    assert_eq!(
        got as u64,
        WRITTEN.load(Ordering::Relaxed),
        "bytes that the target's side counts were destroyed"
    );
    let end = relay.await.unwrap();
    assert!(matches!(end, Err(Broken::Finished)), "{end:?}");
}

/// Bytes that a relay takes for a reader that stops, sent in blocks of this length.
async fn taken_for_a_stopped_reader(block: usize) -> usize {
    let (_client, mut far, _relay) = relayed().await;
    socket2::SockRef::from(&far.0.stream.tcp).set_send_buffer_size(16 << 10).unwrap();
    let (payload, mut taken) = (vec![0; block], 0);
    while timeout(Duration::from_millis(500), far.send(&[(FrameKind::Data, &payload)])).await.is_ok() {
        taken += block;
    }
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn little_waits_for_a_reader_that_stops() {
    for block in [1_000, 16_000] {
        let taken = taken_for_a_stopped_reader(block).await;
        assert!(taken < 1 << 20, "{taken} bytes in blocks of {block}");
    }
}
