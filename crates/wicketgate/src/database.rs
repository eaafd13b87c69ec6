//! Which database `up` uses: its own file, or a PostgreSQL server.
//!
//! Invariant: a password is never taken from the command line, where every user of the machine can read it.

use anyhow::{Context as _, ensure};
use clap::Args;
use secrecy::SecretString;
use url::Url;

/// An alternative to the flag, and the only place for a URL with a password.
const VARIABLE: &str = "WICKETGATE_DATABASE";

#[derive(Debug, Args)]
pub(crate) struct Database {
    /// A PostgreSQL database, postgres://USER@HOST/NAME [default: a SQLite file in the data directory]. A URL with a
    /// password is accepted in the environment variable WICKETGATE_DATABASE only.
    #[arg(long, value_name = "URL")]
    database: Option<String>,
}

impl Database {
    /// The URL; `None` is the file in the data directory.
    pub(crate) fn url(&self) -> anyhow::Result<Option<SecretString>> {
        self.or(std::env::var(VARIABLE).ok())
    }

    fn or(&self, environment: Option<String>) -> anyhow::Result<Option<SecretString>> {
        let (from, text) = match (&self.database, environment) {
            (Some(url), _) => ("--database", url.clone()),
            (None, Some(url)) if !url.is_empty() => (VARIABLE, url),
            _ => return Ok(None),
        };
        // The parser also accepts spaces around it, capitals, and no `//`; the store would take those for a file's name.
        let is_postgres = ["postgres://", "postgresql://"].iter().any(|start| text.starts_with(start));
        let url = Url::parse(&text).ok().filter(|_| is_postgres);
        // Never shown: it may be a misplaced password.
        let url = url.with_context(|| format!("{from} must be a URL like postgres://USER@HOST/NAME"))?;
        ensure!(
            self.database.is_none() || !has_password(&url),
            "every user of this host could read the password in --database: set {VARIABLE} to the URL instead"
        );
        Ok(Some(text.into()))
    }
}

fn has_password(url: &Url) -> bool {
    url.password().is_some() || url.query_pairs().any(|(key, _)| key == "password")
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    fn asked(argument: Option<&str>, environment: Option<&str>) -> Result<Option<String>, String> {
        let database = Database { database: argument.map(str::to_owned) };
        let url = database.or(environment.map(str::to_owned)).map_err(|e| e.to_string())?;
        Ok(url.map(|u| u.expose_secret().to_owned()))
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
