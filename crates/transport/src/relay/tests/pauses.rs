//! Streams with random pieces, pauses and buffers in both directions at once: all bytes arrive, whatever waits for what.

use super::{COUNTED, ends};
use crate::{
    relay::{Counters, relay},
    reset_on_drop::ResetOnDrop,
    tls::tests::pair_over,
};
use proptest::prelude::*;
use socket2::SockRef;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::Runtime,
    time::{sleep, timeout},
};

/// The longest time without a byte. Only a stream that has stopped takes that long.
const STOPPED: Duration = Duration::from_secs(20);
/// The largest segment, in bytes.
const SEGMENT: u32 = 1400;
/// The most pauses of one end in each direction, so that a case is short.
const PAUSES: usize = 20;

/// The most bytes that one end sends: more than fit into all buffers on the way.
const MOST: usize = 1_500_000;

/// One end of a stream: a client or a target.
#[derive(Debug, Clone)]
struct End {
    sends: usize,
    /// The lengths of writes and reads.
    pieces: (usize, usize),
    /// In milliseconds, between writes and between reads.
    pauses: (u64, u64),
    /// Of the kernel, in bytes; `None`: its own choice.
    buffer: Option<usize>,
}

fn end() -> impl Strategy<Value = End> {
    let piece = || prop_oneof![200..2_000_usize, 10_000..100_000_usize];
    let pause = || prop_oneof![Just(0), 1..30_u64];
    let buffer = proptest::option::of(2_000..40_000_usize);
    (0..MOST, (piece(), piece()), (pause(), pause()), buffer)
        .prop_map(|(sends, pieces, pauses, buffer)| End { sends, pieces, pauses, buffer })
}

/// With segments as on a network. Those of the loopback interface are as large as the buffers, and the kernel waits long for
/// room for one.
async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpSocket::new_v4().unwrap();
    SockRef::from(&client).set_tcp_mss(SEGMENT).unwrap();
    let (client, accepted) = tokio::join!(client.connect(listener.local_addr().unwrap()), listener.accept());
    (client.unwrap(), accepted.unwrap().0)
}

fn limit(tcp: &TcpStream, buffer: Option<usize>) {
    if let Some(bytes) = buffer {
        SockRef::from(tcp).set_recv_buffer_size(bytes).unwrap();
        SockRef::from(tcp).set_send_buffer_size(bytes).unwrap();
    }
}

/// No two blocks are equal.
fn bytes(length: usize) -> Vec<u8> {
    let words = (0..u32::try_from(length.div_ceil(4)).unwrap()).map(|n| n.wrapping_mul(2_654_435_761));
    words.flat_map(u32::to_be_bytes).take(length).collect()
}

/// Sends what the end sends, and receives what the other one sends.
async fn play(tcp: TcpStream, end: &End, expected: usize) {
    limit(&tcp, end.buffer);
    let (mut read, mut write) = tcp.into_split();
    let send = async {
        for (n, piece) in bytes(end.sends).chunks(end.pieces.0).enumerate() {
            timeout(STOPPED, write.write_all(piece)).await.expect("a write ends").unwrap();
            if n < PAUSES {
                sleep(Duration::from_millis(end.pauses.0)).await;
            }
        }
        write.shutdown().await.unwrap();
    };
    let receive = async {
        let (mut all, mut piece) = (Vec::new(), vec![0; end.pieces.1]);
        for n in 0.. {
            let read = timeout(STOPPED, read.read(&mut piece)).await;
            let read = read.unwrap_or_else(|_| panic!("nothing after {} of {expected} bytes", all.len()));
            match read.unwrap() {
                0 => break,
                length => all.extend_from_slice(&piece[..length]),
            }
            if n < PAUSES {
                sleep(Duration::from_millis(end.pauses.1)).await;
            }
        }
        assert!(all == bytes(expected), "{} of {expected} bytes", all.len());
    };
    tokio::join!(send, receive);
}

async fn stream(client: End, target: End, carrier: Option<usize>) {
    let (ours, inner) = connected().await;
    let (near, far) = pair_over(connected().await);
    let (theirs, outer) = connected().await;
    limit(&near.stream.tcp, carrier);
    limit(&far.stream.tcp, carrier);
    let relays = [(inner, near), (outer, far)].map(|(tcp, carrier)| {
        tokio::spawn(async move {
            let counters = Counters::of_bytes(&COUNTED, &COUNTED);
            relay(ResetOnDrop::new(tcp), carrier, counters, ends(None)).await
        })
    });
    tokio::join!(play(ours, &client, target.sends), play(theirs, &target, client.sends));
    for relay in relays {
        timeout(STOPPED, relay).await.expect("the relay ends").unwrap().unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_stream_stops(client in end(), target in end(), carrier in proptest::option::of(4_000..60_000_usize)) {
        Runtime::new().unwrap().block_on(stream(client, target, carrier));
    }
}
