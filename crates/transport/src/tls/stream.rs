//! An established TLS connection over TCP: a byte stream, and for carriers the records themselves.
//!
//! Invariant: decrypted bytes are consumed before anything else is read; an idle connection holds no buffer.

use super::{
    broken,
    handshake::Done,
    record::{HEADER, MAX_PLAIN, Opened, RecordOpener, RecordSealer, SLOT, TrafficKeys},
};
use crate::buffer::Buffer;
use rustls::InvalidMessage;
use std::{
    fmt,
    io::{self, ErrorKind},
    mem,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// An established connection, either end of it.
pub struct TlsStream {
    pub(crate) tcp: TcpStream,
    pub(crate) keys: TrafficKeys,
    pub(crate) seal: RecordSealer,
    pub(crate) input: Incoming,
    /// Encrypted and not sent yet.
    output: Vec<u8>,
    sent: usize,
    closing: bool,
}

impl TlsStream {
    pub(super) fn new(tcp: TcpStream, done: Done) -> io::Result<Self> {
        let Done { seal, open, keys, plain, sealed, .. } = done;
        let mut input = Incoming::new(open);
        if plain.len() + sealed.len() > 0 {
            let room = input.buffer.take();
            let all = [plain.as_slice(), sealed.as_slice()].concat();
            let room = room.get_mut(..all.len());
            room.ok_or_else(|| broken(InvalidMessage::MessageTooLarge.into()))?.copy_from_slice(&all);
            (input.plain, input.start, input.end) = (0..plain.len(), plain.len(), all.len());
        }
        Ok(Self { tcp, keys, seal, input, output: Vec::new(), sent: 0, closing: false })
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.output.len() {
            match ready!(Pin::new(&mut self.tcp).poll_write(cx, &self.output[self.sent..]))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                n => self.sent += n,
            }
        }
        (self.output, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }
}

/// Received bytes that were not consumed yet.
pub(crate) struct Incoming {
    open: RecordOpener,
    buffer: Buffer,
    /// Not decrypted yet.
    start: usize,
    end: usize,
    /// Decrypted.
    plain: Range<usize>,
    /// The peer has ended the connection. The record of that stays in the buffer and is not decrypted again.
    closed: bool,
}

/// The next record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The range of its plaintext, valid for [`Incoming::bytes`] until more is read.
    Plain(Range<usize>),
    /// It is incomplete.
    Wanting,
    /// The peer has ended the connection.
    Closed,
}

impl Incoming {
    fn new(open: RecordOpener) -> Self {
        Self { open, buffer: Buffer::default(), start: 0, end: 0, plain: 0..0, closed: false }
    }

    pub(crate) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.buffer.bytes()[range]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end && self.plain.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn holds_nothing(&self) -> bool {
        self.buffer.bytes().is_empty()
    }

    /// Returns the plaintext of the last record to the input.
    pub(crate) fn put_back(&mut self, plain: Range<usize>) {
        self.plain = plain;
    }

    /// Decrypts the next record, if it is complete.
    pub(crate) fn next(&mut self, keys: &TrafficKeys) -> io::Result<Next> {
        if !self.plain.is_empty() {
            return Ok(Next::Plain(mem::take(&mut self.plain)));
        }
        loop {
            let start = self.start;
            if self.closed {
                return Ok(Next::Closed);
            }
            if start == self.end {
                return Ok(Next::Wanting);
            }
            match self.open.open(&mut self.buffer.bytes_mut()[start..self.end], keys)? {
                Opened::Partial => return Ok(Next::Wanting),
                Opened::Closed => self.closed = true,
                Opened::Handled { record } => self.start += record,
                Opened::Data { plain, record } => {
                    self.start += record;
                    if !plain.is_empty() {
                        return Ok(Next::Plain(start + plain.start..start + plain.end));
                    }
                }
            }
        }
    }

    /// Reads what is available, `Ok(0)` at the end. Earlier plaintext must have been consumed.
    pub(crate) fn poll_fill<R: AsyncRead + Unpin>(
        &mut self,
        tcp: &mut R,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let bytes = self.buffer.take();
        if self.start > 0 {
            bytes.copy_within(self.start..self.end, 0);
            self.end -= mem::take(&mut self.start);
        }
        let mut room = ReadBuf::new(&mut bytes[self.end..]);
        let read = Pin::new(tcp).poll_read(cx, &mut room);
        let n = room.filled().len();
        self.end += n;
        self.give_back();
        read.map_ok(|()| n)
    }

    /// Returns the buffer if it is empty.
    pub(crate) fn give_back(&mut self) {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
            self.buffer.give_back();
        }
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { tcp, keys, input, .. } = self.get_mut();
        loop {
            match input.next(keys)? {
                Next::Plain(mut plain) => {
                    let n = plain.len().min(room.remaining());
                    room.put_slice(input.bytes(plain.start..plain.start + n));
                    plain.start += n;
                    input.put_back(plain);
                    input.give_back();
                    return Poll::Ready(Ok(()));
                }
                Next::Closed => return Poll::Ready(Ok(())),
                Next::Wanting => {
                    if ready!(input.poll_fill(tcp, cx))? == 0 {
                        return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
                    }
                }
            }
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_sent(cx))?;
        if let Some(update) = this.seal.key_update(&this.keys)? {
            this.output = update;
        }
        let (at, n) = (this.output.len(), bytes.len().min(MAX_PLAIN));
        this.output.resize(at + n + SLOT - MAX_PLAIN, 0);
        this.output[at + HEADER..at + HEADER + n].copy_from_slice(&bytes[..n]);
        this.seal.data(&mut this.output[at..], n)?;
        // The rest is sent by the flush.
        match this.poll_sent(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(n)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_sent(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !mem::replace(&mut this.closing, true) {
            this.output.extend(this.seal.close_notify()?);
        }
        ready!(this.poll_sent(cx))?;
        Pin::new(&mut this.tcp).poll_shutdown(cx)
    }
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsStream({:?})", self.tcp.peer_addr())
    }
}
