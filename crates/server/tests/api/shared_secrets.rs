//! The authority and the key of tokens: in the database, sealed, and taken there from the files of an earlier version.

use crate::serving::config;
use jiff::Timestamp;
use std::{fs, path::Path};
use tempfile::TempDir;
use tokio::net::TcpListener;
use wicketgate_authority::Ca;
use wicketgate_server::{Server, ServerConfig, auth::token_key::TokenKey, replace_authority};
use wicketgate_store::{SecretKeyFile, SharedSecretName, Store};
use wicketgate_transport::key::PrivateKey;

/// Returns the fingerprint of the authority that a server would serve with.
async fn prepare(dir: &TempDir, change: impl FnOnce(&mut ServerConfig)) -> Result<String, String> {
    let mut config = config(dir.path(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    change(&mut config);
    let prepared = Server::prepare(config).await.map_err(|error| format!("{error:#}"))?;
    Ok(prepared.ca().fingerprint().to_string())
}

async fn open(dir: &TempDir) -> Store {
    let keys = SecretKeyFile::existing(dir.path().join("secret-key"));
    Store::open(&dir.path().join("wicketgate.db").display().to_string(), &keys).await.unwrap()
}

/// The files of an earlier version, of an authority and a key for tokens that are new.
fn write_files(dir: &Path) -> (Ca, Vec<u8>) {
    let (ca, tokens) = (Ca::generate(Timestamp::now()).unwrap(), TokenKey::generate().unwrap());
    let place = dir.join("ca");
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("ca.key"), pem(&ca.material().key)).unwrap();
    fs::write(place.join("ca.crt"), ca.material().certificate).unwrap();
    fs::write(dir.join("token.key"), &*tokens).unwrap();
    (ca, tokens.to_vec())
}

fn pem(pkcs8: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(pkcs8))
}

fn has_key_files(dir: &TempDir) -> [bool; 2] {
    ["ca/ca.key", "token.key"].map(|file| dir.path().join(file).exists())
}

#[tokio::test]
async fn a_first_start_makes_them_and_later_ones_have_the_same() {
    let dir = TempDir::new().unwrap();
    let first = prepare(&dir, |_| {}).await.unwrap();
    let tokens = open(&dir).await.shared_secret(SharedSecretName::TokenKey).await.unwrap().unwrap().key;
    assert_eq!(has_key_files(&dir), [false; 2]);
    // The data directory's part is lost, and comes again.
    fs::remove_dir_all(dir.path().join("ca")).unwrap();
    assert_eq!(prepare(&dir, |config| config.has_served = true).await.unwrap(), first);
    assert_eq!(Ca::remembered(&dir.path().join("ca")).unwrap().unwrap().to_string(), first);
    let again = open(&dir).await.shared_secret(SharedSecretName::TokenKey).await.unwrap().unwrap().key;
    assert_eq!(tokens, again);
    // Nothing of them is in clear, in any file.
    let key = open(&dir).await.shared_secret(SharedSecretName::Ca).await.unwrap().unwrap().key;
    for file in fs::read_dir(dir.path()).unwrap().flatten().filter(|file| file.path().is_file()) {
        let content = fs::read(file.path()).unwrap();
        for secret in [&key[..], &tokens[..], hex::encode(&*key).as_bytes(), hex::encode(&*tokens).as_bytes()]
        {
            assert!(!content.windows(secret.len()).any(|part| part == secret), "{:?}", file.path());
        }
    }
}

#[tokio::test]
async fn files_of_an_earlier_version_are_taken_over_once() {
    let dir = TempDir::new().unwrap();
    let (ca, tokens) = write_files(dir.path());
    let fingerprint = ca.fingerprint().to_string();
    assert_eq!(prepare(&dir, |config| config.has_served = false).await.unwrap(), fingerprint);
    // A failover may still lose what was just written.
    assert_eq!(has_key_files(&dir), [true; 2]);
    assert_eq!(prepare(&dir, |config| config.has_served = true).await.unwrap(), fingerprint);
    assert_eq!(has_key_files(&dir), [false; 2]);
    let kept = open(&dir).await.shared_secret(SharedSecretName::TokenKey).await.unwrap().unwrap();
    assert_eq!(*kept.key, tokens);
    // A start that was killed before it removed them leaves them to the next one.
    fs::write(dir.path().join("ca/ca.key"), pem(&ca.material().key)).unwrap();
    fs::write(dir.path().join("token.key"), &tokens).unwrap();
    assert_eq!(prepare(&dir, |config| config.has_served = true).await.unwrap(), fingerprint);
    assert_eq!(has_key_files(&dir), [false; 2]);
    // A key that the database does not have is not removed.
    fs::write(dir.path().join("token.key"), &*TokenKey::generate().unwrap()).unwrap();
    prepare(&dir, |config| config.has_served = true).await.unwrap();
    assert_eq!(has_key_files(&dir), [false, true]);
}

#[tokio::test]
async fn files_that_cannot_be_taken_over_are_named_and_kept() {
    let dir = TempDir::new().unwrap();
    write_files(dir.path());
    fs::write(dir.path().join("token.key"), "nothing").unwrap();
    let refused = prepare(&dir, |_| {}).await.unwrap_err();
    assert!(refused.contains("token.key") && refused.contains("remove the file"), "{refused}");
    assert!(dir.path().join("token.key").exists());

    let dir = TempDir::new().unwrap();
    write_files(dir.path());
    fs::remove_file(dir.path().join("ca/ca.crt")).unwrap();
    let refused = prepare(&dir, |_| {}).await.unwrap_err();
    assert!(refused.contains("ca.key") && refused.contains("ca.crt"), "{refused}");
    fs::write(dir.path().join("ca/ca.crt"), Ca::generate(Timestamp::now()).unwrap().material().certificate)
        .unwrap();
    let refused = prepare(&dir, |_| {}).await.unwrap_err();
    assert!(refused.contains("certificate is not that of its key"), "{refused}");
    assert!(has_key_files(&dir)[0]);
}

#[tokio::test]
async fn a_database_and_an_authority_that_do_not_belong_together_are_refused() {
    // An authority that has served, and an empty database.
    let dir = TempDir::new().unwrap();
    write_files(dir.path());
    let empty = prepare(&dir, |config| config.has_served = true).await.unwrap_err();
    assert!(empty.contains("the database is empty") && empty.contains("wicketgate restore"), "{empty}");
    assert_eq!(has_key_files(&dir), [true; 2]);
    // The directory of another authority, whether with its key or without.
    let known = prepare(&dir, |_| {}).await.unwrap();
    let other = write_files(dir.path()).0.fingerprint().to_string();
    for has_key in [true, false] {
        let refused = prepare(&dir, |_| {}).await.unwrap_err();
        for word in [known.as_str(), &other, "--new-authority"] {
            assert!(refused.contains(word), "{word}: {refused}");
        }
        assert_eq!(dir.path().join("ca/ca.key").exists(), has_key);
        let _ = fs::remove_file(dir.path().join("ca/ca.key"));
    }
    // What `restore --in-place --new-authority` does, also where the directory is damaged.
    for damage in ["", "nothing"] {
        fs::write(dir.path().join("ca/ca.crt"), damage).unwrap();
        fs::write(dir.path().join("ca/ca.key"), damage).unwrap();
        let refused = prepare(&dir, |config| config.has_served = true).await.unwrap_err();
        assert!(refused.contains("ca.crt"), "{refused}");
        let (before, new) = replace_authority(&open(&dir).await, dir.path()).await.unwrap();
        let replaced = prepare(&dir, |config| config.has_served = true).await.unwrap();
        assert!(
            before != Some(replaced.clone()) && replaced == new && replaced != known && replaced != other
        );
    }
}

#[tokio::test]
async fn a_stolen_authority_is_not_put_back_from_the_file_that_an_earlier_version_kept() {
    let dir = TempDir::new().unwrap();
    let stolen = write_files(dir.path()).0.fingerprint().to_string();
    assert_eq!(prepare(&dir, |_| {}).await.unwrap(), stolen);
    assert!(has_key_files(&dir)[0]);
    let (before, new) = replace_authority(&open(&dir).await, dir.path()).await.unwrap();
    assert!(before.as_ref() == Some(&stolen) && new != stolen);
    assert!(!has_key_files(&dir)[0]);
    assert_eq!(prepare(&dir, |config| config.has_served = true).await.unwrap(), new);
}

#[test]
fn a_key_in_pem_is_read_as_it_was_written() {
    let (dir, key) = (TempDir::new().unwrap(), PrivateKey::generate().unwrap());
    let file = dir.path().join("key");
    fs::write(&file, pem(key.pkcs8())).unwrap();
    assert_eq!(PrivateKey::load(&file).unwrap().unwrap().pkcs8(), key.pkcs8());
    assert!(PrivateKey::load(&dir.path().join("none")).unwrap().is_none());
}
