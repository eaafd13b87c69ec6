//! MariaDB with its defaults: it blocks a host after 100 connections that end without a login.

use std::{fs, path::PathBuf, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use wicketgate_lab::run;

use super::scene::Scene;
use crate::harness::{PATIENCE, attempts::Attempts};

const PORT: u16 = 3306;
/// Other ports that lead to the server. Each is a target of its own, so that each is probed.
const PORTS: std::ops::Range<u16> = 3310..3318;

/// With a probe a second of each target, the server would have been probed 128 times.
const IDLE: Duration = Duration::from_secs(16);
const INTERVAL: u32 = 1;

/// Rows of 64 characters that a client writes and reads back.
const ROWS: u64 = 20_000;

#[test]
fn a_mariadb_with_its_defaults_that_is_idle_for_more_than_100_probes_serves_the_next_client() -> Result<()> {
    let scene = Scene::start()?;
    let socket = start(&scene)?;
    let admin = |sql: &str| {
        let mut client = scene.client("mariadb");
        client.args(["--no-defaults", "-NB", "-uroot", "-S"]).arg(&socket);
        run(client.args(["-e", sql]))
    };
    let limit = admin("select @@max_connect_errors, @@skip_name_resolve, @@host_cache_size > 0")?;
    ensure!(limit == "100\t0\t1", "these are not the defaults: {limit}");
    admin("create database data; create user app identified by 'secret'; grant all on data.* to app")?;
    let target = scene.world.target(PORT);
    let (first, last) = (PORTS.start, PORTS.end - 1);
    scene.world.private.nft(&format!(
        "table ip other_ports {{ chain output {{ type nat hook output priority -100;\n\
         ip daddr {} tcp dport {first}-{last} dnat to {target}\n}}\n}}\n",
        target.ip()
    ))?;
    let probes = Attempts::at(&scene.world.private, PORT)?;
    let check = json!({"type": "tcp", "intervalSeconds": INTERVAL});
    let mut shares = Vec::new();
    for port in PORTS {
        shares.push(scene.share(&format!("mariadb-{port}"), port, &check)?);
    }
    thread::sleep(IDLE);
    let probes = probes.so_far()?;
    ensure!(probes >= PORTS.len() as u64, "{probes} probes: not every target was probed");
    let aborted = admin("show global status like 'Aborted_connects'")?;
    let aborted: u64 = aborted.split('\t').nth(1).context("no value")?.parse()?;

    let published = scene.tap(shares.remove(0), first)?;
    let lines: Vec<_> = (0..ROWS).map(|n| format!("{:064x}", u128::from(n).pow(6))).collect();
    let rows: Vec<_> = lines.iter().enumerate().map(|(n, line)| format!("({n},'{line}')")).collect();
    let script = scene.world.lab.dir("client")?.join("insert.sql");
    fs::write(
        &script,
        format!("create table t (n int, line text); insert into t values {};", rows.join(",")),
    )?;
    let client = |sql: &str| {
        let mut client = scene.client("mariadb");
        client.args(["--no-defaults", "-NB", "-uapp", "-psecret", "--protocol=tcp", "-h", &published.ip()]);
        run(client.args(["-P", &published.port(), "data", "-e", sql]))
    };
    client(&format!("source {}", script.display()))?;
    let back = client("select line from t order by n")?;
    ensure!(back.lines().eq(&lines), "the rows that are read are not those that were written");
    published.verify(&scene)?;
    // An agent that gets no processor for 200 ms completes a handshake.
    ensure!(
        aborted * 4 <= probes,
        "MariaDB counts {aborted} of {probes} probes as connections without a login"
    );
    scene.end()
}

/// Starts the server, and returns the socket of its administrator.
fn start(scene: &Scene) -> Result<PathBuf> {
    let dir = scene.directory("mariadb")?;
    let data = format!("--datadir={}/data", dir.display());
    let mut install = scene.as_nobody("mariadb-install-db");
    install.args(["--no-defaults", &data, "--auth-root-authentication-method=normal", "--skip-test-db"]);
    run(&mut install)?;
    let target = scene.world.target(PORT);
    // It counts the errors of hosts whose address has a name, or certainly none.
    let hosts = dir.join("hosts");
    fs::write(&hosts, format!("127.0.0.1 localhost\n{} agent.example\n", target.ip()))?;
    let (socket, pid) = (dir.join("socket"), dir.join("pid"));
    let mut server = scene.world.private.command("unshare");
    server.args(["--mount", "--propagation", "private", "sh", "-ec"]);
    server.arg(
        r#"mount --bind "$0" /etc/hosts; exec setpriv --reuid=nobody --regid=nogroup --clear-groups -- "$@""#,
    );
    server.arg(&hosts).args(["mariadbd", "--no-defaults", &data, &format!("--bind-address={}", target.ip())]);
    server.arg(format!("--socket={}", socket.display())).arg(format!("--pid-file={}", pid.display()));
    let mut server = scene.server("mariadb", &mut server)?;
    server.until(&scene.world.lab, "MariaDB listens", PATIENCE, |_| Ok(socket.exists().then_some(())))?;
    Ok(socket)
}
