//! Links over pipes, by a clock that stands still while anything can go on.

use super::*;
use crate::{Part, codec, wire::MAX_BODY};
use proptest::prelude::*;
use std::{
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex},
    task::JoinHandle,
    time::{Instant, sleep},
};
use uuid::Uuid;
use wicketgate_model::{ObservedDelta, Problem, Reason, ShareId, ShareObserved};

/// Messages that are not cut.
macro_rules! whole {
    ($($message:ty),*) => {$(
        impl Parted for $message {
            fn cut(self, _: usize) -> Vec<Self> {
                vec![self]
            }

            fn part(&mut self) -> Option<&mut Part> {
                None
            }

            fn join(&mut self, _: Self) -> bool {
                false
            }
        }
    )*};
}

whole!(u32, String);

type Ended = JoinHandle<Result<(), LinkBroken>>;

/// An end whose messages are numbers, in both directions.
struct NumberedEnd {
    send: mpsc::Sender<u32>,
    receive: LinkReceiver<u32>,
    ended: Ended,
}

fn started(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> NumberedEnd {
    let (send, receive, pump) = end(stream);
    NumberedEnd { send, receive, ended: tokio::spawn(pump.run()) }
}

/// Both ends, over a pipe that holds so many bytes.
fn linked(bytes: usize) -> (NumberedEnd, NumberedEnd) {
    let (near, far) = duplex(bytes);
    (started(near), started(far))
}

/// An end with the bytes of the other one.
fn with_raw(bytes: usize) -> (NumberedEnd, DuplexStream) {
    let (near, far) = duplex(bytes);
    (started(near), far)
}

const A_BEAT: [u8; 5] = [0, 0, 0, 0, 2];

#[tokio::test(start_paused = true)]
async fn a_link_without_messages_lives() {
    let (near, mut far) = linked(64);
    sleep(Duration::from_secs(3600)).await;
    near.send.send(7).await.unwrap();
    assert_eq!(far.receive.recv().await, Some(7));
    far.send.send(8).await.unwrap();
    assert!(!near.ended.is_finished() && !far.ended.is_finished());
}

#[tokio::test(start_paused = true)]
async fn an_end_beats_while_it_has_nothing_to_send_and_is_dead_when_it_does_not() {
    let (near, mut raw) = with_raw(1 << 16);
    let start = Instant::now();
    for beat in 1..=3 {
        let mut bytes = [0; 5];
        raw.read_exact(&mut bytes).await.unwrap();
        assert_eq!((bytes, start.elapsed()), (A_BEAT, BEAT_EVERY * beat));
    }
    // Any byte is a sign of life, also a part of a frame.
    raw.write_all(&A_BEAT[..1]).await.unwrap();
    let last = Instant::now();
    let broken = near.ended.await.unwrap().unwrap_err();
    assert!(matches!(broken, LinkBroken::Silent), "{broken:?}");
    assert_eq!(last.elapsed(), SILENCE);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_reads_nothing_is_found_out_and_one_that_reads_slowly_is_not() {
    // It has taken the head of the first beat, no more.
    let (near, mut raw) = with_raw(3);
    let (start, mut taken) = (Instant::now(), 0);
    while start.elapsed() < 20 * SILENCE {
        sleep(SILENCE - Duration::from_millis(1)).await;
        raw.write_all(&A_BEAT).await.unwrap();
        raw.read_exact(&mut [0]).await.unwrap();
        taken += 1;
    }
    assert!(taken > 10 && !near.ended.is_finished());
    let broken = async {
        loop {
            if near.ended.is_finished() {
                break near.ended.await.unwrap().unwrap_err();
            }
            sleep(Duration::from_secs(1)).await;
            // Once it has ended, nobody reads.
            let _ = raw.write_all(&A_BEAT).await;
        }
    };
    let broken = timeout(2 * SILENCE, broken).await.unwrap();
    assert!(matches!(broken, LinkBroken::Stuck), "{broken:?}");
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_is_slow_holds_the_sender_back_and_ends_nothing() {
    let (mut near, mut far) = linked(64);
    let sender = near.send.clone();
    let sends = tokio::spawn(async move {
        for n in 0..200 {
            sender.send(n).await.unwrap();
        }
    });
    sleep(SILENCE / 2).await;
    // Neither end has more than its channels and the pipe.
    assert!(!sends.is_finished() && near.send.capacity() == 0);
    // Messages of the other direction pass meanwhile, and beats.
    far.send.send(1).await.unwrap();
    assert_eq!(near.receive.recv().await, Some(1));
    for n in 0..200 {
        assert_eq!(far.receive.recv().await, Some(n));
        sleep(Duration::from_millis(100)).await;
    }
    assert!(!near.ended.is_finished() && !far.ended.is_finished());
}

#[tokio::test(start_paused = true)]
async fn while_nothing_is_read_silence_does_not_count() {
    // Room for all that is sent: nothing is stuck, and a consumer rests for a minute.
    let (near, mut far) = linked(1 << 16);
    for n in 0..100 {
        near.send.send(n).await.unwrap();
    }
    sleep(Duration::from_secs(60)).await;
    for n in 0..100 {
        assert_eq!(far.receive.recv().await, Some(n));
    }
    assert!(!near.ended.is_finished() && !far.ended.is_finished());
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_arrives_before_the_end_and_the_other_direction_goes_on() {
    let (near, mut far) = linked(16);
    for n in 0..3 {
        near.send.send(n).await.unwrap();
    }
    let NumberedEnd { send, mut receive, ended } = near;
    drop(send);
    for n in 0..3 {
        assert_eq!(far.receive.recv().await, Some(n));
    }
    assert_eq!(far.receive.recv().await, None);
    sleep(LINGER / 2).await;
    far.send.send(9).await.unwrap();
    drop(far.send);
    assert_eq!((receive.recv().await, receive.recv().await), (Some(9), None));
    ended.await.unwrap().unwrap();
    let broken = far.ended.await.unwrap().unwrap_err();
    assert!(matches!(broken, LinkBroken::Closed), "{broken:?}");
}

#[tokio::test(start_paused = true)]
async fn a_link_that_one_end_has_closed_ends_soon_whatever_the_other_one_does() {
    let (near, far) = linked(16);
    drop(near.send);
    let start = Instant::now();
    near.ended.await.unwrap().unwrap();
    assert!(matches!(far.ended.await.unwrap(), Err(LinkBroken::Closed)));
    assert!(start.elapsed() <= LINGER, "{:?}", start.elapsed());
    assert!(far.send.is_closed());

    // An end that takes no more messages is closed, too.
    let (near, far) = linked(16);
    drop(near.receive);
    near.ended.await.unwrap().unwrap();
    assert!(matches!(far.ended.await.unwrap(), Err(LinkBroken::Closed)));
    assert!(near.send.is_closed() && far.send.is_closed());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_link_has_a_cause() {
    let cause = async |bytes: &[u8]| {
        let (near, mut raw) = with_raw(1 << 16);
        raw.write_all(bytes).await.unwrap();
        drop(raw);
        near.ended.await.unwrap().unwrap_err().to_string()
    };
    assert_eq!(cause(b"").await, "the other end closed the link");
    assert_eq!(cause(&A_BEAT).await, "the other end closed the link");
    assert!(cause(&A_BEAT[..4]).await.starts_with("the connection broke: "));
    let http = cause(b"GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(http, "the other end sent a frame of the unknown kind 47: run the same version at both ends");
    let text = cause(b"\0\0\0\x03\x01\"a\"").await;
    assert_eq!(text, "the other end sent a malformed message: run the same version at both ends");

    let (near, _raw) = duplex(16);
    let (send, _receive, pump) = end::<_, String, String>(near);
    send.try_send("a".repeat(crate::wire::MAX_BODY)).unwrap();
    let long = pump.run().await.unwrap_err().to_string();
    assert_eq!(long, "cannot send a message of 1048578 bytes, longer than the 1048576 that a link carries");
}

/// A report of so many shares, of a kilobyte each.
fn observed(shares: u128) -> FromGateway {
    let problem = Some(Problem::new(Reason::AgentOffline, "x".repeat(1000)));
    let seen = ShareObserved { ready: None, problem };
    let shares = (0..shares).map(|n| (ShareId::new(Uuid::from_u128(n)), seen.clone())).collect();
    let delta = ObservedDelta { shares, ..ObservedDelta::default() };
    FromGateway::Observed { heard: 1, part: Part::WHOLE, delta }
}

#[tokio::test(start_paused = true)]
async fn a_message_longer_than_a_frame_arrives_whole_and_in_its_order() {
    let (server, gateway) = in_process_over_wire(GatewayId::new(Uuid::nil()), "local".parse().unwrap());
    let (send, mut receive) = (gateway.send, server.receive);
    assert!(codec::encode(&observed(5000)).unwrap().len() > 4 * MAX_BODY);
    let sent = [FromGateway::Resync, observed(5000), FromGateway::Draining, observed(3)];
    for message in sent.clone() {
        send.send(message).await.unwrap();
    }
    for message in sent {
        assert_eq!(receive.recv().await, Some(message));
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_missing_ends_the_link() {
    let (near, mut raw) = duplex(1 << 20);
    let (_server, pump) = server_pump(GatewayId::new(Uuid::nil()), "local".parse().unwrap(), near);
    let body = codec::encode(&observed(600).cut(ROWS_OF_PART)[1]).unwrap();
    let head = [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &[1]].concat();
    raw.write_all(&[head, body].concat()).await.unwrap();
    let broken = pump.run().await.unwrap_err().to_string();
    assert!(broken.starts_with("the other end sent a message without one of its parts"), "{broken}");
}

/// A stream that cannot be written to, and whose other end has said why.
struct Refused(Pin<Box<tokio::time::Sleep>>);

impl AsyncRead for Refused {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.as_mut().poll(cx).map(|()| Err(io::Error::other("the peer rejects the certificate")))
    }
}

impl AsyncWrite for Refused {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn the_reason_that_the_other_end_gave_is_told_instead_of_a_failed_write() {
    for (delay, said) in [(CAUSE / 2, "the peer rejects the certificate"), (2 * CAUSE, "broken pipe")] {
        let near = started(Refused(Box::pin(sleep(delay))));
        near.send.send(1).await.unwrap();
        let broken = near.ended.await.unwrap().unwrap_err();
        assert_eq!(broken.to_string(), format!("the connection broke: {said}"));
    }
}

/// What one end does.
#[derive(Debug, Clone)]
enum Step {
    Send(u32),
    /// Takes what has arrived.
    Take,
    Rest(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step =
        prop_oneof![any::<u32>().prop_map(Step::Send), Just(Step::Take), (0_u64..200).prop_map(Step::Rest)];
    prop::collection::vec(step, 0..30)
}

/// Carries the steps out, ends its sending, and takes the rest. Returns what it has sent and received.
async fn act(end: NumberedEnd, steps: Vec<Step>) -> (Vec<u32>, Vec<u32>, Ended) {
    let NumberedEnd { send, mut receive, ended } = end;
    let (mut sent, mut received) = (Vec::new(), Vec::new());
    for step in steps {
        match step {
            // As the ends of a link do: what finds no room is sent later.
            Step::Send(n) => sent.extend(send.try_send(n).is_ok().then_some(n)),
            Step::Take => received.extend(std::iter::from_fn(|| receive.try_recv())),
            Step::Rest(milliseconds) => sleep(Duration::from_millis(milliseconds)).await,
        }
    }
    drop(send);
    while let Some(n) = receive.recv().await {
        received.push(n);
    }
    (sent, received, ended)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// No end rests for as long as the other one bears it.
    #[test]
    fn all_that_was_sent_arrives_in_order(a in steps(), b in steps(), bytes in 1_usize..64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let (near, far) = linked(bytes);
            let rest = |steps: &[Step]| -> u64 {
                steps.iter().map(|step| if let Step::Rest(n) = step { *n } else { 0 }).sum()
            };
            // Both end at about the same time, so that each direction may finish.
            let (of_a, of_b) = (rest(&a), rest(&b));
            let longer = of_a.max(of_b);
            let padded = |mut steps: Vec<Step>, own| { steps.push(Step::Rest(longer - own)); steps };
            let ((sent_a, received_a, ended_a), (sent_b, received_b, ended_b)) =
                tokio::join!(act(near, padded(a, of_a)), act(far, padded(b, of_b)));
            assert_eq!((received_a, received_b), (sent_b, sent_a));
            for ended in [ended_a, ended_b] {
                let end = ended.await.unwrap();
                assert!(matches!(end, Ok(()) | Err(LinkBroken::Closed)), "{end:?}");
            }
        });
    }
}
