//! A pool of connections that says within [`SUSPECT`] and [`ANSWER`] why it has none.
//!
//! A pool alone retries a connection that is refused until its timeout, and then reports only the timeout.

use crate::{database_fault::DatabaseFault, database_session::PoolGeneration, request_time::waited};
use sqlx::{Any, AnyConnection, AnyPool, ConnectOptions as _, Connection as _, pool::PoolConnection};
use std::{
    io,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

/// A connection that is not there after this time is suspicious: a new one takes some milliseconds.
const SUSPECT: Duration = Duration::from_millis(300);
/// For the attempt to connect that then shows the cause.
const ANSWER: Duration = Duration::from_secs(1);
/// The pool's own bound is shorter.
const LONGEST: Duration = Duration::from_secs(5);
/// For the answer of a connection that goes back to the pool: a round trip.
const BACK: Duration = Duration::from_secs(1);
/// How long the result of an attempt is used by all that wait: a burst of requests makes one attempt.
const FRESH: Duration = Duration::from_millis(500);

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    pool: AnyPool,
    /// `None`: a file is always reachable.
    attempts: Option<Arc<Mutex<Option<Attempt>>>>,
    pub(crate) generation: PoolGeneration,
}

/// The last attempt to connect beside the pool.
#[derive(Debug)]
struct Attempt {
    at: Instant,
    failure: Option<(io::ErrorKind, String)>,
}

impl Connections {
    pub(crate) fn to_file(pool: AnyPool) -> Self {
        Self { pool, attempts: None, generation: PoolGeneration::default() }
    }

    /// `generation` is that by which the pool tests its connections.
    pub(crate) fn to_server(pool: AnyPool, generation: PoolGeneration) -> Self {
        Self { pool, attempts: Some(Arc::default()), generation }
    }

    /// A connection of the pool, as soon as one is free.
    pub(crate) async fn acquire(&self) -> sqlx::Result<Leased> {
        let acquired = async {
            tokio::select! {
                biased;
                acquired = self.pool.acquire() => acquired,
                failure = self.failure() => Err(failure),
            }
        };
        let connection = waited(LONGEST, acquired).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
        Ok(Leased { connection, is_bounded: self.attempts.is_some(), is_closed: false })
    }

    /// Waits until connecting fails. While it succeeds, the pool's connections are merely in use.
    async fn failure(&self) -> sqlx::Error {
        loop {
            sleep(SUSPECT).await;
            let Some(attempts) = &self.attempts else { continue };
            let mut last = attempts.lock().await;
            if last.as_ref().is_none_or(|attempt| attempt.at.elapsed() > FRESH) {
                let failure = self.attempt().await;
                *last = Some(Attempt { at: Instant::now(), failure });
            }
            if let Some((kind, text)) = last.as_ref().and_then(|attempt| attempt.failure.as_ref()) {
                return sqlx::Error::Io(io::Error::new(*kind, text.clone()));
            }
        }
    }

    async fn attempt(&self) -> Option<(io::ErrorKind, String)> {
        let options = self.pool.connect_options();
        let connected = async { AnyConnection::close(options.connect().await?).await };
        let error = timeout(ANSWER, connected)
            .await
            .unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into())))
            .err()?;
        match DatabaseFault::of(&error) {
            DatabaseFault::Unreachable(kind) => Some((kind, error.to_string())),
            fault if fault.is_unreachable() => Some((io::ErrorKind::ConnectionRefused, error.to_string())),
            _ => None,
        }
    }

    /// Waits for running statements, and closes all connections.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

/// A connection of the pool, which tests it when it comes back. One to a host that is gone would keep its place there until TCP gives
/// up, and with it the end of the pool: it is closed if it does not answer within [`BACK`].
#[derive(Debug)]
pub(crate) struct Leased {
    connection: PoolConnection<Any>,
    /// A file always answers, late if its disk does.
    is_bounded: bool,
    is_closed: bool,
}

impl Leased {
    /// Closes it when it is dropped.
    pub(crate) fn close_on_drop(&mut self) {
        self.is_closed = true;
        self.connection.close_on_drop();
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        if self.is_bounded && !self.is_closed {
            tokio::spawn(timeout(BACK, self.connection.return_to_pool()));
        }
    }
}

impl Deref for Leased {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.connection
    }
}

impl DerefMut for Leased {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.connection
    }
}
