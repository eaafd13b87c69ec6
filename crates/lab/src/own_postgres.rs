//! A PostgreSQL server of a test's own, which the test freezes, kills and replaces by its standby.

use std::{
    fs,
    net::TcpListener,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::{ledger::send, postgres::Postgres, program::run};

/// Settings of every such server. One that was frozen, and is told to end, waits for clients that connected meanwhile and are dark:
/// usually for a minute.
const LOOPBACK: &str = "listen_addresses='127.0.0.1'\nauthentication_timeout='10s'";

/// For a standby to be connected, and for the processes of a killed server to end.
const WITHIN: Duration = Duration::from_secs(30);

/// A server on loopback.
#[derive(Debug)]
pub struct OwnPostgres {
    postgres: Postgres,
    pub url: String,
}

impl OwnPostgres {
    /// `None` if PostgreSQL is not installed.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start() -> Result<Option<Self>> {
        let postgres = Postgres::start(free_port()?, LOOPBACK, |_| Ok(()))?;
        Ok(postgres.map(Self::of))
    }

    fn of(postgres: Postgres) -> Self {
        let url = format!("postgres://postgres@127.0.0.1:{}/postgres", postgres.port);
        Self { postgres, url }
    }

    pub fn port(&self) -> u16 {
        self.postgres.port
    }

    /// The URL of its socket, which processes in other network namespaces reach.
    pub fn socket_url(&self) -> String {
        let dir = self.postgres.dir.display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{dir}:{}/postgres", self.postgres.port)
    }

    /// Stops all its processes (SIGSTOP): the host's kernel still accepts connections.
    pub fn freeze(&self) {
        // The first one starts the others.
        self.signal(Signal::STOP);
    }

    /// Lets frozen processes go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends all its processes at once (SIGKILL), and waits until they are gone: the next start would find their shared memory.
    ///
    /// # Errors
    /// They do not end.
    pub fn kill(&mut self) -> Result<()> {
        let all = self.processes();
        self.signal(Signal::KILL);
        if let Some(mut server) = self.postgres.server.take() {
            server.wait()?;
        }
        until("the processes of a killed PostgreSQL end", || {
            Ok(all.iter().all(|pid| !fs::exists(format!("/proc/{pid}")).unwrap_or(false)))
        })
    }

    /// Starts it again after [`OwnPostgres::kill`].
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.postgres.serve()
    }

    /// Replaces a setting while it runs.
    ///
    /// # Errors
    /// The server cannot be told.
    pub fn set(&self, settings: &str) -> Result<()> {
        self.postgres.configure(&format!("{LOOPBACK}\n{settings}"))?;
        run(self.postgres.as_owner("pg_ctl").arg("reload")).map(drop)
    }

    /// A standby of it, whose confirmation each commit waits for from now on.
    ///
    /// # Errors
    /// It cannot be copied, or does not connect.
    pub fn synchronous_standby(&self) -> Result<Self> {
        let mut standby = Postgres::without_data(free_port()?)?.context("PostgreSQL is gone")?;
        let mut copy = standby.as_owner("pg_basebackup");
        let port = self.postgres.port.to_string();
        copy.args([
            "-R",
            "--no-sync",
            "--checkpoint=fast",
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-p",
            &port,
            "-D",
        ]);
        run(copy.arg(standby.data()))?;
        let source = fs::read_to_string(standby.data().join("postgresql.auto.conf"))?;
        let source = source.lines().find(|line| line.starts_with("primary_conninfo"));
        standby.configure(&format!("{LOOPBACK}\n{}", source.context("a standby without a source")?))?;
        standby.serve()?;
        self.set("synchronous_standby_names='*'")?;
        let state = "TABLE pg_stat_replication";
        until("a standby is synchronous", || Ok(self.shell(state)?.contains("|sync|")))?;
        Ok(Self::of(standby))
    }

    /// Makes a standby a server that can be written.
    ///
    /// # Errors
    /// It cannot take over.
    pub fn promote(&self) -> Result<()> {
        run(self.postgres.as_owner("pg_ctl").args(["promote", "-w"])).map(drop)
    }

    /// What `psql` prints of a command, its columns separated by bars.
    ///
    /// # Errors
    /// The command fails.
    pub fn shell(&self, command: &str) -> Result<String> {
        let mut psql = Command::new(self.postgres.bin.join("psql"));
        run(psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", command, &self.url]))
    }

    fn signal(&self, signal: Signal) {
        self.processes().into_iter().for_each(|pid| send(pid, signal));
    }

    /// Its first process, and those that it has started.
    fn processes(&self) -> Vec<u32> {
        let Some(server) = &self.postgres.server else { return Vec::new() };
        let first = server.id();
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let all = all.filter_map(|process| process.file_name().to_str()?.parse().ok());
        [first].into_iter().chain(all.filter(|pid| parent(*pid) == Some(first))).collect()
    }
}

/// The process that has started this one.
fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The state follows the name, which may have parentheses of its own.
    status.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        // A frozen server does not end.
        self.thaw();
    }
}

/// Free until the server binds it.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let since = Instant::now();
    while !is_so()? {
        ensure!(since.elapsed() < WITHIN, "not within {} s: {what}", WITHIN.as_secs());
        sleep(Duration::from_millis(20));
    }
    Ok(())
}
