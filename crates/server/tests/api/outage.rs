//! A database that is stopped, and one whose disk is full.

use crate::harness::{TestApp, tunnel};
use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use serde_json::Value;
use std::{
    env, fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use wicketgate_lab::{
    named,
    postgres::{self, OwnPostgres},
};

/// The longest wait for an answer while the database refuses connections.
const BOUND: Duration = Duration::from_secs(2);
/// The directory of a small file system, for the process that runs a test in it.
const SMALL_DISK: &str = "WICKETGATE_TEST_SMALL_DISK";

async fn ready(app: &TestApp) -> (StatusCode, Value) {
    let answer = app.send(Request::get("/readyz").body(Body::empty()).unwrap()).await;
    (answer.status, answer.body)
}

#[tokio::test]
async fn a_stopped_database_is_reported_within_two_seconds() {
    if postgres::fresh().unwrap().is_some() {
        return;
    }
    let Some(server) = OwnPostgres::start().unwrap() else { return };
    let app = TestApp::on(&server.url, TempDir::new().unwrap()).await;
    assert_eq!(app.get("ipsec-tunnels").await.status, StatusCode::OK);
    assert_eq!(ready(&app).await.0, StatusCode::OK);

    drop(server);
    let reason = "the database cannot be reached (connection refused): start it, or repair the network to it";
    for attempt in 0..3 {
        let begin = Instant::now();
        let read = app.get("ipsec-tunnels").await;
        assert!(begin.elapsed() < BOUND, "read {attempt}: {:?}", begin.elapsed());
        named("503 on every call.", begin.elapsed());
        let begin = Instant::now();
        let write = app.post("ipsec-tunnels", tunnel("a", 1)).await;
        assert!(begin.elapsed() < BOUND, "write {attempt}: {:?}", begin.elapsed());
        for answer in [read, write] {
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text);
            assert_eq!(answer.body["message"].as_str().unwrap()[1..], reason[1..]);
            assert_eq!(answer.headers["retry-after"], "5");
        }
        let begin = Instant::now();
        let (status, body) = ready(&app).await;
        assert!(begin.elapsed() < BOUND, "readyz {attempt}: {:?}", begin.elapsed());
        assert_eq!((status, &body["reasons"][0]), (StatusCode::SERVICE_UNAVAILABLE, &reason.into()));
    }
}

/// Runs this test again in a mount namespace of its own, where a file system has eight megabytes: nothing is left of it.
fn on_a_small_disk(test: &str) {
    let dir = TempDir::new().unwrap();
    let ran = Command::new("unshare")
        .args(["--mount", "sh", "-c", "mount -t tmpfs -o size=8m none \"$0\" && exec \"$@\""])
        .arg(dir.path())
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(SMALL_DISK, dir.path())
        .env_remove("NEXTEST_EXECUTION_MODE")
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

fn fill(dir: &Path) {
    let filler = dir.join("filler");
    let mut size = 1 << 20;
    while size > 0 {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&filler).unwrap();
        if std::io::Write::write_all(&mut file, &vec![0; size]).is_err() {
            size /= 2;
        }
    }
}

#[tokio::test]
async fn a_full_disk_is_named_and_is_not_ready_until_it_has_room() {
    let Ok(dir) = env::var(SMALL_DISK) else {
        if postgres::fresh().unwrap().is_none() {
            on_a_small_disk("outage::a_full_disk_is_named_and_is_not_ready_until_it_has_room");
        }
        return;
    };
    let dir = Path::new(&dir);
    let app =
        TestApp::on(dir.join("wicketgate.db").to_str().unwrap(), TempDir::new_in("/tmp").unwrap()).await;
    assert_eq!(app.post("ipsec-tunnels", tunnel("before", 1)).await.status, StatusCode::ACCEPTED);
    assert_eq!(ready(&app).await.0, StatusCode::OK);

    fill(dir);
    let full = (StatusCode::SERVICE_UNAVAILABLE, "the database's disk is full: free space on it".into());
    let (status, body) = ready(&app).await;
    assert_eq!((status, &body["reasons"][0]), (full.0, &full.1), "before any write has failed");
    let mut refused = None;
    // The first writes may still find room in the journal.
    for n in 2..100 {
        let answer = app.post("ipsec-tunnels", tunnel(&format!("t{n}"), n)).await;
        if answer.status != StatusCode::ACCEPTED {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.unwrap();
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.body["message"], "The database's disk is full: free space on it");
    assert_eq!(refused.headers["retry-after"], "5");
    assert_eq!(app.get("ipsec-tunnels?name=before").await.body["totalElements"], 1, "reads go on");
    let (status, body) = ready(&app).await;
    assert_eq!((status, &body["reasons"][0]), (full.0, &full.1));

    fs::remove_file(dir.join("filler")).unwrap();
    assert_eq!(ready(&app).await, (StatusCode::OK, serde_json::json!({"ready": true, "esp": "userland"})));
    assert_eq!(app.post("ipsec-tunnels", tunnel("after", 101)).await.status, StatusCode::ACCEPTED);
}
