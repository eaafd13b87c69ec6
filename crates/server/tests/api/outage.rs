//! A database that is stopped, and one whose disk is full or becomes read-only.

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
use wicketgate_lab::{OwnPostgres, named, postgres};
use wicketgate_store::{SecretKeyFile, Store};

/// The longest wait for an answer while the database refuses connections.
const BOUND: Duration = Duration::from_secs(2);
/// The directory of a file system of the test's own, for the process that runs the test in it.
const OWN_DISK: &str = "WICKETGATE_TEST_OWN_DISK";

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

/// Mounts a file system of eight megabytes at `$0`.
const SMALL: &str = "mount -t tmpfs -o size=8m none \"$0\"";
/// Mounts a file system at `$0` that the kernel makes read-only when it finds an error.
const FRAGILE: &str = "truncate -s 64M \"$0.image\" && mkfs.ext4 -q \"$0.image\" && \
                       mount -o loop,errors=remount-ro \"$0.image\" \"$0\" && rm \"$0.image\"";

/// Runs this test again in a mount namespace of its own, where a file system is mounted so: nothing is left of it.
fn on_a_disk(mount: &str, test: &str) {
    let dir = TempDir::new().unwrap();
    let ran = Command::new("unshare")
        .args(["--mount", "sh", "-c", &format!("{mount} && exec \"$@\"")])
        .arg(dir.path())
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(OWN_DISK, dir.path())
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
    let Ok(dir) = env::var(OWN_DISK) else {
        if postgres::fresh().unwrap().is_none() {
            on_a_disk(SMALL, "outage::a_full_disk_is_named_and_is_not_ready_until_it_has_room");
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

/// As the kernel does when a disk fails: it cannot be undone while the file system is mounted.
fn becomes_read_only(dir: &Path) {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mount = mounts.lines().find(|line| line.split(' ').nth(1) == dir.to_str()).unwrap();
    let device = mount.split(' ').next().unwrap().trim_start_matches("/dev/");
    fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "a test").unwrap();
}

#[tokio::test]
async fn a_disk_that_becomes_read_only_is_named_and_nothing_is_lost() {
    let Ok(dir) = env::var(OWN_DISK) else {
        if postgres::fresh().unwrap().is_none() {
            on_a_disk(FRAGILE, "outage::a_disk_that_becomes_read_only_is_named_and_nothing_is_lost");
        }
        return;
    };
    let dir = Path::new(&dir);
    let place = dir.join("wicketgate.db").display().to_string();
    let app = TestApp::on(&place, TempDir::new_in("/tmp").unwrap()).await;
    let made = app.post("ipsec-tunnels", tunnel("before", 1)).await;
    assert_eq!(made.status, StatusCode::ACCEPTED);
    let id = made.body["id"].as_str().unwrap().parse().unwrap();

    becomes_read_only(dir);
    let reason = "the database cannot be written: its disk is read-only";
    let begin = Instant::now();
    let (status, body) = ready(&app).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body["reasons"][0].as_str().unwrap().starts_with(reason), "before any write has failed: {body}");
    named("503 on writes; reads go on: the disk is read-only.", begin.elapsed());
    for n in 2..4 {
        let refused = app.post("ipsec-tunnels", tunnel("lost", n)).await;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            refused.body["message"].as_str().unwrap()[1..reason.len()],
            reason[1..],
            "{}",
            refused.text
        );
        assert_eq!(refused.headers["retry-after"], "5");
        assert_eq!(app.get("ipsec-tunnels").await.body["totalElements"], 1, "reads go on");
    }
    assert!(ready(&app).await.1["reasons"][0].as_str().unwrap().starts_with(reason));

    // What was acknowledged is on the disk: a server of a repaired copy goes on with it.
    app.store.close().await;
    let repaired = TempDir::new_in("/tmp").unwrap();
    for file in fs::read_dir(dir).unwrap().map(|file| file.unwrap()).filter(|file| file.path().is_file()) {
        fs::copy(file.path(), repaired.path().join(file.file_name())).unwrap();
    }
    let place = repaired.path().join("wicketgate.db").display().to_string();
    let store = Store::open(&place, &SecretKeyFile::created_at(app.dir().join("secret-key"))).await.unwrap();
    let tunnel = store.tunnel(app.frontdoor, id).await.unwrap().unwrap();
    store.delete_tunnel(app.frontdoor, tunnel.id, &app.act()).await.unwrap();
    store.close().await;
}
