//! The packets of a connection: a message and its purpose, after a length (32 bits, big endian).

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use std::path::Path;
use tokio::{net::UnixStream, time::timeout};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::{
    Error, Message,
    message::{put_name, take_name},
};

/// charon refuses to send or receive more than 512 KiB; the limit for reading is slightly above.
const MAX_FRAME: usize = 520 * 1024;

/// A local connection is made at once, unless the daemon's queue of connections is full.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);

const CMD_REQUEST: u8 = 0;
const CMD_RESPONSE: u8 = 1;
const CMD_UNKNOWN: u8 = 2;
const EVENT_REGISTER: u8 = 3;
const EVENT_CONFIRM: u8 = 5;
const EVENT_UNKNOWN: u8 = 6;
const EVENT: u8 = 7;

pub(crate) const OUT_OF_TURN: Error = Error::Malformed("a packet came out of turn");

/// What charon sends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    Response(Message),
    UnknownCommand,
    Confirm,
    UnknownEvent,
    Event(String, Message),
}

/// A connection to charon. Both directions can be cancelled at any await without losing or splitting a packet, because
/// the codec's buffers keep partial reads and writes.
#[derive(Debug)]
pub(crate) struct Connection(Framed<UnixStream, LengthDelimitedCodec>);

impl Connection {
    pub(crate) async fn open(path: &Path) -> Result<Self, Error> {
        let stream = timeout(CONNECT_TIMEOUT, UnixStream::connect(path))
            .await
            .map_err(|_| Error::Timeout("a connection".to_owned()))?
            .map_err(Error::Connect)?;
        Ok(Self::new(stream))
    }

    pub(crate) fn new(stream: UnixStream) -> Self {
        // The builder's defaults are the protocol's: four bytes, big endian, not counted in the length.
        let codec = LengthDelimitedCodec::builder().max_frame_length(MAX_FRAME).new_codec();
        Self(Framed::new(stream, codec))
    }

    pub(crate) async fn request(&mut self, command: &str, message: &Message) -> Result<(), Error> {
        self.0.send(encode(CMD_REQUEST, command, message)?).await.map_err(lost)
    }

    /// Registers for an event and waits for the confirmation. Earlier events are dropped: they are parts of no current
    /// request.
    pub(crate) async fn register(&mut self, event: &str) -> Result<(), Error> {
        self.0.send(encode(EVENT_REGISTER, event, &Message::new())?).await.map_err(lost)?;
        loop {
            match self.receive().await? {
                Incoming::Confirm => return Ok(()),
                Incoming::UnknownEvent => return Err(Error::Unknown(event.to_owned())),
                Incoming::Event(..) => {}
                _ => return Err(OUT_OF_TURN),
            }
        }
    }

    /// The next packet. Cancel-safe.
    pub(crate) async fn receive(&mut self) -> Result<Incoming, Error> {
        match self.0.next().await {
            Some(frame) => Incoming::decode(&frame.map_err(lost)?),
            None => Err(Error::Closed),
        }
    }
}

/// A killed daemon may also show as a reset or a broken pipe.
fn lost(error: std::io::Error) -> Error {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, InvalidData};
    match error.kind() {
        BrokenPipe | ConnectionReset => Error::Closed,
        InvalidData => Error::Malformed("a packet is too long"),
        _ => Error::Io(error),
    }
}

fn encode(kind: u8, name: &str, message: &Message) -> Result<Bytes, Error> {
    let mut out = BytesMut::new();
    put_name(kind, name, &mut out)?;
    message.encode(&mut out)?;
    if out.len() > MAX_FRAME { Err(Error::TooLarge) } else { Ok(out.freeze()) }
}

impl Incoming {
    fn decode(mut bytes: &[u8]) -> Result<Self, Error> {
        let (&kind, rest) = bytes.split_first().ok_or(Error::Malformed("a packet is empty"))?;
        bytes = rest;
        match kind {
            CMD_RESPONSE => Message::decode(bytes).map(Self::Response),
            CMD_UNKNOWN => Ok(Self::UnknownCommand),
            EVENT_CONFIRM => Ok(Self::Confirm),
            EVENT_UNKNOWN => Ok(Self::UnknownEvent),
            EVENT => {
                let name = take_name(&mut bytes)?;
                Ok(Self::Event(name, Message::decode(bytes)?))
            }
            _ => Err(Error::Malformed("a packet is of no known type")),
        }
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz {
    use super::*;

    /// An accepted event or response is encoded to the same bytes.
    pub fn vici_packet(bytes: &[u8]) {
        let again = match Incoming::decode(bytes) {
            Ok(Incoming::Event(name, message)) => encode(EVENT, &name, &message),
            Ok(Incoming::Response(message)) => {
                let mut out = BytesMut::from(&[CMD_RESPONSE][..]);
                message.encode(&mut out).map(|()| out.freeze())
            }
            Ok(_) | Err(_) => return,
        };
        // A packet that is longer is not received.
        assert!(bytes.len() > MAX_FRAME || again.is_ok_and(|again| again == bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        #[test]
        fn no_packet_panics(bytes in vec(any::<u8>(), 0..100)) {
            let _ = Incoming::decode(&bytes);
        }
    }

    #[test]
    fn packets_are_as_documented() {
        let request = encode(CMD_REQUEST, "version", &Message::new()).unwrap();
        assert_eq!(&request[..], b"\x00\x07version");
        assert_eq!(&encode(EVENT_REGISTER, "log", &Message::new()).unwrap()[..], b"\x03\x03log");
        let event = Incoming::decode(b"\x07\x03log\x03\x01a\x00\x01b").unwrap();
        assert_eq!(event, Incoming::Event("log".to_owned(), Message::new().set("a", "b")));
    }
}
