//! A backup that is made while the server runs, and a server that takes over from it on another data directory.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::harness::{
    PATIENCE, World,
    targets::{ask, here},
    text, wicketgate_executable,
};

/// `wicketgate` with these arguments, about a data directory.
fn wicketgate(arguments: &[&str], data: &Path) -> Result<Output> {
    let mut command = Command::new(wicketgate_executable());
    Ok(command.args(arguments).arg("--data-dir").arg(data).output()?)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn done(arguments: &[&str], data: &Path) -> Result<String> {
    let output = wicketgate(arguments, data)?;
    ensure!(output.status.success(), "{arguments:?}: {}", said(&output));
    Ok(said(&output))
}

#[test]
fn a_server_takes_over_from_a_backup_and_agents_need_no_new_code() -> Result<()> {
    let (mut world, published) = World::loopback().publish(here)?;
    let greeted = || ask(&world.outside, published.door, PATIENCE);
    ensure!(greeted()? == "here");
    let body = json!({"frontdoorIds": [world.gateway.frontdoor.rsplit('/').next()], "name": "ci", "scopes": ["frontdoor.read"]});
    let account = world.gateway.api.post("/frontdoor/v2/api-accounts", &body)?;
    let data = world.gateway.data.clone();
    let backup = world.lab.path("backup");
    let file = backup.to_str().context("not UTF-8")?;
    let told = done(&["backup", file], &data)?;
    ensure!(told.contains("sealed under the secret key"), "{told}");

    // After it, a share is changed twice, an account is revoked, and an agent enrols.
    for port in [7002, 7001] {
        let change = json!({"target": world.target(port).to_string()});
        world.patch(&published.share, &change)?;
    }
    let account = format!("/frontdoor/v2/api-accounts/{}", text(&account, "clientId")?);
    world.gateway.api.delete(&account)?;
    let second = world.replica("second")?;
    let agents = |world: &World| -> Result<Vec<Value>> { world.gateway.list("agents") };
    world.lab.until("the second agent is connected", PATIENCE, || {
        let connected = agents(&world)?.iter().filter(|agent| agent["status"] == "CONNECTED").count();
        Ok((connected == 2).then_some(()))
    })?;
    let revocations = data.join("revocations");
    world.lab.until("the revocation is in the file", PATIENCE, || {
        Ok(fs::read_to_string(&revocations)?.contains(&account[account.len() - 32..]).then_some(()))
    })?;
    world.gateway.process.kill()?;

    // The host is lost, and another one is set up, with the copies of two files.
    let lost = world.lab.path("lost");
    fs::rename(&data, &lost)?;
    fs::create_dir(&data)?;
    let refused = wicketgate(&["restore", file], &data)?;
    ensure!(!refused.status.success() && said(&refused).contains("secret-key"), "{}", said(&refused));
    fs::copy(lost.join("secret-key"), data.join("secret-key"))?;
    let copy = lost.join("revocations");
    let copy = copy.to_str().context("not UTF-8")?;
    let told = done(&["restore", file, "--revocations", copy], &data)?;
    ensure!(told.contains("is there again: api-account acc-"), "{told}");
    let twice = wicketgate(&["restore", file], &data)?;
    ensure!(!twice.status.success() && said(&twice).contains("in use"), "{}", said(&twice));

    // The first agent serves the share, whose generation in the backup is older than what it has seen.
    world.restart()?;
    served(&world, published.door).map_err(|error| error.context(published.agent.process.tail()))?;
    let share = format!("ipsec-shares/{}", text(&published.share, "id")?);
    let share = world.gateway.api.get(&world.gateway.at(&share))?;
    ensure!(share["status"] == "DEPLOYED" && share["ready"] == true, "{share}");

    // The second one is shown, and adopted by its id.
    let unknown = world.lab.until("the second agent is shown", PATIENCE, || {
        let list = world.gateway.api.get("/frontdoor/v2/unknown-agents")?;
        Ok(list["content"].as_array().and_then(|all| all.first()).cloned())
    })?;
    ensure!(unknown["name"].is_string() && unknown["keySha256"].is_string(), "{unknown}");
    let adopt = format!("/frontdoor/v2/unknown-agents/{}/adopt", text(&unknown, "id")?);
    let adopted = world.gateway.api.post(&adopt, &json!({}))?;
    ensure!(adopted["envZId"] == published.zid.as_str(), "{adopted}");
    world.lab.until("both agents are connected", PATIENCE, || {
        let connected = agents(&world)?.iter().filter(|agent| agent["status"] == "CONNECTED").count();
        Ok((connected == 2).then_some(()))
    })?;
    drop(second);

    // What was revoked is revoked again by one command.
    ensure!(world.gateway.api.get(&account)?["clientId"].is_string());
    ensure!(world.gateway.process.stop(PATIENCE)?.success());
    let told = done(&["restore", "--in-place", "--revoke", "--revocations", copy], &data)?;
    ensure!(told.contains("deleted again: api-account acc-"), "{told}");
    world.restart()?;
    ensure!(world.gateway.api.get(&account).is_err());
    served(&world, published.door)?;
    world.end()
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
    // A new authority beside the database.
    let aside = world.lab.path("aside");
    fs::rename(data.join("ca"), &aside)?;
    fs::create_dir(data.join("ca"))?;
    let refused = up()?;
    ensure!(refused.contains("--new-authority"), "{refused}");
    fs::remove_dir_all(data.join("ca"))?;
    fs::rename(&aside, data.join("ca"))?;
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

fn served(world: &World, door: SocketAddr) -> Result<()> {
    world.lab.until("the share is served", PATIENCE, || {
        Ok(ask(&world.outside, door, PATIENCE).is_ok_and(|said| said == "here").then_some(()))
    })
}
