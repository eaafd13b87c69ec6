//! The first bytes for a target: a preface, and what the client sends before the stream is open.
//!
//! They are sent behind the `OPEN`, which saves a round trip, and kept until the stream is open, so that they can be
//! sent to another agent.

use crate::{buffer::Buffer, frame::MAX_DATA};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
};

/// See the module.
#[derive(Debug, Default)]
pub struct EarlyData<'a> {
    /// Read once: the relay reads what follows.
    client: Option<&'a mut TcpStream>,
    pub(super) bytes: Vec<u8>,
    /// The number of the last bytes that are the client's.
    of_client: usize,
    broken: Option<io::Error>,
}

impl<'a> EarlyData<'a> {
    /// `preface`: no longer than a frame.
    pub fn new(preface: Vec<u8>, client: &'a mut TcpStream) -> Self {
        Self { client: Some(client), bytes: preface, ..Self::default() }
    }

    /// Of a connection without a client.
    pub fn preface(preface: Vec<u8>) -> Self {
        Self { bytes: preface, ..Self::default() }
    }

    /// How many bytes the client has sent, and the error of its connection, if it has broken.
    pub fn end(self) -> (u64, Option<io::Error>) {
        (self.of_client as u64, self.broken)
    }

    /// The client's bytes, without the preface.
    pub(super) fn of_client(&self) -> &[u8] {
        &self.bytes[self.bytes.len() - self.of_client..]
    }

    /// Ready when the client has sent something.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(client) = &mut self.client else { return Poll::Pending };
        let mut buffer = Buffer::default();
        let mut room = ReadBuf::new(&mut buffer.take()[..MAX_DATA.saturating_sub(self.bytes.len())]);
        let read = ready!(Pin::new(&mut **client).poll_read(cx, &mut room));
        self.client = None;
        match read {
            Ok(()) if room.filled().is_empty() => Poll::Pending,
            Ok(()) => {
                self.of_client = room.filled().len();
                self.bytes.extend_from_slice(room.filled());
                Poll::Ready(())
            }
            Err(error) => {
                self.broken = Some(error);
                Poll::Pending
            }
        }
    }
}
