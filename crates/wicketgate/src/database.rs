//! Which database `up` uses: its own file, or a PostgreSQL server.
//!
//! Invariants: a password is never taken from the command line, where every user of the machine can read it. A data
//! directory has one database: with another one, the gateway would remove all tunnels.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;
use wicketgate_server::Server;
use wicketgate_store::{SecretKeyFile, database_name};
use wicketgate_system::{if_exists, private_file, program::WrongUsage};

/// An alternative to the flag, and the only place for a URL with a password.
const VARIABLE: &str = "WICKETGATE_DATABASE";

/// The file in the data directory that holds the gateway's id. A start makes it after it has opened the database.
pub(crate) const GATEWAY_ID: &str = "gateway-id";

/// The file in the data directory that names its database.
const FILE: &str = "database";

/// The file in the data directory that holds the secret keys, unless another is named.
pub(crate) const SECRET_KEY: &str = "secret-key";

/// The settings that name the database.
pub(crate) const SETTINGS: &[&str] = &["database-file", "database"];

/// The setting that names the file of secret keys.
pub(crate) const KEY_SETTINGS: &[&str] = &["secret-key-file"];

#[derive(Debug, Args)]
pub(crate) struct Database {
    /// A PostgreSQL database, postgres://USER@HOST/NAME [default: a SQLite file in the data directory]. A URL with a
    /// password is accepted in --database-file and in the environment variable WICKETGATE_DATABASE only.
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// A file that contains the database's URL, also one with a password. Users of this host besides its owner and
    /// group must not be able to read it.
    #[arg(long, value_name = "FILE", conflicts_with = "database")]
    database_file: Option<PathBuf>,
    /// The file with the keys that seal the secrets in the database, of 64 hexadecimal digits a line: the first seals, all
    /// open [default: secret-key in the data directory, created at the first start].
    #[arg(long, value_name = "FILE", env = "WICKETGATE_SECRET_KEY_FILE")]
    secret_key_file: Option<PathBuf>,
}

impl Database {
    /// The URL; `None` is the file in the data directory.
    pub(crate) fn url(&self) -> anyhow::Result<Option<SecretString>> {
        match &self.database_file {
            Some(file) => from_file(file).map(Some),
            None => self.or(std::env::var(VARIABLE).ok()),
        }
    }

    /// What seals the secrets in the database. A file that the operator names is read, so that its faults are told.
    pub(crate) fn secret_keys(&self, data_dir: &Path) -> anyhow::Result<SecretKeyFile> {
        let Some(file) = &self.secret_key_file else {
            return Ok(SecretKeyFile::created_at(data_dir.join(SECRET_KEY)));
        };
        let file = SecretKeyFile::existing(file);
        file.read()?;
        Ok(file)
    }

    /// A start says of a file that is missing what the database needs. This opens none.
    pub(crate) fn has_named_keys(&self) -> anyhow::Result<()> {
        let missing = self.secret_key_file.as_ref().filter(|file| !file.exists());
        missing.map_or(Ok(()), |file| bail!("the secret key file {} does not exist", file.display()))
    }

    fn or(&self, environment: Option<String>) -> anyhow::Result<Option<SecretString>> {
        let (from, text) = match (&self.database, environment) {
            (Some(url), _) => ("--database", url.clone()),
            (None, Some(url)) if !url.is_empty() => (VARIABLE, url),
            _ => return Ok(None),
        };
        let url = parsed(from, &text)?;
        ensure!(
            self.database.is_none() || !has_password(&url),
            WrongUsage(format!(
                "every user of this host could read the password in --database: use --database-file, or set {VARIABLE} to \
                 the URL"
            ))
        );
        Ok(Some(text.into()))
    }
}

fn from_file(file: &Path) -> anyhow::Result<SecretString> {
    let read = private_file::read_secret(file);
    let text = read.with_context(|| format!("cannot read {}", file.display()))?;
    let text = text.trim();
    parsed("the content of --database-file", text)?;
    Ok(text.into())
}

/// `from` says where the text is from.
fn parsed(from: &str, text: &str) -> anyhow::Result<Url> {
    // The parser also accepts spaces around it, capitals, and no `//`; the store would take those for a file's name.
    let is_postgres = ["postgres://", "postgresql://"].iter().any(|start| text.starts_with(start));
    let url = Url::parse(text).ok().filter(|_| is_postgres);
    // Never shown: it may be a misplaced password.
    url.ok_or_else(|| WrongUsage(format!("{from} must be a URL like postgres://USER@HOST/NAME")).into())
}

/// Where the store finds the database.
pub(crate) fn place(data_dir: &Path, url: Option<&SecretString>) -> String {
    let sqlite = || data_dir.join(Server::SQLITE).display().to_string();
    url.map_or_else(sqlite, |url| url.expose_secret().to_owned())
}

/// Refuses another database than that of the data directory.
pub(crate) fn check(data_dir: &Path, url: Option<&SecretString>) -> anyhow::Result<()> {
    let (file, name) = (data_dir.join(FILE), name(url));
    let Some(known) = known(&file)? else { return check_unnamed(data_dir, url) };
    if known != name {
        bail!(
            "the data directory {} belongs to the database {known}, and this start names {name}: set --database or \
             {VARIABLE} as before, or move its rows with `wicketgate db export` and `wicketgate db import`. To change it \
             without them, delete {}: the gateway then removes what the new one does not contain",
            data_dir.display(),
            file.display()
        );
    }
    Ok(())
}

/// Of a directory that names no database: a new one, or that of a version which did not keep the name.
fn check_unnamed(data_dir: &Path, url: Option<&SecretString>) -> anyhow::Result<()> {
    let exists = |name: &str| {
        let file = data_dir.join(name);
        file.try_exists().with_context(|| format!("cannot read {}", file.display()))
    };
    match url {
        None if exists(GATEWAY_ID)? && !exists(Server::SQLITE)? => bail!(
            "the data directory {} was used before and has no {}, so its database is probably a PostgreSQL server: set \
             --database or {VARIABLE} to it, or restore the file. To start with an empty database on purpose, run \
             `wicketgate down` and delete {}",
            data_dir.display(),
            Server::SQLITE,
            data_dir.join(GATEWAY_ID).display()
        ),
        Some(_) if exists(Server::SQLITE)? => bail!(
            "the data directory {} has a SQLite database, {}, and this start names {}: leave out --database and \
             {VARIABLE}. If the PostgreSQL database has all its tunnels, move the file to another directory",
            data_dir.display(),
            Server::SQLITE,
            name(url)
        ),
        _ => Ok(()),
    }
}

/// Makes a database that was opened that of the data directory. Writes nothing if it is already: a full disk stops no restart.
pub(crate) fn keep(data_dir: &Path, url: Option<&SecretString>) -> anyhow::Result<()> {
    let (file, name) = (data_dir.join(FILE), name(url));
    if known(&file)?.is_some_and(|known| known == name) {
        return Ok(());
    }
    let kept = private_file::replace(&file, format!("{name}\n").as_bytes());
    kept.with_context(|| format!("cannot write to {}", data_dir.display()))
}

/// The SQLite database of a data directory, if it uses one.
pub(crate) fn own_sqlite(data_dir: &Path) -> anyhow::Result<Option<String>> {
    let is_used = known(&data_dir.join(FILE))?.is_none_or(|known| known == name(None));
    Ok((is_used && data_dir.join(Server::SQLITE).exists()).then(|| place(data_dir, None)))
}

/// The name in the file, if it exists.
fn known(file: &Path) -> anyhow::Result<Option<String>> {
    let content = if_exists(fs::read_to_string(file));
    let content = content.with_context(|| format!("cannot read {}", file.display()))?;
    Ok(content.map(|name| name.trim().to_owned()))
}

/// A database without the user and the password.
pub(crate) fn name(url: Option<&SecretString>) -> String {
    match url {
        None => format!("{} (SQLite)", Server::SQLITE),
        // Opening it says what is wrong with it.
        Some(url) => {
            database_name(url.expose_secret()).unwrap_or_else(|| "an invalid PostgreSQL URL".to_owned())
        }
    }
}

fn has_password(url: &Url) -> bool {
    url.password().is_some() || url.query_pairs().any(|(key, _)| key == "password")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    fn asked(argument: Option<&str>, environment: Option<&str>) -> Result<Option<String>, String> {
        let database =
            Database { database: argument.map(str::to_owned), database_file: None, secret_key_file: None };
        let url = database.or(environment.map(str::to_owned)).map_err(|e| e.to_string())?;
        Ok(url.map(|u| u.expose_secret().to_owned()))
    }

    #[test]
    fn a_file_may_contain_a_password_but_not_for_everybody_to_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let url = || {
            let database = Database {
                database: None,
                database_file: Some(file.path().to_owned()),
                secret_key_file: None,
            };
            database
                .url()
                .map(|url| url.map(|url| url.expose_secret().to_owned()))
                .map_err(|e| format!("{e:#}"))
        };
        fs::write(file.path(), "postgres://u:geheim@db.example/wicketgate\n").unwrap();
        assert_eq!(url().unwrap().unwrap(), "postgres://u:geheim@db.example/wicketgate");
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(url().unwrap_err().contains("chmod o="));
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o440)).unwrap();
        fs::write(file.path(), "geheim").unwrap();
        assert_eq!(
            url().unwrap_err(),
            "the content of --database-file must be a URL like postgres://USER@HOST/NAME"
        );
    }

    #[test]
    fn a_data_directory_keeps_its_database() {
        let dir = tempfile::tempdir().unwrap();
        let url = |text: &str| Some(SecretString::from(text));
        let first = url("postgres://u:geheim@db.example/wicketgate?sslmode=disable");
        check(dir.path(), first.as_ref()).unwrap();
        keep(dir.path(), first.as_ref()).unwrap();
        assert!(!fs::read_to_string(dir.path().join(FILE)).unwrap().contains("geheim"));
        let same = url("postgresql://v:other@db.example:5432/wicketgate");
        check(dir.path(), same.as_ref()).unwrap();
        for (other, shown) in [
            (None, "wicketgate.db (SQLite)"),
            (url("postgres://u:geheim@db.example/other"), "postgres://db.example:5432/other"),
            (
                url("postgres:///wicketgate?host=/run/postgresql"),
                "postgres:///run/postgresql:5432/wicketgate",
            ),
        ] {
            let error = check(dir.path(), other.as_ref()).unwrap_err().to_string();
            assert!(
                error.contains("postgres://db.example:5432/wicketgate") && error.contains(shown),
                "{error}"
            );
            assert!(!error.contains("geheim"), "{error}");
        }
        fs::remove_file(dir.path().join(FILE)).unwrap();
        check(dir.path(), None).unwrap();
    }

    #[test]
    fn a_database_that_is_known_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        keep(dir.path(), None).unwrap();
        let written = || fs::metadata(dir.path().join(FILE)).unwrap().ino();
        let first = written();
        keep(dir.path(), None).unwrap();
        assert_eq!(written(), first);
    }

    #[test]
    fn a_directory_that_names_no_database_keeps_the_kind_that_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let postgres = Some(SecretString::from("postgres://u:geheim@db.example/wicketgate"));
        check(dir.path(), postgres.as_ref()).unwrap();
        fs::write(dir.path().join(GATEWAY_ID), "").unwrap();
        check(dir.path(), postgres.as_ref()).unwrap();
        let error = check(dir.path(), None).unwrap_err().to_string();
        for word in ["--database", Server::SQLITE, GATEWAY_ID, "wicketgate down"] {
            assert!(error.contains(word), "{word}: {error}");
        }
        fs::write(dir.path().join(Server::SQLITE), "").unwrap();
        check(dir.path(), None).unwrap();
        let error = check(dir.path(), postgres.as_ref()).unwrap_err().to_string();
        assert!(
            error.contains("postgres://db.example:5432/wicketgate") && error.contains(Server::SQLITE),
            "{error}"
        );
        assert!(!error.contains("geheim"), "{error}");
    }

    #[test]
    fn a_password_comes_from_the_environment_only() {
        let plain = "postgres://wicketgate@db.example.org:5432/wicketgate?sslmode=disable";
        assert_eq!(asked(None, None), Ok(None));
        assert_eq!(asked(None, Some("")), Ok(None));
        assert_eq!(asked(Some(plain), Some("other")), Ok(Some(plain.to_owned())));
        let secret = "postgresql://wicketgate:geheim@[::1]:5432/wicketgate";
        assert_eq!(asked(None, Some(secret)), Ok(Some(secret.to_owned())));
        for argument in [secret, "postgres://u@h/d?password=geheim", "postgres://h/d?user=u&password=geheim"]
        {
            let error = asked(Some(argument), None).unwrap_err();
            assert!(error.contains(VARIABLE) && !error.contains("geheim"), "{error}");
        }
        for other in [
            "geheim",
            "mysql://u@h/d",
            "/var/lib/a.db",
            "POSTGRES://u:geheim@h/d",
            " postgres://u:geheim@h/d",
            "postgres:u:geheim@h/d",
        ] {
            let error = asked(Some(other), None).unwrap_err();
            assert!(error.starts_with("--database") && !error.contains(other), "{error}");
            assert!(asked(None, Some(other)).unwrap_err().starts_with(VARIABLE));
        }
    }
}
