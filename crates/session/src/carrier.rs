//! A carrier: one mutually authenticated connection between a gateway and an agent, for one stream at a time.
//!
//! Parked, it waits for an `OPEN`; then it belongs to a stream until both sides have sent `END`, and is parked
//! again. Invariant: whatever else happens to a stream, its carrier is dropped with it; [`relay`](crate::relay)
//! gives a carrier back only after a clean end.

use crate::{
    frame::{FrameError, HEADER, Header, Kind, MAX_DATA, MAX_MESSAGE, Open, Refusal},
    tls::TlsStream,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io, mem,
    pin::Pin,
    task::{Context, Waker},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// Saying goodbye is a courtesy; the other end notices anyway.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Carrier<S = Box<TlsStream>> {
    pub(crate) io: S,
    pub(crate) input: Input,
    /// A frame on its way out: header and payload, so that they leave in one write.
    pub(crate) output: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum CarrierError {
    #[error("the carrier broke")]
    Io(#[from] io::Error),
    /// Without an `END`, this is never the end of a stream.
    #[error("the carrier was closed")]
    Closed,
    #[error("the carrier carried nonsense")]
    Frame(#[from] FrameError),
    #[error("the other end sent a frame that has no place here: {0:?}")]
    Unexpected(Kind),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Carrier<S> {
    pub fn new(io: S) -> Self {
        Self { io, input: Input::default(), output: Vec::new() }
    }

    /// The gateway's side: asks for a stream. The caller bounds it, and drops the carrier on an error.
    pub async fn open(&mut self, open: &Open) -> Result<Result<(), Refusal>, CarrierError> {
        self.send(Kind::Open, Some(open)).await?;
        let header = self.input.header(&mut self.io).await?;
        match header.kind {
            Kind::Opened => Ok(Ok(())),
            Kind::Refused => Ok(Err(self.message(header.length).await?)),
            other => Err(CarrierError::Unexpected(other)),
        }
    }

    /// The agent's side: waits for a stream. Cancel-safe.
    pub async fn next_open(&mut self) -> Result<Open, CarrierError> {
        let header = self.input.peek_header(&mut self.io).await?;
        if header.kind != Kind::Open {
            return Err(CarrierError::Unexpected(header.kind));
        }
        self.input.fill_to(&mut self.io, HEADER + header.length).await?;
        self.input.consume(HEADER);
        self.message(header.length).await
    }

    /// The agent's answer. After a refusal the carrier is parked.
    pub async fn answer(&mut self, answer: Result<(), &Refusal>) -> Result<(), CarrierError> {
        match answer {
            Ok(()) => self.send::<()>(Kind::Opened, None).await,
            Err(refusal) => self.send(Kind::Refused, Some(refusal)).await,
        }
    }

    /// The first bytes of an opened stream, which its target gets before the client's own.
    pub async fn preface(&mut self, bytes: &[u8]) -> Result<(), CarrierError> {
        if bytes.len() > MAX_DATA {
            return Err(FrameError::Message.into());
        }
        self.output.clear();
        self.output.extend(Header { kind: Kind::Data, length: bytes.len() }.encode());
        self.output.extend(bytes);
        self.io.write_all(&self.output).await?;
        Ok(self.io.flush().await?)
    }

    /// Whether a parked carrier is as it should be at the gateway: nothing has come, no end either.
    pub fn is_quiet(&mut self) -> bool {
        let mut probe = [0; 1];
        let mut probe = ReadBuf::new(&mut probe);
        self.input.is_empty()
            && Pin::new(&mut self.io)
                .poll_read(&mut Context::from_waker(Waker::noop()), &mut probe)
                .is_pending()
    }

    /// Gives the buffers of an ended stream back, while the carrier is parked.
    pub fn rest(&mut self) {
        self.input.shrink();
        self.output = Vec::new();
    }

    /// Ends a parked carrier with a goodbye.
    pub async fn close(mut self) {
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.io.shutdown()).await;
    }

    /// Tells the other end that the stream broke, and ends the carrier.
    pub(crate) async fn reset(mut self) {
        let tell = async {
            self.send::<()>(Kind::Reset, None).await?;
            self.io.shutdown().await.map_err(CarrierError::from)
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, tell).await;
    }

    async fn send<T: Serialize>(&mut self, kind: Kind, message: Option<&T>) -> Result<(), CarrierError> {
        self.output.clear();
        self.output.resize(HEADER, 0);
        if let Some(message) = message {
            serde_json::to_writer(&mut self.output, message).map_err(|_| FrameError::Message)?;
        }
        let length = self.output.len() - HEADER;
        if length > MAX_MESSAGE {
            return Err(FrameError::Message.into());
        }
        self.output[..HEADER].copy_from_slice(&Header { kind, length }.encode());
        self.io.write_all(&self.output).await?;
        Ok(self.io.flush().await?)
    }

    async fn message<T: DeserializeOwned>(&mut self, length: usize) -> Result<T, CarrierError> {
        self.input.fill_to(&mut self.io, length).await?;
        let message = serde_json::from_slice(&self.input.bytes()[..length]);
        self.input.consume(length);
        message.map_err(|_| FrameError::Message.into())
    }
}

/// What has been read of a carrier and not been used.
#[derive(Debug, Default)]
pub(crate) struct Input {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    /// Room for the messages of a parked carrier.
    const PARKED: usize = HEADER + MAX_MESSAGE;
    /// Room for a whole frame of a stream.
    const STREAM: usize = HEADER + MAX_DATA;

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(crate) fn consume(&mut self, n: usize) {
        self.start += n;
        debug_assert!(self.start <= self.end);
    }

    pub(crate) fn grow(&mut self) {
        self.buffer.resize(Self::STREAM, 0);
    }

    fn shrink(&mut self) {
        let rest = self.bytes().to_vec();
        *self = Self { start: 0, end: rest.len(), buffer: rest };
    }

    /// Reads once. Cancel-safe. The end of the connection is an error: it is never the end of a stream.
    pub(crate) async fn fill<R: AsyncRead + Unpin>(&mut self, io: &mut R) -> Result<(), CarrierError> {
        if self.buffer.len() < Self::PARKED {
            self.buffer.resize(Self::PARKED, 0);
        }
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= mem::take(&mut self.start);
        }
        match io.read(&mut self.buffer[self.end..]).await? {
            0 => Err(CarrierError::Closed),
            n => {
                self.end += n;
                Ok(())
            }
        }
    }

    async fn fill_to<R: AsyncRead + Unpin>(&mut self, io: &mut R, n: usize) -> Result<(), CarrierError> {
        while self.end - self.start < n {
            self.fill(io).await?;
        }
        Ok(())
    }

    /// The next frame's header, left where it is. Cancel-safe.
    pub(crate) async fn peek_header<R: AsyncRead + Unpin>(
        &mut self,
        io: &mut R,
    ) -> Result<Header, CarrierError> {
        loop {
            if let Some(header) = self.bytes().first_chunk::<HEADER>() {
                return Ok(Header::decode(*header)?);
            }
            self.fill(io).await?;
        }
    }

    #[inline]
    pub(crate) async fn header<R: AsyncRead + Unpin>(&mut self, io: &mut R) -> Result<Header, CarrierError> {
        let header = self.peek_header(io).await?;
        self.consume(HEADER);
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::RefusalReason;
    use wicketgate_model::{Generation, ShareId};

    fn an_open() -> Open {
        Open {
            share: ShareId::new(uuid::Uuid::from_u128(1)),
            generation: Generation::FIRST,
            client: "172.31.0.9:4000".parse().unwrap(),
        }
    }

    #[tokio::test]
    async fn a_stream_is_asked_for_and_refused_and_asked_for_again() {
        // A narrow pipe, so that every message is cut.
        let (a, b) = tokio::io::duplex(7);
        let (mut gateway, mut agent) = (Carrier::new(a), Carrier::new(b));
        let refusal = Refusal { reason: RefusalReason::ConnectionRefused, text: "connection refused".into() };
        assert!(gateway.is_quiet());
        let ask =
            async { (gateway.open(&an_open()).await.unwrap(), gateway.open(&an_open()).await.unwrap()) };
        let answer = async {
            assert_eq!(agent.next_open().await.unwrap(), an_open());
            agent.answer(Err(&refusal)).await.unwrap();
            agent.rest();
            assert_eq!(agent.next_open().await.unwrap(), an_open());
            agent.answer(Ok(())).await.unwrap();
        };
        let (answers, ()) = tokio::join!(ask, answer);
        assert_eq!(answers, (Err(refusal), Ok(())));
    }

    #[tokio::test]
    async fn a_parked_carrier_that_was_closed_is_seen() {
        let (a, b) = tokio::io::duplex(64);
        let mut gateway = Carrier::new(a);
        assert!(gateway.is_quiet());
        drop(b);
        assert!(!gateway.is_quiet());
        assert!(matches!(gateway.open(&an_open()).await, Err(CarrierError::Io(_) | CarrierError::Closed)));
    }

    #[tokio::test]
    async fn a_wait_that_was_cancelled_loses_nothing() {
        let (mut a, b) = tokio::io::duplex(1024);
        let mut agent = Carrier::new(b);
        let body = serde_json::to_vec(&an_open()).unwrap();
        let bytes = [&Header { kind: Kind::Open, length: body.len() }.encode()[..], &body].concat();
        for part in bytes.chunks(11) {
            a.write_all(part).await.unwrap();
            let waited = tokio::time::timeout(Duration::from_millis(1), agent.next_open()).await;
            if let Ok(open) = waited {
                assert_eq!(open.unwrap(), an_open());
                return;
            }
        }
        assert_eq!(agent.next_open().await.unwrap(), an_open());
    }
}
