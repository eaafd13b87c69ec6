//! A pool of connections that says within [`SUSPECT`] and [`ANSWER`] why it has none.
//!
//! A pool alone retries a connection that is refused until its timeout, and then reports only the timeout.

use crate::database_fault::DatabaseFault;
use sqlx::{Any, AnyConnection, AnyPool, ConnectOptions as _, Connection as _, pool::PoolConnection};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

/// A connection that is not there after this time is suspicious: a new one takes some milliseconds.
const SUSPECT: Duration = Duration::from_millis(300);
/// For the attempt to connect that then shows the cause.
const ANSWER: Duration = Duration::from_secs(1);
/// How long the result of an attempt is used by all that wait: a burst of requests makes one attempt.
const FRESH: Duration = Duration::from_millis(500);

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    pool: AnyPool,
    /// `None`: a file is always reachable.
    attempts: Option<Arc<Mutex<Option<Attempt>>>>,
}

/// The last attempt to connect beside the pool.
#[derive(Debug)]
struct Attempt {
    at: Instant,
    failure: Option<(io::ErrorKind, String)>,
}

impl Connections {
    pub(crate) fn to_file(pool: AnyPool) -> Self {
        Self { pool, attempts: None }
    }

    pub(crate) fn to_server(pool: AnyPool) -> Self {
        Self { pool, attempts: Some(Arc::default()) }
    }

    /// A connection of the pool, as soon as one is free.
    pub(crate) async fn acquire(&self) -> sqlx::Result<PoolConnection<Any>> {
        tokio::select! {
            biased;
            acquired = self.pool.acquire() => acquired,
            failure = self.failure() => Err(failure),
        }
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
