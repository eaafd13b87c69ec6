//! Databases to test against: SQLite always, PostgreSQL where Debian's is installed.

use std::{
    fs,
    future::Future,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use wicketgate_store::Store;

/// Starting PostgreSQL on a busy machine.
const START: Duration = Duration::from_secs(60);

/// Runs a test on a fresh database of each kind.
pub(crate) fn on_each<F: Future<Output = ()>>(test: impl Fn(Store) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("data").join("wicketgate.db");
    runtime.block_on(async {
        let store = Store::open(path.to_str().unwrap()).await.unwrap();
        test(store.clone()).await;
        store.close().await;
    });
    if let Some(postgres) = Postgres::start() {
        runtime.block_on(async {
            let store = Store::open(&postgres.url()).await.unwrap();
            test(store.clone()).await;
            store.close().await;
        });
    }
}

/// A server of its own in a temporary directory, reachable through its socket only.
struct Postgres {
    dir: TempDir,
    server: Child,
}

impl Postgres {
    fn start() -> Option<Self> {
        let Some((bin, uid, gid)) = Self::installed() else {
            eprintln!(
                "skipped on PostgreSQL: it, or its user, is not installed (apt-get install postgresql)"
            );
            return None;
        };
        let dir = TempDir::new().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        chown(dir.path(), Some(uid), Some(gid)).unwrap();
        let data = dir.path().join("data");
        let made = as_postgres(&bin.join("initdb"))
            .args(["--auth=trust", "--no-sync", "--username=postgres", "--encoding=UTF8", "--pgdata"])
            .arg(&data)
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success(), "initdb failed");
        let server = as_postgres(&bin.join("postgres"))
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-k"])
            .arg(dir.path())
            .arg("-D")
            .arg(&data)
            .current_dir(dir.path())
            .stderr(fs::File::create(dir.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let started = Self { dir, server };
        let since = Instant::now();
        while !as_postgres(&bin.join("pg_isready"))
            .arg("-q")
            .arg("-h")
            .arg(started.dir.path())
            .status()
            .unwrap()
            .success()
        {
            let log = || fs::read_to_string(started.dir.path().join("log")).unwrap();
            assert!(since.elapsed() < START, "PostgreSQL does not start:\n{}", log());
            sleep(Duration::from_millis(50));
        }
        Some(started)
    }

    /// Where its programs are, and whom they run as.
    fn installed() -> Option<(PathBuf, u32, u32)> {
        let bin = fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|v| v.path().join("bin")).max()?;
        let users = fs::read_to_string("/etc/passwd").ok()?;
        let user = users.lines().find_map(|l| l.strip_prefix("postgres:"))?;
        let mut ids = user.split(':').skip(1).map(|n| n.parse().ok());
        let (uid, gid) = (ids.next()??, ids.next()??);
        (bin.join("initdb").exists() && rustix::process::geteuid().is_root()).then_some((bin, uid, gid))
    }

    fn url(&self) -> String {
        let socket = self.dir.path().to_str().unwrap().replace('/', "%2F");
        format!("postgres://postgres@{socket}/postgres")
    }
}

fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
