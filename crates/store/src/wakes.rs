//! Servers of a PostgreSQL database wake each other after a commit (LISTEN and NOTIFY).
//!
//! Invariant: nothing depends on a wake. Who is woken looks at the rows, and does so every second without one, too; a line that is
//! lost, or silent, costs that second.

use crate::{connections::Connections, database_session::KEEPALIVE, statement::query};
use sqlx::postgres::PgListener;
use std::{sync::Arc, time::Duration};
use tokio::{
    select,
    sync::Notify,
    task::AbortHandle,
    time::{interval, sleep, timeout},
};
use tracing::{info, warn};
use wicketgate_model::ServerId;
use wicketgate_system::Outage;

const CHANNEL: &str = "wicketgate";
/// Between two notifications of a server: commits of this time share one.
const GATHER: Duration = Duration::from_millis(10);
/// Each server notifies itself, too, so that it sees whether the line works.
const PROOF_EVERY: Duration = Duration::from_secs(5);
/// A line without a notification for so long is opened again.
const SILENCE: Duration = Duration::from_secs(15);
/// For opening it.
const OPEN_WITHIN: Duration = Duration::from_secs(5);
/// For a notification.
const TELL_WITHIN: Duration = Duration::from_secs(5);
/// Between two attempts to open it.
const RETRY: Duration = Duration::from_secs(1);

/// What a notification is about: the first letter of its payload, which the server's id follows.
const ROWS: char = 'r';
const EVENTS: char = 'e';
const PROOF: char = 'p';

/// What was committed. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Commits {
    /// Events, by whichever server.
    pub(crate) events: Arc<Notify>,
    /// What gateways should serve, by another server.
    pub(crate) rows_elsewhere: Arc<Notify>,
    /// By this server, for the others.
    own_rows: Arc<Notify>,
    own_events: Arc<Notify>,
}

impl Commits {
    /// A transaction of this server has ended.
    pub(crate) fn committed(&self, rows: bool, events: bool) {
        if rows {
            self.own_rows.notify_one();
        }
        if events {
            self.events.notify_one();
            self.own_events.notify_one();
        }
    }
}

/// The tasks that pass wakes on; they end when it is dropped.
#[derive(Debug)]
pub(crate) struct Wakes([AbortHandle; 2]);

impl Drop for Wakes {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

impl Wakes {
    pub(crate) fn start(url: &str, writers: &Connections, commits: &Commits, own: ServerId) -> Self {
        let tell = tokio::spawn(tell(writers.clone(), commits.clone(), own));
        let hear = tokio::spawn(hear(url.to_owned(), commits.clone(), own));
        Self([tell.abort_handle(), hear.abort_handle()])
    }
}

/// Tells other servers of this one's commits.
async fn tell(writers: Connections, commits: Commits, own: ServerId) {
    let mut proof = interval(PROOF_EVERY);
    loop {
        let kind = select! {
            () = commits.own_rows.notified() => ROWS,
            () = commits.own_events.notified() => EVENTS,
            _ = proof.tick() => PROOF,
        };
        let told = async {
            let payload = format!("{kind}{own}");
            // After the commit, and not within it: a transaction that notifies waits for all others that do.
            let tell = query("SELECT pg_notify($1, $2)", &[&CHANNEL, &payload])?;
            tell.execute(&mut *writers.acquire().await?).await.map_err(crate::StoreError::from)
        };
        // The others look by themselves.
        let _ = timeout(TELL_WITHIN, told).await;
        sleep(GATHER).await;
    }
}

/// Wakes this server by what others tell.
async fn hear(url: String, commits: Commits, own: ServerId) {
    let mut outage = Outage::default();
    loop {
        let error = match timeout(OPEN_WITHIN, open(&url)).await {
            Ok(Ok(mut listener)) => {
                if outage.recovered() {
                    info!("the database's notifications arrive again");
                }
                // What was told before is not told again.
                wake(&commits, true, true);
                follow(&mut listener, &commits, own).await
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it does not answer".to_owned(),
        };
        if outage.failed() {
            warn!(
                error,
                "no notifications of the database: what other servers write is noticed within a second"
            );
        }
        sleep(RETRY).await;
    }
}

async fn open(url: &str) -> sqlx::Result<PgListener> {
    let mut listener = PgListener::connect(url).await?;
    listener.eager_reconnect(false);
    sqlx::Executor::execute(&mut listener, KEEPALIVE).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

/// Until the line is lost, or silent. Returns why.
async fn follow(listener: &mut PgListener, commits: &Commits, own: ServerId) -> String {
    loop {
        let told = match timeout(SILENCE, listener.try_recv()).await {
            Ok(Ok(Some(told))) => told,
            Ok(Ok(None)) => return "the connection was lost".to_owned(),
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return "the line is silent".to_owned(),
        };
        let mut payload = told.payload().chars();
        let kind = payload.next();
        if payload.as_str().parse().ok() == Some(own) {
            continue;
        }
        wake(commits, kind == Some(ROWS), kind == Some(EVENTS));
    }
}

fn wake(commits: &Commits, rows: bool, events: bool) {
    if rows {
        commits.rows_elsewhere.notify_one();
    }
    if events {
        commits.events.notify_one();
    }
}
