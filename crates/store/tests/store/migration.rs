//! A database of an older version keeps all its data.

mod of_gateways;

use crate::{
    database, secrets,
    site::{ALL, own_gateway},
};
use jiff::Timestamp;
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _, Row as _, migrate::Migrator};
use std::{borrow::Cow, path::Path};
use wicketgate_model::{ConnectionFault, ConnectionState, FrontdoorId, GatewayId, Reason, Status};
use wicketgate_store::{
    Action, Claim, Claimed, Column, ExecutionStatus, Filter, FilterValue, KeptAnswer, ListRequest,
    MetricsWindow, Reach, Revision, Store, TrafficScope, column,
};

const ROWS_OF_0009: &str = include_str!("migration/rows_of_0009.sql");
const ROWS_OF_0010: &str = concat!(
    include_str!("migration/rows_of_0009.sql"),
    "UPDATE ipsec_tunnel SET description = 'of ' || name; UPDATE ipsec_share SET description = 'of ' || name;"
);

/// The columns that migration 0011 moves: those of a tunnel with the prefix `connection_`, and those of an agent.
const OF_ENDPOINT: [&str; 19] = [
    "state",
    "since",
    "ike",
    "esp",
    "bytes_in",
    "bytes_out",
    "error",
    "error_message",
    "error_since",
    "peer_address",
    "peer_port",
    "peer_id",
    "nat_gateway",
    "nat_peer",
    "ike_established",
    "ike_rekey",
    "child_established",
    "child_rekey",
    "changes",
];
const OF_LINK: [&str; 4] = ["version", "address", "connected_since", "last_seen"];

/// The values of the given columns in all rows, as text.
async fn values(place: &str, key: &str, columns: &[String], from: &str) -> Vec<Vec<Option<String>>> {
    let mut db = AnyConnection::connect(place).await.unwrap();
    let texts: Vec<_> = columns.iter().map(|column| format!("CAST({column} AS TEXT)")).collect();
    let select = format!("SELECT {key}, {} FROM {from} ORDER BY {key}", texts.join(", "));
    let rows = sqlx::query(AssertSqlSafe(select)).fetch_all(&mut db).await.unwrap();
    db.close().await.unwrap();
    rows.iter().map(|row| (0..=columns.len()).map(|n| row.get(n)).collect()).collect()
}

/// Creates a database with the first `migrations` migrations and the given rows.
async fn make(place: &str, migrations: i64, rows: &'static str) {
    sqlx::any::install_default_drivers();
    let mut db = AnyConnection::connect(place).await.unwrap();
    let all = Migrator::new(Path::new("migrations")).await.unwrap();
    let old = all.iter().filter(|m| m.version <= migrations).cloned();
    let old = Migrator { migrations: Cow::Owned(old.collect()), ..Migrator::DEFAULT };
    old.run(&mut db).await.unwrap();
    db.execute(rows).await.unwrap();
    db.close().await.unwrap();
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + seconds).unwrap()
}

fn frontdoor(n: u8) -> FrontdoorId {
    format!("01900000-0000-7000-8000-00000000000{n}").parse().unwrap()
}

fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(prefix: &str, n: u8) -> T {
    format!("{prefix}-019000000000700080000000000000{n}").parse().unwrap()
}

#[test]
fn a_database_of_version_9_keeps_everything() {
    keeps_everything(9, ROWS_OF_0009);
}

#[test]
fn a_database_of_version_10_keeps_everything() {
    keeps_everything(10, ROWS_OF_0010);
}

fn keeps_everything(migrations: i64, rows: &'static str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dir = tempfile::TempDir::new().unwrap();
    let place = database::place(&dir);
    let url = if place.contains("://") { place.clone() } else { format!("sqlite://{place}?mode=rwc") };
    std::fs::create_dir_all(dir.path().join("data")).unwrap();
    runtime.block_on(async {
        make(&url, migrations, rows).await;
        let moved = OF_ENDPOINT.map(|column| format!("connection_{column}"));
        let tunnels_before = values(&url, "id", &moved, "ipsec_tunnel WHERE connection IS NOT NULL").await;
        let agents_before =
            values(&url, "id", &OF_LINK.map(str::to_owned), "agent WHERE version IS NOT NULL").await;
        assert_eq!((tunnels_before.len(), agents_before.len()), (2, 2));

        let store = database::open(&place, &dir).await.unwrap();
        let endpoints = values(&url, "tunnel", &OF_ENDPOINT.map(str::to_owned), "tunnel_endpoint").await;
        let links = values(&url, "agent", &OF_LINK.map(str::to_owned), "agent_link").await;
        assert_eq!((endpoints, links), (tunnels_before, agents_before));
        check_everything(&store).await;
        if migrations >= 10 {
            let tunnel = store.tunnel(frontdoor(1), id("tnl", 41)).await.unwrap().unwrap();
            let share = store.share(frontdoor(1), id("shr", 51)).await.unwrap().unwrap();
            let described = (tunnel.spec.description.unwrap(), share.spec.description.unwrap());
            assert_eq!((described.0.as_str(), described.1.as_str()), ("of site-1", "of app-db"));
        }
        gateway(&store, &url).await;
        secrets::nothing_is_in_clear(dir.path(), &url, &["the first key of", "the key before that"]).await;
        store.close().await;
    });
}

fn with_tag(column: &'static Column, name: &str, value: &str) -> ListRequest {
    let values = vec![FilterValue::Tag { name: name.to_owned(), value: value.to_owned() }];
    ListRequest { filters: vec![Filter { column, values }], ..ListRequest::default() }
}

async fn check_everything(store: &Store) {
    tunnels(store).await;
    shares(store).await;
    environments_and_agents(store).await;
    frontdoors_and_accounts(store).await;
    history(store).await;
    requests_and_traffic(store).await;
}

/// Older versions have one gateway without an id. Its rows are assigned to the gateway that links, whatever its id is.
async fn gateway(store: &Store, url: &str) {
    for n in [1, 2] {
        let id = GatewayId::new(uuid::Uuid::from_u128(n));
        store.register_gateway(&own_gateway(id), at(90)).await.unwrap();
        store.link_gateway(id, at(90)).await.unwrap();
        for (table, rows) in [
            ("gateway", 1),
            ("gateway_link", 1),
            ("endpoint_place", 3),
            ("tunnel_endpoint", 2),
            ("connection_change", 3),
            ("agent_link", 2),
        ] {
            let column = if table == "gateway" { "id" } else { "gateway" };
            let owners = values(url, column, &["1".to_owned()], table).await;
            assert_eq!(owners.len(), rows, "{table}");
            assert!(owners.iter().all(|row| row[0] == Some(id.to_string())), "{table} {owners:?}");
        }
    }
    assert_eq!(
        values(url, "id", &["created_at".to_owned()], "gateway").await[0][1],
        Some("1790000000000000".to_owned())
    );
    tunnels(store).await;
    assert_eq!(store.connection_changes(id("tnl", 41), &ALL).await.unwrap().total, 2);
    let agent = store.agent(frontdoor(1), id("agt", 21)).await.unwrap().unwrap();
    assert_eq!((agent.connected_since, agent.last_seen), (None, Some(at(20))));
    assert_eq!(agent.version.as_deref(), Some("0.1.0"));
}

async fn tunnels(store: &Store) {
    let up = store.tunnel(frontdoor(1), id("tnl", 41)).await.unwrap().unwrap();
    assert_eq!((up.spec.name.as_str(), up.slot, up.spec.initiate), ("site-1", 0, true));
    assert_eq!((up.generation.get(), up.standing.status), (2, Status::Deployed));
    assert_eq!(up.standing.observed_generation, Some(up.generation));
    assert_eq!(
        (up.spec.pre_shared_key.unwrap().expose(), up.load_balancer_ip.to_string().as_str()),
        ("the first key of sixty", "100.64.0.1")
    );
    let previous: Vec<_> = up.previous_keys.valid(at(0)).map(|(key, until)| (key.expose(), *until)).collect();
    assert_eq!(previous, [("the key before that one", at(86_400))]);
    assert_eq!(serde_json::to_string(&up.spec.ike_proposals).unwrap(), r#"["aes256-sha256-modp2048"]"#);
    assert_eq!(serde_json::to_string(&up.spec.esp_proposals).unwrap(), r#"["aes256gcm16-modp2048"]"#);
    assert_eq!(up.spec.tags["team"], "payments");
    let request = with_tag(&column::tunnel::TAGS, "team", "payments");
    let tagged = store.tunnels(frontdoor(1), &request).await.unwrap();
    assert_eq!(tagged.rows.iter().map(|row| row.id).collect::<Vec<_>>(), [up.id]);
    let connection = up.connection.unwrap();
    assert_eq!((connection.state, connection.since), (ConnectionState::Up, at(31)));
    let peer = connection.peer.unwrap();
    assert_eq!((peer.address.to_string().as_str(), peer.port), ("198.51.100.7", 4500));
    assert_eq!(connection.nat.map(|nat| (nat.gateway, nat.peer)), Some((false, true)));
    assert_eq!(connection.ike_sa.unwrap().rekey_at, Some(at(14_431)));
    assert_eq!(connection.child_sa.map(|sa| (sa.established_at, sa.rekey_at)), Some((at(32), None)));
    assert_eq!(connection.algorithms.unwrap().esp, "AES_GCM_16-256");
    assert_eq!((connection.bytes_in, connection.bytes_out), (8331, 1321));

    let failing = store.tunnel(frontdoor(1), id("tnl", 42)).await.unwrap().unwrap();
    assert_eq!((failing.spec.peer_id.as_str(), failing.spec.initiate), ("site-2.example.org", false));
    let error = failing.connection.unwrap().last_error.unwrap();
    assert_eq!((error.reason, error.since), (ConnectionFault::PreSharedKeysDiffer, at(35)));
    assert_eq!(error.to_string(), "the keys differ: set the same key on both sides");
    let unknown = store.tunnel(frontdoor(2), id("tnl", 43)).await.unwrap().unwrap();
    assert_eq!(unknown.connection, None);
    let detail = unknown.standing.detail.unwrap();
    assert_eq!((detail.problem.reason, detail.since), (Reason::GatewayOffline, at(60)));
    assert_eq!(store.tunnels(frontdoor(1), &ALL).await.unwrap().total, 2);

    let mut seen = 0;
    let gateway = store.gateways().await.unwrap()[0].id;
    store.changes_of(gateway, Revision::default(), |_| seen += 1).await.unwrap();
    // The changes are three tunnels, the live share and the barred agent.
    assert_eq!(seen, 5);
}

async fn shares(store: &Store) {
    let share = store.share(frontdoor(1), id("shr", 51)).await.unwrap().unwrap();
    assert_eq!(
        (share.spec.name.as_str(), share.spec.target.to_string().as_str()),
        ("app-db", "10.20.100.1:8443")
    );
    assert_eq!((share.spec.ingress_port.get(), share.z_id.as_str()), (8443, "ijcrWb-ZOq"));
    assert_eq!((share.generation.get(), share.standing.status), (3, Status::Deployed));
    let options = serde_json::to_value(&share.spec.options).unwrap();
    assert_eq!(options["allowedSources"], serde_json::json!(["172.31.4.0/24"]));
    assert_eq!(share.spec.options.max_connections.map(|n| n.get()), Some(100));
    assert_eq!(share.spec.options.idle_timeout_seconds.map(|n| n.get()), Some(600));
    assert!(share.spec.options.proxy_protocol.is_some());
    let deleted = store.share(frontdoor(1), id("shr", 52)).await.unwrap().unwrap();
    assert_eq!((deleted.standing.status, deleted.deleted_at), (Status::Deleted, Some(at(43))));
    let live = store.shares(frontdoor(1), &ALL).await.unwrap();
    assert_eq!((live.total, live.rows.len()), (1, 1));
}

async fn environments_and_agents(store: &Store) {
    let environment = store.environment(frontdoor(1), id("env", 11)).await.unwrap().unwrap();
    assert_eq!((environment.name.as_str(), environment.active), ("dc-1", true));
    assert_eq!((environment.created_at, environment.updated_at), (at(10), at(11)));
    let connected = store.agent(frontdoor(1), id("agt", 21)).await.unwrap().unwrap();
    assert_eq!((connected.connected_since, connected.last_seen), (Some(at(20)), None));
    assert_eq!(connected.address, Some([10, 0, 0, 1].into()));
    let away = store.agent(frontdoor(1), id("agt", 22)).await.unwrap().unwrap();
    assert_eq!((away.connected_since, away.last_seen), (None, Some(at(21))));
    assert!(store.agent(frontdoor(1), id("agt", 23)).await.unwrap().is_none());
    let whose = store.agent_with_key(id("agt", 21), &[2; 32]).await.unwrap();
    assert_eq!(whose, Some((frontdoor(1), environment.id)));
}

async fn frontdoors_and_accounts(store: &Store) {
    let frontdoors = store.frontdoors(&Reach::All, &ALL).await.unwrap().rows;
    let found: Vec<_> =
        frontdoors.iter().map(|f| (f.id, f.spec.ipsec_shares_enabled, f.updated_at)).collect();
    assert_eq!(found, [(frontdoor(1), true, at(0)), (frontdoor(2), false, at(2))]);
    let account = store.api_account_with_secret(&[4; 32]).await.unwrap().unwrap();
    assert_eq!((account.id, account.reach()), (id("acc", 61), Reach::Named(vec![frontdoor(1)])));
    assert_eq!(account.spec.scopes, ["frontdoor.read", "frontdoor.write"]);
    assert_eq!(store.api_account_with_secret(&[5; 32]).await.unwrap(), None);
}

async fn history(store: &Store) {
    let changes = store.connection_changes(id("tnl", 41), &ALL).await.unwrap();
    let kept: Vec<_> = changes.rows.iter().map(|c| (c.number, c.state, c.last_error.clone())).collect();
    let error = (ConnectionFault::PeerDoesNotAnswer, "nothing comes back: look at the firewall".to_owned());
    assert!(kept.contains(&(1, ConnectionState::Connecting, Some(error))), "{kept:?}");
    assert!(kept.contains(&(2, ConnectionState::Up, None)), "{kept:?}");
    let executions = store.executions(frontdoor(1), &ALL).await.unwrap().rows;
    let found: Vec<_> = executions.iter().map(|e| (e.id, e.action, e.status)).collect();
    assert_eq!(
        found,
        [
            (id("exe", 71), Action::Create, ExecutionStatus::Success),
            (id("exe", 73), Action::Update, ExecutionStatus::Failed)
        ]
    );
    let of_acme = store.organization_execution(Some("acme"), id("exe", 72)).await.unwrap().unwrap();
    assert_eq!((of_acme.frontdoor, of_acme.actor.as_str()), (None, "admin"));
    let span = store.event_span().await.unwrap();
    assert_eq!((span.newest, span.forgotten), (5, 3));
    let events = store.events(None, 3, 10).await.unwrap();
    let found: Vec<_> = events.iter().map(|e| (e.id, e.status.as_str(), e.reason.as_deref())).collect();
    assert_eq!(found, [(4, "DOWN", Some("PreSharedKeysDiffer")), (5, "DEPLOYED", None)]);
}

async fn requests_and_traffic(store: &Store) {
    let claim = |key: &str, fingerprint: &str| Claim {
        principal: "admin".to_owned(),
        key: key.to_owned(),
        fingerprint: fingerprint.to_owned(),
        token: uuid::Uuid::now_v7(),
    };
    let answer = KeptAnswer {
        status: 202,
        headers: vec![("location".to_owned(), "/x".to_owned())],
        body: Some("{}".to_owned()),
    };
    assert_eq!(store.claim(&claim("answered", "a"), at(200)).await.unwrap(), Claimed::Answered(answer));
    assert_eq!(store.claim(&claim("lost", "b"), at(200)).await.unwrap(), Claimed::Lost(id("exe", 73)));
    for period in [900, 43_200, 604_800] {
        let window = MetricsWindow::new(period, None, at(60)).unwrap();
        let samples = store.traffic(TrafficScope::Share(id("shr", 51)), &window).await.unwrap();
        let sum = |of: fn(&wicketgate_store::Sample) -> u64| samples.iter().map(of).sum::<u64>();
        assert_eq!((sum(|s| s.rx), sum(|s| s.tx), sum(|s| s.failures)), (8331, 1321, 1), "{period}");
    }
}
