//! Requests. One actor owns the connection and has one request in flight; a caller may stop waiting at any time.

use std::{collections::BTreeSet, path::Path, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use crate::{
    Error, Message,
    packet::{Connection, Incoming, Outgoing},
};

/// charon answers in milliseconds; `terminate` waits for the peer's answer, for as long as its own timeout says.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests that wait behind the one in flight.
const QUEUE: usize = 16;

/// The limit of a streamed answer in parts: far above the SAs of one tunnel, it bounds memory.
const MAX_STREAMED: usize = 65_536;

/// A connection for requests. Clones share it; it ends with the last one.
#[derive(Debug, Clone)]
pub struct Client {
    requests: mpsc::Sender<Request>,
}

#[derive(Debug)]
struct Request {
    command: String,
    /// The event that carries the parts of a streamed answer.
    event: Option<String>,
    message: Message,
    deadline: Instant,
    answer: oneshot::Sender<Result<Answer, Error>>,
}

#[derive(Debug)]
struct Answer {
    parts: Vec<Message>,
    response: Message,
}

impl Client {
    /// Connects to the socket at `path`. Must be called within a Tokio runtime, which runs the connection.
    ///
    /// # Errors
    /// [`Error::Connect`] if nothing listens there.
    pub async fn connect(path: &Path) -> Result<Self, Error> {
        Ok(Self::over(Connection::open(path).await?))
    }

    fn over(connection: Connection) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE);
        tokio::spawn(serve(connection, queue));
        Self { requests }
    }

    /// Sends a command and returns its answer.
    ///
    /// # Errors
    /// [`Error::Failed`] with charon's text for `success = no`; see [`Error`] for the others.
    pub async fn request(&self, command: &str, message: Message) -> Result<Message, Error> {
        self.ask(command, None, message).await.map(|answer| answer.response)
    }

    /// Sends a command that answers in parts (`list-sas`, with the event `list-sa`), and returns these.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub async fn stream_request(
        &self,
        command: &str,
        event: &str,
        message: Message,
    ) -> Result<Vec<Message>, Error> {
        self.ask(command, Some(event.to_owned()), message).await.map(|answer| answer.parts)
    }

    async fn ask(&self, command: &str, event: Option<String>, message: Message) -> Result<Answer, Error> {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let (answer, answered) = oneshot::channel();
        let request = Request { command: command.to_owned(), event, message, deadline, answer };
        let exchange = async {
            self.requests.send(request).await.map_err(|_| Error::Closed)?;
            answered.await.map_err(|_| Error::Closed)?
        };
        let answer =
            timeout_at(deadline, exchange).await.map_err(|_| Error::Timeout(command.to_owned()))??;
        match answer.response.text("success") {
            Some("no") => Err(Error::Failed {
                command: command.to_owned(),
                message: answer.response.text("errmsg").unwrap_or("no reason given").to_owned(),
            }),
            _ => Ok(answer),
        }
    }
}

/// Serves requests until no client is left, or the connection fails.
async fn serve(mut connection: Connection, mut queue: mpsc::Receiver<Request>) {
    let mut registered = BTreeSet::new();
    loop {
        let request = tokio::select! {
            request = queue.recv() => request,
            // No answer is due: anything that arrives, including the end of file, ends the connection.
            _ = connection.receive() => return,
        };
        let Some(Request { command, event, message, deadline, answer }) = request else { return };
        if answer.is_closed() {
            continue;
        }
        let exchange = exchange(&mut connection, &mut registered, &command, event.as_deref(), &message);
        let result = timeout_at(deadline, exchange).await.unwrap_or(Err(Error::Timeout(command)));
        // After these two the connection is in step; after any other error it is not.
        let is_in_step = matches!(result, Ok(_) | Err(Error::Unknown(_) | Error::TooLarge));
        if answer.send(result).is_err() {
            tracing::trace!("nobody waited for an answer");
        }
        if !is_in_step {
            return;
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
) -> Result<Answer, Error> {
    if let Some(event) = event.filter(|event| !registered.contains(*event)) {
        connection.send(&Outgoing::Register(event)).await?;
        confirm(connection, event).await?;
        registered.insert(event.to_owned());
    }
    connection.send(&Outgoing::Request(command, message)).await?;
    let mut parts = Vec::new();
    loop {
        match connection.receive().await? {
            Incoming::Event(name, part) if Some(name.as_str()) == event && parts.len() < MAX_STREAMED => {
                parts.push(part);
            }
            Incoming::Response(response) => return Ok(Answer { parts, response }),
            Incoming::UnknownCommand => return Err(Error::Unknown(command.to_owned())),
            _ => return Err(Error::Malformed("a packet came out of turn")),
        }
    }
}

/// Waits for the confirmation of a registration. Events before it are parts of no current request.
pub(crate) async fn confirm(connection: &mut Connection, event: &str) -> Result<(), Error> {
    loop {
        match connection.receive().await? {
            Incoming::Confirm => return Ok(()),
            Incoming::UnknownEvent => return Err(Error::Unknown(event.to_owned())),
            Incoming::Event(..) => {}
            _ => return Err(Error::Malformed("a packet came out of turn")),
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
    async fn success_no_is_an_error_and_the_connection_lives() {
        let (client, mut charon) = pair();
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
        let (client, mut charon) = pair();
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
    async fn the_end_of_the_daemon_ends_every_wait() {
        let (client, mut charon) = pair();
        let waits = [client.request("a", Message::new()), client.request("b", Message::new())];
        let waits = futures_util::future::join_all(waits);
        let daemon = async move {
            charon.next().await.unwrap().unwrap();
            drop(charon);
        };
        let (results, ()) = tokio::join!(waits, daemon);
        assert!(results.iter().all(|r| matches!(r, Err(Error::Closed))), "{results:?}");
        assert!(matches!(client.request("c", Message::new()).await, Err(Error::Closed)));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_a_timeout() {
        let (client, _charon) = pair();
        assert!(matches!(client.request("a", Message::new()).await, Err(Error::Timeout(_))));
    }

    #[tokio::test]
    async fn who_waits_may_go_away() {
        let (client, mut charon) = pair();
        let gone = tokio::spawn({
            let client = client.clone();
            async move { client.request("first", Message::new()).await }
        });
        assert_eq!(&charon.next().await.unwrap().unwrap()[2..], b"first");
        gone.abort();
        let second = tokio::spawn(async move { client.request("second", Message::new()).await });
        charon.send(Bytes::from_static(b"\x01\x03\x01n\x00\x011")).await.unwrap();
        assert_eq!(&charon.next().await.unwrap().unwrap()[2..], b"second");
        charon.send(Bytes::from_static(b"\x01\x03\x01n\x00\x012")).await.unwrap();
        assert_eq!(second.await.unwrap().unwrap().number("n"), Some(2));
    }
}
