//! A PostgreSQL host that stops answering.

use crate::site::{ALL, context};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UnixStream},
    time::timeout,
};
use wicketgate_lab::postgres;
use wicketgate_store::{DatabaseFault, FrontdoorSpec, Reach, Store, StoreError};

/// The longest wait for each write. It is shorter than the time that TCP takes to give up.
const BOUND: Duration = Duration::from_secs(30);

fn spec(organization: &str) -> FrontdoorSpec {
    FrontdoorSpec {
        organization: organization.to_owned(),
        default_namespace: "default".parse().unwrap(),
        ipsec_shares_enabled: true,
    }
}

/// A proxy. While `goes` is set, a connection forwards nothing more once it has received a COMMIT.
async fn line(listener: TcpListener, socket: String, goes: Arc<AtomicBool>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let mut server = UnixStream::connect(&socket).await.unwrap();
        let goes = Arc::clone(&goes);
        tokio::spawn(async move {
            let (mut there, mut back) = ([0; 8192], [0; 8192]);
            loop {
                tokio::select! {
                    n = client.read(&mut there) => match n {
                        Ok(n) if n > 0 => {
                            let is_commit = there[..n].windows(6).any(|w| w == b"COMMIT");
                            if is_commit && goes.load(Ordering::SeqCst) {
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

#[tokio::test]
async fn a_host_that_dies_during_a_commit_causes_an_error_in_time() {
    let Some(url) = postgres::fresh().unwrap() else { return };
    let (socket, database) = url.split_once('@').unwrap().1.split_once('/').unwrap();
    let socket = format!("{}/.s.PGSQL.5432", socket.replace("%2F", "/"));
    let (listener, goes) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), Arc::new(AtomicBool::new(false)));
    let place = format!("postgres://postgres@{}/{database}", listener.local_addr().unwrap());
    tokio::spawn(line(listener, socket, Arc::clone(&goes)));
    let store = Store::open(&place).await.unwrap();
    store.create_frontdoor(&spec("before"), &context()).await.unwrap();

    goes.store(true, Ordering::SeqCst);
    let (frontdoor, during) = (spec("during"), context());
    let begin = Instant::now();
    let refused = timeout(BOUND, store.create_frontdoor(&frontdoor, &during)).await.unwrap();
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
