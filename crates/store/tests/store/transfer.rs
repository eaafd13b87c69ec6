//! A database that is exported, and imported into another one.

use crate::{
    database::{keys_in, open, place},
    random_rows::{Cell, cells, fill, rows_of},
    site::{Site, context, now, tunnel_spec},
};
use proptest::test_runner::{Config, TestRunner};
use sqlx::{AnyConnection, Connection as _, Executor as _};
use std::{io::Cursor, path::Path};
use tempfile::TempDir;
use wicketgate_store::{
    Backup, BackupSource, DatabaseLock, Import, ImportTarget, LockMode, Result, SecretKeyFile, SharedSecret,
    TableSum, back_up, export,
};

const AUTHORITY: &str = "0123456789abcdef";

fn source<'a>(place: &'a str, keys: &'a SecretKeyFile) -> BackupSource<'a> {
    BackupSource { place, keys, files: Vec::new(), version: "1.2.3", now: now() }
}

async fn exported(place: &str, keys: &SecretKeyFile) -> (Vec<u8>, Vec<TableSum>) {
    let (mut file, mut sums) = (Vec::new(), Vec::new());
    let rows = export(source(place, keys), &mut file, |sum| sums.push(sum.clone())).await.unwrap();
    assert_eq!(rows, sums.iter().map(|sum| sum.rows).sum::<u64>());
    (file, sums)
}

/// Loads an export, and returns the checksums of what was loaded.
async fn import(file: &[u8], keys: &SecretKeyFile, target: ImportTarget<'_>) -> Result<Vec<TableSum>> {
    Import::open(Cursor::new(file.to_vec()), &keys.read()?.unwrap())?.load(target).await
}

fn target(place: &str) -> ImportTarget<'_> {
    ImportTarget { place, authority: AUTHORITY, exported: None }
}

fn sqlite(dir: &Path) -> String {
    dir.join("sqlite").join("wicketgate.db").display().to_string()
}

async fn connected(place: &str) -> AnyConnection {
    let url = if place.contains("://") { place.to_owned() } else { format!("sqlite://{place}") };
    AnyConnection::connect(&url).await.unwrap()
}

async fn frontdoors(place: &str) -> i64 {
    let mut db = connected(place).await;
    let (count,) = sqlx::query_as("SELECT COUNT(*) FROM frontdoor").fetch_one(&mut db).await.unwrap();
    db.close().await.unwrap();
    count
}

/// SQLite, the database of this run, and SQLite again have the same rows.
async fn there_and_back(cells: &[Cell]) {
    let (first, middle, last) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let keys = keys_in(&first);
    let (from, by, to) = (sqlite(first.path()), place(&middle), sqlite(last.path()));
    open(&from, &first).await.unwrap().close().await;
    fill(&mut connected(&from).await, cells).await;

    let (file, sums) = exported(&from, &keys).await;
    assert!(sums.iter().all(|sum| sum.rows > 0), "{sums:?}");
    assert_eq!(import(&file, &keys, target(&by)).await.unwrap(), sums);
    let (file, again) = exported(&by, &keys).await;
    assert_eq!(again, sums);
    assert_eq!(import(&file, &keys, target(&to)).await.unwrap(), sums);
    assert_eq!(rows_of(&mut connected(&to).await).await, rows_of(&mut connected(&from).await).await);
}

#[test]
fn random_rows_of_every_table_are_the_same_there_and_back() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let config = Config { cases: 6, max_shrink_iters: 20, failure_persistence: None, ..Config::default() };
    let tried = TestRunner::new(config).run(&cells(), |cells| {
        runtime.block_on(there_and_back(&cells));
        Ok(())
    });
    tried.unwrap();
}

/// What another program does to rows while they are inserted, on SQLite and on PostgreSQL.
struct Fault {
    table: &'static str,
    on_sqlite: &'static str,
    on_postgres: &'static str,
}

const FAULTS: [Fault; 2] = [
    Fault {
        table: "ipsec_tunnel",
        on_sqlite: "UPDATE ipsec_tunnel SET name = name || 'x' WHERE id = NEW.id",
        on_postgres: "NEW.name = NEW.name || 'x'; RETURN NEW",
    },
    Fault { table: "event", on_sqlite: "DELETE FROM event WHERE id = NEW.id", on_postgres: "RETURN NULL" },
];

impl Fault {
    async fn plant(&self, place: &str) {
        let table = self.table;
        let statements = if place.contains("://") {
            let body = format!("BEGIN {}; END", self.on_postgres);
            vec![
                format!("CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$"),
                format!(
                    "CREATE TRIGGER fault BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION fault()"
                ),
            ]
        } else {
            vec![format!("CREATE TRIGGER fault AFTER INSERT ON {table} BEGIN {}; END", self.on_sqlite)]
        };
        run(place, &statements).await;
    }

    async fn end(&self, place: &str) {
        let statements = match place.contains("://") {
            true => vec!["DROP FUNCTION fault CASCADE".to_owned()],
            false => vec!["DROP TRIGGER fault".to_owned()],
        };
        run(place, &statements).await;
    }
}

async fn run(place: &str, statements: &[String]) {
    let mut db = connected(place).await;
    for statement in statements {
        db.execute(sqlx::AssertSqlSafe(statement.clone())).await.unwrap();
    }
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_was_flipped_and_a_row_that_was_lost_are_found_and_nothing_is_committed() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (from, to, keys) = (sqlite(dir.path()), place(&other), keys_in(&dir));
    let store = open(&from, &dir).await.unwrap();
    Site::new(&store).await;
    store.close().await;
    let (file, sums) = exported(&from, &keys).await;
    // An empty database, whose schema an earlier attempt has made.
    open(&to, &dir).await.unwrap().close().await;
    for fault in FAULTS {
        fault.plant(&to).await;
        let refused = import(&file, &keys, target(&to)).await.unwrap_err().to_string();
        assert!(refused.contains(fault.table) && refused.contains("nothing was imported"), "{refused}");
        assert_eq!(frontdoors(&to).await, 0);
        fault.end(&to).await;
    }
    assert_eq!(import(&file, &keys, target(&to)).await.unwrap(), sums);
    assert_eq!(frontdoors(&to).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_database_is_that_of_the_same_installation_and_takes_no_second_import() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (from, to, keys) = (sqlite(dir.path()), place(&other), keys_in(&dir));
    let store = open(&from, &dir).await.unwrap();
    let site = Site::new(&store).await;
    let secret = SharedSecret { key: vec![1, 0, 255].into(), certificate: Some("PEM".to_owned()) };
    store.keep_authority(&secret, AUTHORITY, now()).await.unwrap();
    let (era, tunnel) = (store.installation().await.unwrap().era, site.tunnel);
    store.close().await;
    let (file, sums) = exported(&from, &keys).await;

    let foreign = ImportTarget { authority: "another", ..target(&to) };
    let refused = import(&file, &keys, foreign).await.unwrap_err().to_string();
    assert!(refused.contains(AUTHORITY) && refused.contains("--data-dir"), "{refused}");
    assert_eq!(frontdoors(&to).await, 0);
    let own = ImportTarget { exported: Some(&from), ..target(&to) };
    import(&file, &keys, own).await.unwrap();
    let moved = open(&to, &dir).await.unwrap();
    assert_eq!(moved.installation().await.unwrap().era, era);
    // Its sealed key opens.
    let tunnel = moved.tunnel(site.frontdoor, tunnel).await.unwrap().unwrap();
    assert_eq!(tunnel.spec.pre_shared_key, tunnel_spec(1).pre_shared_key);
    // An import whose end was not seen can be repeated, as long as neither database has changed.
    assert_eq!(import(&file, &keys, own).await.unwrap(), sums);
    let refused = import(&file, &keys, ImportTarget { authority: "another", ..own }).await.unwrap_err();
    assert!(refused.to_string().contains("--data-dir"), "{refused}");
    let goes_on = open(&from, &dir).await.unwrap();
    goes_on.create_share(site.frontdoor, &site.share("meanwhile", 79), &context()).await.unwrap();
    goes_on.close().await;
    let refused = import(&file, &keys, own).await.unwrap_err().to_string();
    assert!(refused.contains("changed after the export"), "{refused}");
    moved.create_share(site.frontdoor, &site.share("first", 80), &context()).await.unwrap();
    moved.close().await;
    let refused = import(&file, &keys, own).await.unwrap_err().to_string();
    assert!(refused.contains("not empty"), "{refused}");

    // The exported database goes on: its export is out of date.
    let store = open(&from, &dir).await.unwrap();
    store.create_share(site.frontdoor, &site.share("late", 81), &context()).await.unwrap();
    store.close().await;
    let third = TempDir::new().unwrap();
    let third = place(&third);
    let late = ImportTarget { exported: Some(&from), ..target(&third) };
    let refused = import(&file, &keys, late).await.unwrap_err().to_string();
    assert!(refused.contains("changed after the export"), "{refused}");
    assert_eq!(frontdoors(&third).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_whole_export_of_this_schema_and_key_is_refused_by_name() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (from, to, keys) = (place(&dir), place(&other), keys_in(&dir));
    let store = open(&from, &dir).await.unwrap();
    Site::new(&store).await;
    let (file, _) = exported(&from, &keys).await;
    let refused = |file: Vec<u8>, keys: SecretKeyFile| {
        let to = to.clone();
        async move { import(&file, &keys, target(&to)).await.unwrap_err().to_string() }
    };
    for cut in [file.len() - 1, file.len() / 2] {
        assert!(refused(file[..cut].to_vec(), keys.clone()).await.contains("changed, cut, or damaged"));
    }
    let mut flipped = file.clone();
    let last = flipped.len() - 40;
    flipped[last] ^= 1;
    assert!(refused(flipped, keys.clone()).await.contains("changed, cut, or damaged"));

    let line = file.iter().position(|byte| *byte == b'\n').unwrap();
    let head = String::from_utf8(file[..line].to_vec()).unwrap();
    let older = [head.replace("\"schema\":", "\"schema\":9").as_bytes(), &file[line..]].concat();
    let told = refused(older, keys.clone()).await;
    assert!(told.contains("1.2.3") && told.contains("same version"), "{told}");
    open(&sqlite(other.path()), &other).await.unwrap().close().await;
    assert!(refused(file.clone(), keys_in(&other)).await.contains("--secret-key-file"));

    let mut backup = Vec::new();
    back_up(source(&from, &keys), &mut backup, |_: &str, _| {}).await.unwrap();
    assert!(refused(backup, keys.clone()).await.contains("wicketgate restore"));
    let told = Backup::open(Cursor::new(file), &keys.read().unwrap().unwrap()).unwrap_err().to_string();
    assert!(told.contains("wicketgate db import"), "{told}");
    assert!(refused(b"other".to_vec(), keys.clone()).await.contains("no export"));

    // A server has the database.
    if let Some(_lock) = DatabaseLock::take(&from, LockMode::Exclusive).await.unwrap() {
        let refused = export(source(&from, &keys), std::io::sink(), |_| {}).await.unwrap_err().to_string();
        assert!(refused.contains("another server uses"), "{refused}");
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_the_other_database_could_not_have_is_not_exported() {
    let dir = TempDir::new().unwrap();
    let (from, keys) = (sqlite(dir.path()), keys_in(&dir));
    let store = open(&from, &dir).await.unwrap();
    Site::new(&store).await;
    store.close().await;
    // SQLite keeps a text in a column of numbers.
    for value in ["'many'", "1.5", "x'00'"] {
        run(&from, &[format!("UPDATE frontdoor SET created_at = {value}")]).await;
        let refused = export(source(&from, &keys), std::io::sink(), |_| {}).await.unwrap_err().to_string();
        assert!(refused.contains("created_at"), "{refused}");
    }
}
