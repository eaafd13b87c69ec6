//! The event stream of a Frontdoor (server-sent events, WHATWG HTML §9.2).

use std::{collections::VecDeque, time::Duration};

use reqwest::{Method, Response};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use wicketgate_system::backoff::Backoff;

use crate::{ApiClient, Failure};

/// Bytes of one event: more is no event of the API.
const LONGEST: usize = 1 << 20;
/// Without a byte for this time, the connection is lost: the server sends a sign of life every 15 s.
const SILENCE: Duration = Duration::from_secs(45);
/// The pauses between connections: short after a restart of the server, long while it is away.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// A server that sent nothing for this time is not waited for any longer.
const GIVE_UP: Duration = Duration::from_secs(300);

/// A change of a resource's status, or of a tunnel's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Where to resume after it.
    pub id: String,
    /// `ipsec-share`, `ipsec-tunnel`, `environment`, `connection` or `reset`.
    pub kind: String,
    pub data: Value,
}

/// Events as they happen, over any number of connections.
#[derive(Debug)]
pub struct EventStream<'a> {
    client: &'a ApiClient,
    path: &'a str,
    query: &'a [(String, String)],
    last: Option<String>,
    connection: Option<Connection>,
    backoff: Backoff,
    /// When the server last sent something. `None`: it has not answered yet.
    heard: Option<Instant>,
}

#[derive(Debug)]
struct Connection {
    answer: Response,
    bytes: Vec<u8>,
    ready: VecDeque<Block>,
}

/// What an empty line ends.
#[derive(Debug, PartialEq, Eq)]
enum Block {
    Event(Event),
    /// Where a stream without events has begun.
    Position(String),
    /// A comment, which keeps the connection alive, or a setting.
    Other,
}

impl ApiClient {
    /// Follows the events at `path`, from the one after `last`, or from now on.
    pub fn follow<'a>(
        &'a self,
        path: &'a str,
        query: &'a [(String, String)],
        last: Option<&str>,
    ) -> EventStream<'a> {
        let backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        EventStream {
            client: self,
            path,
            query,
            last: last.map(str::to_owned),
            connection: None,
            backoff,
            heard: None,
        }
    }
}

impl EventStream<'_> {
    /// Connects: what happens from now on is an event of the stream, also if the connection is replaced before.
    ///
    /// # Errors
    /// As [`EventStream::next`].
    pub async fn begin(&mut self) -> Result<(), Failure> {
        let block = self.block().await?;
        if let Some(connection) = &mut self.connection {
            connection.ready.push_front(block);
        }
        Ok(())
    }

    /// The next event. A connection that ends or breaks is replaced by one that begins after the last event, or where the first
    /// connection began.
    ///
    /// # Errors
    /// The server was not reached at first, refuses, or has sent nothing for [`GIVE_UP`].
    pub async fn next(&mut self) -> Result<Event, Failure> {
        loop {
            if let Block::Event(event) = self.block().await? {
                return Ok(event);
            }
        }
    }

    async fn block(&mut self) -> Result<Block, Failure> {
        loop {
            let lost = match &mut self.connection {
                Some(connection) => match connection.next(&mut self.heard, &mut self.backoff).await {
                    Ok(block) => {
                        if let Block::Position(id) | Block::Event(Event { id, .. }) = &block
                            && !id.is_empty()
                        {
                            self.last = Some(id.clone());
                        }
                        return Ok(block);
                    }
                    Err(failure) => failure,
                },
                None => match self.connect().await {
                    Ok(connection) => {
                        self.connection = Some(connection);
                        self.heard.get_or_insert_with(Instant::now);
                        continue;
                    }
                    Err(failure) => failure,
                },
            };
            self.connection = None;
            let is_renewed = matches!(lost, Failure::NotSignedIn { .. }) && self.client.can_renew().await;
            let is_over = self.heard.is_none_or(|heard| heard.elapsed() >= GIVE_UP);
            if is_over || !(lost.is_temporary() || is_renewed) {
                return Err(lost);
            }
            sleep(self.backoff.randomized()).await;
        }
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let mut request = self.client.request(Method::GET, self.path).await?.query(self.query);
        request = request.header(reqwest::header::ACCEPT, "text/event-stream");
        if let Some(last) = &self.last {
            request = request.header("Last-Event-ID", last);
        }
        let answer = timeout(SILENCE, self.client.answered_at_once(request)).await;
        let answer = answer.unwrap_or_else(|_| Err(Failure::silent(self.client.base())))?;
        Ok(Connection { answer, bytes: Vec::new(), ready: VecDeque::new() })
    }
}

impl Connection {
    async fn next(&mut self, heard: &mut Option<Instant>, backoff: &mut Backoff) -> Result<Block, Failure> {
        loop {
            if let Some(block) = self.ready.pop_front() {
                return Ok(block);
            }
            let url = self.answer.url().clone();
            let chunk = timeout(SILENCE, self.answer.chunk()).await;
            let chunk = chunk.map_err(|_| Failure::silent(&url))?;
            let Some(chunk) = chunk.map_err(|e| Failure::unreachable(&url, &e))? else {
                return Err(Failure::Unreachable {
                    url,
                    why: "the server ended the stream".to_owned(),
                    may_be_done: true,
                });
            };
            *heard = Some(Instant::now());
            backoff.reset();
            self.bytes.extend_from_slice(&chunk);
            while let Some(end) = self.bytes.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.bytes.drain(..end + 2).collect();
                self.ready.push_back(parse(&String::from_utf8_lossy(&block)));
            }
            if self.bytes.len() > LONGEST {
                return Err(Failure::TooLarge(url));
            }
        }
    }
}

fn parse(block: &str) -> Block {
    let field = |name: &str| {
        let lines = block.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let values: Vec<_> = lines.map(|value| value.strip_prefix(' ').unwrap_or(value)).collect();
        (!values.is_empty()).then(|| values.join("\n"))
    };
    match (field("id"), field("event"), field("data")) {
        (id, Some(kind), Some(data)) => {
            let data = serde_json::from_str(&data).unwrap_or_default();
            Block::Event(Event { id: id.unwrap_or_default(), kind, data })
        }
        (Some(id), _, None) => Block::Position(id),
        _ => Block::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_an_event_and_a_comment_is_none() {
        let event = |block: &str| match parse(block) {
            Block::Event(event) => event,
            other => panic!("{block} is {other:?}"),
        };
        let share = event("event: ipsec-share\nid: 7\ndata: {\"status\":\n data: \"NEW\"}\n\n");
        assert_eq!(share.kind, "ipsec-share");
        let connection = event("id:9\nevent:connection\ndata:{\"id\": \"tnl\"}\n\n");
        assert_eq!((connection.id.as_str(), connection.data["id"].as_str()), ("9", Some("tnl")));
        assert_eq!(parse(": heartbeat\n\n"), Block::Other);
        assert_eq!(parse("retry: 2000\nid: 5\n\n"), Block::Position("5".to_owned()));
    }
}
