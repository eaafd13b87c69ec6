//! Requests and their answers.

use std::{collections::BTreeSet, path::Path, time::Duration};

use tokio::time::timeout;

use crate::{
    Error, Message,
    packet::{Connection, Incoming, OUT_OF_TURN},
};

/// charon answers in milliseconds, and on a host without a free processor at some time: callers that cannot wait that long
/// have a bound of their own.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(90);

/// The limit of a streamed answer in parts: far above the SAs of one tunnel, it bounds memory.
const MAX_STREAMED: usize = 65_536;

/// A connection for requests, one at a time.
#[derive(Debug)]
pub struct Client {
    /// `None` after a timeout, a broken connection or a request that was cancelled: what is read next could be the answer
    /// to an earlier request.
    connection: Option<Connection>,
    /// The events that are registered on the connection.
    registered: BTreeSet<String>,
}

impl Client {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// [`Error::Connect`] if nothing listens there.
    pub async fn connect(path: &Path) -> Result<Self, Error> {
        Ok(Self::over(Connection::open(path).await?))
    }

    fn over(connection: Connection) -> Self {
        Self { connection: Some(connection), registered: BTreeSet::new() }
    }

    /// Sends a command and returns its answer. A request that is cancelled closes the connection.
    ///
    /// # Errors
    /// [`Error::Failed`] with charon's text for `success = no`; see [`Error`] for the others.
    pub async fn request(&mut self, command: &str, message: Message) -> Result<Message, Error> {
        self.exchange(command, None, message).await.map(|(_, response)| response)
    }

    /// Sends a command that answers in parts (`list-sas`, with the event `list-sa`), and returns these.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub async fn stream_request(
        &mut self,
        command: &str,
        event: &str,
        message: Message,
    ) -> Result<Vec<Message>, Error> {
        self.exchange(command, Some(event), message).await.map(|(parts, _)| parts)
    }

    async fn exchange(
        &mut self,
        command: &str,
        event: Option<&str>,
        message: Message,
    ) -> Result<(Vec<Message>, Message), Error> {
        let mut connection = self.connection.take().ok_or(Error::Closed)?;
        let exchange = exchange(&mut connection, &mut self.registered, command, event, &message);
        let result = timeout(REQUEST_TIMEOUT, exchange).await;
        let result = result.unwrap_or_else(|_| Err(Error::Timeout(command.to_owned())));
        // After these two errors the connection is in step; after any other it is not.
        if matches!(result, Ok(_) | Err(Error::Unknown(_) | Error::TooLarge)) {
            self.connection = Some(connection);
        }
        let (parts, response) = result?;
        match response.text("success") {
            Some("no") => Err(Error::Failed {
                command: command.to_owned(),
                message: response.text("errmsg").unwrap_or("no reason given").to_owned(),
            }),
            _ => Ok((parts, response)),
        }
    }
}

/// charon sends parts only to the client that asked, so their event stays registered: a repeated request takes one
/// round trip, not three.
async fn exchange(
    connection: &mut Connection,
    registered: &mut BTreeSet<String>,
    command: &str,
    event: Option<&str>,
    message: &Message,
) -> Result<(Vec<Message>, Message), Error> {
    if let Some(event) = event.filter(|event| !registered.contains(*event)) {
        connection.register(event).await?;
        registered.insert(event.to_owned());
    }
    connection.request(command, message).await?;
    let mut parts = Vec::new();
    loop {
        match connection.receive().await? {
            Incoming::Event(name, part) if Some(name.as_str()) == event && parts.len() < MAX_STREAMED => {
                parts.push(part);
            }
            Incoming::Response(response) => return Ok((parts, response)),
            Incoming::UnknownCommand => return Err(Error::Unknown(command.to_owned())),
            _ => return Err(OUT_OF_TURN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures_util::{SinkExt, StreamExt};
    use tokio::net::UnixStream;
    use tokio_util::codec::{Framed, LengthDelimitedCodec};

    fn pair() -> (Client, Framed<UnixStream, LengthDelimitedCodec>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Client::over(Connection::new(ours)), Framed::new(theirs, LengthDelimitedCodec::new()))
    }

    #[tokio::test]
    async fn success_no_is_an_error_and_keeps_the_connection() {
        let (mut client, mut charon) = pair();
        let daemon = tokio::spawn(async move {
            assert_eq!(&charon.next().await.unwrap().unwrap()[..], b"\x00\x04load");
            let no = b"\x01\x03\x07success\x00\x02no\x03\x06errmsg\x00\x03bad";
            charon.send(Bytes::from_static(no)).await.unwrap();
            charon.next().await.unwrap().unwrap();
            charon.send(Bytes::from_static(b"\x01\x03\x01a\x00\x01b")).await.unwrap();
            charon
        });
        let error = client.request("load", Message::new()).await.unwrap_err();
        assert_eq!(error.to_string(), "load failed: bad");
        assert_eq!(client.request("stats", Message::new()).await.unwrap().text("a"), Some("b"));
        drop(daemon.await.unwrap());
    }

    #[tokio::test]
    async fn an_event_of_parts_is_registered_once() {
        let (mut client, mut charon) = pair();
        let daemon = tokio::spawn(async move {
            assert_eq!(&charon.next().await.unwrap().unwrap()[..], b"\x03\x04part");
            charon.send(Bytes::from_static(b"\x05")).await.unwrap();
            for _ in 0..2 {
                assert_eq!(&charon.next().await.unwrap().unwrap()[..], b"\x00\x04list");
                charon.send(Bytes::from_static(b"\x07\x04part\x03\x01a\x00\x01b")).await.unwrap();
                charon.send(Bytes::from_static(b"\x01")).await.unwrap();
            }
            charon
        });
        for _ in 0..2 {
            let parts = client.stream_request("list", "part", Message::new()).await.unwrap();
            assert_eq!(parts.iter().map(|p| p.text("a")).collect::<Vec<_>>(), [Some("b")]);
        }
        drop(daemon.await.unwrap());
    }

    #[tokio::test]
    async fn a_request_fails_when_the_daemon_ends() {
        let (mut client, mut charon) = pair();
        let daemon = async move {
            charon.next().await.unwrap().unwrap();
            drop(charon);
        };
        let (result, ()) = tokio::join!(client.request("a", Message::new()), daemon);
        assert!(matches!(result, Err(Error::Closed)), "{result:?}");
        assert!(matches!(client.request("b", Message::new()).await, Err(Error::Closed)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_an_answer_times_out_and_closes_the_connection() {
        let (mut client, mut charon) = pair();
        assert!(matches!(client.request("a", Message::new()).await, Err(Error::Timeout(_))));
        assert!(matches!(client.request("b", Message::new()).await, Err(Error::Closed)));
        assert_eq!(&charon.next().await.unwrap().unwrap()[..], b"\x00\x01a");
        assert!(charon.next().await.is_none());
    }

    #[tokio::test]
    async fn a_cancelled_request_closes_the_connection() {
        let (mut client, mut charon) = pair();
        let cancelled = timeout(Duration::from_millis(20), client.request("first", Message::new())).await;
        assert!(cancelled.is_err());
        assert_eq!(&charon.next().await.unwrap().unwrap()[2..], b"first");
        // A late answer must not be taken for the next request's.
        assert!(matches!(client.request("second", Message::new()).await, Err(Error::Closed)));
        assert!(charon.next().await.is_none());
    }
}
