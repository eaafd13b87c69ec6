//! A carrier: a mutually authenticated connection between a gateway and an agent, for one stream at a time.
//!
//! A parked carrier waits for an `OPEN`. Then it belongs to a stream until both sides have sent `END`, and is parked
//! again. Invariant: a stream that ends in any other way drops its carrier; [`relay`](crate::relay) returns a carrier
//! only after a clean end.

mod early_data;

pub use early_data::EarlyData;

use crate::{
    frame::{FrameError, FrameKind, MAX_DATA, MAX_MESSAGE, OpenRequest, StreamRefusal},
    tls::{Incoming, MARGIN, Next, RECORD_HEADER, RecordStream, TrafficKeys},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    future::poll_fn,
    io,
    ops::Range,
    task::{Context, Poll, Waker, ready},
};
use tokio::io::{AsyncRead, AsyncWriteExt};
use wicketgate_system::socket_buffers::freeze_receive_buffer;

/// The length of a frame without payload, as a record.
pub(crate) const BARE: usize = 1 + MARGIN;

#[derive(Debug)]
pub struct Carrier {
    pub(crate) stream: Box<RecordStream>,
    /// The last stream was refused: its early data may still arrive.
    refused: bool,
    pub(crate) worn: bool,
}

/// What a target does on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetSign {
    Data,
    /// It has closed or reset the connection.
    Ended,
}

#[derive(Debug, thiserror::Error)]
pub enum CarrierError {
    #[error("the carrier broke")]
    Io(#[from] io::Error),
    /// Without an `END`, this is never the end of a stream.
    #[error("the carrier was closed")]
    Closed,
    #[error("the carrier received an invalid frame")]
    Frame(#[from] FrameError),
    #[error("the peer sent an unexpected frame: {0:?}")]
    Unexpected(FrameKind),
}

impl Carrier {
    pub(crate) fn new(stream: RecordStream) -> Self {
        // Before a stream: the kernel would let it grow with the first bytes, before a limit is set, and it keeps what it has. Fails
        // only on kernels that cannot undo it.
        let _ = freeze_receive_buffer(&stream.tcp);
        Self { stream: Box::new(stream), refused: false, worn: false }
    }

    /// The gateway's side: requests a stream and sends its early data. The caller bounds the wait and drops the carrier
    /// after an error.
    pub async fn open(
        &mut self,
        open: &OpenRequest,
        early: &mut EarlyData<'_>,
    ) -> Result<Result<(), StreamRefusal>, CarrierError> {
        // Data that is there already leaves in the same write.
        let _ = early.poll_read(&mut Context::from_waker(Waker::noop()));
        let open = serde_json::to_vec(open).map_err(|_| FrameError::Message)?;
        let mut records = self.seal(FrameKind::Open, &open)?;
        if !early.bytes.is_empty() {
            records.extend(self.seal(FrameKind::Data, &early.bytes)?);
        }
        self.stream.tcp.write_all(&records).await?;
        let frame = loop {
            let RecordStream { tcp, keys, input, .. } = &mut *self.stream;
            let answer = poll_fn(|cx| match poll_frame(tcp, keys, input, cx) {
                Poll::Ready(frame) => Poll::Ready(Some(frame)),
                Poll::Pending => early.poll_read(cx).map(|()| None),
            });
            match answer.await {
                Some(frame) => break frame?,
                None => {
                    let record = self.seal(FrameKind::Data, early.of_client())?;
                    self.stream.tcp.write_all(&record).await?;
                }
            }
        };
        let answer = match FrameKind::of(self.stream.input.bytes(frame))? {
            (FrameKind::Opened, _) => Ok(()),
            (FrameKind::Refused, refusal) => Err(message(refusal)?),
            (other, _) => return Err(CarrierError::Unexpected(other)),
        };
        self.stream.input.give_back();
        Ok(answer)
    }

    /// The agent's side: waits for the next stream. Cancel-safe.
    pub async fn next_open(&mut self) -> Result<OpenRequest, CarrierError> {
        loop {
            let frame = self.frame().await?;
            let open = match FrameKind::of(self.stream.input.bytes(frame))? {
                (FrameKind::Open, open) => message(open)?,
                (FrameKind::Data, _) if self.refused => continue,
                (other, _) => return Err(CarrierError::Unexpected(other)),
            };
            self.stream.input.give_back();
            self.refused = false;
            return Ok(open);
        }
    }

    /// The agent's answer. After a refusal the carrier is parked.
    pub async fn answer(&mut self, answer: Result<(), &StreamRefusal>) -> Result<(), CarrierError> {
        self.refused = answer.is_err();
        match answer {
            Ok(()) => self.send::<()>(FrameKind::Opened, None).await,
            Err(refusal) => self.send(FrameKind::Refused, Some(refusal)).await,
        }
    }

    /// The gateway's side: whether a parked carrier is usable, which means that neither data nor an end has arrived.
    pub fn is_quiet(&mut self) -> bool {
        let RecordStream { tcp, input, .. } = &mut *self.stream;
        input.is_empty()
            && input.poll_fill(tcp, usize::MAX, &mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// The gateway's side: the next sign of the target on an open stream that nobody relays.
    pub async fn sign(&mut self) -> Result<TargetSign, CarrierError> {
        loop {
            let frame = self.frame().await?;
            match FrameKind::of(self.stream.input.bytes(frame))?.0 {
                FrameKind::Data => return Ok(TargetSign::Data),
                FrameKind::End | FrameKind::Reset => return Ok(TargetSign::Ended),
                FrameKind::Open | FrameKind::Opened | FrameKind::Refused => {}
            }
        }
    }

    /// Closes a parked carrier in order.
    pub fn close(self) {
        self.stream.close();
    }

    /// Resets the stream at the peer, and closes the carrier. If the peer takes no more bytes, the missing `END` tells it the
    /// same.
    pub fn reset(mut self) {
        if let Ok(record) = self.seal(FrameKind::Reset, &[])
            && self.stream.tcp.try_write(&record).is_ok_and(|n| n == record.len())
        {
            self.stream.close();
        }
    }

    /// A fast stream has made its receive buffer so large that much would wait in it for a slow one: it is closed instead of
    /// parked.
    pub fn is_worn(&self) -> bool {
        self.worn
    }

    async fn send<T: Serialize>(&mut self, kind: FrameKind, message: Option<&T>) -> Result<(), CarrierError> {
        let message = message.map(serde_json::to_vec).transpose().map_err(|_| FrameError::Message)?;
        let record = self.seal(kind, &message.unwrap_or_default())?;
        Ok(self.stream.tcp.write_all(&record).await?)
    }

    /// A frame as an encrypted record.
    fn seal(&mut self, kind: FrameKind, payload: &[u8]) -> Result<Vec<u8>, CarrierError> {
        if payload.len() > if kind == FrameKind::Data { MAX_DATA } else { MAX_MESSAGE } {
            return Err(FrameError::Length(payload.len()).into());
        }
        let RecordStream { keys, seal, .. } = &mut *self.stream;
        let mut bytes = seal.key_update(keys)?.unwrap_or_default();
        let at = bytes.len();
        bytes.resize(at + BARE + payload.len(), 0);
        bytes[at + RECORD_HEADER] = kind as u8;
        bytes[at + RECORD_HEADER + 1..][..payload.len()].copy_from_slice(payload);
        seal.data(&mut bytes[at..], 1 + payload.len())?;
        Ok(bytes)
    }

    /// The next frame's place in the input. Cancel-safe.
    async fn frame(&mut self) -> Result<Range<usize>, CarrierError> {
        let RecordStream { tcp, keys, input, .. } = &mut *self.stream;
        poll_fn(|cx| poll_frame(tcp, keys, input, cx)).await
    }
}

/// The next frame's place in the input.
pub(crate) fn poll_frame<R: AsyncRead + Unpin>(
    tcp: &mut R,
    keys: &TrafficKeys,
    input: &mut Incoming,
    cx: &mut Context<'_>,
) -> Poll<Result<Range<usize>, CarrierError>> {
    loop {
        match input.next(keys)? {
            Next::Plain(frame) => return Poll::Ready(Ok(frame)),
            Next::Closed => return Poll::Ready(Err(CarrierError::Closed)),
            Next::Wanting => {
                if ready!(input.poll_fill(tcp, usize::MAX, cx))? == 0 {
                    return Poll::Ready(Err(CarrierError::Closed));
                }
            }
        }
    }
}

fn message<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CarrierError> {
    serde_json::from_slice(bytes).map_err(|_| FrameError::Message.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        frame::RefusalReason,
        tls::tests::{connected, pair},
    };
    use std::time::Duration;
    use wicketgate_model::{Generation, ShareId};

    fn an_open() -> OpenRequest {
        OpenRequest {
            share: ShareId::new(uuid::Uuid::from_u128(1)),
            generation: Generation::FIRST,
            client: "172.31.0.9:4000".parse().unwrap(),
        }
    }

    async fn open(carrier: &mut Carrier) -> Result<Result<(), StreamRefusal>, CarrierError> {
        carrier.open(&an_open(), &mut EarlyData::default()).await
    }

    #[tokio::test]
    async fn early_data_follows_the_open_is_sent_again_after_a_refusal_and_arrives_once() {
        let (mut gateway, mut agent) = pair().await;
        let (mut client, mut inner) = connected().await;
        client.write_all(b"hello").await.unwrap();
        let mut early = EarlyData::new(b"preface, ".to_vec(), &mut inner);
        let refusal =
            StreamRefusal { reason: RefusalReason::ConnectionRefused, text: "connection refused".into() };
        let opens = async {
            let first = gateway.open(&an_open(), &mut early).await.unwrap();
            (first, gateway.open(&an_open(), &mut early).await.unwrap())
        };
        let answer = async {
            agent.next_open().await.unwrap();
            agent.answer(Err(&refusal)).await.unwrap();
            agent.next_open().await.unwrap();
            // Whether it was received before the OPEN or after it, the target gets it first.
            let mut got = Vec::new();
            while got.len() < b"preface, hello".len() {
                let frame = agent.frame().await.unwrap();
                let (kind, payload) = FrameKind::of(agent.stream.input.bytes(frame)).unwrap();
                assert_eq!(kind, FrameKind::Data);
                got.extend_from_slice(payload);
            }
            assert_eq!(got, b"preface, hello");
            agent.answer(Ok(())).await.unwrap();
        };
        let (answers, ()) = tokio::join!(opens, answer);
        assert_eq!(answers, (Err(refusal), Ok(())));
        assert!(matches!(early.end(), (5, None)));
    }

    #[tokio::test]
    async fn a_stream_is_refused_and_opened_again() {
        let (mut gateway, mut agent) = pair().await;
        let refusal =
            StreamRefusal { reason: RefusalReason::ConnectionRefused, text: "connection refused".into() };
        assert!(gateway.is_quiet());
        let both = async { (open(&mut gateway).await.unwrap(), open(&mut gateway).await.unwrap()) };
        let answer = async {
            assert_eq!(agent.next_open().await.unwrap(), an_open());
            agent.answer(Err(&refusal)).await.unwrap();
            assert_eq!(agent.next_open().await.unwrap(), an_open());
            agent.answer(Ok(())).await.unwrap();
        };
        let (answers, ()) = tokio::join!(both, answer);
        assert_eq!(answers, (Err(refusal), Ok(())));
        for carrier in [&gateway, &agent] {
            assert!(carrier.stream.input.is_empty() && carrier.stream.input.holds_nothing());
        }
    }

    #[tokio::test]
    async fn a_closed_carrier_is_not_quiet() {
        let (mut gateway, agent) = pair().await;
        assert!(gateway.is_quiet());
        drop(agent);
        while gateway.is_quiet() {
            tokio::task::yield_now().await;
        }
        assert!(matches!(open(&mut gateway).await, Err(CarrierError::Io(_) | CarrierError::Closed)));
    }

    #[tokio::test]
    async fn a_cancelled_wait_loses_no_bytes() {
        let (gateway, mut agent) = pair().await;
        let Carrier { stream, .. } = gateway;
        let RecordStream { mut tcp, mut seal, .. } = *stream;
        let body = serde_json::to_vec(&an_open()).unwrap();
        let mut bytes = vec![0; BARE + body.len()];
        bytes[RECORD_HEADER] = FrameKind::Open as u8;
        bytes[RECORD_HEADER + 1..][..body.len()].copy_from_slice(&body);
        seal.data(&mut bytes, 1 + body.len()).unwrap();
        for part in bytes.chunks(11) {
            tcp.write_all(part).await.unwrap();
            let waited = tokio::time::timeout(Duration::from_millis(1), agent.next_open()).await;
            if let Ok(open) = waited {
                assert_eq!(open.unwrap(), an_open());
                return;
            }
        }
        assert_eq!(agent.next_open().await.unwrap(), an_open());
    }
}
