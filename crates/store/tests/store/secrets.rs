//! Secrets at rest: no key of a tunnel is in clear in any file, and an erased one is nowhere.

use crate::{
    database::{keys_in, on_each, open, place},
    site::{Site, after, changes, context, now, tunnel_spec},
};
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _, Row as _};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use wicketgate_model::{FrontdoorId, LoadBalancerPools, PreSharedKey, TunnelId};
use wicketgate_store::{Action, Claim, Claimed, Revision, Store, StoreError, TunnelChange, TunnelSpec};

/// The longest wait for an erasure, on a busy machine.
const BOUND: Duration = Duration::from_secs(20);

/// The files in the directory that contain the text.
fn files_with(dir: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if fs::read(&path).unwrap().windows(text.len()).any(|part| part == text.as_bytes()) {
            found.push(path.display().to_string());
        }
    }
    found
}

/// The values of a tunnel's columns, as they are stored.
async fn stored(url: &str, id: TunnelId) -> [Option<String>; 2] {
    let mut db = AnyConnection::connect(url).await.unwrap();
    let select = format!("SELECT pre_shared_key, previous_keys FROM ipsec_tunnel WHERE id = '{id}'");
    let row = sqlx::query(AssertSqlSafe(select)).fetch_one(&mut db).await.unwrap();
    db.close().await.unwrap();
    [row.get(0), row.get(1)]
}

pub(crate) fn url_of(place: &str) -> String {
    if place.contains("://") { place.to_owned() } else { format!("sqlite://{place}") }
}

/// No file of a database below `dir` has one of the texts; nor has a column of the database.
pub(crate) async fn nothing_is_in_clear(dir: &Path, url: &str, texts: &[&str]) {
    for text in texts {
        let until = Instant::now() + BOUND;
        while !files_with(dir, text).is_empty() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(files_with(dir, text), Vec::<String>::new(), "{text}");
    }
    let mut db = AnyConnection::connect(url).await.unwrap();
    for (table, columns) in [
        ("ipsec_tunnel", ["pre_shared_key", "previous_keys"]),
        ("clear_tunnel_key", ["pre_shared_key", "previous_keys"]),
    ] {
        let select = format!("SELECT {} FROM {table}", columns.join(", "));
        for row in sqlx::query(AssertSqlSafe(select)).fetch_all(&mut db).await.unwrap() {
            for column in 0..columns.len() {
                let value: Option<String> = row.get(column);
                assert!(value.is_none_or(|v| v.starts_with("1.") && texts.iter().all(|t| !v.contains(t))));
            }
        }
    }
    db.close().await.unwrap();
}

/// The tunnel gets another key.
async fn rotate(store: &Store, (frontdoor, id): (FrontdoorId, TunnelId), key: &PreSharedKey, grace: i64) {
    let row = store.tunnel(frontdoor, id).await.unwrap().unwrap();
    let change = TunnelChange {
        expected: row.generation,
        spec: TunnelSpec { pre_shared_key: Some(key.clone()), ..row.spec },
        previous_until: after(grace),
        cuts: false,
        action: Action::RotateKey,
    };
    let pools = LoadBalancerPools::ipsec();
    store.replace_tunnel(frontdoor, id, &change, &pools, &context()).await.unwrap();
}

async fn key_of(store: &Store, (frontdoor, id): (FrontdoorId, TunnelId)) -> Result<PreSharedKey, StoreError> {
    Ok(store.tunnel(frontdoor, id).await?.unwrap().spec.pre_shared_key.unwrap())
}

#[tokio::test]
async fn no_file_has_a_key_and_an_erased_one_is_gone_in_every_form() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("data").join("wicketgate.db").display().to_string();
    let (store, url) = (open(&file, &dir).await.unwrap(), format!("sqlite://{file}"));
    let site = Site::new(&store).await;
    let at = (site.frontdoor, site.tunnel);
    let keys = [1, 7, 8, 9].map(|n| PreSharedKey::from_random([n; 32]));
    rotate(&store, at, &keys[1], 60).await;
    rotate(&store, at, &keys[2], 60).await;
    let (with_grace, pools) = (stored(&url, site.tunnel).await, LoadBalancerPools::ipsec());
    let kept = store.create_tunnel(site.frontdoor, &tunnel_spec(9), &pools, &context()).await.unwrap();
    let texts = keys.each_ref().map(PreSharedKey::expose);
    nothing_is_in_clear(dir.path(), &url, &texts).await;

    // The grace ends: the keys of before are gone, also sealed.
    store.erase_expired_keys(after(59)).await.unwrap();
    assert_eq!(stored(&url, site.tunnel).await, with_grace);
    store.erase_expired_keys(after(60)).await.unwrap();
    assert_eq!(stored(&url, site.tunnel).await, [with_grace[0].clone(), None]);
    assert_eq!(key_of(&store, at).await.unwrap(), keys[2]);
    let sealed = with_grace.map(Option::unwrap);
    nothing_is_in_clear(dir.path(), &url, &[&sealed[1]]).await;

    // The deletion erases the key in its own transaction, and then in the log.
    store.delete_tunnel(site.frontdoor, site.tunnel, &context()).await.unwrap();
    assert_eq!(stored(&url, site.tunnel).await, [None, None]);
    let row = store.tunnel(site.frontdoor, site.tunnel).await.unwrap().unwrap();
    assert_eq!(row.spec.pre_shared_key, None);
    nothing_is_in_clear(dir.path(), &url, &[&sealed[0]]).await;
    nothing_is_in_clear(dir.path(), &url, &texts).await;
    assert_eq!(key_of(&store, (site.frontdoor, kept.id)).await.unwrap(), keys[3]);
    store.close().await;
    nothing_is_in_clear(dir.path(), &url, &texts).await;
}

/// A reader that still sees the state of before delays the erasure, and no write.
#[tokio::test]
async fn a_reader_delays_the_erasure_and_no_write() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("wicketgate.db").display().to_string();
    let (store, url) = (open(&file, &dir).await.unwrap(), format!("sqlite://{file}"));
    let site = Site::new(&store).await;
    let sealed = stored(&url, site.tunnel).await[0].clone().unwrap();
    let mut reader = AnyConnection::connect(&url).await.unwrap();
    reader.execute("BEGIN").await.unwrap();
    reader.execute("SELECT COUNT(*) FROM ipsec_tunnel").await.unwrap();
    store.delete_tunnel(site.frontdoor, site.tunnel, &context()).await.unwrap();
    for n in 2..12 {
        let (asked, pools) = (Instant::now(), LoadBalancerPools::ipsec());
        store.create_tunnel(site.frontdoor, &tunnel_spec(n), &pools, &context()).await.unwrap();
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!files_with(dir.path(), &sealed).is_empty(), "the reader still needs it");
    reader.execute("ROLLBACK").await.unwrap();
    reader.close().await.unwrap();
    nothing_is_in_clear(dir.path(), &url, &[&sealed]).await;
    store.close().await;
}

#[test]
fn a_value_that_was_moved_or_changed_does_not_open() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = TempDir::new().unwrap();
        let place = place(&dir);
        let (store, url) = (open(&place, &dir).await.unwrap(), url_of(&place));
        let site = Site::new(&store).await;
        let (at, pools) = ((site.frontdoor, site.tunnel), LoadBalancerPools::ipsec());
        let other = store.create_tunnel(site.frontdoor, &tunnel_spec(2), &pools, &context()).await.unwrap();
        rotate(&store, (site.frontdoor, other.id), &PreSharedKey::from_random([3; 32]), 60).await;
        let first = key_of(&store, at).await.unwrap();
        let mut db = AnyConnection::connect(&url).await.unwrap();
        for (column, from) in [("pre_shared_key", "pre_shared_key"), ("previous_keys", "previous_keys")] {
            let before = stored(&url, site.tunnel).await;
            let moved = format!(
                "UPDATE ipsec_tunnel SET {column} = (SELECT o.{from} FROM ipsec_tunnel o WHERE o.id = '{}') \
                 WHERE id = '{}'",
                other.id, site.tunnel
            );
            sqlx::query(AssertSqlSafe(moved)).execute(&mut db).await.unwrap();
            let opened = store.tunnel(site.frontdoor, site.tunnel).await;
            assert!(matches!(&opened, Err(StoreError::Corrupt { column: c }) if c == column), "{opened:?}");
            let back = format!("UPDATE ipsec_tunnel SET {column} = $1 WHERE id = '{}'", site.tunnel);
            let value = before[usize::from(column == "previous_keys")].clone();
            sqlx::query(AssertSqlSafe(back)).bind(value).execute(&mut db).await.unwrap();
            assert_eq!(key_of(&store, at).await.unwrap(), first);
        }
        // Not even into the other column of its own row; and a live tunnel is never without a key.
        for value in ["previous_keys", "NULL"] {
            let wrong = format!("UPDATE ipsec_tunnel SET pre_shared_key = {value} WHERE id = '{}'", other.id);
            sqlx::query(AssertSqlSafe(wrong)).execute(&mut db).await.unwrap();
            let opened = store.tunnel(site.frontdoor, other.id).await;
            assert!(matches!(opened, Err(StoreError::Corrupt { .. })), "{opened:?}");
            let served = changes(&store, Revision::default()).await.tunnels;
            assert_eq!(served, 1, "a tunnel that cannot be read keeps others from being served");
        }
        db.close().await.unwrap();
        store.close().await;
    });
}

#[test]
fn the_keys_belong_to_the_database_and_can_be_rotated() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = TempDir::new().unwrap();
        let (place, file) = (place(&dir), keys_in(&dir));
        let (store, url) = (open(&place, &dir).await.unwrap(), url_of(&place));
        let site = Site::new(&store).await;
        let at = (site.frontdoor, site.tunnel);
        let key = key_of(&store, at).await.unwrap();
        rotate(&store, at, &PreSharedKey::from_random([3; 32]), 60).await;
        store.close().await;
        let id = stored(&url, site.tunnel).await[0].as_ref().unwrap()[2..18].to_owned();

        let first = fs::read_to_string(file.path()).unwrap();
        fs::remove_file(file.path()).unwrap();
        let missing = open(&place, &dir).await.err().unwrap().to_string();
        assert!(missing.contains(&id) && missing.contains("restore it from its backup"), "{missing}");
        assert!(!missing.contains('\n') && !file.path().exists(), "{missing}");
        let second = format!("{}\n", "5e".repeat(32));
        let keep = |text: &str| {
            fs::write(file.path(), text).unwrap();
            fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        };
        keep(&second);
        let wrong = open(&place, &dir).await.err().unwrap().to_string();
        assert!(wrong.contains(&id) && wrong.contains("restore the file that belongs"), "{wrong}");

        // A new first line seals all rows again at the next start; then the old line is not needed.
        keep(&format!("{second}{first}"));
        open(&place, &dir).await.unwrap().close().await;
        assert!(stored(&url, site.tunnel).await.iter().all(|v| !v.as_ref().unwrap().contains(&id)));
        keep(&second);
        let store = open(&place, &dir).await.unwrap();
        let row = store.tunnel(site.frontdoor, site.tunnel).await.unwrap().unwrap();
        assert_eq!(row.spec.pre_shared_key, Some(PreSharedKey::from_random([3; 32])));
        assert_eq!(row.previous_keys.valid(now()).map(|(key, _)| key).collect::<Vec<_>>(), [&key]);
        keep(&first);
        store.close().await;
        assert!(open(&place, &dir).await.is_err());
    });
}

#[test]
fn a_fingerprint_is_no_hash_that_keys_can_be_tried_with() {
    on_each(|store| async move {
        let claim = |fingerprint: &str| Claim {
            principal: "admin".to_owned(),
            key: "k".to_owned(),
            fingerprint: fingerprint.to_owned(),
            token: uuid::Uuid::now_v7(),
        };
        let first = claim("abc");
        let _running = store.running(&first).unwrap();
        assert_eq!(store.claim(&first, now()).await.unwrap(), Claimed::Fresh);
        assert_eq!(store.claim(&claim("abc"), now()).await.unwrap(), Claimed::Running);
        assert_eq!(store.claim(&claim("abd"), now()).await.unwrap(), Claimed::Other);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("wicketgate.db").display().to_string();
        let store = open(&file, &dir).await.unwrap();
        let fingerprint = "0123456789abcdef".repeat(4);
        let (principal, key, token) = ("admin".to_owned(), "k".to_owned(), uuid::Uuid::now_v7());
        store.claim(&Claim { principal, key, fingerprint: fingerprint.clone(), token }, now()).await.unwrap();
        assert_eq!(files_with(dir.path(), &fingerprint), Vec::<String>::new());
        store.close().await;
    });
}
