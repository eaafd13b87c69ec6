//! Secrets that all servers share: one of each name, sealed for its row.

use crate::{
    database::{keys_in, open, place},
    secrets::{nothing_is_in_clear, url_of},
    site::now,
};
use sqlx::{AnyConnection, Connection as _, Executor as _};
use std::fs;
use tempfile::TempDir;
use wicketgate_store::{SharedSecret, SharedSecretName, Store, StoreError};

fn secret(byte: u8) -> SharedSecret {
    SharedSecret { key: vec![byte; 32].into(), certificate: Some(format!("certificate {byte}")) }
}

async fn key(store: &Store, name: SharedSecretName) -> Result<Option<u8>, StoreError> {
    Ok(store.shared_secret(name).await?.map(|found| found.key[0]))
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_start_together_agree_on_the_first() {
    let dir = TempDir::new().unwrap();
    let at = place(&dir);
    let (a, b) = (open(&at, &dir).await.unwrap(), open(&at, &dir).await.unwrap());
    let keep = async |store: &Store, n: u8| {
        let (secret, fingerprint) = (secret(n), n.to_string());
        store.keep_authority(&secret, &fingerprint, now()).await.unwrap();
        store.keep_shared_secret(SharedSecretName::TokenKey, &secret, now()).await.unwrap();
    };
    tokio::join!(keep(&a, 1), keep(&b, 2));
    for name in [SharedSecretName::Ca, SharedSecretName::TokenKey] {
        let first = key(&a, name).await.unwrap();
        assert!(first.is_some());
        assert_eq!(first, key(&b, name).await.unwrap());
    }
    // The certificate and the fingerprint are those of the key.
    let kept = a.shared_secret(SharedSecretName::Ca).await.unwrap().unwrap();
    assert_eq!(kept.certificate.unwrap(), format!("certificate {}", kept.key[0]));
    assert_eq!(a.installation().await.unwrap().authority.unwrap(), kept.key[0].to_string());
    assert!(!format!("{:?}", secret(7)).contains("07"));
    a.replace_authority(&secret(3), "3", now()).await.unwrap();
    assert_eq!(key(&b, SharedSecretName::Ca).await.unwrap(), Some(3));
    assert_eq!(b.installation().await.unwrap().authority.as_deref(), Some("3"));
    a.close().await;
    b.close().await;
}

#[tokio::test]
async fn a_secret_is_sealed_for_its_row_and_under_the_first_key() {
    let dir = TempDir::new().unwrap();
    let at = place(&dir);
    let (store, url, file) = (open(&at, &dir).await.unwrap(), url_of(&at), keys_in(&dir));
    let (ca, tokens) = (SharedSecretName::Ca, SharedSecretName::TokenKey);
    store.keep_authority(&secret(1), "1", now()).await.unwrap();
    store.keep_shared_secret(tokens, &secret(2), now()).await.unwrap();
    nothing_is_in_clear(dir.path(), &url, &[&hex::encode([1; 32]), &hex::encode([2; 32])]).await;
    store.close().await;

    // A second key seals all, and the first one is not needed any more.
    let before = fs::read_to_string(file.path()).unwrap();
    let second = format!("{}\n", "ab".repeat(32));
    fs::write(file.path(), format!("{second}{before}")).unwrap();
    open(&at, &dir).await.unwrap().close().await;
    fs::write(file.path(), &second).unwrap();
    let store = open(&at, &dir).await.unwrap();
    assert_eq!((key(&store, ca).await.unwrap(), key(&store, tokens).await.unwrap()), (Some(1), Some(2)));
    // Not without it.
    fs::write(file.path(), &before).unwrap();
    let refused = open(&at, &dir).await.unwrap_err().to_string();
    assert!(refused.contains("restore the file that belongs to this database"), "{refused}");

    // In another row it opens nothing.
    let mut db = AnyConnection::connect(&url).await.unwrap();
    let swap = "UPDATE shared_secret SET sealed = (SELECT sealed FROM shared_secret WHERE name = 'ca') WHERE name = 'token-key'";
    db.execute(swap).await.unwrap();
    db.close().await.unwrap();
    assert!(matches!(key(&store, tokens).await.unwrap_err(), StoreError::Corrupt { .. }));
    assert_eq!(key(&store, ca).await.unwrap(), Some(1));
    store.close().await;
}
