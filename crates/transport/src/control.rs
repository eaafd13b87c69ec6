//! The control connection of an agent, and the connection on which an agent enrols or a gateway joins: JSON messages, each preceded
//! by its length (u32, big endian).
//!
//! Receiving is cancel-safe: an incomplete message stays in the buffer. It also writes what was queued, so that a peer which
//! does not read delays nothing else.

mod messages;

pub use messages::{EnrolAnswer, FromAgent, JoinAnswer, TargetHealth, ToAgent};

use crate::tls::{Diagnosis, diagnosis::describe};
use bytes::{Buf, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fmt,
    future::poll_fn,
    io::{self, ErrorKind},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep_until, timeout, timeout_at},
};

/// The longest message. Assignments are sent in batches well below it.
pub const MAX_MESSAGE: usize = 1024 * 1024;
/// The longest message of an agent: its report. A gateway buffers no more than this for any peer.
pub const MAX_FROM_AGENT: usize = 16 * 1024;
/// Assignments in one message, of about 600 bytes each.
pub const ASSIGNMENTS_PER_MESSAGE: usize = 256;
/// Acknowledgements in one message of an agent, of about 60 bytes each.
pub const ACKS_PER_MESSAGE: usize = 128;
/// How often a gateway checks that the agent answers: users learn within 5 s that it does not.
pub const PING_EVERY: Duration = Duration::from_secs(1);
/// A control connection without a message for this long is dead: the line may come back sooner.
pub const SILENCE: Duration = Duration::from_secs(15);
/// How long a share rests after its last stream before a gateway has an agent probe the target, of the interval that the
/// share wants: streams often follow one another, and each election costs messages. The agent waits for the rest of the
/// interval.
pub fn rest_of(interval: Duration) -> Duration {
    /// Clients that connect every second or two would have the duty given and taken back for ever.
    const LEAST: Duration = Duration::from_secs(3);
    /// Longer intervals need no longer rest.
    const MOST: Duration = Duration::from_secs(20);
    (interval / 2).clamp(LEAST, MOST)
}

/// Bytes that wait for the peer: some of the longest messages. A caller adds no more of them while it is behind.
const MOST_QUEUED: usize = 4 * MAX_MESSAGE;
/// A peer that takes no byte of a message for this long does not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that carries messages.
#[derive(Debug)]
pub struct Control {
    stream: Box<dyn ByteStream>,
    input: BytesMut,
    output: Output,
    /// The longest message that is accepted.
    most: usize,
}

/// What is to be written.
#[derive(Debug, Default)]
struct Output {
    bytes: BytesMut,
    /// When the peer last took a byte, or the first one was queued; `None`: nothing is left.
    moved: Option<Instant>,
}

impl Output {
    /// Ready when nothing is left.
    fn poll(&mut self, stream: &mut Box<dyn ByteStream>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.bytes.is_empty() {
            let n = ready!(Pin::new(&mut *stream).poll_write(cx, &self.bytes))?;
            if n == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.bytes.advance(n);
            self.moved = Some(Instant::now());
        }
        if self.moved.is_some() {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.moved = None;
        }
        Poll::Ready(Ok(()))
    }
}

/// The connection below: TLS, or a pipe in tests.
pub(crate) trait ByteStream: AsyncRead + AsyncWrite + fmt::Debug + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + fmt::Debug + Unpin + Send> ByteStream for T {}

impl Control {
    pub(crate) fn new(stream: impl ByteStream + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            input: BytesMut::new(),
            output: Output::default(),
            most: MAX_MESSAGE,
        }
    }

    /// The end that an agent or a joining gateway has dialled, which accepts messages up to [`MAX_FROM_AGENT`].
    pub(crate) fn of_agent(stream: impl ByteStream + 'static) -> Self {
        Self { most: MAX_FROM_AGENT, ..Self::new(stream) }
    }

    /// The next message. Writes what was queued. Cancel-safe. The caller bounds it.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<T, ControlError> {
        loop {
            if let Some(message) = self.next().await? {
                return Ok(message);
            }
        }
    }

    /// Like [`Control::receive`]; `None`: what was queued is written, so that there is room for more.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ControlError> {
        loop {
            if let Some((length, rest)) = self.input.split_first_chunk::<4>() {
                let length = u32::from_be_bytes(*length) as usize;
                if length > self.most {
                    return Err(ControlError::Length(length));
                }
                if rest.len() >= length {
                    let message = serde_json::from_slice(&rest[..length]).map_err(ControlError::Message);
                    self.input.advance(4 + length);
                    return message.map(Some);
                }
                self.input.reserve(4 + length - self.input.len());
            }
            match self.read().await? {
                None => return Ok(None),
                Some(0) => return Err(ControlError::Closed),
                Some(_) => {}
            }
        }
    }

    /// Reads bytes, unless what was queued is written before there are some.
    async fn read(&mut self) -> Result<Option<usize>, ControlError> {
        let Self { stream, input, output, .. } = self;
        while let Some(moved) = output.moved {
            let either = poll_fn(|cx| {
                if let Poll::Ready(written) = output.poll(stream, cx) {
                    return Poll::Ready(written.map(|()| None));
                }
                pin!(stream.read_buf(input)).poll(cx).map_ok(Some)
            });
            match timeout_at(moved + WRITE_TIMEOUT, either).await {
                Ok(progress) => return Ok(progress?),
                Err(_) if output.moved == Some(moved) => return Err(ControlError::Stuck),
                Err(_) => {}
            }
        }
        Ok(Some(stream.read_buf(input).await?))
    }

    /// Reads nothing until this time, so that the peer has to wait. Writes what was queued, and ends early once it is written: there is
    /// room for more. Cancel-safe.
    pub async fn rest_until(&mut self, time: Instant) -> Result<(), ControlError> {
        let Self { stream, output, .. } = self;
        while let Some(moved) = output.moved {
            let write = poll_fn(|cx| output.poll(stream, cx));
            match timeout_at(time.min(moved + WRITE_TIMEOUT), write).await {
                Ok(written) => return Ok(written?),
                Err(_) if output.moved == Some(moved) && moved + WRITE_TIMEOUT <= Instant::now() => {
                    return Err(ControlError::Stuck);
                }
                Err(_) if time <= Instant::now() => return Ok(()),
                Err(_) => {}
            }
        }
        sleep_until(time).await;
        Ok(())
    }

    /// Queues a message, which [`Control::receive`] writes.
    pub fn queue<T: Serialize>(&mut self, message: &T) -> Result<(), ControlError> {
        let mut bytes = vec![0; 4];
        serde_json::to_writer(&mut bytes, message).map_err(ControlError::Message)?;
        let length = bytes.len() - 4;
        match u32::try_from(length) {
            Ok(n) if length <= MAX_MESSAGE => bytes[..4].copy_from_slice(&n.to_be_bytes()),
            _ => return Err(ControlError::Length(length)),
        }
        if self.output.bytes.len() + bytes.len() > MOST_QUEUED {
            return Err(ControlError::Stuck);
        }
        self.output.bytes.extend_from_slice(&bytes);
        self.output.moved.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Whether queued messages wait: the caller bounds what it queues by it.
    pub fn is_behind(&self) -> bool {
        self.output.moved.is_some()
    }

    /// Queues a message, and waits until it and those before it are written.
    pub async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), ControlError> {
        self.queue(message)?;
        let Self { stream, output, .. } = self;
        let write = poll_fn(|cx| output.poll(stream, cx));
        Ok(timeout(WRITE_TIMEOUT, write).await.map_err(|_| ControlError::Stuck)??)
    }

    /// Ends the connection in order.
    pub async fn close(mut self) {
        let _ = timeout(WRITE_TIMEOUT, self.stream.shutdown()).await;
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("the connection broke: {}", describe(.0))]
    Io(io::Error),
    #[error("the peer closed the connection")]
    Closed,
    #[error("the peer does not read, or does not follow the protocol")]
    Stuck,
    #[error("the peer did not answer for too long")]
    Silent,
    #[error("a message of {0} bytes is too long")]
    Length(usize),
    #[error("a message cannot be parsed")]
    Message(#[source] serde_json::Error),
}

// Not `#[from]`: it would also be the source, which repeats the message in the TLS library's words.
impl From<io::Error> for ControlError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl ControlError {
    /// What the TLS error means; `None`: it is not an error of TLS.
    pub fn diagnosis(&self) -> Option<Diagnosis> {
        match self {
            Self::Io(error) => Diagnosis::of(error),
            _ => None,
        }
    }

    /// Whether the peer, or a device on the path, ended the connection without a reason.
    pub fn is_hang_up(&self) -> bool {
        match self {
            Self::Closed => true,
            Self::Io(error) => matches!(
                error.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
            ),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test)
    }

    proptest! {
        #[test]
        fn messages_arrive_in_pieces_of_any_length(texts in proptest::collection::vec(".{0,40}", 1..6), cut in 1usize..40) {
            run(async {
                let (a, b) = tokio::io::duplex(cut);
                let (mut a, mut b) = (Control::new(a), Control::new(b));
                let hello = |name: &String| FromAgent::Hello { version: "1".into(), name: name.clone(), takes_duties: true, takes_over: false, learns_removal: false, learns_gateways: false };
                let send = async {
                    for text in &texts { a.send(&hello(text)).await.unwrap(); }
                };
                let receive = async {
                    for text in &texts { assert_eq!(b.receive::<FromAgent>().await.unwrap(), hello(text)); }
                };
                tokio::join!(send, receive);
            });
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            run(async {
                let (mut a, b) = tokio::io::duplex(1 << 16);
                a.write_all(&bytes).await.unwrap();
                drop(a);
                assert!(Control::new(b).receive::<ToAgent>().await.is_err());
            });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_heard_and_found_out() {
        let (a, b) = tokio::io::duplex(64);
        let (mut a, mut b) = (Control::new(a), Control::new(b));
        let long = ToAgent::Withdraw { shares: vec![wicketgate_model::ShareId::new(uuid::Uuid::nil()); 100] };
        a.queue(&long).unwrap();
        b.send(&FromAgent::Pong).await.unwrap();
        assert_eq!(a.receive::<FromAgent>().await.unwrap(), FromAgent::Pong);
        assert!(a.is_behind());
        // A cut call loses nothing, and a peer that reads slowly is waited for.
        assert!(timeout(WRITE_TIMEOUT / 2, a.receive::<FromAgent>()).await.is_err());
        let (heard, read) = tokio::join!(a.receive::<FromAgent>(), async {
            tokio::time::sleep(WRITE_TIMEOUT / 3).await;
            let read = b.receive::<ToAgent>().await;
            b.send(&FromAgent::Pong).await.unwrap();
            read
        });
        assert_eq!((heard.unwrap(), read.unwrap(), a.is_behind()), (FromAgent::Pong, long.clone(), false));
        a.queue(&long).unwrap();
        // Not even a caller that adds message after message takes more memory.
        let bound = (0..MOST_QUEUED).find_map(|_| a.queue(&long).err());
        assert!(matches!(bound, Some(ControlError::Stuck)) && a.output.bytes.len() <= MOST_QUEUED);
        let stuck = timeout(2 * WRITE_TIMEOUT, a.receive::<FromAgent>()).await.unwrap();
        assert!(matches!(stuck, Err(ControlError::Stuck)), "{stuck:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_has_to_wait_is_not_read_and_is_written_to() {
        let (a, b) = tokio::io::duplex(64);
        let (mut a, mut b) = (Control::new(a), Control::new(b));
        b.send(&FromAgent::Pong).await.unwrap();
        a.queue(&ToAgent::Ping).unwrap();
        let until = Instant::now() + Duration::from_secs(3);
        a.rest_until(until).await.unwrap();
        assert!(Instant::now() < until && !a.is_behind(), "there is room for more");
        assert_eq!(b.receive::<ToAgent>().await.unwrap(), ToAgent::Ping);
        a.rest_until(until).await.unwrap();
        assert!(Instant::now() >= until && a.input.is_empty());
        assert_eq!(a.receive::<FromAgent>().await.unwrap(), FromAgent::Pong);
        // One that does not read either is found out meanwhile.
        a.queue(&ToAgent::Withdraw { shares: vec![wicketgate_model::ShareId::new(uuid::Uuid::nil()); 100] })
            .unwrap();
        let until = Instant::now() + 9 * WRITE_TIMEOUT;
        assert!(matches!(a.rest_until(until).await, Err(ControlError::Stuck)));
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_it_is_read() {
        run(async {
            let (mut a, b) = tokio::io::duplex(64);
            a.write_all(&(MAX_MESSAGE as u32 + 1).to_be_bytes()).await.unwrap();
            let got = Control::new(b).receive::<ToAgent>().await;
            assert!(matches!(got, Err(ControlError::Length(_))), "{got:?}");
            // A gateway has a smaller limit.
            let (mut a, b) = tokio::io::duplex(64);
            a.write_all(&(MAX_FROM_AGENT as u32 + 1).to_be_bytes()).await.unwrap();
            let got = Control::of_agent(b).receive::<FromAgent>().await;
            assert!(matches!(got, Err(ControlError::Length(_))), "{got:?}");
        });
    }
}
