//! Keys, codes and tokens are in no log at any level, in no process's arguments, and in no file that others can read.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::harness::{
    PATIENCE, SITE_CIDR, World, door,
    targets::{ask, greeting},
    text,
};

const KEY: &str = "a-key-that-nobody-else-has-0123456789";

#[test]
fn secrets_are_in_no_log_no_process_list_and_no_file_that_others_can_read() -> Result<()> {
    let mut world = World::with_sites(1).log("trace").start()?;
    greeting(&world.private, world.target(7001), "here")?;
    let code = world.gateway.enrollment_code()?;
    let mut agent = world.start_agent("agent", Some(&code))?;
    let zid = world.lab.until("the environment is ACTIVE", PATIENCE, || {
        agent.process.alive()?;
        let environments = world.gateway.list("environments")?;
        let active = environments.iter().find(|e| e["status"] == "ACTIVE");
        active.map(|e| text(e, "zId").map(str::to_owned)).transpose()
    })?;
    let body = json!({"name": "site-0", "locationId": "local", "peerPublicIp": World::peer(0).to_string(),
        "peerCidr": SITE_CIDR, "preSharedKey": KEY});
    let made = world.gateway.api.post(&world.gateway.at("ipsec-tunnels"), &body)?;
    ensure!(!made.to_string().contains(KEY), "the answer contains the key");
    let tunnel = world.gateway.deployed(&world.lab, "ipsec-tunnels", text(&made, "id")?)?;
    world.share("greeting", &tunnel, &zid, world.target(7001), 9000)?;
    let site = world.connected_site(0, &tunnel)?;
    assert_eq!(ask(&site.namespace, door(&tunnel, 9000)?, PATIENCE)?, "here");
    // A restart reads all secrets from disk.
    world.gateway.process.kill()?;
    world.restart()?;
    world.gateway.deployed(&world.lab, "ipsec-tunnels", text(&made, "id")?)?;

    let token = fs::read_to_string(world.gateway.data.join("admin.token"))?;
    let code_secret = code.rsplit(['-', '.']).next().context("an empty code")?;
    let secrets = [("the pre-shared key", KEY), ("the admin token", token.trim()), ("the code", code_secret)];
    for log in [world.gateway.process.log(), agent.process.log()] {
        let said = fs::read_to_string(log)?;
        ensure!(said.len() > 1000, "{} is nearly empty: the test proves nothing", log.display());
        for (what, secret) in secrets {
            ensure!(!said.contains(secret), "{what} is in {}", log.display());
        }
        ensure!(!said.contains("PRIVATE KEY"), "a private key is in {}", log.display());
    }
    for process in fs::read_dir("/proc")?.flatten() {
        let Ok(arguments) = fs::read(process.path().join("cmdline")) else { continue };
        let arguments = String::from_utf8_lossy(&arguments).into_owned();
        for (what, secret) in secrets {
            ensure!(!arguments.contains(secret), "{what} is in the arguments {arguments:?}");
        }
    }
    let mut seen = 0;
    for private in [&world.gateway.data, &agent.state] {
        seen += readable_by_owner_only(private)?;
    }
    ensure!(seen >= 5, "only {seen} files: the test proves nothing");
    world.end()
}

/// Checks that a directory and those below it are closed to others. Returns the number of files in them.
fn readable_by_owner_only(directory: &Path) -> Result<usize> {
    let mode = fs::metadata(directory)?.permissions().mode();
    ensure!(mode & 0o077 == 0, "{} has mode {mode:o}", directory.display());
    let mut files = 0;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            // Every directory on the way must be closed; a file in a closed directory may have any mode.
            files += readable_by_owner_only(&path)?;
        } else if metadata.is_file() {
            files += 1;
        }
    }
    Ok(files)
}
