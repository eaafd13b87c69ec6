//! A server that loses the database lock to another server.

use jiff::{SignedDuration, Timestamp};
use prometheus_client::registry::Registry;
use std::{net::Ipv4Addr, process::Command, time::Duration};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};
use uuid::Uuid;
use wicketgate_lab::postgres;
use wicketgate_link::in_process;
use wicketgate_model::{EnrollmentId, EspMode, GatewayId, ZId};
use wicketgate_server::{GatewayLinks, Server, ServerConfig};
use wicketgate_store::{
    AgentLink, DatabaseLock, EnrolAttempt, ListRequest, LockMode, NewEnrollment, Reach, SecretKeyFile, Store,
    WriteContext,
};

use crate::{harness::hello, serving::config};

/// The longest wait for each step.
const BOUND: Duration = Duration::from_secs(30);

/// Takes the lock from the server that has it, like a server that starts while the other's connection is broken.
async fn take_over(url: &str) -> DatabaseLock {
    let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted \
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    loop {
        assert!(Command::new("psql").args(["-qAt", "-d", url, "-c", end]).output().unwrap().status.success());
        if let Ok(Some(lock)) = DatabaseLock::take(url, LockMode::Exclusive).await {
            return lock;
        }
    }
}

/// Waits for the gateway's row. After it, the link writes only the gateway's reports.
async fn gateway_is_recorded(url: &str) {
    let select = "SELECT id FROM gateway";
    while Command::new("psql").args(["-qAt", "-d", url, "-c", select]).output().unwrap().stdout.is_empty() {
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_superseded_server_stops_and_writes_nothing_more() {
    let Some(url) = postgres::fresh().unwrap() else { return };
    let (dir, now) = (TempDir::new().unwrap(), Timestamp::now());
    let secret_keys = SecretKeyFile::created_at(dir.path().join("secret-key"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = ServerConfig {
        database: Some(url.clone().into()),
        secret_keys: secret_keys.clone(),
        provisioning_deadline: BOUND,
        ..config(dir.path(), listener)
    };
    let (server_end, gateway_end) = in_process(GatewayId::new(Uuid::nil()), "local".parse().unwrap());
    let prepared = Server::prepare(config).await.unwrap();
    let server =
        prepared.start(GatewayLinks::InProcess(server_end.into()), None, Registry::default()).await.unwrap();
    let (gateway, _handshake) = gateway_end.open(hello(EspMode::Off));
    timeout(BOUND, gateway_is_recorded(&url)).await.unwrap();

    let store = Store::open(&url, &secret_keys).await.unwrap();
    let context = WriteContext::new("test", now, Uuid::now_v7);
    let frontdoor = store.frontdoors(&Reach::All, &ListRequest::default()).await.unwrap().rows[0].id;
    let enrollment = EnrollmentId::new(Uuid::now_v7());
    let new = NewEnrollment {
        id: enrollment,
        environment: None,
        secret_sha256: [1; 32],
        expires_at: now + SignedDuration::from_hours(1),
    };
    store.create_enrollment(frontdoor, &new, &context).await.unwrap();
    let attempt = EnrolAttempt {
        enrollment,
        secret_sha256: [1; 32],
        public_key_sha256: [2; 32],
        name: "dc-1".into(),
        z_id: ZId::from_random([3; 10]),
    };
    let agent = store.enrol(&attempt, &context).await.unwrap().unwrap().agent;

    let _lock = timeout(BOUND, take_over(&url)).await.unwrap();
    let gateway_id = GatewayId::new(Uuid::nil());
    let (name, version) = ("dc-1".to_owned(), "0.1.0".to_owned());
    let link = AgentLink { agent, name, version, address: Ipv4Addr::LOCALHOST.into() };
    let epoch = store.link_gateway(gateway_id, now).await.unwrap();
    store.agent_connected(&epoch, &link, now).await.unwrap();
    timeout(BOUND, server.superseded()).await.unwrap();
    drop(gateway);
    timeout(BOUND, server.stop()).await.unwrap();
    let agents = store.agents(frontdoor, &ListRequest::default()).await.unwrap().rows;
    assert!(agents[0].connected_since.is_some(), "the end of the link overwrote a write of the other server");
    store.close().await;
}
