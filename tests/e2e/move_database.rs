//! An installation whose database moves from SQLite to PostgreSQL, and back.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::{OwnPostgres, Site};

use crate::{
    e2e::backup::shown,
    harness::{
        PATIENCE, World,
        builder::Published,
        targets::{ask, here},
        text,
        user::User,
        wicketgate_executable,
    },
};

/// A command about the data directory of the world.
fn db(arguments: &[&str], data: &Path) -> Result<Output> {
    let mut command = Command::new(wicketgate_executable());
    Ok(command.arg("db").args(arguments).arg("--data-dir").arg(data).output()?)
}

/// But for what is said of the tests' PostgreSQL, which syncs nothing.
fn said(output: &Output) -> String {
    let told = String::from_utf8_lossy(&output.stderr);
    let lines = told.lines().filter(|line| !line.contains("fsync is off"));
    lines.map(|line| format!("{line}\n")).collect()
}

/// What a command that succeeds prints: a table of checksums.
fn sums(arguments: &[&str], data: &Path) -> Result<String> {
    let output = db(arguments, data)?;
    ensure!(output.status.success(), "{arguments:?}: {}", said(&output));
    Ok(String::from_utf8(output.stdout)?)
}

/// Checks that a command fails with one line that has all of these words, and prints no checksum.
fn refused(arguments: &[&str], data: &Path, words: &[&str]) -> Result<()> {
    let output = db(arguments, data)?;
    let told = said(&output);
    ensure!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}: {told}");
    ensure!(told.lines().count() == 1 && words.iter().all(|word| told.contains(word)), "{words:?}: {told}");
    Ok(())
}

/// A file that lacks its last bytes.
fn cut_is_refused(file: &Path, flags: &[&str], data: &Path) -> Result<()> {
    let (whole, cut) = (fs::read(file)?, file.with_extension("cut"));
    fs::write(&cut, &whole[..whole.len() - 100])?;
    refused(&[&["import", shown(&cut)?], flags].concat(), data, &["changed, cut, or damaged"])
}

/// What has to work as before, with what it needs.
struct Before {
    account: String,
    agents: Vec<Value>,
    /// Has the tunnel's key.
    vpn_config: String,
}

impl Before {
    fn of(world: &World, published: &Published<()>) -> Result<Self> {
        let frontdoor = world.gateway.frontdoor.rsplit('/').next();
        let body = json!({"frontdoorIds": [frontdoor], "name": "ci", "scopes": ["frontdoor.read"]});
        let made = world.gateway.api.post("/frontdoor/v2/api-accounts", &body)?;
        let account = text(&made, "clientId")?.to_owned();
        let login = ["login", "--server", &world.url(), "--account", &account, "--secret-file", "-"];
        let program = User::new(world, "ci")?;
        let login = program.run(&login, text(&made, "clientSecret")?)?;
        ensure!(login.status.success(), "{}", said(&login));
        User::new(world, "operator")?.sign_in()?;
        let vpn_config = world.vpn_config(&published.tunnel)?;
        Ok(Self { account, agents: agents(world)?, vpn_config })
    }

    /// The agent that never stopped, the tunnel, a site that connects again, the share, the account's token and the admin's.
    fn still_works(&self, world: &World, published: &Published<()>, site: &mut Site) -> Result<()> {
        let id = text(&published.share, "id")?;
        world.gateway.deployed(&world.lab, "ipsec-shares", id)?;
        served(world, published, site)?;
        ensure!(agents(world)? == self.agents);
        ensure!(world.vpn_config(&published.tunnel)? == self.vpn_config);
        site.stop()?;
        world.connect(site, &published.tunnel, &self.vpn_config)?;
        served(world, published, site)?;
        for user in ["ci", "operator"] {
            let shares = User::new(world, user)?.says("share list -o name")?;
            ensure!(shares.lines().count() == 1, "{user}: {shares}");
        }
        // The database takes writes.
        world.patch(&published.share, &json!({"target": world.target(7001).to_string()}))?;
        let account = world.gateway.api.get(&format!("/frontdoor/v2/api-accounts/{}", self.account))?;
        ensure!(account["name"] == "ci", "{account}");
        Ok(())
    }
}

/// The ids and keys of the agents.
fn agents(world: &World) -> Result<Vec<Value>> {
    let agents = world.gateway.list("agents")?;
    Ok(agents.iter().map(|agent| json!([agent["id"], agent["createdAt"]])).collect())
}

fn served(world: &World, published: &Published<()>, site: &Site) -> Result<()> {
    world.lab.until("the share is served", PATIENCE, || {
        let asked = ask(&site.namespace, published.door, PATIENCE);
        Ok(asked.is_ok_and(|said| said == "here").then_some(()))
    })
}

#[test]
fn an_installation_moves_to_postgresql_and_back_and_agents_tunnels_shares_and_tokens_stay() -> Result<()> {
    let Some(postgres) = OwnPostgres::start()? else { return Ok(()) };
    let database = ["--database", &postgres.socket_url()];
    let (mut world, published) = World::with_sites(1).publish(here)?;
    let mut site = world.connected_site(0, &published.tunnel)?;
    let before = Before::of(&world, &published)?;
    let data = world.gateway.data.clone();
    let (file, second) = (world.lab.path("export"), world.lab.path("second"));
    let import = [&["import", shown(&file)?], &database[..]].concat();

    // A server that runs would write what is not in the file.
    refused(&["export", shown(&file)?], &data, &["another wicketgate is using", "stop `up` first"])?;
    ensure!(!file.exists());
    ensure!(world.gateway.process.stop(PATIENCE)?.success());
    let exported = sums(&["export", shown(&file)?], &data)?;
    let row = |table: &str| exported.lines().find(|line| line.starts_with(table)).context("no such table");
    ensure!(row("ipsec_share ")?.split_whitespace().nth(1) == Some("1"), "{exported}");

    // What is refused leaves the database empty, and the data directory with its own.
    cut_is_refused(&file, &database, &data)?;
    world.restart()?;
    refused(&import, &data, &["another wicketgate is using", "stop `up` first"])?;
    ensure!(world.gateway.process.stop(PATIENCE)?.success());
    // The server has started once more.
    refused(&import, &data, &["changed after the export", "export it again"])?;
    let exported = sums(&["export", shown(&file)?], &data)?;
    let output = db(&import, &data)?;
    ensure!(output.status.success(), "{}", said(&output));
    ensure!(String::from_utf8_lossy(&output.stdout) == exported, "other checksums");
    ensure!(said(&output).contains("next: `wicketgate up"), "{}", said(&output));
    // As after a failure between the commit and the data directory's new name.
    fs::remove_file(data.join("database"))?;
    ensure!(sums(&import, &data)? == exported);

    // The data directory has another database now.
    world.restart_with(&database.join(" "))?;
    before.still_works(&world, &published, &mut site)?;
    ensure!(world.gateway.process.stop(PATIENCE)?.success());
    refused(&["export", shown(&file)?], &data, &["belongs to the database", "postgres://"])?;

    // And back, by way of the standard output.
    let output = db(&[&["export", "-"], &database[..]].concat(), &data)?;
    ensure!(output.status.success(), "{}", said(&output));
    fs::write(&second, &output.stdout)?;
    let back = ["import", shown(&second)?];
    refused(&back, &data, &["not empty"])?;
    for name in ["wicketgate.db", "wicketgate.db-wal", "wicketgate.db-shm"] {
        let _ = fs::rename(data.join(name), world.lab.dir("aside")?.join(name));
    }
    cut_is_refused(&second, &[], &data)?;
    ensure!(!data.join("wicketgate.db").exists());
    let imported = sums(&back, &data)?;
    ensure!(imported == said(&output), "{imported}\n{}", said(&output));
    world.restart()?;
    before.still_works(&world, &published, &mut site)?;
    world.end()
}
