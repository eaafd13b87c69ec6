//! The event stream of a Frontdoor (server-sent events, WHATWG HTML §9.2).

use std::collections::VecDeque;

use reqwest::{Method, Response};
use serde_json::Value;

use crate::{ApiClient, Failure};

/// Bytes of one event: more is no event of the API.
const LONGEST: usize = 1 << 20;

/// A change of a resource's status, or of a tunnel's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Where to resume after it.
    pub id: String,
    /// `ipsec-share`, `ipsec-tunnel`, `environment`, `connection` or `reset`.
    pub kind: String,
    pub data: Value,
}

/// Events as they happen.
#[derive(Debug)]
pub struct EventStream {
    answer: Response,
    bytes: Vec<u8>,
    ready: VecDeque<Event>,
}

impl ApiClient {
    /// Follows the events at `path`, from the one after `last`, or from now on.
    ///
    /// # Errors
    /// As [`ApiClient::get`].
    pub async fn events(&self, path: &str, last: Option<&str>) -> Result<EventStream, Failure> {
        let mut request = self.request(Method::GET, path).await?;
        request = request.header(reqwest::header::ACCEPT, "text/event-stream");
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        Ok(EventStream { answer: self.answered(request).await?, bytes: Vec::new(), ready: VecDeque::new() })
    }
}

impl EventStream {
    /// The next event. `None`: the server has ended the stream.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> Result<Option<Event>, Failure> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let chunk = self.answer.chunk().await;
            let chunk = chunk.map_err(|e| Failure::unreachable(self.answer.url(), &e))?;
            let Some(chunk) = chunk else { return Ok(None) };
            self.bytes.extend_from_slice(&chunk);
            while let Some(end) = self.bytes.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.bytes.drain(..end + 2).collect();
                self.ready.extend(parse(&String::from_utf8_lossy(&block)));
            }
            if self.bytes.len() > LONGEST {
                return Ok(None);
            }
        }
    }
}

/// The event of a block of lines. `None`: a comment, which keeps the connection alive.
fn parse(block: &str) -> Option<Event> {
    let field = |name: &str| {
        let lines = block.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let values: Vec<_> = lines.map(|value| value.strip_prefix(' ').unwrap_or(value)).collect();
        (!values.is_empty()).then(|| values.join("\n"))
    };
    let data = serde_json::from_str(&field("data")?).unwrap_or_default();
    Some(Event { id: field("id").unwrap_or_default(), kind: field("event")?, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_an_event_and_a_comment_is_none() {
        let event = parse("event: ipsec-share\nid: 7\ndata: {\"status\":\n data: \"NEW\"}\n\n");
        assert_eq!(event.unwrap().kind, "ipsec-share");
        let event = parse("id:9\nevent:connection\ndata:{\"id\": \"tnl\"}\n\n").unwrap();
        assert_eq!((event.id.as_str(), event.data["id"].as_str()), ("9", Some("tnl")));
        assert_eq!(parse(": heartbeat\n\n"), None);
    }
}
