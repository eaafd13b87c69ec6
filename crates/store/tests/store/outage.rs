//! A PostgreSQL host that stops answering.

use crate::{
    database,
    site::{ALL, context},
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
use wicketgate_lab::postgres;
use wicketgate_store::{DatabaseFault, FrontdoorSpec, ListRequest, PageRequest, Reach, Store, StoreError};

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

/// A proxy. While `goes` is set, new kinds of queries are `late`, and a connection forwards nothing more once it has received a
/// statement with `word`.
async fn line(
    listener: TcpListener,
    socket: String,
    goes: Arc<AtomicBool>,
    (word, late): (&'static [u8], Duration),
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

/// A store whose host goes with the first statement that has `word`, while the flag is set. `None`: there is no PostgreSQL.
async fn store_that_goes(word: &'static [u8], late: Duration) -> Option<(Store, Arc<AtomicBool>)> {
    let url = postgres::fresh().unwrap()?;
    let (socket, database) = url.split_once('@').unwrap().1.split_once('/').unwrap();
    let socket = format!("{}/.s.PGSQL.5432", socket.replace("%2F", "/"));
    let (listener, goes) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), Arc::new(AtomicBool::new(false)));
    let place = format!("postgres://postgres@{}/{database}", listener.local_addr().unwrap());
    tokio::spawn(line(listener, socket, Arc::clone(&goes), (word, late)));
    let store = database::open(&place, &TempDir::new().unwrap()).await.unwrap();
    store.create_frontdoor(&spec("before"), &context()).await.unwrap();
    Some((store, goes))
}

#[tokio::test]
async fn a_host_that_dies_during_a_read_causes_an_error_in_time() {
    let Some((store, goes)) = store_that_goes(b"SELECT", Duration::ZERO).await else { return };
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
    let Some((store, goes)) = store_that_goes(b"REPEATABLE READ", late).await else { return };
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
    let Some((store, goes)) = store_that_goes(b"COMMIT", Duration::ZERO).await else { return };
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
