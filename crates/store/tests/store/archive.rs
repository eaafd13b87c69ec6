//! A backup of one database, restored to another.

use crate::{
    database::{keys_in, open, place},
    site::{ALL, Site, changes, context, now},
};
use jiff::ToSpan as _;
use std::collections::BTreeSet;
use tempfile::TempDir;
use uuid::Uuid;
use wicketgate_model::{EnrollmentId, Era, LoadBalancerPools, PreSharedKey, ShareId};
use wicketgate_store::{
    Action, Backup, BackupFile, BackupSource, EnrollmentCodeState, LastBackup, NewEnrollment, ResourceType,
    Revision, SecretKeyFile, Store, TunnelChange, TunnelSpec, WriteContext, back_up,
};
use zeroize::Zeroizing;

impl Site {
    async fn create_share(&self, store: &Store, name: &str, port: u16) -> ShareId {
        store.create_share(self.frontdoor, &self.share(name, port), &context()).await.unwrap().id
    }
}

async fn backup_of(place: &str, keys: &SecretKeyFile) -> Vec<u8> {
    let files = vec![BackupFile { file: "ca/ca.key".to_owned(), content: Zeroizing::new(vec![0, 1, 255]) }];
    let mut backup = Vec::new();
    let source = BackupSource { place, keys, files, version: "1.2.3", now: now() };
    let mut told = BTreeSet::new();
    let rows = back_up(source, &mut backup, |table, _| told.extend([table.to_owned()])).await.unwrap();
    assert!(rows > 10 && told.contains("ipsec_share"), "{rows} {told:?}");
    backup
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_restores_everything_to_an_empty_database_and_begins_an_era() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (from, to) = (place(&dir), place(&other));
    let store = open(&from, &dir).await.unwrap();
    let site = Site::new(&store).await;
    let share = site.create_share(&store, "one", 80).await;
    let keys = keys_in(&dir);
    let backup = backup_of(&from, &keys).await;
    // What is written after it is not in it.
    site.create_share(&store, "two", 81).await;
    let head = String::from_utf8_lossy(&backup[..300]).into_owned();
    assert!(head.contains("wicketgate backup 1") && head.contains("1.2.3"), "{head}");
    for secret in ["one", "ipsec_share", "dc-1"] {
        assert!(!backup.windows(secret.len()).any(|part| part == secret.as_bytes()), "{secret} is in clear");
    }

    // Neither a cut or changed backup, nor another key, restores anything.
    let secret_keys = keys.read().unwrap().unwrap();
    let open_one = |bytes: &[u8]| Backup::open(std::io::Cursor::new(bytes.to_vec()), &secret_keys);
    for cut in [backup.len() - 1, backup.len() / 2] {
        let refused = match open_one(&backup[..cut]) {
            Ok(cut) => cut.load(&to, &keys, (now() + 1.hour(), |_: &str, _| {})).await.map(drop).unwrap_err(),
            Err(error) => error,
        };
        assert!(refused.to_string().contains("changed, cut, or damaged"), "{refused}");
    }
    let foreign = keys_in(&other);
    let elsewhere = open(&place(&TempDir::new().unwrap()), &other).await.unwrap();
    elsewhere.close().await;
    let refused =
        Backup::open(std::io::Cursor::new(backup.clone()), &foreign.read().unwrap().unwrap()).unwrap_err();
    assert!(refused.to_string().contains("--secret-key-file"), "{refused}");

    let opened = open_one(&backup).unwrap();
    assert_eq!(
        (opened.files[0].file.as_str(), opened.files[0].content.as_slice()),
        ("ca/ca.key", &[0, 1, 255][..])
    );
    assert_eq!(opened.header.created_at, now());
    let (restored, rows) = opened.load(&to, &keys, (now() + 1.hour(), |_: &str, _| {})).await.unwrap();
    assert!(rows > 10);
    let same = (changes(&store, Revision::default()).await, changes(&restored, Revision::default()).await);
    assert_eq!(
        format!("{:?}", restored.share(site.frontdoor, share).await.unwrap()),
        format!("{:?}", store.share(site.frontdoor, share).await.unwrap())
    );
    assert_eq!(same.0.shares.len(), same.1.shares.len() + 1);
    // Sealed keys open, under the same secret key.
    let tunnel = restored.tunnel(site.frontdoor, site.tunnel).await.unwrap().unwrap();
    assert!(tunnel.spec.pre_shared_key.is_some());
    let era = restored.installation().await.unwrap().era;
    assert!(era > Era::FIRST);
    assert_eq!(era.get(), u64::try_from((now() + 1.hour()).as_second()).unwrap());
    restored.close().await;

    // Not twice.
    let refused = open_one(&backup)
        .unwrap()
        .load(&to, &keys, (now() + 1.hour(), |_: &str, _| {}))
        .await
        .map(drop)
        .unwrap_err();
    assert!(refused.to_string().contains("not empty"), "{refused}");
    store.close().await;
}

#[tokio::test]
async fn the_last_backup_is_recorded_beside_a_server_and_is_none_of_a_restored_database() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (from, to) = (place(&dir), place(&other));
    let store = open(&from, &dir).await.unwrap();
    Site::new(&store).await.create_share(&store, "one", 80).await;
    let made = |created_at, bytes| LastBackup { created_at, bytes, version: "1.2.3".to_owned() };
    assert_eq!(store.last_backup().await.unwrap(), None);
    assert_eq!(LastBackup::read(&from).await.unwrap(), None);
    let first = made(now(), 4096);
    first.record(&from, "/backups/one", &context()).await.unwrap();
    let rows = store.organization_executions(None, &ALL).await.unwrap().rows;
    let made_at = format!("all rows, as of {}, to /backups/one", first.created_at);
    let recorded: Vec<_> = rows.into_iter().filter(|row| row.action == Action::Backup).collect();
    assert_eq!(recorded.len(), 1);
    assert_eq!((&recorded[0].message, recorded[0].resource.as_str()), (&Some(made_at), "installation"));
    assert_eq!(store.last_backup().await.unwrap(), Some(first.clone()));
    // The next one takes its place, also if the clock was ahead before.
    let second = made(now() - 1.minute(), 5000);
    second.record(&from, "/backups/two", &context()).await.unwrap();
    assert_eq!(store.last_backup().await.unwrap(), Some(second));

    // A backup has the record of the one before it, and the restored database does not take it for its own.
    let keys = keys_in(&dir);
    let backup = backup_of(&from, &keys).await;
    let opened = Backup::open(std::io::Cursor::new(backup), &keys.read().unwrap().unwrap()).unwrap();
    let (restored, _) = opened.load(&to, &keys, (now() + 1.hour(), |_: &str, _| {})).await.unwrap();
    assert_eq!(restored.last_backup().await.unwrap(), None);
    first.record(&to, "/backups/one", &context()).await.unwrap();
    assert_eq!(restored.last_backup().await.unwrap(), Some(first.clone()));
    restored.was_restored(now() + 2.hour()).await.unwrap();
    assert_eq!(restored.last_backup().await.unwrap(), None);
    restored.close().await;

    // The server need not run.
    store.close().await;
    first.record(&to, "/backups/one", &context()).await.unwrap();
    assert_eq!(LastBackup::read(&to).await.unwrap(), Some(first));
    let missing = LastBackup::read(dir.path().join("missing.db").to_str().unwrap()).await.unwrap_err();
    assert!(missing.to_string().contains("there is no SQLite database"), "{missing}");
}

#[tokio::test]
async fn what_was_revoked_after_a_backup_is_found_and_revoked_again() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let from = place(&dir);
    let store = open(&from, &dir).await.unwrap();
    let site = Site::new(&store).await;
    let (before, after) =
        (site.create_share(&store, "before", 80).await, site.create_share(&store, "after", 81).await);
    store.delete_share(site.frontdoor, before, &context()).await.unwrap();
    let code = EnrollmentId::new(Uuid::now_v7());
    let new =
        NewEnrollment { id: code, environment: None, secret_sha256: [1; 32], expires_at: now() + 1.hour() };
    store.create_enrollment(site.frontdoor, &new, &context()).await.unwrap();
    let backup = backup_of(&from, &keys_in(&dir)).await;
    store.delete_share(site.frontdoor, after, &context()).await.unwrap();
    store.revoke_enrollment(site.frontdoor, code, &context()).await.unwrap();
    let later = site.create_share(&store, "later", 82).await;
    store.delete_share(site.frontdoor, later, &context()).await.unwrap();
    let recorded = store.revocations(wicketgate_model::ExecutionId::new(Uuid::nil())).await.unwrap();
    assert_eq!(recorded.len(), 4);

    let keys = keys_in(&dir);
    let opened = Backup::open(std::io::Cursor::new(backup), &keys.read().unwrap().unwrap()).unwrap();
    let (restored, _) =
        opened.load(&place(&other), &keys, (now() + 1.hour(), |_: &str, _| {})).await.unwrap();
    let mut missed = Vec::new();
    for revocation in &recorded {
        if restored.has_missed(revocation, now()).await.unwrap() {
            missed.push(revocation);
        }
    }
    let told = |of: &&wicketgate_store::Revocation| (of.action, of.resource_type, of.resource.clone());
    let expected = [(ResourceType::Share, after.to_string()), (ResourceType::Enrollment, code.to_string())];
    assert_eq!(
        missed.iter().map(told).collect::<Vec<_>>(),
        expected.map(|(kind, id)| (Action::Delete, kind, id))
    );
    for one in missed {
        restored.revoke_again(one, &WriteContext::new("restore", now(), Uuid::now_v7)).await.unwrap();
        assert!(!restored.has_missed(one, now()).await.unwrap());
    }
    let expired = restored.enrollment_code(site.frontdoor, code).await.unwrap().unwrap();
    assert_eq!(expired.state(now()), EnrollmentCodeState::Expired);
    let row = restored.share(site.frontdoor, after).await.unwrap().unwrap();
    assert_eq!(row.standing.status.as_str(), "DELETING");
    restored.close().await;
    store.close().await;
}

#[tokio::test]
async fn a_key_that_was_replaced_with_an_update_is_recorded_as_one_that_was_rotated() {
    let dir = TempDir::new().unwrap();
    let store = open(&place(&dir), &dir).await.unwrap();
    let site = Site::new(&store).await;
    for key in [None, Some([9; 32]), Some([9; 32])] {
        let row = store.tunnel(site.frontdoor, site.tunnel).await.unwrap().unwrap();
        let key = key.map_or(row.spec.pre_shared_key.clone(), |key| Some(PreSharedKey::from_random(key)));
        let spec = TunnelSpec { pre_shared_key: key, ..row.spec };
        let (expected, action) = (row.generation, Action::Update);
        let change = TunnelChange { expected, spec, previous_until: now(), cuts: false, action };
        let pools = LoadBalancerPools::ipsec();
        store.replace_tunnel(site.frontdoor, site.tunnel, &change, &pools, &context()).await.unwrap();
    }
    let recorded = store.revocations(wicketgate_model::ExecutionId::new(Uuid::nil())).await.unwrap();
    let [one] = &recorded[..] else { panic!("{recorded:?}") };
    let of = (one.action, one.resource_type, one.resource.clone());
    assert_eq!(of, (Action::RotateKey, ResourceType::Tunnel, site.tunnel.to_string()));
    store.close().await;
}

#[tokio::test]
async fn every_table_of_the_schema_is_backed_up() {
    use sqlx::{Connection as _, Row as _};
    let dir = TempDir::new().unwrap();
    let place = place(&dir);
    let store = open(&place, &dir).await.unwrap();
    Site::new(&store).await;
    let mut told = BTreeSet::new();
    let source =
        BackupSource { place: &place, keys: &keys_in(&dir), files: Vec::new(), version: "1", now: now() };
    back_up(source, std::io::sink(), |table, _| told.extend([table.to_owned()])).await.unwrap();
    let (url, select) = if place.contains("://") {
        (
            place.clone(),
            "SELECT table_name::text FROM information_schema.tables WHERE table_schema = current_schema()",
        )
    } else {
        (
            format!("sqlite://{place}"),
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
        )
    };
    let mut db = sqlx::AnyConnection::connect(&url).await.unwrap();
    let rows = sqlx::query(select).fetch_all(&mut db).await.unwrap();
    let tables: BTreeSet<String> =
        rows.iter().map(|row| row.get(0)).filter(|name| name != "_sqlx_migrations").collect();
    assert_eq!(told, tables);
    db.close().await.unwrap();
    store.close().await;
}
