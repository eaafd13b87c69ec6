//! An established connection of a link.
//!
//! Invariant: an error is a [`Diagnosis`] or one of the operating system, and never in the words of the TLS library.

use super::diagnosis::Diagnosis;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsStream;

/// Either end of an authenticated connection that carries the frames of a link.
#[derive(Debug)]
pub struct LinkStream(Box<TlsStream<TcpStream>>);

impl LinkStream {
    pub(super) fn new(stream: impl Into<TlsStream<TcpStream>>) -> Self {
        Self(Box::new(stream.into()))
    }
}

fn told(error: io::Error) -> io::Error {
    match Diagnosis::of(&error) {
        Some(diagnosis) => io::Error::new(error.kind(), diagnosis),
        None => error,
    }
}

impl AsyncRead for LinkStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into).map_err(told)
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes).map_err(told)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx).map_err(told)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx).map_err(told)
    }
}
