//! Frames of a link on a stream of bytes: the length of the body (u32, big endian), the kind (u8), and the body.
//!
//! | kind | frame | body |
//! |---|---|---|
//! | 1 | message | the message in JSON, at most 1 MiB |
//! | 2 | beat | empty |
//!
//! A beat says that its sender lives. It needs no answer: each end sends its own. Invariant: a frame that is too long or of
//! another kind is refused when its head is there, before any of its body is read.

use crate::{
    MissingPart,
    codec::{self, CodecError},
};
use bytes::{Buf, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    future::poll_fn,
    io::{self, ErrorKind},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

/// Bytes of the longest body. A message that is longer ends the link: deltas and reports of traffic have to be cut by rows.
pub(crate) const MAX_BODY: usize = 1024 * 1024;
/// Length and kind.
const HEAD: usize = 5;
const MESSAGE: u8 = 1;
const BEAT: u8 = 2;
/// Bytes that are written and flushed at once. A stream that encrypts takes more than it has sent, so that only the end of a
/// flush shows that the other end reads: a slow line has to carry so many bytes in the time that a write may take.
const PART: usize = 16 * 1024;
/// Bytes that are read at once, at least.
const READ: usize = 8 * 1024;

/// What a frame is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame<M> {
    Message(M),
    Beat,
}

/// Bytes that are no frame, or a message that is none.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("a message of {0} bytes, longer than the {MAX_BODY} that a link carries")]
    Long(usize),
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    #[error("a beat with a body of {0} bytes")]
    Body(usize),
    #[error("a malformed message")]
    Message(#[from] CodecError),
    #[error(transparent)]
    Part(#[from] MissingPart),
}

/// Why nothing more can be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    Io(io::Error),
    /// The stream ended between two frames.
    End,
}

/// Reads frames from a stream.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    stream: R,
    input: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(stream: R) -> Self {
        Self { stream, input: BytesMut::new() }
    }

    /// The next frame, if all of its bytes are there.
    pub(crate) fn take<M: DeserializeOwned>(&mut self) -> Result<Option<Frame<M>>, WireError> {
        let Some((head, rest)) = self.input.split_first_chunk::<HEAD>() else { return Ok(None) };
        let [length @ .., kind] = *head;
        let length = u32::from_be_bytes(length) as usize;
        match kind {
            MESSAGE if length > MAX_BODY => return Err(WireError::Long(length)),
            BEAT if length > 0 => return Err(WireError::Body(length)),
            MESSAGE | BEAT => {}
            other => return Err(WireError::Kind(other)),
        }
        let Some(body) = rest.get(..length) else {
            self.input.reserve(HEAD + length - self.input.len());
            return Ok(None);
        };
        let frame = if kind == BEAT { Frame::Beat } else { Frame::Message(codec::decode(body)?) };
        self.input.advance(HEAD + length);
        Ok(Some(frame))
    }

    /// Reads more bytes. Cancel-safe. The caller bounds it.
    pub(crate) async fn fill(&mut self) -> Result<(), ReadError> {
        self.input.reserve(READ);
        match self.stream.read_buf(&mut self.input).await {
            Ok(0) if self.input.is_empty() => Err(ReadError::End),
            Ok(0) => Err(ReadError::Io(ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(()),
            Err(error) => Err(ReadError::Io(error)),
        }
    }
}

/// Writes frames to a stream.
#[derive(Debug)]
pub(crate) struct FrameWriter<W> {
    stream: W,
    output: BytesMut,
    /// Bytes that the stream has taken since it was flushed.
    taken: usize,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub(crate) fn new(stream: W) -> Self {
        Self { stream, output: BytesMut::new(), taken: 0 }
    }

    /// Adds a frame to what is to be written.
    pub(crate) fn queue<M: Serialize>(&mut self, frame: &Frame<M>) -> Result<(), WireError> {
        let (kind, body) = match frame {
            Frame::Message(message) => (MESSAGE, codec::encode(message)?),
            Frame::Beat => (BEAT, Vec::new()),
        };
        let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX_BODY);
        let length = length.ok_or(WireError::Long(body.len()))?;
        self.output.extend_from_slice(&length.to_be_bytes());
        self.output.extend_from_slice(&[kind]);
        self.output.extend_from_slice(&body);
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.output.is_empty() && self.taken == 0
    }

    /// Waits until the stream has taken some of what is queued, or has sent what it took. Cancel-safe. The caller bounds it.
    pub(crate) async fn advance(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_advance(cx)).await
    }

    fn poll_advance(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.output.is_empty() || self.taken >= PART {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.taken = 0;
            return Poll::Ready(Ok(()));
        }
        let part = self.output.len().min(PART - self.taken);
        let n = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.output[..part]))?;
        if n == 0 {
            return Poll::Ready(Err(ErrorKind::WriteZero.into()));
        }
        self.output.advance(n);
        self.taken += n;
        Poll::Ready(Ok(()))
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn into_inner(self) -> W {
        self.stream
    }

    /// Ends the stream in this direction. The caller bounds it.
    pub(crate) async fn shut_down(&mut self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await
    }
}

#[cfg(test)]
mod tests;
