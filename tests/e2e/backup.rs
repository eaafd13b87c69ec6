//! A backup that is made while the server runs, and a server that takes over from it on another data directory.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use wicketgate_authority::Ca;
use wicketgate_lab::Agent;

use crate::harness::{
    PATIENCE, SITE_CIDR, World,
    targets::{ask, here},
    text,
    user::User,
    wicketgate_executable,
};

const INSTALLATION: &str = "/frontdoor/v2/installation";

/// `wicketgate` with these arguments, about a data directory.
fn wicketgate(arguments: &[&str], data: &Path) -> Result<Output> {
    let mut command = Command::new(wicketgate_executable());
    Ok(command.args(arguments).arg("--data-dir").arg(data).output()?)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(super) fn done(arguments: &[&str], data: &Path) -> Result<String> {
    let output = wicketgate(arguments, data)?;
    ensure!(output.status.success(), "{arguments:?}: {}", said(&output));
    Ok(said(&output))
}

/// What changes after the backup.
struct Changed {
    /// An account that was revoked, by its path.
    account: String,
    /// An agent that enrolled.
    second: Agent,
    /// An agent that enrolled and was removed.
    removed: String,
}

#[test]
fn a_server_takes_over_from_a_backup_and_agents_need_no_new_code() -> Result<()> {
    let (mut world, published) = World::loopback().publish(here)?;
    ensure!(ask(&world.outside, published.door, PATIENCE)? == "here");
    let frontdoor = world.gateway.frontdoor.rsplit('/').next();
    let body = json!({"frontdoorIds": [frontdoor], "name": "ci", "scopes": ["frontdoor.read"]});
    let account = world.gateway.api.post("/frontdoor/v2/api-accounts", &body)?;
    let account = format!("/frontdoor/v2/api-accounts/{}", text(&account, "clientId")?);
    let data = world.gateway.data.clone();
    let backup = world.lab.path("backup");
    let told = done(&["backup", shown(&backup)?], &data)?;
    ensure!(told.contains("sealed under the secret key"), "{told}");
    let changed = change(&world, &published.share, account)?;
    world.gateway.process.kill()?;

    // The host is lost, and another one is set up, with the copies of three files.
    let lost = world.lab.path("lost");
    fs::rename(&data, &lost)?;
    fs::create_dir(&data)?;
    let revocations = lost.join("revocations");
    restore(&world, (&backup, &revocations, &lost.join("secret-key")), &changed.removed)?;

    // The first agent serves the share, whose generation in the backup is older than what it has seen.
    world.restart()?;
    // The admin token may have been replaced since, too.
    let token = |data: &Path| fs::read_to_string(data.join("admin.token"));
    ensure!(token(&data)? != token(&lost)?, "the admin token of the backup is valid");
    served(&world, published.door).map_err(|error| error.context(published.agent.process.tail()))?;
    let share = format!("ipsec-shares/{}", text(&published.share, "id")?);
    let share = world.gateway.api.get(&world.gateway.at(&share))?;
    ensure!(share["status"] == "DEPLOYED" && share["ready"] == true, "{share}");
    adopt(&world, &published.zid, &changed.removed)?;
    drop(changed.second);

    // What was revoked is revoked again by one command.
    ensure!(world.gateway.api.get(&changed.account)?["clientId"].is_string());
    ensure!(world.gateway.process.stop(PATIENCE)?.success());
    let told = done(&["restore", "--in-place", "--revoke"], &data)?;
    ensure!(told.contains("deleted again: api-account acc-"), "{told}");
    ensure!(told.contains("has another new key now: ipsec-tunnel tnl-"), "{told}");
    let told = done(&["restore", "--in-place", "--revoke"], &data)?;
    ensure!(!told.contains("new key now") && !told.contains("deleted again"), "once is enough: {told}");
    world.restart()?;
    ensure!(world.gateway.api.get(&changed.account).is_err());
    served(&world, published.door)?;
    world.end()
}

#[test]
fn what_was_revoked_just_before_a_stop_is_in_the_file() -> Result<()> {
    let mut world = World::loopback().start()?;
    let frontdoor = world.gateway.frontdoor.rsplit('/').next();
    let body = json!({"frontdoorIds": [frontdoor], "name": "ci", "scopes": ["frontdoor.read"]});
    let account = world.gateway.api.post("/frontdoor/v2/api-accounts", &body)?;
    let account = text(&account, "clientId")?;
    world.gateway.api.delete(&format!("/frontdoor/v2/api-accounts/{account}"))?;
    ensure!(world.gateway.process.stop(PATIENCE)?.success());
    let told = fs::read_to_string(world.gateway.data.join("revocations"))?;
    ensure!(told.contains(account.rsplit('-').next().context("no id")?), "{told}");
    world.restart()?;
    world.end()
}

/// A share is changed twice, its tunnel gets another key, an account is revoked, an agent enrols, and another one enrols and is
/// removed.
fn change(world: &World, share: &Value, account: String) -> Result<Changed> {
    let tunnel = text(share, "ipsecTunnelId")?;
    let key = json!({"preSharedKey": "a key of more than twenty characters"});
    world.gateway.api.patch(&world.gateway.at(&format!("ipsec-tunnels/{tunnel}")), &key)?;
    for port in [7002, 7001] {
        world.patch(share, &json!({"target": world.target(port).to_string()}))?;
    }
    world.gateway.api.delete(&account)?;
    let (second, removed) = enrol_and_remove(world)?;
    recorded(world, &[account.rsplit('-').next().context("no id")?, &removed, tunnel])?;
    Ok(Changed { account, second, removed })
}

/// The agent `second` enrols, and `third`, which is removed: its id.
fn enrol_and_remove(world: &World) -> Result<(Agent, String)> {
    let second = world.replica("second")?;
    connected(world, 2)?;
    let mut third = world.replica("third")?;
    // Ids are in the order of creation.
    let removed = connected(world, 3)?.into_iter().max().context("no agent")?;
    world.gateway.api.delete(&world.gateway.at(&format!("agents/{removed}")))?;
    third.process.wait(PATIENCE)?;
    Ok((second, removed))
}

/// Waits until the file of revocations has all of these.
fn recorded(world: &World, ids: &[&str]) -> Result<()> {
    world.lab.until("the revocations are in the file", PATIENCE, || {
        let text = fs::read_to_string(world.gateway.data.join("revocations"))?;
        Ok(ids.iter().all(|id| text.contains(id)).then_some(()))
    })
}

/// Agents that the restored database of a world with one agent does not know.
pub(super) struct Strangers {
    /// `second`, which can be adopted, and `third`.
    pub(super) agents: [Agent; 2],
    /// The id of `third`, which was removed after the backup.
    pub(super) removed: String,
}

/// The server takes over from a backup that is older than two of its agents.
pub(super) fn restored_with_strangers(world: &mut World) -> Result<Strangers> {
    let (data, backup, lost) = (world.gateway.data.clone(), world.lab.path("backup"), world.lab.path("lost"));
    done(&["backup", shown(&backup)?], &data)?;
    let (second, removed) = enrol_and_remove(world)?;
    recorded(world, &[&removed])?;
    world.gateway.process.kill()?;
    fs::rename(&data, &lost)?;
    fs::create_dir(&data)?;
    fs::copy(lost.join("secret-key"), data.join("secret-key"))?;
    let revocations = lost.join("revocations");
    done(&["restore", shown(&backup)?, "--revocations", shown(&revocations)?], &data)?;
    world.restart()?;
    let third = world.start_agent("third", None)?;
    Ok(Strangers { agents: [second, third], removed })
}

/// Waits for this many agents that are connected, and returns their ids.
fn connected(world: &World, count: usize) -> Result<Vec<String>> {
    world.lab.until("the agents are connected", PATIENCE, || {
        let agents = world.gateway.list("agents")?;
        let connected = agents.iter().filter(|agent| agent["status"] == "CONNECTED");
        let ids: Vec<_> = connected.filter_map(|agent| agent["id"].as_str().map(str::to_owned)).collect();
        Ok((ids.len() == count).then_some(ids))
    })
}

fn restore(
    world: &World,
    (backup, revocations, secret_key): (&Path, &Path, &Path),
    removed: &str,
) -> Result<()> {
    let data = &world.gateway.data;
    let refused = |file: &Path, why: &str| -> Result<()> {
        let refused = wicketgate(&["restore", shown(file)?], data)?;
        ensure!(!refused.status.success() && said(&refused).contains(why), "{}", said(&refused));
        Ok(())
    };
    refused(backup, "secret-key")?;
    fs::copy(secret_key, data.join("secret-key"))?;
    let cut = world.lab.path("cut");
    fs::write(&cut, &fs::read(backup)?[..2000])?;
    refused(&cut, "changed, cut, or damaged")?;
    let told = done(&["restore", shown(backup)?, "--revocations", shown(revocations)?], data)?;
    ensure!(told.contains("is there again: api-account acc-"), "{told}");
    ensure!(told.contains(&format!("do not adopt it: agent {removed}")), "{told}");
    ensure!(told.contains("has the key of before: ipsec-tunnel tnl-"), "{told}");
    refused(backup, "in use")
}

/// The agent that enrolled after the backup is adopted, and the one that was removed is not.
fn adopt(world: &World, zid: &str, removed: &str) -> Result<()> {
    let unknown = world.lab.until("the second agent is shown", PATIENCE, || {
        let list = world.gateway.api.get("/frontdoor/v2/unknown-agents")?;
        Ok(list["content"].as_array().and_then(|all| all.first()).cloned())
    })?;
    ensure!(unknown["name"].is_string() && unknown["keySha256"].is_string(), "{unknown}");
    let operator = User::new(world, "operator")?;
    operator.sign_in()?;
    let told = operator.says_with(5, "status")?;
    ensure!(told.contains(&format!("! agent {}", text(&unknown, "id")?)), "{told}");
    let adopt = format!("/frontdoor/v2/unknown-agents/{}/adopt", text(&unknown, "id")?);
    let adopted = world.gateway.api.post(&adopt, &json!({}))?;
    ensure!(adopted["envZId"] == zid, "{adopted}");
    connected(world, 2)?;
    let third = world.start_agent("third", None)?;
    let adopt = format!("/frontdoor/v2/unknown-agents/{removed}/adopt");
    let refused = world.lab.until("the removed agent is refused", PATIENCE, || {
        let answer = world.gateway.api.call("POST", &adopt, Some(&json!({})))?;
        Ok((answer.status == 409).then_some(answer.body))
    })?;
    ensure!(refused.contains("after the backup"), "{refused}");
    drop(third);
    Ok(())
}

pub(super) fn shown(path: &Path) -> Result<&str> {
    path.to_str().context("not UTF-8")
}

#[test]
fn a_start_with_a_database_of_another_authority_is_refused_with_the_cure() -> Result<()> {
    let (mut world, published) = World::loopback().publish(here)?;
    let data = world.gateway.data.clone();
    ensure!(world.gateway.process.stop(PATIENCE)?.success());
    let up = || {
        let arguments = ["up", "--ipsec", "off", "--listen", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0"];
        let refused = wicketgate(&arguments, &data)?;
        ensure!(!refused.status.success());
        Ok(said(&refused))
    };
    // The data directory of another authority.
    let (file, other) = (data.join("ca/ca.crt"), Ca::generate(jiff::Timestamp::now())?);
    let own = fs::read(&file)?;
    fs::write(&file, other.material().certificate)?;
    let refused = up()?;
    ensure!(refused.contains("--new-authority"), "{refused}");
    fs::write(&file, own)?;
    // An empty database beside the authority.
    let kept = world.lab.dir("kept")?;
    let files = ["wicketgate.db", "wicketgate.db-wal", "wicketgate.db-shm"];
    let are_there: Vec<_> = files.into_iter().filter(|file| data.join(file).exists()).collect();
    for file in &are_there {
        fs::rename(data.join(file), kept.join(file))?;
    }
    fs::write(data.join("wicketgate.db"), "")?;
    let refused = up()?;
    ensure!(refused.contains("has served another"), "{refused}");
    for file in files {
        let _ = fs::remove_file(data.join(file));
    }
    for file in are_there {
        fs::rename(kept.join(file), data.join(file))?;
    }
    world.restart()?;
    served(&world, published.door)?;
    world.end()
}

/// What the doctor says of backups: the result, and why.
fn judged(data: &Path) -> Result<(String, String)> {
    let report = wicketgate(&["doctor", "--ipsec", "off", "-o", "json"], data)?;
    let report: Value = serde_json::from_slice(&report.stdout).with_context(|| said(&report))?;
    let check = report["checks"].as_array().and_then(|all| all.iter().find(|one| one["check"] == "backup"));
    let check = check.context("the doctor does not look for a backup")?;
    Ok((text(check, "result")?.to_owned(), text(check, "message")?.to_owned()))
}

#[test]
fn each_complete_backup_is_seen_and_a_restored_server_has_none() -> Result<()> {
    let mut world = World::loopback().start()?;
    let (data, file) = (world.gateway.data.clone(), world.lab.path("backup"));
    let user = User::new(&world, "operator")?;
    user.sign_in()?;
    let last =
        |world: &World| Ok::<_, anyhow::Error>(world.gateway.api.get(INSTALLATION)?["lastBackup"].clone());
    ensure!(last(&world)?.is_null() && user.says("status")?.contains("last backup: none"));
    ensure!(judged(&data)?.0 == "WARN", "{:?}", judged(&data)?);

    // One that cannot be written is none.
    let missing = world.lab.path("missing/backup");
    ensure!(!wicketgate(&["backup", shown(&missing)?], &data)?.status.success());
    ensure!(last(&world)?.is_null());
    done(&["backup", shown(&file)?], &data)?;
    let first = last(&world)?;
    ensure!(first["bytes"] == fs::metadata(&file)?.len() && first["version"].is_string(), "{first}");
    let status = user.says("status")?;
    ensure!(status.contains("last backup: 20") && status.contains(" KiB"), "{status}");
    ensure!(user.json("status")?["lastBackup"] == first);
    ensure!(judged(&data)?.0 == "PASS", "{:?}", judged(&data)?);
    let printed = wicketgate(&["backup", "-"], &data)?;
    let second = last(&world)?;
    ensure!(second["bytes"] == printed.stdout.len() && second["createdAt"] != first["createdAt"], "{second}");

    // While `up` does not run, the database is told all the same.
    ensure!(world.gateway.process.stop(PATIENCE)?.success());
    done(&["backup", shown(&file)?], &data)?;
    world.restart()?;
    let third = last(&world)?;
    ensure!(third["createdAt"] != second["createdAt"] && third["bytes"].is_u64(), "{third}");

    // The record of the second is in the third, and no backup of the restored database.
    ensure!(world.gateway.process.stop(PATIENCE)?.success());
    let lost = world.lab.path("lost");
    fs::rename(&data, &lost)?;
    fs::create_dir(&data)?;
    fs::copy(lost.join("secret-key"), data.join("secret-key"))?;
    ensure!(judged(&data)? == ("PASS".to_owned(), "there is nothing to back up yet".to_owned()));
    done(&["restore", shown(&file)?], &data)?;
    world.restart()?;
    ensure!(last(&world)?.is_null());
    let (result, why) = judged(&data)?;
    ensure!(result == "WARN" && why.contains("restored"), "{result} {why}");
    world.end()
}

fn served(world: &World, door: SocketAddr) -> Result<()> {
    world.lab.until("the share is served", PATIENCE, || {
        Ok(ask(&world.outside, door, PATIENCE).is_ok_and(|said| said == "here").then_some(()))
    })
}

/// The host is lost, and its data directory with it. Returns where that is now.
fn lose(world: &mut World) -> Result<PathBuf> {
    world.gateway.process.kill()?;
    let lost = world.lab.path("lost");
    fs::rename(&world.gateway.data, &lost)?;
    fs::create_dir(&world.gateway.data)?;
    fs::copy(lost.join("secret-key"), world.gateway.data.join("secret-key"))?;
    Ok(lost)
}

#[test]
fn a_backup_to_the_standard_output_restores() -> Result<()> {
    let (mut world, published) = World::loopback().publish(here)?;
    let data = world.gateway.data.clone();
    let written = wicketgate(&["backup", "-"], &data)?;
    ensure!(written.status.success(), "{}", said(&written));
    let backup = world.lab.path("backup");
    fs::write(&backup, &written.stdout)?;
    lose(&mut world)?;
    done(&["restore", shown(&backup)?], &data)?;
    world.restart()?;
    served(&world, published.door)?;
    world.end()
}

#[test]
fn what_is_in_use_keeps_nothing_else_from_being_revoked_again() -> Result<()> {
    let (mut world, published) = World::loopback().publish(here)?;
    let data = world.gateway.data.clone();
    let unused = world.gateway.tunnel(&world.lab, "unused", World::peer(1), SITE_CIDR)?;
    let backup = world.lab.path("backup");
    done(&["backup", shown(&backup)?], &data)?;
    let [used, unused] = [text(&published.tunnel, "id")?, text(&unused, "id")?];
    let share = text(&published.share, "id")?;
    world.gateway.clear(&world.lab, PATIENCE)?;
    world.lab.until("the revocations are in the file", PATIENCE, || {
        let text = fs::read_to_string(data.join("revocations"))?;
        Ok([share, used, unused].iter().all(|id| text.contains(id)).then_some(()))
    })?;
    let lost = lose(&mut world)?;
    // The line of the share is lost, which uses its tunnel, and that tunnel is the first of the others.
    let text = fs::read_to_string(lost.join("revocations"))?;
    let line_of = |id: &str| text.lines().find(|line| line.contains(id)).context("no line");
    let revocations = world.lab.path("revocations");
    fs::write(&revocations, format!("{}\n{}\n", line_of(used)?, line_of(unused)?))?;
    let arguments = ["restore", shown(&backup)?, "--revoke", "--revocations", shown(&revocations)?];
    let output = wicketgate(&arguments, &data)?;
    let told = said(&output);
    ensure!(!output.status.success(), "{told}");
    ensure!(
        told.contains(&format!("cannot be deleted again (in use by 1 shares): ipsec-tunnel {used}")),
        "{told}"
    );
    ensure!(told.contains(&format!("deleted again: ipsec-tunnel {unused}")), "{told}");
    ensure!(told.contains("1 of what was revoked after the backup could not be revoked again"), "{told}");
    world.restart()?;
    served(&world, published.door)?;
    world.end()
}
