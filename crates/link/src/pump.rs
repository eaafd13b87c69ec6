//! A link over a stream of bytes: [`Pump`] moves messages between the channels of one end and the stream.
//!
//! Each end writes a beat when it has written nothing else for [`BEAT_EVERY`], and a stream without a byte for [`SILENCE`] is
//! dead. An end whose messages are not taken reads nothing more: silence does not count then, beats go on, and the other end waits
//! for [`SILENCE`] at most. Invariant: what was sent before an end was closed arrives, if the other end takes it within [`LINGER`],
//! and each direction ends by itself.

use crate::{
    FromGateway, GatewayEnd, Joiner, LinkKind, LinkReceiver, LinkRefusal, Parted, ROWS_OF_PART, ServerEnd,
    ToGateway, WireError,
    wire::{Frame, FrameReader, FrameWriter, ReadError},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{io, pin::pin, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite, split},
    select,
    sync::mpsc,
    time::timeout,
};
use wicketgate_model::{GatewayId, LocationId};

/// Messages that may wait at one end, in one direction: few, since each may have a megabyte, and a sender that finds no room sends
/// a later state instead.
const CAPACITY: usize = 4;
/// An end that has written nothing for this long writes a beat.
const BEAT_EVERY: Duration = Duration::from_secs(2);
/// A stream from which no byte has arrived for this long, or that has taken none, is dead: four beats.
const SILENCE: Duration = Duration::from_secs(8);
/// When one direction has ended, how long the other one may go on.
const LINGER: Duration = Duration::from_secs(8);
/// After a failed write, how long the cause may take to arrive.
const CAUSE: Duration = Duration::from_secs(1);

/// Why a link has ended, unless it was closed at this end. The text is for an operator.
#[derive(Debug, thiserror::Error)]
pub enum LinkBroken {
    #[error("the other end closed the link")]
    Closed,
    #[error("the connection broke: {0}")]
    Io(io::Error),
    #[error(
        "nothing has arrived from the other end for {} s: check its host and the network between", SILENCE.as_secs()
    )]
    Silent,
    #[error(
        "the other end has read nothing for {} s: check its host and the network between", SILENCE.as_secs()
    )]
    Stuck,
    #[error("the other end sent {0}: run the same version at both ends")]
    Received(WireError),
    #[error("cannot send {0}")]
    Unsendable(WireError),
}

/// Moves messages between the channels of one end and a stream. `Out` are the messages of this end.
#[derive(Debug)]
pub struct Pump<S, Out, In> {
    stream: S,
    outgoing: mpsc::Receiver<Out>,
    incoming: mpsc::Sender<In>,
}

/// The server's end of a link over a stream, whose other end is authenticated as this gateway.
pub fn server_pump<S>(
    gateway: GatewayId,
    location: LocationId,
    stream: S,
) -> (ServerEnd, Pump<S, ToGateway, FromGateway>) {
    let (send, receive, pump) = end(stream);
    (ServerEnd { gateway, location, kind: LinkKind::Network, send, receive }, pump)
}

/// Tells a gateway why it has no link, and closes the stream.
pub async fn refuse<S: AsyncRead + AsyncWrite>(stream: S, refusal: LinkRefusal) {
    let (send, receive, pump) = end::<S, ToGateway, FromGateway>(stream);
    // The channel is empty.
    let _ = send.try_send(ToGateway::Refused(refusal));
    drop((send, receive));
    let _ = pump.run().await;
}

/// The gateway's end of a link over a stream, whose other end is authenticated as a server.
pub fn gateway_pump<S>(stream: S) -> (GatewayEnd, Pump<S, FromGateway, ToGateway>) {
    let (send, receive, pump) = end(stream);
    (GatewayEnd { send, receive }, pump)
}

fn end<S, Out, In>(stream: S) -> (mpsc::Sender<Out>, LinkReceiver<In>, Pump<S, Out, In>) {
    let (send, outgoing) = mpsc::channel(CAPACITY);
    let (incoming, messages) = mpsc::channel(CAPACITY);
    (send, LinkReceiver::new(messages, None), Pump { stream, outgoing, incoming })
}

/// As [`in_process_encoded`](crate::in_process_encoded), over frames in memory that two tasks move: for tests.
pub fn in_process_over_wire(gateway: GatewayId, location: LocationId) -> (ServerEnd, GatewayEnd) {
    // Less than many a message, so that messages arrive in pieces.
    let (near, far) = tokio::io::duplex(1000);
    let (server, at_server) = server_pump(gateway, location, near);
    let (gateway, at_gateway) = gateway_pump(far);
    tokio::spawn(at_server.run());
    tokio::spawn(at_gateway.run());
    (server, gateway)
}

/// How reading ends without an error.
enum ReadEnd {
    /// The other end sends nothing more.
    Other,
    /// Nobody takes messages at this end.
    Here,
}

impl<S: AsyncRead + AsyncWrite, Out: Parted + Serialize, In: Parted + DeserializeOwned> Pump<S, Out, In> {
    /// Runs until the link has ended. This end closes it by dropping its senders, or its receiver. A link whose pump is dropped ends
    /// at once, and what waits is lost.
    ///
    /// # Errors
    ///
    /// The link was not closed at this end.
    pub async fn run(self) -> Result<(), LinkBroken> {
        let Self { stream, outgoing, incoming } = self;
        let (read, write) = split(stream);
        let mut read = pin!(read_all(FrameReader::new(read), incoming));
        let mut write = pin!(write_all(FrameWriter::new(write), outgoing));
        select! {
            end = &mut read => match end? {
                ReadEnd::Other => {
                    let _ = timeout(LINGER, write).await;
                    Err(LinkBroken::Closed)
                }
                ReadEnd::Here => {
                    let _ = timeout(LINGER, write).await;
                    Ok(())
                }
            },
            written = &mut write => match written {
                Ok(()) => {
                    let _ = timeout(LINGER, read).await;
                    Ok(())
                }
                // The other end may have said why before it went away.
                Err(LinkBroken::Io(error)) => match timeout(CAUSE, read).await {
                    Ok(Ok(ReadEnd::Other)) => Err(LinkBroken::Closed),
                    Ok(Err(cause)) => Err(cause),
                    _ => Err(LinkBroken::Io(error)),
                },
                broken => broken,
            },
        }
    }
}

async fn read_all<R: AsyncRead + Unpin, In: Parted + DeserializeOwned>(
    mut frames: FrameReader<R>,
    to: mpsc::Sender<In>,
) -> Result<ReadEnd, LinkBroken> {
    let mut joiner = Joiner::default();
    loop {
        while let Some(frame) = frames.take().map_err(LinkBroken::Received)? {
            let Frame::Message(part) = frame else { continue };
            let whole = joiner.take(part).map_err(|error| LinkBroken::Received(error.into()))?;
            let Some(message) = whole else { continue };
            if to.send(message).await.is_err() {
                return Ok(ReadEnd::Here);
            }
        }
        let read = select! {
            read = timeout(SILENCE, frames.fill()) => read.map_err(|_| LinkBroken::Silent)?,
            () = to.closed() => return Ok(ReadEnd::Here),
        };
        match read {
            Ok(()) => {}
            Err(ReadError::End) => return Ok(ReadEnd::Other),
            Err(ReadError::Io(error)) => return Err(LinkBroken::Io(error)),
        }
    }
}

async fn write_all<W: AsyncWrite + Unpin, Out: Parted + Serialize>(
    mut frames: FrameWriter<W>,
    mut from: mpsc::Receiver<Out>,
) -> Result<(), LinkBroken> {
    let mut parts = Vec::new().into_iter();
    loop {
        while !frames.is_empty() {
            in_time(frames.advance()).await?;
        }
        if let Some(part) = parts.next() {
            // One after another: no more than one of them waits in its encoded form.
            frames.queue(&Frame::Message(part)).map_err(LinkBroken::Unsendable)?;
            continue;
        }
        let frame: Frame<Out> = match timeout(BEAT_EVERY, from.recv()).await {
            Ok(Some(message)) => {
                parts = message.cut(ROWS_OF_PART).into_iter();
                continue;
            }
            Ok(None) => return in_time(frames.shut_down()).await,
            Err(_) => Frame::Beat,
        };
        frames.queue(&frame).map_err(LinkBroken::Unsendable)?;
    }
}

/// A step of writing.
async fn in_time(step: impl Future<Output = io::Result<()>>) -> Result<(), LinkBroken> {
    timeout(SILENCE, step).await.map_err(|_| LinkBroken::Stuck)?.map_err(LinkBroken::Io)
}

#[cfg(test)]
mod tests;
