//! A real PostgreSQL that is frozen, killed, locked, slow, or replaced by its standby, while clients write and read: each answer
//! comes in time, service resumes by itself, and every write that was acknowledged is there.

use crate::harness::{TestApp, share, tunnel};
use axum::http::StatusCode;
use futures_util::future::join_all;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fmt,
    io::{Read as _, Write as _},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    sync::Notify,
    task::{JoinHandle, block_in_place},
    time::{sleep, timeout},
};
use wicketgate_lab::{Forwarder, OwnPostgres, named, postgres};
use wicketgate_model::ZId;

/// The promise is 5 s; the rest is for a busy machine.
const PROMISED: Duration = Duration::from_secs(6);
/// The longest wait for service to resume, or for a fault to be noticed.
const BOUND: Duration = Duration::from_secs(60);
const WRITERS: usize = 4;
const READERS: usize = 2;
/// Writes that are acknowledged before and after a fault.
const SOME: usize = 20;
/// Between the requests of a reader.
const PAUSE: Duration = Duration::from_millis(20);

/// What clients were answered.
#[derive(Default)]
struct Seen {
    acknowledged: Vec<String>,
    read: usize,
    refused_writes: usize,
    refused_reads: usize,
    latest: Duration,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, read, refused_writes, refused_reads, latest } = self;
        let acknowledged = acknowledged.len();
        write!(
            f,
            "{acknowledged} writes acknowledged and {refused_writes} refused, {read} reads answered and {refused_reads} refused, \
             the latest answer after {latest:?}"
        )
    }
}

/// Creates shares, each with a name of its own.
struct Writer {
    site: Arc<Value>,
    z_id: ZId,
    next: Arc<AtomicU16>,
}

impl Writer {
    async fn write(&self, app: &TestApp) -> (StatusCode, Option<String>) {
        let port = self.next.fetch_add(1, Ordering::SeqCst);
        let name = format!("share-{port}");
        let answer = app.post("ipsec-shares", share(&self.site, &self.z_id, &name, port)).await;
        (answer.status, Some(name))
    }
}

/// Clients that write and read until they are told to stop.
struct Load {
    app: Arc<TestApp>,
    seen: Arc<Mutex<Seen>>,
    answered: Arc<Notify>,
    has_ended: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// On a new database at this place, after some writes.
    async fn start(place: &str) -> Self {
        let app = Arc::new(TestApp::on(place, TempDir::new().unwrap()).await);
        let site = app.post("ipsec-tunnels", tunnel("site", 1)).await;
        assert_eq!(site.status, StatusCode::ACCEPTED, "{}", site.text);
        let (site, z_id) = (Arc::new(site.body), app.enrol().await.z_id);
        let (seen, answered, has_ended) = (Arc::default(), Arc::default(), Arc::default());
        let mut load = Self { app, seen, answered, has_ended, clients: Vec::new() };
        let next = Arc::new(AtomicU16::new(1000));
        for _ in 0..WRITERS {
            let writer = Writer { site: Arc::clone(&site), z_id: z_id.clone(), next: Arc::clone(&next) };
            load.clients.push(load.client(Some(writer)));
        }
        for _ in 0..READERS {
            load.clients.push(load.client(None));
        }
        load.until("writes before the fault", |seen| seen.acknowledged.len() >= SOME).await;
        load
    }

    /// One that writes, or reads.
    fn client(&self, writer: Option<Writer>) -> JoinHandle<()> {
        let (app, seen) = (Arc::clone(&self.app), Arc::clone(&self.seen));
        let (answered, has_ended) = (Arc::clone(&self.answered), Arc::clone(&self.has_ended));
        tokio::spawn(async move {
            while !has_ended.load(Ordering::SeqCst) {
                let begin = Instant::now();
                let (status, name) = match &writer {
                    Some(writer) => writer.write(&app).await,
                    None => {
                        sleep(PAUSE).await;
                        (app.get("ipsec-shares?size=1").await.status, None)
                    }
                };
                let mut seen = seen.lock().unwrap();
                seen.latest = seen.latest.max(begin.elapsed());
                match (status, name) {
                    (StatusCode::ACCEPTED, Some(name)) => seen.acknowledged.push(name),
                    (StatusCode::OK, None) => seen.read += 1,
                    // The harness has looked for Retry-After.
                    (StatusCode::SERVICE_UNAVAILABLE, Some(_)) => seen.refused_writes += 1,
                    (StatusCode::SERVICE_UNAVAILABLE, None) => seen.refused_reads += 1,
                    other => panic!("{other:?}"),
                }
                answered.notify_one();
            }
        })
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Seen) -> bool) {
        let wait = async {
            while !is_so(&self.seen.lock().unwrap()) {
                self.answered.notified().await;
                assert!(!self.clients.iter().any(JoinHandle::is_finished), "a client has failed");
            }
        };
        let waited = timeout(BOUND, wait).await;
        assert!(waited.is_ok(), "no {what}: {:?}", self.seen.lock().unwrap());
    }

    /// As many requests as there are clients were refused.
    async fn until_refused(&self) {
        let (writes, reads) = {
            let seen = self.seen.lock().unwrap();
            (seen.refused_writes + WRITERS, seen.refused_reads + READERS)
        };
        self.until("refusals", |seen| seen.refused_writes >= writes && seen.refused_reads >= reads).await;
    }

    async fn until_resumed(&self) {
        let (writes, reads) = {
            let seen = self.seen.lock().unwrap();
            (seen.acknowledged.len() + SOME, seen.read + SOME)
        };
        self.until("service after the fault", |seen| seen.acknowledged.len() >= writes && seen.read >= reads)
            .await;
    }

    /// Asserts that each answer came in time, and that each acknowledged write is there.
    async fn stop(self, fault: &str) {
        self.has_ended.store(true, Ordering::SeqCst);
        for client in self.clients {
            timeout(BOUND, client).await.unwrap().unwrap();
        }
        let acknowledged = judged(&self.seen.lock().unwrap(), fault);
        let there = names(&self.app).await;
        let lost: Vec<_> = acknowledged.into_iter().filter(|name| !there.contains(name)).collect();
        assert!(lost.is_empty(), "{fault}: {lost:?}");
        self.app.store.close().await;
    }
}

/// Returns what was acknowledged.
#[expect(clippy::print_stderr, reason = "the output is that of a test")]
fn judged(seen: &Seen, fault: &str) -> Vec<String> {
    eprintln!("{fault}: {seen:?}");
    assert!(seen.latest < PROMISED, "{fault}: {:?}", seen.latest);
    seen.acknowledged.clone()
}

/// The names of all shares.
async fn names(app: &TestApp) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for page in 0.. {
        let answer = app.get(&format!("ipsec-shares?size=100&page={page}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        let rows = answer.body["content"].as_array().unwrap().clone();
        if rows.is_empty() {
            break;
        }
        all.extend(rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()));
    }
    all
}

/// `None`: PostgreSQL is missing, or all tests run on it a second time.
fn own_server() -> Option<OwnPostgres> {
    if postgres::fresh().unwrap().is_some() {
        return None;
    }
    OwnPostgres::start().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_database_is_answered_for_in_time_and_used_again() {
    let Some(server) = own_server() else { return };
    let load = Load::start(&server.url).await;
    for _ in 0..2 {
        block_in_place(|| server.freeze());
        let (begin, refused) = (Instant::now(), load.seen.lock().unwrap().refused_reads);
        load.until("refusals", |seen| seen.refused_reads > refused).await;
        named("503 on every call, each after a second or more.", begin.elapsed());
        load.until_refused().await;
        block_in_place(|| server.thaw());
        load.until_resumed().await;
    }
    load.stop("frozen").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_database_that_starts_again_has_every_acknowledged_write() {
    let Some(mut server) = own_server() else { return };
    let load = Load::start(&server.url).await;
    for _ in 0..3 {
        block_in_place(|| server.kill().unwrap());
        load.until_refused().await;
        block_in_place(|| server.restart().unwrap());
        load.until_resumed().await;
    }
    load.stop("killed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_an_operator_ends_are_replaced() {
    let Some(server) = own_server() else { return };
    let load = Load::start(&server.url).await;
    for _ in 0..3 {
        let end = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        assert_ne!(server.shell(end).unwrap(), "0");
        load.until_resumed().await;
    }
    // One is lost for each session at most, and none waits.
    let refused = load.seen.lock().unwrap().refused_writes;
    assert!(refused <= 3 * WRITERS, "{refused}");
    load.stop("sessions ended").await;
}

/// A shell of the database in a transaction that holds the row which all writes lock.
struct Holder {
    shell: Child,
}

impl Holder {
    fn start(url: &str) -> Self {
        let mut psql = Command::new("psql");
        psql.args(["-XAtq", url]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = psql.spawn().unwrap();
        let lock = "BEGIN; SELECT 'held' FROM revision FOR UPDATE;\n";
        shell.stdin.as_mut().unwrap().write_all(lock.as_bytes()).unwrap();
        let mut held = [0; 4];
        shell.stdout.as_mut().unwrap().read_exact(&mut held).unwrap();
        Self { shell }
    }

    fn end(mut self) {
        drop(self.shell.stdin.take());
        self.shell.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_holds_the_revision_stops_writes_and_no_reads() {
    let Some(server) = own_server() else { return };
    let load = Load::start(&server.url).await;
    let holder = block_in_place(|| Holder::start(&server.url));
    let begin = Instant::now();
    load.until("refusals", |seen| seen.refused_writes >= 1).await;
    named("503 on writes; reads go on: a session of PostgreSQL holds a lock.", begin.elapsed());
    load.until("refusals", |seen| seen.refused_writes >= 2 * WRITERS).await;
    assert_eq!(load.seen.lock().unwrap().refused_reads, 0);
    // The server's own sessions do not wait on after their callers have gone.
    let waits = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND state_change < now() - interval '5 s'";
    assert_eq!(server.shell(waits).unwrap(), "0");
    block_in_place(|| holder.end());
    load.until_resumed().await;
    load.stop("locked").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_synchronous_standby_that_takes_over_has_every_acknowledged_write() {
    let Some(primary) = own_server() else { return };
    let standby = block_in_place(|| primary.synchronous_standby().unwrap());
    let address = Forwarder::to(primary.port()).unwrap();
    let load = Load::start(&at(&address)).await;
    // The host is gone: nothing answers on its connections, and nothing ends them.
    block_in_place(|| primary.freeze());
    load.until_refused().await;
    block_in_place(|| standby.promote().unwrap());
    address.switch(standby.port());
    load.until_resumed().await;
    load.stop("failover").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_a_demoted_primary_are_not_used_again() {
    let Some(primary) = own_server() else { return };
    let standby = block_in_place(|| primary.synchronous_standby().unwrap());
    let address = Forwarder::to(primary.port()).unwrap();
    let load = Load::start(&at(&address)).await;
    // It goes on answering on the connections that are there, and refuses to write.
    block_in_place(|| primary.set("default_transaction_read_only=on").unwrap());
    load.until("refusals", |seen| seen.refused_writes >= WRITERS).await;
    block_in_place(|| standby.promote().unwrap());
    address.divert(standby.port());
    let refused = load.seen.lock().unwrap().refused_writes;
    load.until_resumed().await;
    // The first write that is refused ends the use of all connections.
    let refused = load.seen.lock().unwrap().refused_writes - refused;
    assert!(refused <= 2 * WRITERS, "{refused}");
    // A connection to the old primary would show old rows.
    let sessions = "SELECT COUNT(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    let left = async {
        while primary.shell(sessions).unwrap() != "0" {
            load.answered.notified().await;
        }
    };
    timeout(BOUND, left).await.unwrap();
    load.stop("demoted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_to_a_host_that_is_gone_cost_no_request() {
    let Some(primary) = own_server() else { return };
    let standby = block_in_place(|| primary.synchronous_standby().unwrap());
    let address = Forwarder::to(primary.port()).unwrap();
    let app = TestApp::on(&at(&address), TempDir::new().unwrap()).await;
    let several = (0..8).map(|_| app.get("ipsec-tunnels"));
    assert!(join_all(several).await.iter().all(|answer| answer.status == StatusCode::OK));
    block_in_place(|| standby.promote().unwrap());
    address.switch(standby.port());
    let answer = app.post("ipsec-tunnels", tunnel("after", 1)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    assert_eq!(app.get("ipsec-tunnels").await.body["totalElements"], 1);
    app.store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_line_to_the_database_is_answered_for_in_time() {
    let Some(server) = own_server() else { return };
    let line = Forwarder::to(server.port()).unwrap();
    let load = Load::start(&at(&line)).await;
    // Of a round trip: twice as long.
    for milliseconds in [100, 400, 1000] {
        line.delay(Duration::from_millis(milliseconds));
        let writes = |seen: &Seen| seen.acknowledged.len() + seen.refused_writes;
        let reads = |seen: &Seen| seen.read + seen.refused_reads;
        let (written, read) = {
            let seen = load.seen.lock().unwrap();
            (writes(&seen), reads(&seen))
        };
        load.until("answers", |seen| {
            writes(seen) >= written + 2 * WRITERS && reads(seen) >= read + 2 * READERS
        })
        .await;
    }
    line.delay(Duration::ZERO);
    load.until_resumed().await;
    load.stop("slow").await;
}

fn at(address: &Forwarder) -> String {
    format!("postgres://postgres@127.0.0.1:{}/postgres", address.port())
}
