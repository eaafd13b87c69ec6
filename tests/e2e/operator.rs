//! What the operator does on the server's host, and what `status` says of a whole installation.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::harness::{PATIENCE, World, user::User};

#[test]
fn what_the_operator_does_on_the_host_is_recorded_and_a_new_token_is_not_printed() -> Result<()> {
    let mut world = World::loopback().start()?;
    let data = world.gateway.data.display().to_string();
    let file = world.gateway.data.join("admin.token");
    let backup = world.lab.path("backup").display().to_string();
    let before = fs::read_to_string(&file)?;
    {
        let user = User::new(&world, "user")?;
        let out = user.run(&["secrets", "admin-token", "--data-dir", &data], "")?;
        let said = format!("{}{}", String::from_utf8(out.stdout)?, String::from_utf8(out.stderr)?);
        let token = fs::read_to_string(&file)?;
        ensure!(out.status.success() && token != before, "{said}");
        ensure!(said.contains(&file.display().to_string()) && !said.contains(token.trim()), "{said}");
        let made = user.run(&["backup", &backup, "--data-dir", &data], "")?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let login = format!("login --server {} --token-file {}", world.url(), file.display());
        world.lab.until("the new token is accepted", PATIENCE, || Ok(user.says(&login).ok()))?;
        let rows = user.says("execution list --organization resourceType=installation")?;
        for action in ["REPLACE_ADMIN_TOKEN", "BACKUP"] {
            ensure!(rows.contains(&format!("\t{action}\tinstallation\tlocal\tSUCCESS\t")), "{rows}");
        }
        ensure!(rows.contains(&backup), "{rows}");
        // A token that others can read is used with a warning.
        let open = world.lab.path("open-token");
        fs::write(&open, token)?;
        let login = format!("login --server {} --token-file {} --name open", world.url(), open.display());
        let out = user.run(&login.split(' ').collect::<Vec<_>>(), "")?;
        let said = String::from_utf8(out.stderr)?;
        ensure!(
            out.status.success() && said.contains(&format!("run `chmod 600 {}`", open.display())),
            "{said}"
        );
    }
    let warned = "the admin token was replaced";
    world.gateway.process.until(&world.lab, "the log warns", PATIENCE, |process| {
        Ok(process.said().contains(warned).then_some(()))
    })
}

#[test]
fn a_status_is_of_the_chosen_frontdoor_or_of_all_and_says_which_is_switched_off() -> Result<()> {
    let world = World::loopback().start()?;
    let user = User::new(&world, "user")?;
    user.sign_in()?;
    ensure!(user.says("status")?.contains("everything is ready"));
    let off = user.json("frontdoor create second --organization-id default")?;
    let all = user.says_with(5, "status --all")?;
    ensure!(all.contains("✗ Frontdoor second: its IPsec shares are switched off"), "{all}");
    let chosen = user.says_with(5, "status --frontdoor second")?;
    ensure!(chosen.contains("are switched off") && !chosen.contains("everything is ready"), "{chosen}");
    let id = off["id"].as_str().unwrap_or_default();
    user.says(&format!("frontdoor update {id} --ipsec-shares-enabled"))?;
    ensure!(user.says("status --all")?.contains("everything is ready"));
    let both = user.json("status --all")?;
    ensure!(both["frontdoors"].as_array().is_some_and(|all| all.len() == 2), "{both}");
    ensure!(both["serverFaults"] == json!([]), "{both}");

    let said = user.run(&["frontdoor", "update", id, "--quota-shares", "7"], "")?;
    ensure!(String::from_utf8(said.stderr)?.contains("Quota of shares: 0 of 7 in use."));
    let (status, words) = user.fails("--frontdoor second agent enroll")?;
    ensure!(status == 2 && words.contains("`wicketgate agent enroll --frontdoor second`"), "{words}");
    world.end()
}
