//! Which PostgreSQL database a URL names, without user and password.

use sqlx::postgres::PgConnectOptions;
use std::path::Path;

/// Where the driver looks for a socket of a server on this host, if nothing names a host.
const SOCKETS: [&str; 3] = ["/var/run/postgresql", "/private/tmp", "/tmp"];

/// The name of the database that a connection to this URL reaches: the driver's own reading of it, with `hostaddr` and
/// the other parameters, and with `PGHOST`, `PGPORT`, `PGDATABASE` and the like. `None` if the driver cannot read it.
pub fn database_name(url: &str) -> Option<String> {
    let options: PgConnectOptions = url.parse().ok()?;
    let socket = options.get_socket().map(AsRef::<Path>::as_ref).and_then(Path::to_str);
    let host = socket.unwrap_or_else(|| options.get_host());
    // A server on this host has the same name whether its socket is there or not: it may be stopped.
    let host = if SOCKETS.contains(&host) { "localhost" } else { host };
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    Some(format!("postgres://{host}:{}/{database}", options.get_port()))
}

/// Whether a database's place is a URL of PostgreSQL, and not the path of a SQLite file.
pub(crate) fn is_postgres(place: &str) -> bool {
    place.starts_with("postgres://") || place.starts_with("postgresql://")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_database_is_named_by_what_is_connected_to() {
        let same = [
            "postgres://u:geheim@db.example/wicketgate?sslmode=disable",
            "postgresql://db.example:5432/wicketgate",
            "postgres://other.example/wicketgate?host=db.example",
            "postgres://v@db.example/x?dbname=wicketgate",
            "postgres://wicketgate@db.example",
        ];
        for url in same {
            assert_eq!(database_name(url).as_deref(), Some("postgres://db.example:5432/wicketgate"), "{url}");
        }
        for (url, name) in [
            ("postgres://db.example/w?hostaddr=192.0.2.7", "postgres://192.0.2.7:5432/w"),
            ("postgres://db.example/w?port=6543", "postgres://db.example:6543/w"),
            ("postgres://u@%2Frun%2Fpg/w", "postgres:///run/pg:5432/w"),
            ("postgres:///w?host=/run/pg", "postgres:///run/pg:5432/w"),
            ("postgres:///w?host=/var/run/postgresql", "postgres://localhost:5432/w"),
        ] {
            assert_eq!(database_name(url).as_deref(), Some(name), "{url}");
        }
    }

    #[test]
    fn the_environment_names_what_the_url_leaves_out() {
        if std::env::var_os("PGHOST").is_some() {
            assert_eq!(database_name("postgres:///").as_deref(), Some("postgres://192.0.2.9:6543/w"));
            assert_eq!(database_name("postgres://db/x").as_deref(), Some("postgres://db:6543/x"));
            return;
        }
        // The environment of this process cannot be changed without affecting other tests.
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "database_name::tests::the_environment_names_what_the_url_leaves_out"]);
        again.envs([("PGHOST", "192.0.2.9"), ("PGPORT", "6543"), ("PGDATABASE", "w")]);
        let ran = again.env_remove("NEXTEST_EXECUTION_MODE").output().unwrap();
        let out = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && out.contains("1 passed"), "{out}");
    }
}
