//! The migration to several gateways, of a database with one that has served.

use super::{ROWS_OF_0010, frontdoor, id, make, values};
use crate::{
    database,
    site::{ALL, changes_of, now, own_gateway},
    traffic::{received, report},
};
use sqlx::{
    AnyConnection, AssertSqlSafe, Connection as _, Executor as _, Row as _, SqlSafeStr as _,
    migrate::{Migration, Migrator},
};
use std::{borrow::Cow, collections::BTreeMap, path::Path};
use uuid::Uuid;
use wicketgate_model::{GatewayId, ShareId, TrafficDelta};
use wicketgate_store::{Revision, Store, TrafficScope};

/// The version before it.
const BEFORE: i64 = 35;

/// What the first start of this version changes: it seals keys, and the fingerprints of requests.
const SEALED: [&str; 4] = ["_sqlx_migrations", "clear_tunnel_key", "clear_remains", "idempotency"];

fn gateway() -> GatewayId {
    GatewayId::new(Uuid::from_u128(5))
}

/// Brings a database to the version before.
async fn migrate(url: &str) {
    let mut db = AnyConnection::connect(url).await.unwrap();
    let of_rows = match db.backend_name() {
        "PostgreSQL" => "json_each_text(CAST(r.tags AS JSON))",
        _ => "json_each(r.tags)",
    };
    let all = Migrator::new(Path::new("migrations")).await.unwrap();
    let older = all.iter().filter(|m| m.version <= BEFORE).map(|m| {
        let sql = AssertSqlSafe(m.sql.as_str().replace("JSON_ROWS(r.tags)", of_rows)).into_sql_str();
        Migration::new(m.version, m.description.clone(), m.migration_type, sql, m.no_tx)
    });
    let older = Migrator { migrations: Cow::Owned(older.collect()), ..Migrator::DEFAULT };
    older.run(&mut db).await.unwrap();
    db.close().await.unwrap();
}

/// The columns of all tables, without those that hold keys.
async fn columns(db: &mut AnyConnection) -> BTreeMap<String, Vec<String>> {
    let select = match db.backend_name() {
        "PostgreSQL" => {
            "SELECT table_name::text, column_name::text FROM information_schema.columns \
             WHERE table_schema = current_schema()"
        }
        _ => {
            "SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table'"
        }
    };
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in db.fetch_all(select).await.unwrap() {
        let (table, column): (String, String) = (row.get(0), row.get(1));
        if !SEALED.contains(&table.as_str()) && !table.starts_with("sqlite_") && !column.contains("key") {
            tables.entry(table).or_default().push(column);
        }
    }
    tables
}

/// All rows of these tables.
async fn rows(
    db: &mut AnyConnection,
    tables: &BTreeMap<String, Vec<String>>,
) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    for (table, columns) in tables {
        let texts = columns.iter().map(|column| format!("COALESCE(CAST(\"{column}\" AS TEXT), 'NULL')"));
        let select = format!("SELECT {} FROM {table}", texts.collect::<Vec<_>>().join(" || '|' || "));
        let found = sqlx::query(AssertSqlSafe(select)).fetch_all(&mut *db).await.unwrap();
        let mut found: Vec<String> = found.iter().map(|row| row.get(0)).collect();
        found.sort_unstable();
        all.insert(table.clone(), found);
    }
    all
}

#[test]
fn a_gateway_that_has_served_keeps_its_tunnels_agents_and_history() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dir = tempfile::TempDir::new().unwrap();
    let place = database::place(&dir);
    let url = if place.contains("://") { place.clone() } else { format!("sqlite://{place}?mode=rwc") };
    std::fs::create_dir_all(dir.path().join("data")).unwrap();
    runtime.block_on(async {
        make(&url, 10, ROWS_OF_0010).await;
        migrate(&url).await;
        let mut db = AnyConnection::connect(&url).await.unwrap();
        // Its first start of the version before gave it its id; then it reported traffic.
        for statement in [
            format!("UPDATE gateway SET id = '{}'", gateway()),
            "INSERT INTO traffic_report (gateway, report, parts) SELECT id, 'r', 3 FROM gateway".to_owned(),
        ] {
            db.execute(AssertSqlSafe(statement)).await.unwrap();
        }
        let mut tables = columns(&mut db).await;
        // Its column has another name afterwards.
        tables.remove("traffic_report");
        let before = rows(&mut db, &tables).await;
        for table in ["ipsec_tunnel", "tunnel_endpoint", "connection_change", "agent_link", "event"] {
            assert!(!before[table].is_empty(), "{table}");
        }
        db.close().await.unwrap();

        let store = database::open(&place, &dir).await.unwrap();
        let mut db = AnyConnection::connect(&url).await.unwrap();
        let after = rows(&mut db, &tables).await;
        for (table, rows) in &before {
            assert_eq!(after[table], *rows, "{table}");
        }
        db.close().await.unwrap();
        let row = &store.gateways().await.unwrap()[0];
        assert_eq!((row.id, row.in_process, row.location.as_ref()), (gateway(), true, None));
        // All of its tunnels stay at it, before it has started and after.
        for is_started in [false, true] {
            if is_started {
                store.register_gateway(&own_gateway(gateway()), now()).await.unwrap();
                store.link_gateway(gateway(), now()).await.unwrap();
            }
            let placed = "endpoint_place WHERE ordinal = 1 AND withdrawn_at IS NULL";
            let placed = values(&url, "tunnel", &["gateway".to_owned()], placed).await;
            assert_eq!(placed.len(), 3);
            assert!(placed.iter().all(|row| row[1] == Some(gateway().to_string())), "{placed:?}");
            let seen = changes_of(&store, gateway(), Revision::default()).await;
            let agents = seen.barred.len() + seen.enrolled.len();
            assert_eq!((seen.tunnels, seen.shares.len(), agents), (3, 1, 1));
            assert_eq!(store.connection_changes(id("tnl", 41), &ALL).await.unwrap().total, 2);
            let tunnel = store.tunnel(frontdoor(1), id("tnl", 41)).await.unwrap().unwrap();
            assert_eq!((tunnel.gateway, tunnel.connection.is_some()), (Some(gateway()), true));
        }
        reports_follow(&store, &url).await;
        store.close().await;
    });
}

/// The last report of the version before is of a spool that no gateway has, so that the next one is added.
async fn reports_follow(store: &Store, url: &str) {
    let reports = async || {
        let columns = ["spool", "number", "parts"].map(str::to_owned);
        values(url, "gateway", &columns, "traffic_report").await
    };
    let row = |values: [&str; 3]| {
        let values = values.map(|value| Some(value.to_owned()));
        [vec![Some(gateway().to_string())], values.to_vec()].concat()
    };
    assert_eq!(reports().await, [row(["r", "0", "3"])]);
    let share = ShareId::new(Uuid::from_u128(6));
    let delta = TrafficDelta { rx: 7, ..TrafficDelta::new(share, id("tnl", 41)) };
    store.register_gateway(&own_gateway(gateway()), now()).await.unwrap();
    let epoch = store.link_gateway(gateway(), now()).await.unwrap();
    let spool = Uuid::from_u128(8);
    store.record_traffic(&epoch, &report(spool, 1, 0, vec![delta])).await.unwrap();
    assert_eq!(received(store, TrafficScope::Share(share)).await, 7);
    assert_eq!(reports().await, [row([&spool.to_string(), "1", "1"])]);
}
