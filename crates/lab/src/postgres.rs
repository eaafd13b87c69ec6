//! A PostgreSQL server for tests, where Debian's is installed: one for all the tests of a binary, a database for each.
//!
//! Tests do not know which database they run on. One test of a binary calls [`rerun`], which starts a server and runs
//! the others again in another process, where [`fresh`] returns databases on that server.

use std::{
    env, fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command, id},
    sync::atomic::{AtomicU32, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::program::run;

/// The server's socket, for the process that runs the tests again.
const SOCKET: &str = "WICKETGATE_TEST_POSTGRES";

/// Starting PostgreSQL on a busy machine.
const START: Duration = Duration::from_secs(60);

/// All tests of a binary: less than a runner of tests allows for one.
const ALL: Duration = Duration::from_secs(150);

/// A server in a temporary directory, reachable through its socket only.
#[derive(Debug)]
struct Postgres {
    dir: PathBuf,
    server: Option<Child>,
}

/// The URL of a new database, if tests run on PostgreSQL.
///
/// # Errors
/// When it can't be made.
pub fn fresh() -> Result<Option<String>> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let Ok(socket) = env::var(SOCKET) else { return Ok(None) };
    let name = format!("test_{}_{}", id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let (bin, ..) = installed().context("PostgreSQL is gone")?;
    run(Command::new(bin.join("createdb")).args(["-U", "postgres", "-h", &socket, &name]))?;
    Ok(Some(format!("postgres://postgres@{}/{name}", socket.replace('/', "%2F"))))
}

/// Runs all tests of this binary but `own` on PostgreSQL; `false` if there is none.
///
/// # Errors
/// With their output, when one fails.
pub fn rerun(own: &str) -> Result<bool> {
    let Some(postgres) = Postgres::start()? else { return Ok(false) };
    let mut tests = Command::new(env::current_exe()?)
        .args(["--skip", own, "--test-threads", "4"])
        .env(SOCKET, &postgres.dir)
        // Set by a runner that takes one test a process.
        .env_remove("NEXTEST_EXECUTION_MODE")
        .stdout(fs::File::create(postgres.dir.join("tests.log"))?)
        .stderr(fs::File::create(postgres.dir.join("errors.log"))?)
        .spawn()?;
    let since = Instant::now();
    let ended = loop {
        if let Some(ended) = tests.try_wait()? {
            break ended;
        }
        if since.elapsed() > ALL {
            tests.kill()?;
            break tests.wait()?;
        }
        sleep(Duration::from_millis(50));
    };
    let said = |log: &str| fs::read_to_string(postgres.dir.join(log)).unwrap_or_default();
    ensure!(ended.success(), "on PostgreSQL, {ended}:\n{}\n{}", said("tests.log"), said("errors.log"));
    Ok(true)
}

/// A server on loopback that speaks only TLS. It ends with this value.
#[derive(Debug)]
pub struct TlsPostgres {
    _postgres: Postgres,
    pub port: u16,
}

impl TlsPostgres {
    /// `certificate` and `key` are PEM; `None` if PostgreSQL is not installed.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(certificate: &str, key: &str) -> Result<Option<Self>> {
        // Free until the server binds it.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let configure = |dir: &Path, (uid, gid): (u32, u32)| {
            for (name, text) in [("server.crt", certificate), ("server.key", key)] {
                let path = dir.join("data").join(name);
                fs::write(&path, text)?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
                chown(&path, Some(uid), Some(gid))?;
            }
            fs::write(
                dir.join("data/pg_hba.conf"),
                "local all all trust\nhostssl all all 127.0.0.1/32 trust\n",
            )?;
            Ok(vec!["listen_addresses=127.0.0.1".to_owned(), format!("port={port}"), "ssl=on".to_owned()])
        };
        Ok(Postgres::start_with("tls", configure)?.map(|postgres| Self { _postgres: postgres, port }))
    }
}

impl Postgres {
    fn start() -> Result<Option<Self>> {
        Self::start_with("socket", |_, _| Ok(vec!["listen_addresses=".to_owned()]))
    }

    /// `configure` gets the directory and its owner, and answers settings.
    fn start_with(
        kind: &str,
        configure: impl FnOnce(&Path, (u32, u32)) -> Result<Vec<String>>,
    ) -> Result<Option<Self>> {
        let Some((bin, uid, gid)) = installed() else { return Ok(None) };
        let dir = env::temp_dir().join(format!("wicketgate-postgres-{kind}-{}", id()));
        fs::create_dir(&dir)?;
        let mut postgres = Self { dir: dir.clone(), server: None };
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        chown(&dir, Some(uid), Some(gid))?;
        let mut initdb = as_postgres(&bin.join("initdb"));
        initdb.args(["--auth=trust", "--no-sync", "--username=postgres", "--encoding=UTF8", "--pgdata"]);
        run(initdb.arg(dir.join("data")).current_dir(&dir))?;
        let mut settings = configure(&dir, (uid, gid))?;
        settings.extend(["fsync=off", "max_connections=300"].map(str::to_owned));
        let port = settings.iter().find_map(|s| s.strip_prefix("port=")).unwrap_or("5432").to_owned();
        let server = as_postgres(&bin.join("postgres"))
            .args(settings.iter().flat_map(|setting| ["-c", setting]))
            .arg("-k")
            .arg(&dir)
            .arg("-D")
            .arg(dir.join("data"))
            .current_dir(&dir)
            .stderr(fs::File::create(dir.join("log"))?)
            .spawn()?;
        postgres.server = Some(server);
        let since = Instant::now();
        while !Command::new(bin.join("pg_isready"))
            .args(["-q", "-p", &port, "-h"])
            .arg(&dir)
            .status()?
            .success()
        {
            if since.elapsed() > START {
                bail!("PostgreSQL does not start:\n{}", fs::read_to_string(dir.join("log"))?);
            }
            sleep(Duration::from_millis(50));
        }
        Ok(Some(postgres))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            // SIGINT is its fast shutdown; killed, it would leave its shared memory to the system.
            let asked = Command::new("kill").args(["-INT", &server.id().to_string()]).status();
            if asked.is_err() {
                let _ = server.kill();
            }
            let _ = server.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The directory of the newest version's programs, and the user and group that they run as: PostgreSQL refuses to run as
/// root. `None` if it is not installed, or this process may not become that user.
pub fn installed() -> Option<(PathBuf, u32, u32)> {
    let bin = fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|v| v.path().join("bin")).max()?;
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let user = users.lines().find_map(|l| l.strip_prefix("postgres:"))?;
    let mut ids = user.split(':').skip(1).map(|n| n.parse().ok());
    let (uid, gid) = (ids.next()??, ids.next()??);
    (bin.join("initdb").exists() && rustix::process::geteuid().is_root()).then_some((bin, uid, gid))
}

fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command
}
