//! PostgreSQL with pgbench and COPY, and Redis.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use wicketgate_lab::{postgres, run};

use super::scene::{Published, Scene};
use crate::harness::PATIENCE;

const POSTGRESQL: u16 = 5432;
const REDIS: u16 = 6379;

/// Rows of 100 bytes that are copied in each direction: 100 MB.
const ROWS: u64 = 1_000_000;
const ROW: u64 = 100;

/// The clients of pgbench, and the transactions of each.
const CLIENTS: u32 = 8;
const TRANSACTIONS: u32 = 50;

/// The size of a value in Redis.
const VALUE: usize = 5_000_000;

pub(super) fn postgresql(scene: &Scene) -> Result<Published> {
    let bin = postgres::installed().context("PostgreSQL's server is not installed: run `make install`")?;
    start_postgresql(scene, &bin)?;
    let published = scene.publish("postgresql", POSTGRESQL)?;
    let client = |program: &str| {
        let mut command = scene.client(&bin.join(program).display().to_string());
        command.args(["-h", &published.ip(), "-p", &published.port(), "-U", "postgres"]);
        command
    };
    let query = |sql: &str| run(client("psql").args(["-XAtq", "-d", "postgres", "-c", sql]));

    run(client("pgbench").args(["-q", "-i", "postgres"]))?;
    let (clients, each) = (CLIENTS.to_string(), TRANSACTIONS.to_string());
    let said = run(client("pgbench").args(["-n", "-c", &clients, "-j", "2", "-t", &each, "postgres"]))?;
    let all = CLIENTS * TRANSACTIONS;
    ensure!(said.contains(&format!("actually processed: {all}/{all}")), "{said}");
    let sums = query(
        "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history), \
         (select count(*) from pgbench_history)",
    )?;
    ensure!(sums == format!("t|{all}"), "pgbench's sums differ: {sums}");

    query(&format!(
        "create unlogged table source as select i, md5(i::text) || md5((i + 1)::text) || md5((i + 2)::text) \
         || 'abc' as line from generate_series(1, {ROWS}) i; create unlogged table copy (line text)"
    ))?;
    let file = scene.world.lab.dir("client")?.join("copy");
    query(&format!("\\copy (select line from source order by i) to '{}'", file.display()))?;
    ensure!(fs::metadata(&file)?.len() == ROWS * ROW, "the copied file has another size");
    query(&format!("\\copy copy from '{}'", file.display()))?;
    let digest = |table, order| {
        query(&format!("select md5(string_agg(line, e'\\n' order by {order}) || e'\\n') from {table}"))
    };
    let (source, copy) = (digest("source", "i")?, digest("copy", "ctid")?);
    let copied = run(Command::new("md5sum").arg(&file))?;
    ensure!(source == copy && copied.starts_with(&source), "source {source}, copy {copy}, file {copied}");
    Ok(published)
}

fn start_postgresql(scene: &Scene, bin: &Path) -> Result<()> {
    let (dir, private) = (scene.world.lab.dir("postgresql")?, &scene.world.private);
    postgres::own(&dir)?;
    let program = |name| postgres::as_owner(private.command("setpriv"), &bin.join(name), &dir);
    run(program("initdb").args(["-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"]))?;
    let address = scene.world.target(POSTGRESQL).ip();
    fs::write(dir.join("data/pg_hba.conf"), format!("host all postgres {address}/32 trust\n"))?;
    let mut server = program("postgres");
    for setting in [&format!("listen_addresses={address}"), "unix_socket_directories=", "fsync=off"] {
        server.args(["-c", setting]);
    }
    let mut server = scene.server("postgresql", &mut server)?;
    server.until(&scene.world.lab, "PostgreSQL answers", PATIENCE, |_| {
        let (mut psql, address) = (private.command("psql"), address.to_string());
        run(psql.args(["-XAtq", "-h", &address, "-U", "postgres", "-c", "select 1"])).map(Some)
    })?;
    Ok(())
}

pub(super) fn redis(scene: &Scene) -> Result<Published> {
    let mut server = scene.as_nobody("redis-server");
    server.current_dir(scene.directory("redis")?);
    server.args(["--bind", &scene.world.target(REDIS).ip().to_string(), "--port", &REDIS.to_string()]);
    scene.serve("redis", server.args(["--protected-mode", "no", "--save", ""]), REDIS)?;
    let published = scene.publish("redis", REDIS)?;

    let (value, back) = (scene.file("value", VALUE)?, scene.world.lab.dir("client")?.join("value.back"));
    let mut through = scene.client("sh");
    through.args([
        "-ec",
        r#"redis-cli -h "$0" -p "$1" -x set value <"$2"; redis-cli -h "$0" -p "$1" --raw get value >"$3""#,
    ]);
    run(through.args([published.ip(), published.port()]).args([&value, &back]))?;
    // The client ends what it prints with a newline.
    let (value, back) = (fs::read(value)?, fs::read(back)?);
    ensure!(
        back.strip_suffix(b"\n") == Some(&value[..]),
        "the value that is read is not the one that was written"
    );

    let mut benchmark = scene.client("redis-benchmark");
    benchmark.args(["-h", &published.ip(), "-p", &published.port(), "-q"]);
    run(benchmark.args(["-t", "set,get,lpush", "-n", "20000", "-c", "20", "-P", "16", "-d", "100"]))?;
    let mut count = scene.client("redis-cli");
    let length = run(count.args(["-h", &published.ip(), "-p", &published.port(), "llen", "mylist"]))?;
    ensure!(length == "20000", "{length} elements of the benchmark's list");
    Ok(published)
}
