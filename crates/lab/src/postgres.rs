//! A PostgreSQL server for tests, where Debian's is installed: one for all the tests of a binary, a database for each.
//!
//! Tests do not know which database they run on. One test of a binary calls [`rerun`], which starts a server and runs
//! the others again in another process, where [`fresh`] returns databases on that server.

use std::{
    env,
    fs::{self, DirBuilder, File},
    net::TcpListener,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, id},
    sync::atomic::{AtomicU32, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use wicketgate_system::private_file;

use crate::{ledger::send, program::run};

/// The server's socket, for the process that runs the tests again.
const SOCKET: &str = "WICKETGATE_TEST_POSTGRES";

/// Starting PostgreSQL on a busy machine.
const START: Duration = Duration::from_secs(60);

/// Seconds for all tests of a binary: less than a runner of tests allows for one.
const ALL: &str = "300";

/// A server in a temporary directory, reachable through its socket.
#[derive(Debug)]
pub(crate) struct Postgres {
    pub(crate) dir: PathBuf,
    /// Of its programs.
    pub(crate) bin: PathBuf,
    pub(crate) port: u16,
    pub(crate) server: Option<Child>,
}

/// The URL of a new database, if tests run on PostgreSQL.
///
/// # Errors
/// When it can't be made.
pub fn fresh() -> Result<Option<String>> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let Ok(socket) = env::var(SOCKET) else { return Ok(None) };
    let name = format!("test_{}_{}", id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let bin = installed().context("PostgreSQL is gone")?;
    run(Command::new(bin.join("createdb")).args(["-U", "postgres", "-h", &socket, &name]))?;
    Ok(Some(format!("postgres://postgres@{}/{name}", socket.replace('/', "%2F"))))
}

/// Runs all tests of this binary but `own` on PostgreSQL; `false` if there is none.
///
/// # Errors
/// With their output, when one fails.
pub fn rerun(own: &str) -> Result<bool> {
    rerun_below("", own)
}

/// As [`rerun`], for the tests whose names contain `module`.
///
/// # Errors
/// With their output, when one fails.
pub fn rerun_below(module: &str, own: &str) -> Result<bool> {
    let Some(postgres) = Postgres::start(5432, "listen_addresses=''", |_| Ok(()))? else {
        return Ok(false);
    };
    // In the foreground: what ends this process's group ends them, too.
    let tests = Command::new("timeout")
        .args(["--foreground", ALL])
        .arg(env::current_exe()?)
        .args([module, "--skip", own, "--test-threads", "4"])
        .env(SOCKET, &postgres.dir)
        // Set by a runner that takes one test a process.
        .env_remove("NEXTEST_EXECUTION_MODE")
        .output()?;
    let (printed, errors) = (String::from_utf8_lossy(&tests.stdout), String::from_utf8_lossy(&tests.stderr));
    ensure!(tests.status.success(), "on PostgreSQL, {}:\n{printed}\n{errors}", tests.status);
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
        let postgres = Postgres::start(port, "listen_addresses='127.0.0.1'\nssl=on", |data| {
            for (name, text) in [("server.crt", certificate), ("server.key", key)] {
                let path = data.join(name);
                private_file::replace(&path, text.as_bytes())?;
                own(&path)?;
            }
            let access = "local all all trust\nhostssl all all 127.0.0.1/32 trust\n";
            Ok(fs::write(data.join("pg_hba.conf"), access)?)
        });
        Ok(postgres?.map(|postgres| Self { _postgres: postgres, port }))
    }
}

impl Postgres {
    /// `settings`: lines of its configuration. `prepare` gets the data directory.
    pub(crate) fn start(
        port: u16,
        settings: &str,
        prepare: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Option<Self>> {
        let Some(mut postgres) = Self::without_data(port)? else { return Ok(None) };
        let mut initdb = postgres.as_owner("initdb");
        run(initdb.args(["--auth=trust", "--no-sync", "--username=postgres", "--encoding=UTF8"]))?;
        postgres.configure(settings)?;
        prepare(&postgres.data())?;
        postgres.serve()?;
        Ok(Some(postgres))
    }

    /// A directory for a server. `None` if PostgreSQL is not installed.
    pub(crate) fn without_data(port: u16) -> Result<Option<Self>> {
        let Some(bin) = installed() else { return Ok(None) };
        let dir = env::temp_dir().join(format!("wicketgate-postgres-{port}-{}", id()));
        // Not one that is there: it would be removed at the end.
        DirBuilder::new().mode(0o700).create(&dir)?;
        own(&dir)?;
        Ok(Some(Self { dir, bin, port, server: None }))
    }

    /// Replaces the settings that it starts with.
    pub(crate) fn configure(&self, settings: &str) -> Result<()> {
        let (port, dir) = (self.port, self.dir.display());
        let own = format!("port={port}\nunix_socket_directories='{dir}'\nfsync=off\nmax_connections=300");
        // Read last, after the file with the defaults.
        Ok(fs::write(self.data().join("postgresql.auto.conf"), format!("{own}\n{settings}\n"))?)
    }

    /// Starts the server on its data, and waits until it accepts connections.
    pub(crate) fn serve(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.dir.join("log"))?;
        self.server = Some(self.as_owner("postgres").stderr(log).spawn()?);
        let since = Instant::now();
        let mut is_ready = Command::new(self.bin.join("pg_isready"));
        is_ready.args(["-q", "-p", &self.port.to_string(), "-h"]).arg(&self.dir);
        while !is_ready.status()?.success() {
            if since.elapsed() > START {
                bail!("PostgreSQL does not start:\n{}", fs::read_to_string(self.dir.join("log"))?);
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// One of its programs, run as PostgreSQL's user.
    pub(crate) fn as_owner(&self, program: &str) -> Command {
        as_owner(Command::new("setpriv"), &self.bin.join(program), &self.dir)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            // Its fast shutdown; killed, it would leave its shared memory to the system.
            send(server.id(), Signal::INT);
            let _ = server.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The directory of the newest version's programs. `None` if it is not installed, or this process may not become the user
/// that they run as: PostgreSQL refuses to run as root.
pub fn installed() -> Option<PathBuf> {
    let bin = fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|v| v.path().join("bin")).max()?;
    (bin.join("initdb").exists() && rustix::process::geteuid().is_root()).then_some(bin)
}

/// Gives a file or an empty directory to PostgreSQL's user.
///
/// # Errors
/// There is no such user.
pub fn own(path: &Path) -> Result<()> {
    run(Command::new("chown").arg("postgres:postgres").arg(path)).map(drop)
}

/// Completes `setpriv`: it runs a program of the server as PostgreSQL's user, with the data in `dir`.
pub fn as_owner(mut setpriv: Command, program: &Path, dir: &Path) -> Command {
    setpriv.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    setpriv.current_dir(dir).env("PGDATA", dir.join("data"));
    setpriv
}
