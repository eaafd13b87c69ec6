//! An IKE daemon has three capabilities, a user and a root of its own, and no way to the gateway's keys or to another
//! tunnel's daemon.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{
    e2e::crash_ipsec::charons,
    harness::{
        PATIENCE, World, door,
        targets::{ask, greeting},
        text,
    },
};

/// `NET_ADMIN`, and with it `NET_BIND_SERVICE` and `NET_RAW`, of the kernel's `linux/capability.h`.
const NET_ADMIN: u64 = 1 << 12;
const NEEDED: u64 = NET_ADMIN | 1 << 10 | 1 << 13;

/// What is in a daemon's root.
const ROOT: [&str; 9] = ["bin", "dev", "etc", "lib", "lib64", "run", "sbin", "usr", "var"];

fn status(pid: i32, field: &str) -> Result<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(line.with_context(|| format!("no {field} in {status}"))?.trim().to_owned())
}

fn core_limit(pid: i32) -> Result<String> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size"));
    Ok(line.context("no limit of cores")?.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The mounts that a daemon sees, with their options.
fn mounts(pid: i32) -> Result<Vec<(String, String)>> {
    let lines = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    let mount = |line: &str| {
        let fields: Vec<_> = line.split(' ').collect();
        Some(((*fields.get(4)?).to_owned(), (*fields.get(5)?).to_owned()))
    };
    lines.lines().map(|line| mount(line).with_context(|| format!("mount {line}"))).collect()
}

#[test]
fn a_daemon_is_confined_to_its_tunnel() -> Result<()> {
    let mut world = World::with_sites(1).start()?;
    greeting(&world.private, world.target(7001), "here")?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnels = [world.tunnel(0)?, world.tunnel(1)?];
    world.share("greeting", &tunnels[0], &zid, world.target(7001), 9000)?;
    let site = world.connected_site(0, &tunnels[0])?;
    assert_eq!(ask(&site.namespace, door(&tunnels[0], 9000)?, PATIENCE)?, "here");

    let data = world.gateway.data.canonicalize()?;
    let secrets = [data.join("admin.token"), data.join("secret-key"), data.join("wicketgate.db")];
    let secrets: BTreeSet<_> =
        secrets.iter().map(|path| inode(path)).collect::<Result<_>>().context("the secrets are elsewhere")?;
    let (mut users, mut daemons) = (BTreeSet::new(), Vec::new());
    for tunnel in &tunnels {
        let pid = charons(world.tunnel_namespace(tunnel)?.name())?.pop().context("no charon")?;
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            // It gives up by itself what it does not need after its start.
            let has = u64::from_str_radix(&status(pid, set)?, 16)?;
            ensure!(has & !NEEDED == 0 && has & NET_ADMIN != 0, "{set} is {has:x}");
        }
        ensure!(status(pid, "NoNewPrivs")? == "1", "it may gain privileges");
        ensure!(core_limit(pid)?.starts_with("0 0"), "it may dump a core: {}", core_limit(pid)?);
        let ids = status(pid, "Uid")?;
        let ids: BTreeSet<u32> = ids.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        ensure!(ids.len() == 1 && ids.iter().all(|id| *id >= 1 << 30), "its users are {ids:?}");
        ensure!(status(pid, "Groups")?.is_empty(), "it is in groups");
        users.extend(ids);

        for (point, options) in mounts(pid)? {
            let is_read_only = options.split(',').any(|option| option == "ro");
            ensure!(is_read_only != (point == "/run"), "{point} is {options}");
        }
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        let names: BTreeSet<_> = fs::read_dir(&root)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        ensure!(names.is_subset(&ROOT.map(str::to_owned).into()), "its root has {names:?}");
        let inside = root.join(data.strip_prefix("/")?);
        ensure!(!inside.exists(), "it sees {}", inside.display());
        ensure!(!has_one_of(&root, &secrets)?, "it sees a secret");
        daemons.push(pid);
    }
    ensure!(users.len() == 2, "the daemons are the same user");
    ensure!(
        core_limit(i32::try_from(world.gateway.process.pid())?)?.starts_with("0 0"),
        "the gateway may dump a core"
    );

    // A confined daemon is found again by the next process.
    world.gateway.process.kill()?;
    world.restart()?;
    let served = || Ok(ask(&site.namespace, door(&tunnels[0], 9000)?, PATIENCE).ok());
    assert_eq!(world.lab.until("the share is served again", PATIENCE, served)?, "here");
    for (tunnel, pid) in tunnels.iter().zip(daemons) {
        ensure!(charons(world.tunnel_namespace(tunnel)?.name())? == [pid], "the daemon was replaced");
    }

    // What a daemon has started ends with it, whatever it is: the next tunnel with its number has the same user.
    let pid = charons(world.tunnel_namespace(&tunnels[1])?.name())?.pop().context("no charon")?;
    let user = status(pid, "Uid")?.split_whitespace().next().context("no user")?.to_owned();
    let sleep = ["--reuid", &user, "--regid", &user, "--clear-groups", "sleep", "300"];
    let mut left = world.outside.command("setpriv").args(sleep).spawn()?;
    let path = format!("ipsec-tunnels/{}", text(&tunnels[1], "id")?);
    world.gateway.api.delete(&world.gateway.at(&path))?;
    let ended = world.lab.until("what the daemon has left is ended", PATIENCE, || {
        Ok(left.try_wait()?.filter(|ended| !ended.success()))
    });
    if ended.is_err() {
        left.kill()?;
        left.wait()?;
    }
    ended?;
    world.gateway.wait(&world.lab, &path, "DELETED", PATIENCE, |it| it["status"] == "DELETED")?;
    world.end()
}

fn inode(path: &Path) -> Result<(u64, u64)> {
    let file = fs::metadata(path).with_context(|| path.display().to_string())?;
    Ok((file.dev(), file.ino()))
}

/// Whether one of these files is anywhere below the directory.
fn has_one_of(directory: &Path, files: &BTreeSet<(u64, u64)>) -> Result<bool> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = fs::symlink_metadata(entry.path())?;
        if files.contains(&(metadata.dev(), metadata.ino())) {
            return Ok(true);
        }
        if metadata.is_dir() && has_one_of(&entry.path(), files)? {
            return Ok(true);
        }
    }
    Ok(false)
}
