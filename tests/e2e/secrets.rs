//! Keys, codes and tokens are in no log at any level, in no process's arguments, and in no file that others can read;
//! tunnels' keys are in clear in no file at all.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

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
    ensure!(files_with(&world.gateway.data, KEY)? == Vec::<PathBuf>::new(), "the key is in a file");
    let mut seen = 0;
    for private in [&world.gateway.data, &agent.state] {
        seen += readable_by_owner_only(private)?;
    }
    ensure!(seen >= 5, "only {seen} files: the test proves nothing");
    world.end()
}

#[test]
fn no_file_of_a_server_has_a_tunnels_key() -> Result<()> {
    const REPLACED: &str = "a-key-that-came-after-it-0123456789";
    let mut world = World::loopback().start()?;
    let (api, at) = (&world.gateway.api, world.gateway.at("ipsec-tunnels"));
    let tunnel = |name: &str, n: u8, key: &str| {
        json!({"name": name, "locationId": "local", "peerPublicIp": World::peer(n).to_string(),
            "peerCidr": SITE_CIDR, "preSharedKey": key})
    };
    let made = api.post(&at, &tunnel("kept", 0, KEY))?;
    let path = format!("{at}/{}", text(&made, "id")?);
    api.post(&format!("{path}/psk"), &json!({"preSharedKey": REPLACED, "graceSeconds": 3600}))?;
    let gone = api.post(&at, &tunnel("gone", 1, "a-key-of-a-deleted-one-0123456789"))?;
    api.delete(&format!("{at}/{}", text(&gone, "id")?))?;
    let keys = [KEY, REPLACED, "a-key-of-a-deleted-one-0123456789"];
    for key in keys {
        ensure!(files_with(&world.gateway.data, key)? == Vec::<PathBuf>::new(), "while it runs: {key}");
    }
    world.gateway.process.kill()?;
    for key in keys {
        ensure!(files_with(&world.gateway.data, key)? == Vec::<PathBuf>::new(), "after its end: {key}");
    }
    // The key file alone tells the keys, and a start without it makes no other.
    let (file, aside) = (world.gateway.data.join("secret-key"), world.gateway.data.join("aside"));
    fs::rename(&file, &aside)?;
    let refused = world.start_again().err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(refused.contains("restore it from its backup"), "{refused}");
    ensure!(!file.exists(), "another key was made");
    fs::rename(&aside, &file)?;
    world.restart()?;
    let config = world.gateway.api.get(&path)?;
    ensure!(text(&config, "name")? == "kept", "{config}");
    world.end()
}

/// The files below a directory that contain the text.
fn files_with(directory: &Path, text: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_with(&path, text)?);
        } else if path.is_file() && fs::read(&path)?.windows(text.len()).any(|part| part == text.as_bytes()) {
            found.push(path);
        }
    }
    Ok(found)
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
