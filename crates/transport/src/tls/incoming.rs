//! The received bytes of a carrier, decrypted record by record.
//!
//! Invariant: decrypted bytes are consumed before anything else is read; an idle connection holds no buffer.

use super::{
    error::broken,
    record::{Opened, RecordOpener, TrafficKeys},
};
use crate::buffer::Buffer;
use rustls::InvalidMessage;
use std::{
    io, mem,
    ops::Range,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, ReadBuf};

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
    /// `sealed`: bytes that were received with the handshake's last message.
    pub(super) fn new(open: RecordOpener, sealed: &[u8]) -> io::Result<Self> {
        let mut buffer = Buffer::default();
        if !sealed.is_empty() {
            let room = buffer.take().get_mut(..sealed.len());
            room.ok_or_else(|| broken(InvalidMessage::MessageTooLarge))?.copy_from_slice(sealed);
        }
        Ok(Self { open, buffer, start: 0, end: sealed.len(), plain: 0..0, closed: false })
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

    /// Reads what is available, as long as it holds at most `most` bytes, `Ok(0)` at the end. `most` has room for a
    /// record. Earlier plaintext must have been consumed.
    pub(crate) fn poll_fill<R: AsyncRead + Unpin>(
        &mut self,
        tcp: &mut R,
        most: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let bytes = self.buffer.take();
        let most = most.min(bytes.len());
        if self.start > 0 {
            bytes.copy_within(self.start..self.end, 0);
            self.end -= mem::take(&mut self.start);
        }
        let mut room = ReadBuf::new(&mut bytes[self.end..most]);
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
