//! The private services behind the shares: a real PostgreSQL server and a real web server.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, Result};
use wicketgate_lab::{Lab, Namespace, Process, postgres, run};

use super::network::{DATABASE, Network, WEB};

/// What each customer reads through its tunnel. The words must not appear on the wire.
pub(super) const ROW: &str = "a row for customer A";
pub(super) const PAGE: &str = "a page for customer B";

/// Time for a server to start on a loaded machine.
const START: Duration = Duration::from_secs(15);

/// Starts both servers. Everything they write is below the lab's directory.
pub(super) fn start(lab: &Lab, network: &Network) -> Result<()> {
    web(lab, &network.web)?;
    database(lab, &network.database)
}

/// PostgreSQL refuses to run as root: it runs as its package's own user, in a data directory of the demo.
fn database(lab: &Lab, namespace: &Namespace) -> Result<()> {
    let bin = postgres::installed().context("PostgreSQL's server is not installed: run `make install`")?;
    let dir = lab.dir("postgres")?;
    postgres::own(&dir)?;
    let program = |name| postgres::as_owner(namespace.command("setpriv"), &bin.join(name), &dir);
    // The data does not outlive the demo, so nothing is synced to disk.
    run(program("initdb").args(["-U", "demo", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"]))?;
    let access = dir.join("data/pg_hba.conf");
    fs::write(&access, "host all demo 10.20.0.0/24 trust\n").context("can't write pg_hba.conf")?;
    let mut server = program("postgres");
    server.args(["-c", &format!("listen_addresses={DATABASE}"), "-c", "unix_socket_directories="]).args([
        "-c",
        "fsync=off",
        "-c",
        "shared_buffers=16MB",
    ]);
    let mut server = Process::start(lab, "postgres", &mut server, &lab.dir("log")?.join("postgres.log"))?;
    server.until(lab, "PostgreSQL answers", START, |_| {
        let sql = format!("create table greeting as select '{ROW}'::text as words");
        run(&mut psql(namespace, DATABASE, 5432, &sql)).map(Some)
    })?;
    Ok(())
}

fn web(lab: &Lab, namespace: &Namespace) -> Result<()> {
    let dir = lab.dir("nginx")?;
    fs::create_dir_all(dir.join("www"))?;
    fs::write(dir.join("www/index.html"), format!("{PAGE}\n"))?;
    let at = dir.display();
    // Every path compiled into the package is replaced by one of the demo's own.
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("  {kind}_temp_path {at}/{kind};\n"))
        .collect();
    let config = format!(
        "daemon off;\nuser www-data;\nworker_processes 1;\npid {at}/pid;\nerror_log stderr;\n\
         events {{ worker_connections 64; }}\n\
         http {{\n{temporary}  access_log off;\n  server {{ listen {WEB}:80; root {at}/www; }}\n}}\n"
    );
    let file = dir.join("nginx.conf");
    fs::write(&file, config)?;
    let mut command = namespace.command("nginx");
    command.args(["-e", "stderr", "-p"]).arg(&dir).arg("-c").arg(&file);
    let log = lab.dir("log")?.join("nginx.log");
    let mut server = Process::start(lab, "nginx", &mut command, &log)?;
    server.until(lab, "the web server answers", START, |_| run(&mut curl(namespace, WEB, 80)).map(Some))?;
    Ok(())
}

/// A client's query. It fails within ten seconds.
pub(super) fn psql(from: &Namespace, to: std::net::Ipv4Addr, port: u16, sql: &str) -> Command {
    let mut command = from.command("psql");
    command
        .env("PGCONNECT_TIMEOUT", "10")
        .env("PGSSLMODE", "disable")
        .args(["-X", "-U", "demo", "-d", "postgres", "-Atq", "-h", &to.to_string(), "-p", &port.to_string()])
        .args(["-c", sql]);
    command
}

/// A client's request. It fails within ten seconds.
pub(super) fn curl(from: &Namespace, to: std::net::Ipv4Addr, port: u16) -> Command {
    let mut command = from.command("curl");
    command.args(["-q", "-sS", "--fail", "--noproxy", "*", "-m", "10", &format!("http://{to}:{port}/")]);
    command
}
