//! `/{frontdoorId}/events`: every change of status as it happens, as server-sent events.
//!
//! A reader that reconnects with the id of the last event it received gets every event since then; if they are no
//! longer kept, or the database has lost some, it gets a `reset` and must read the lists again. A reader that is too slow is disconnected, and may
//! reconnect.

use super::{
    access::{Answer, Reads},
    lasting::Permission,
    wire::{
        event::{event, greeting, heartbeat, last_event_id, reset},
        query::Query,
    },
};
use crate::{error::ApiError, event_feed::FeedMessage, state::AppState};
use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderValue,
        header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE},
    },
    response::IntoResponse,
};
use futures_util::stream;
use std::{convert::Infallible, time::Duration};
use tokio::{
    sync::{broadcast, mpsc},
    time::{Instant, sleep_until, timeout},
};
use wicketgate_model::FrontdoorId;
use wicketgate_store::EventSpan;

/// Shorter than the idle timeout of proxies.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);
/// Events queued for one reader, and the time after which a reader that takes none is disconnected.
const ON_THE_WAY: usize = 64;
pub(super) const SLOW: Duration = Duration::from_secs(10);
/// Longer ones would hold connections whose reader is gone.
pub(super) const LONGEST: Duration = Duration::from_secs(600);
/// Rows of one read.
const READ: u32 = 500;

pub(super) const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
/// Tells proxies to forward events at once.
pub(super) const UNBUFFERED: (&str, HeaderValue) = ("x-accel-buffering", HeaderValue::from_static("no"));

pub(super) async fn follow(Reads(at): Reads, headers: HeaderMap, query: Query) -> Answer {
    let [] = query.values([])?;
    if !is_accepted(&headers) {
        return Err(ApiError::not_acceptable());
    }
    let after = last_event_id(&headers)?;
    let place = at.state.follow(&at.frontdoor)?;
    // The order matters: subscribe, read the newest event, answer. Every write after the answer is then delivered.
    let live = at
        .state
        .feed
        .subscribe()
        .await
        .ok_or_else(|| ApiError::unavailable("The events can't be read now; try again"))?;
    let span = at.state.store.event_span_of(at.id()).await?;
    let (send, receive) = mpsc::channel(ON_THE_WAY);
    let permission = Permission::of(&at, &headers);
    let reader = Reader { frontdoor: at.id(), state: at.state, send };
    tokio::spawn(async move {
        tokio::select! {
            _ = reader.serve(after, span, live) => {}
            () = permission.ended() => {}
        }
        drop(place);
    });
    let body = stream::unfold(receive, async |mut receive: mpsc::Receiver<String>| {
        receive.recv().await.map(|text| (Ok::<_, Infallible>(text), receive))
    });
    let headers = [(CONTENT_TYPE, EVENT_STREAM), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((headers, [UNBUFFERED], Body::from_stream(body)).into_response())
}

fn is_accepted(headers: &HeaderMap) -> bool {
    let ranges: Vec<_> = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    let name = |range: &str| range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let fits = |range: &str| matches!(name(range).as_str(), "*/*" | "text/*" | "text/event-stream");
    ranges.is_empty() || ranges.iter().flat_map(|r| r.split(',')).any(fits)
}

/// The reader has gone, is too slow, or must reconnect.
struct Over;

struct Reader {
    state: AppState,
    frontdoor: FrontdoorId,
    send: mpsc::Sender<String>,
}

impl Reader {
    async fn serve(
        self,
        after: Option<u64>,
        span: EventSpan,
        mut live: broadcast::Receiver<FeedMessage>,
    ) -> Result<(), Over> {
        let feed = self.state.feed.clone();
        let end = Instant::now() + LONGEST;
        self.say(greeting(after.is_none().then_some(span.newest))).await?;
        let mut seen = self.catch_up(after, span).await?;
        loop {
            let heartbeat_at = Instant::now() + HEARTBEAT;
            tokio::select! {
                next = live.recv() => {
                    // Lagged: too slow. Closed: never while the feed exists.
                    match next.map_err(|_| Over)? {
                        FeedMessage::Event(row) if row.id > seen && row.frontdoor == self.frontdoor => {
                            seen = row.id;
                            self.say(event(&row)).await?;
                        }
                        FeedMessage::Event(_) => {}
                        FeedMessage::Reset(newest) => {
                            seen = newest;
                            self.say(reset(newest)).await?;
                        }
                    }
                }
                () = sleep_until(heartbeat_at) => self.say(heartbeat()).await?,
                () = sleep_until(end) => return Err(Over),
                () = feed.over().cancelled() => return Err(Over),
                () = self.send.closed() => return Err(Over),
            }
        }
    }

    /// Sends the events after `after`, and returns the id of the last one.
    async fn catch_up(&self, after: Option<u64>, span: EventSpan) -> Result<u64, Over> {
        let store = &self.state.store;
        let mut seen = match after {
            None => return Ok(span.newest),
            Some(after) if (span.forgotten..=span.newest).contains(&after) => after,
            Some(_) => {
                self.say(reset(span.newest)).await?;
                return Ok(span.newest);
            }
        };
        loop {
            let rows = store.events(Some(self.frontdoor), seen, READ).await.map_err(|_| Over)?;
            // Some of them may have been deleted meanwhile.
            let span = store.event_span_of(self.frontdoor).await.map_err(|_| Over)?;
            if span.forgotten > seen {
                self.say(reset(span.newest)).await?;
                return Ok(span.newest);
            }
            for row in &rows {
                self.say(event(row)).await?;
                seen = row.id;
            }
            if rows.len() < READ as usize {
                return Ok(seen);
            }
        }
    }

    async fn say(&self, text: String) -> Result<(), Over> {
        match timeout(SLOW, self.send.send(text)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Over),
        }
    }
}
