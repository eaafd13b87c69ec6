use super::*;
use crate::{FrontdoorSpec, WriteContext};
use sqlx::Row as _;
use std::{collections::BTreeSet, time::Duration};
use tokio::time::timeout;
use uuid::Uuid;
use wicketgate_model::{EnvironmentId, FrontdoorId};

const SECOND: i64 = 1_000_000;
const DAY: i64 = 24 * 3600 * SECOND;

/// What bounds the rows of a table.
enum Bound {
    /// A row with these columns is deleted after this time.
    After(i64, &'static str),
    /// It is deleted with the row of another table that it belongs to.
    With(&'static str),
    /// It needs no retention.
    Few(&'static str),
}
use Bound::{After, Few, With};

/// In the columns, AT is the time in microseconds whose distance counts.
const TABLES: &[(&str, Bound)] = &[
    ("_sqlx_migrations", Few("one of each version of the schema")),
    ("agent", Few("the quota limits those that are not barred; a barred one stays, to be refused")),
    ("agent_link", Few("one of each agent")),
    ("agent_report", Few("one of each agent")),
    ("api_account", Few("the quota limits those that are not revoked; a revoked one stays, as a record")),
    ("clear_remains", Few("one row")),
    ("clear_tunnel_key", Few("emptied when this version starts first")),
    ("connection_change", With("tunnel_endpoint")),
    ("console_session", After(0, "expires_at = AT")),
    ("endpoint_place", With("ipsec_tunnel")),
    ("endpoint_state", With("ipsec_tunnel")),
    ("enrollment", After(30 * DAY, "expires_at = AT, frontdoor = FRONTDOOR")),
    ("environment", Few("the quota limits those that are not deleted; a deleted one stays, as a record")),
    ("environment_gateways", With("environment")),
    ("event", After(7 * DAY, "at = AT")),
    ("event_forgotten", Few("one of each Frontdoor")),
    ("event_sequence", Few("one row")),
    ("execution", After(365 * DAY, "finished_at = AT")),
    ("frontdoor", Few("the quota limits those of an organization; a deleted one stays, as a record")),
    ("gateway", Few("operators join gateways, some at each location")),
    ("gateway_link", Few("one of each gateway")),
    ("handover_link", After(30 * DAY, "expires_at = AT, frontdoor = FRONTDOOR, tunnel = 'TUNNEL'")),
    ("idempotency", After(DAY, "claimed_at = AT")),
    (
        "ipsec_share",
        After(
            30 * DAY,
            "deleted_at = AT, status = 'DELETED', frontdoor = FRONTDOOR, environment = ENVIRONMENT, tunnel = 'TUNNEL'",
        ),
    ),
    ("installation", Few("one row")),
    ("join_token", After(30 * DAY, "expires_at = AT")),
    ("last_backup", Few("one row")),
    ("shared_secret", Few("one row of each name")),
    ("admin_token", Few("one row")),
    ("ipsec_share_count", Few("one of each environment and status")),
    ("ipsec_share_tag", With("ipsec_share")),
    ("ipsec_tunnel", After(30 * DAY, "deleted_at = AT, status = 'DELETED', frontdoor = FRONTDOOR")),
    ("ipsec_tunnel_tag", With("ipsec_tunnel")),
    ("peer_address_hold", After(30 * DAY, "released_at = AT")),
    ("revision", Few("one row")),
    ("server", Few("one of each server that lives")),
    ("site_session", With("handover_link")),
    ("traffic", After(6 * 3600 * SECOND, "resolution = 10, bucket = AT / 1000 - 10000")),
    ("traffic", After(3 * DAY, "resolution = 300, bucket = AT / 1000 - 300000")),
    ("traffic", After(31 * DAY, "resolution = 3600, bucket = AT / 1000 - 3600000")),
    ("traffic_failure", After(6 * 3600 * SECOND, "resolution = 10, bucket = AT / 1000 - 10000")),
    ("traffic_failure", After(3 * DAY, "resolution = 300, bucket = AT / 1000 - 300000")),
    ("traffic_failure", After(31 * DAY, "resolution = 3600, bucket = AT / 1000 - 3600000")),
    ("traffic_report", Few("one of each gateway")),
    ("tunnel_endpoint", With("ipsec_tunnel")),
];

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

/// The columns of a row, with a number for each that has to have a value.
async fn insert(tx: &mut Transaction, table: &str, columns: &str, number: i64) {
    let mut given: Vec<(String, String)> = columns
        .split(", ")
        .filter_map(|column| column.split_once(" = "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let needed = format!(
        "SELECT name FROM pragma_table_info('{table}') WHERE (\"notnull\" = 1 OR pk > 0) AND dflt_value IS NULL"
    );
    for (name,) in tx.all::<(String,)>(AssertSqlSafe(needed), &[]).await.unwrap() {
        if given.iter().all(|(known, _)| *known != name) {
            given.push((name, format!("'{number}'")));
        }
    }
    let (names, values): (Vec<_>, Vec<_>) = given.into_iter().unzip();
    let insert = format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), values.join(", "));
    tx.execute(AssertSqlSafe(insert), &[]).await.unwrap();
}

async fn numbers(store: &Store, sql: String) -> Vec<String> {
    let rows: Vec<(String,)> = store.all(AssertSqlSafe(sql), &[]).await.unwrap();
    rows.into_iter().map(|(row,)| row).collect()
}

#[tokio::test]
async fn every_table_has_a_bound() {
    let dir = tempfile::tempdir().unwrap();
    let store = crate::store::fresh(dir.path()).await;
    let tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
    let all: BTreeSet<_> = numbers(&store, tables.to_owned()).await.into_iter().collect();
    let known: BTreeSet<_> = TABLES.iter().map(|(table, _)| (*table).to_owned()).collect();
    assert_eq!(all, known);

    let [frontdoor, environment] =
        [FrontdoorId::new(Uuid::nil()).to_string(), EnvironmentId::new(Uuid::nil()).to_string()]
            .map(|id| format!("'{id}'"));
    let columns_at = |columns: &str, at: i64| {
        let columns = columns.replace("AT /", &format!("{at} /")).replace("= AT", &format!("= {at}"));
        columns.replace("FRONTDOOR", &frontdoor).replace("ENVIRONMENT", &environment)
    };
    let mut tx = store.database.begin().await.unwrap();
    insert(&mut tx, "frontdoor", &format!("id = {frontdoor}"), 1).await;
    insert(&mut tx, "environment", &format!("id = {environment}, frontdoor = {frontdoor}"), 1).await;
    let tunnel = format!("id = 'TUNNEL', status = 'DEPLOYED', frontdoor = {frontdoor}");
    insert(&mut tx, "ipsec_tunnel", &tunnel, 1).await;
    let mut kept = BTreeSet::new();
    for (n, (table, bound)) in (10..).step_by(10).zip(TABLES) {
        match bound {
            After(time, columns) => {
                let end = now().as_microsecond() - time;
                insert(&mut tx, table, &columns_at(columns, end - SECOND), n).await;
                insert(&mut tx, table, &columns_at(columns, end + 60 * SECOND), n + 1).await;
                kept.insert((*table, (n + 1).to_string()));
            }
            With(parent) => {
                let cascades = format!(
                    "SELECT \"table\" FROM pragma_foreign_key_list('{table}') WHERE on_delete = 'CASCADE'"
                );
                assert!(numbers(&store, cascades).await.contains(&(*parent).to_owned()), "{table}");
            }
            Few(why) => assert!(!why.is_empty()),
        }
    }
    tx.commit().await.unwrap();
    assert!(!store.prune(now()).await.unwrap());
    let mut left = BTreeSet::new();
    for (table, _) in TABLES.iter().filter(|(_, bound)| matches!(bound, After(..))) {
        let id = match *table {
            "traffic" | "traffic_failure" => "scope",
            "idempotency" => "principal",
            "console_session" => "token_sha256",
            "peer_address_hold" => "location",
            _ => "id",
        };
        let rows = numbers(&store, format!("SELECT CAST({id} AS TEXT) FROM {table} WHERE {id} <> 'TUNNEL'"));
        left.extend(rows.await.into_iter().map(|row| (*table, row)));
    }
    assert_eq!(left, kept);
}

#[tokio::test]
async fn the_rows_of_large_tables_are_found_by_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let store = crate::store::fresh(dir.path()).await;
    let small = ["ipsec_tunnel", "handover_link", "site_session", "event_forgotten", "join_token"];
    for rule in rules(now()).iter().filter(|rule| !small.contains(&rule.table)) {
        let text = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", rule.statement()));
        let explained = rule.before.iter().fold(sqlx::query(text), |query, before| query.bind(*before));
        let plan = explained.fetch_all(&mut *store.database.readers.acquire().await.unwrap()).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
        let scan = format!("SCAN {}", rule.table);
        let scans = |step: &String| step.split(" USING").next() == Some(&scan) && !step.contains("INDEX");
        assert!(!plan.iter().any(scans), "{plan:?}");
        assert!(plan[0].starts_with(&format!("SEARCH {}", rule.table)), "{plan:?}");
    }
}

#[tokio::test]
async fn writes_go_on_while_very_many_rows_are_deleted() {
    const ROWS: i64 = 40_000;
    let dir = tempfile::tempdir().unwrap();
    let store = crate::store::fresh(dir.path()).await;
    let mut tx = store.database.begin().await.unwrap();
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1) \
                INSERT INTO traffic (scope, resolution, bucket, rx, tx, connections, failures, active) \
                SELECT 'share-' || i, 10, 0, 0, 0, 0, 0, 0 FROM n";
    tx.execute(fill, &[&ROWS]).await.unwrap();
    tx.commit().await.unwrap();
    let (deleting, mut writes) = (store.clone(), 0);
    let mut deleted = tokio::spawn(async move { while deleting.prune(now()).await.unwrap() {} });
    let written = async {
        while !deleted.is_finished() {
            let spec = FrontdoorSpec {
                organization: "acme".to_owned(),
                default_namespace: "default".parse().unwrap(),
                ipsec_shares_enabled: true,
                quotas: Default::default(),
            };
            let context = WriteContext::new("test", now(), Uuid::now_v7);
            // More than the quota allows: what counts is that it is answered.
            let _ = store.create_frontdoor(&spec, &context).await;
            writes += 1;
        }
    };
    timeout(Duration::from_secs(120), written).await.unwrap();
    (&mut deleted).await.unwrap();
    let (left,): (i64,) = store.find("SELECT COUNT(*) FROM traffic", &[]).await.unwrap().unwrap();
    assert_eq!(left, 0);
    assert!(writes > 20, "{writes} writes beside the deletion of {ROWS} rows");
}
