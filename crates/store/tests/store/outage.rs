//! A PostgreSQL host that stops answering.

use crate::{
    database,
    site::{ALL, context, now},
    traffic::{gateway, received, report},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UnixStream},
    time::{sleep, timeout},
};
use uuid::Uuid;
use wicketgate_lab::postgres;
use wicketgate_model::{ExecutionId, ShareId, TrafficDelta, TunnelId};
use wicketgate_store::{
    Claim, Claimed, DatabaseFault, FrontdoorSpec, KeptAnswer, ListRequest, NewSession, PageRequest, Reach,
    SessionKind, Store, StoreError, TrafficScope, WriteContext,
};

/// The longest wait for each write. It is shorter than the time that TCP takes to give up.
const BOUND: Duration = Duration::from_secs(30);

/// In which a caller is told, on a busy machine.
const TOLD: Duration = Duration::from_secs(8);

fn spec(organization: &str) -> FrontdoorSpec {
    FrontdoorSpec {
        organization: organization.to_owned(),
        default_namespace: "default".parse().unwrap(),
        ipsec_shares_enabled: true,
        quotas: Default::default(),
    }
}

/// What goes wrong on a line.
#[derive(Clone, Copy)]
struct Fault {
    /// A connection forwards nothing more once it has received a statement with this word.
    word: &'static [u8],
    /// The statement itself is forwarded, and its answer is not.
    is_carried_out: bool,
    /// For how long each new kind of query is held up.
    late: Duration,
}

impl Fault {
    fn at(word: &'static [u8]) -> Self {
        Self { word, is_carried_out: false, late: Duration::ZERO }
    }
}

/// A proxy with this fault while `goes` is set.
async fn line(
    listener: TcpListener,
    socket: String,
    goes: Arc<AtomicBool>,
    Fault { word, is_carried_out, late }: Fault,
) {
    while let Ok((mut client, _)) = listener.accept().await {
        let mut server = UnixStream::connect(&socket).await.unwrap();
        let goes = Arc::clone(&goes);
        tokio::spawn(async move {
            let (mut there, mut back) = ([0; 8192], [0; 8192]);
            loop {
                tokio::select! {
                    n = client.read(&mut there) => match n {
                        Ok(n) if n > 0 => {
                            let has = |word: &[u8]| there[..n].windows(word.len()).any(|w| w == word);
                            if has(b"SELECT") && goes.load(Ordering::SeqCst) {
                                sleep(late).await;
                            }
                            if has(word) && goes.load(Ordering::SeqCst) {
                                if is_carried_out {
                                    server.write_all(&there[..n]).await.unwrap();
                                }
                                // Discards everything until the client closes the connection.
                                while client.read(&mut there).await.is_ok_and(|n| n > 0) {}
                                return;
                            }
                            server.write_all(&there[..n]).await.unwrap();
                        }
                        _ => return,
                    },
                    n = server.read(&mut back) => match n {
                        Ok(n) if n > 0 => client.write_all(&back[..n]).await.unwrap(),
                        _ => return,
                    },
                }
            }
        });
    }
}

/// A store whose line has this fault while the flag is set. `None`: there is no PostgreSQL.
async fn store_that_goes(fault: Fault) -> Option<(Store, Arc<AtomicBool>)> {
    let url = postgres::fresh().unwrap()?;
    let (socket, database) = url.split_once('@').unwrap().1.split_once('/').unwrap();
    let socket = format!("{}/.s.PGSQL.5432", socket.replace("%2F", "/"));
    let (listener, goes) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), Arc::new(AtomicBool::new(false)));
    let place = format!("postgres://postgres@{}/{database}", listener.local_addr().unwrap());
    tokio::spawn(line(listener, socket, Arc::clone(&goes), fault));
    let store = database::open(&place, &TempDir::new().unwrap()).await.unwrap();
    store.create_frontdoor(&spec("before"), &context()).await.unwrap();
    Some((store, goes))
}

#[tokio::test]
async fn a_host_that_dies_during_a_read_causes_an_error_in_time() {
    let Some((store, goes)) = store_that_goes(Fault::at(b"SELECT")).await else { return };
    goes.store(true, Ordering::SeqCst);
    let begin = Instant::now();
    let refused = timeout(BOUND, store.frontdoors(&Reach::All, &ALL)).await.unwrap();
    assert_eq!(refused.unwrap_err().fault(), DatabaseFault::Late);
    assert!(begin.elapsed() < TOLD, "{:?}", begin.elapsed());
    goes.store(false, Ordering::SeqCst);
    assert_eq!(timeout(BOUND, store.frontdoors(&Reach::All, &ALL)).await.unwrap().unwrap().rows.len(), 1);
}

#[tokio::test]
async fn a_far_page_has_the_bound_of_one_read() {
    // The rows are counted late, and the second of the two reads hangs.
    let late = Duration::from_secs(4);
    let Some((store, goes)) = store_that_goes(Fault { late, ..Fault::at(b"REPEATABLE READ") }).await else {
        return;
    };
    for organization in ["second", "third"] {
        store.create_frontdoor(&spec(organization), &context()).await.unwrap();
    }
    goes.store(true, Ordering::SeqCst);
    let far = ListRequest { page: PageRequest { number: 2, size: 1 }, ..ALL.clone() };
    let begin = Instant::now();
    let refused = timeout(BOUND, store.frontdoors(&Reach::All, &far)).await.unwrap();
    assert_eq!(refused.unwrap_err().fault(), DatabaseFault::Late);
    assert!((late..TOLD).contains(&begin.elapsed()), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_host_that_dies_during_a_commit_causes_an_error_in_time() {
    let Some((store, goes)) = store_that_goes(Fault::at(b"COMMIT")).await else { return };
    goes.store(true, Ordering::SeqCst);
    let (frontdoor, during) = (spec("during"), context());
    let begin = Instant::now();
    let refused = timeout(BOUND, store.create_frontdoor(&frontdoor, &during)).await.unwrap();
    assert!(begin.elapsed() < TOLD, "{:?}", begin.elapsed());
    wicketgate_lab::named("503 on a write, and its result is unknown.", begin.elapsed());
    let Err(error @ StoreError::Commit(_)) = refused else { panic!("{refused:?}") };
    assert_eq!(error.fault(), DatabaseFault::Unconfirmed, "the host may have carried it out: {error}");

    // The host works again, on another connection than the one that hangs.
    goes.store(false, Ordering::SeqCst);
    timeout(BOUND, store.create_frontdoor(&spec("after"), &context())).await.unwrap().unwrap();
    let all = store.frontdoors(&Reach::All, &ALL).await.unwrap();
    let organizations: Vec<_> = all.rows.iter().map(|f| f.spec.organization.as_str()).collect();
    assert_eq!(organizations, ["before", "after"]);
}

#[tokio::test]
async fn writes_that_share_a_commit_share_its_unknown_result() {
    for is_carried_out in [false, true] {
        let fault = Fault { is_carried_out, ..Fault::at(b"COMMIT") };
        let Some((store, goes)) = store_that_goes(fault).await else { return };
        goes.store(true, Ordering::SeqCst);
        let writes = (0..8).map(|n| {
            let (store, name) = (store.clone(), format!("during-{n}"));
            tokio::spawn(async move { (store.create_frontdoor(&spec(&name), &context()).await, name) })
        });
        let (begin, writes, mut undone) = (Instant::now(), writes.collect::<Vec<_>>(), Vec::new());
        for write in writes {
            let (refused, name) = timeout(BOUND, write).await.unwrap().unwrap();
            match refused.unwrap_err().fault() {
                DatabaseFault::Unconfirmed => {}
                DatabaseFault::Late => undone.push(name),
                fault => panic!("{fault:?}"),
            }
        }
        assert!(begin.elapsed() < TOLD, "{:?}", begin.elapsed());
        assert!(undone.len() < 8);
        goes.store(false, Ordering::SeqCst);
        // The last of them may have had its place in a transaction whose commit is waited for.
        while timeout(BOUND, store.create_frontdoor(&spec("after"), &context())).await.unwrap().is_err() {
            assert!(begin.elapsed() < BOUND);
        }
        let made = store.frontdoors(&Reach::All, &ALL).await.unwrap().rows;
        let made: Vec<_> = made.into_iter().map(|frontdoor| frontdoor.spec.organization).collect();
        assert!(undone.iter().all(|name| !made.contains(name)), "{undone:?} {made:?}");
        assert!(!is_carried_out || made.len() == 10 - undone.len(), "{undone:?} {made:?}");
    }
}

#[tokio::test]
async fn all_writes_that_wait_for_a_host_that_is_gone_are_told_at_once() {
    let Some((store, goes)) = store_that_goes(Fault::at(b"BEGIN")).await else { return };
    goes.store(true, Ordering::SeqCst);
    let begin = Instant::now();
    let writes: Vec<_> = (0..8)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.create_frontdoor(&spec(&n.to_string()), &context()).await })
        })
        .collect();
    for write in writes {
        let refused = timeout(BOUND, write).await.unwrap().unwrap();
        let fault = refused.unwrap_err().fault();
        assert!(matches!(fault, DatabaseFault::Unreachable(_)), "{fault:?}");
    }
    assert!(begin.elapsed() < TOLD, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_commit_without_an_answer_counts_no_traffic_twice() {
    for is_carried_out in [false, true] {
        let fault = Fault { is_carried_out, ..Fault::at(b"COMMIT") };
        let Some((store, goes)) = store_that_goes(fault).await else { return };
        let (gateway, share) = (gateway(&store).await, ShareId::new(Uuid::now_v7()));
        let delta = TrafficDelta { rx: 7, ..TrafficDelta::new(share, TunnelId::new(Uuid::now_v7())) };
        let report = report(Uuid::now_v7(), 1, 0, vec![delta]);
        goes.store(true, Ordering::SeqCst);
        let refused = timeout(BOUND, store.record_traffic(&gateway, &report)).await.unwrap();
        assert_eq!(refused.unwrap_err().fault(), DatabaseFault::Unconfirmed);
        goes.store(false, Ordering::SeqCst);
        timeout(BOUND, store.record_traffic(&gateway, &report)).await.unwrap().unwrap();
        assert_eq!(received(&store, TrafficScope::Share(share)).await, 7, "carried out: {is_carried_out}");
    }
}

#[tokio::test]
async fn the_key_of_a_commit_without_an_answer_tells_at_once_whether_it_was_carried_out() {
    for is_carried_out in [false, true] {
        let fault = Fault { is_carried_out, ..Fault::at(b"COMMIT") };
        let Some((store, goes)) = store_that_goes(fault).await else { return };
        let claim = || {
            let [principal, key, fingerprint] = ["someone", "k", "a"].map(str::to_owned);
            Claim { principal, key, fingerprint, token: Uuid::now_v7() }
        };
        let first = claim();
        let running = store.running(&first).unwrap();
        assert_eq!(store.claim(&first, now()).await.unwrap(), Claimed::Fresh);
        let acting = WriteContext { claim: Some(Arc::new(first)), ..context() };
        goes.store(true, Ordering::SeqCst);
        let refused = timeout(BOUND, store.create_frontdoor(&spec("during"), &acting)).await.unwrap();
        assert_eq!(refused.unwrap_err().fault(), DatabaseFault::Unconfirmed);
        goes.store(false, Ordering::SeqCst);
        drop(running);
        let known = timeout(BOUND, store.claim(&claim(), now())).await.unwrap().unwrap();
        assert_eq!(known, if is_carried_out { Claimed::Lost(acting.process) } else { Claimed::Fresh });
    }
}

/// A write outside of the queue.
#[derive(Clone, Copy)]
enum Lone {
    KeepAnswer,
    EndAction,
    BeginSession,
    SessionUsed,
}

impl Lone {
    /// What its statement begins with.
    fn word(self) -> &'static [u8] {
        match self {
            Self::KeepAnswer => b"UPDATE idempotency",
            Self::EndAction => b"UPDATE execution",
            Self::BeginSession => b"INSERT INTO console_session",
            Self::SessionUsed => b"UPDATE console_session",
        }
    }

    async fn write(self, store: &Store) -> Result<(), StoreError> {
        let [principal, key, fingerprint] = ["someone", "k", "a"].map(str::to_owned);
        let claim = Claim { principal, key, fingerprint, token: Uuid::now_v7() };
        let session = NewSession {
            token_sha256: [1; 32],
            kind: SessionKind::Admin,
            actor: "admin".to_owned(),
            credential: "x".to_owned(),
            scopes: Vec::new(),
            created_at: now(),
            expires_at: now(),
        };
        let answer = KeptAnswer { status: 202, headers: Vec::new(), body: None };
        match self {
            Self::KeepAnswer => store.keep_answer(&claim, &answer).await,
            Self::EndAction => {
                store.end_action(ExecutionId::new(Uuid::nil()), &Ok(String::new()), now()).await
            }
            Self::BeginSession => store.begin_session(&session).await,
            Self::SessionUsed => store.session_used(&[1; 32], now()).await,
        }
    }
}

#[tokio::test]
async fn a_host_that_freezes_within_a_transaction_causes_an_error_in_time() {
    let all =
        [Lone::KeepAnswer, Lone::EndAction, Lone::BeginSession, Lone::SessionUsed].map(|lone| async move {
            let Some((store, goes)) = store_that_goes(Fault::at(lone.word())).await else { return };
            goes.store(true, Ordering::SeqCst);
            let begin = Instant::now();
            let refused = timeout(BOUND, lone.write(&store)).await.unwrap();
            assert_eq!(refused.unwrap_err().fault(), DatabaseFault::Late);
            assert!(begin.elapsed() < TOLD, "{:?}", begin.elapsed());
            // Another connection is used than the one that hangs, and nothing holds a lock.
            goes.store(false, Ordering::SeqCst);
            timeout(BOUND, lone.write(&store)).await.unwrap().unwrap();
        });
    futures_util::future::join_all(all).await;
}
