//! The kernel makes the disk of the data directory read-only while `up` runs, as it does when it finds an error on it.

use std::{fs, net::SocketAddr, process::Command, time::Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::named;

use crate::harness::{
    AT_ONCE, PATIENCE, SITE_CIDR, World,
    targets::{ask, here},
    text, wicketgate_executable,
};

/// Starts `up` again in a mount namespace of its own, where the data directory is the file system in an image. That is unmounted
/// with the process.
fn restart_on_image(world: &mut World) -> Result<()> {
    let (image, data) = (world.lab.path("image"), world.lab.path("data"));
    let mount = format!("mount -o loop,errors=remount-ro {} {}", image.display(), data.display());
    let program = wicketgate_executable().display();
    world.restart_after(&format!(
        "[ \"$1\" = up ] && exec unshare --mount sh -c '{mount} && exec \"$0\" \"$@\"' {program} \"$@\""
    ))
}

/// Waits until the agent is there again.
fn served(world: &World, door: SocketAddr) -> Result<()> {
    world.lab.until("the share is served", PATIENCE, || {
        let said = ask(&world.outside, door, AT_ONCE);
        Ok(said.is_ok_and(|said| said == "here").then_some(()))
    })
}

fn run(command: &mut Command) -> Result<()> {
    let out = command.output()?;
    ensure!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

/// The kernel finds an error on the disk.
fn fail_disk(world: &World) -> Result<()> {
    let mounts = fs::read_to_string(format!("/proc/{}/mounts", world.gateway.process.pid()))?;
    let data = world.gateway.data.display().to_string();
    let mount = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some(&data)).context("no mount")?;
    let device = mount.split(' ').next().unwrap_or_default().trim_start_matches("/dev/");
    Ok(fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "a test")?)
}

#[test]
fn a_disk_that_becomes_read_only_stops_writes_and_no_traffic_and_is_used_again_after_its_repair() -> Result<()>
{
    let (mut world, published) = World::loopback().publish(here)?;
    ensure!(world.gateway.process.stop(PATIENCE)?.success());
    let image = world.lab.path("image");
    fs::File::create(&image)?.set_len(64 << 20)?;
    run(Command::new("mkfs.ext4").args(["-q", "-d"]).arg(&world.gateway.data).arg(&image))?;
    restart_on_image(&mut world)?;
    let kept = world.gateway.tunnel(&world.lab, "kept", World::peer(1), SITE_CIDR)?;
    served(&world, published.door)?;

    fail_disk(&world)?;
    let begin = Instant::now();
    let reason = "the database cannot be written: its disk is read-only";
    let ready = world.gateway.api.call("GET", "/readyz", None)?;
    ensure!(ready.status == 503 && ready.body.contains(reason), "{ready}");
    let tunnels = world.gateway.at("ipsec-tunnels");
    let body =
        json!({"name": "lost", "locationId": "local", "peerPublicIp": World::peer(2), "peerCidr": SITE_CIDR});
    for _ in 0..2 {
        let refused = world.gateway.api.call("POST", &tunnels, Some(&body))?;
        ensure!(refused.status == 503 && refused.body.contains(&reason[1..]), "{refused}");
    }
    ensure!(world.gateway.list("ipsec-tunnels")?.len() == 2, "reads go on");
    ensure!(ask(&world.outside, published.door, AT_ONCE)? == "here", "traffic goes on");
    world.lab.until("the log names it", PATIENCE, || {
        Ok(world.gateway.process.said().contains("read-only").then_some(()))
    })?;
    named("503 on writes; reads go on: the disk is read-only.", begin.elapsed());
    world.gateway.process.alive()?;

    // The disk is repaired.
    world.gateway.process.stop(PATIENCE)?;
    let repaired = Command::new("e2fsck").arg("-p").arg(&image).status()?;
    // With 1 it says that it has mended something.
    ensure!(repaired.code().is_some_and(|code| code <= 1), "e2fsck: {repaired}");
    restart_on_image(&mut world)?;
    served(&world, published.door)?;
    let is_back = |share: &Value| share["status"] == "DEPLOYED" && share["ready"] == true;
    let path = format!("ipsec-shares/{}", text(&published.share, "id")?);
    world.gateway.wait(&world.lab, &path, "DEPLOYED and ready", PATIENCE, is_back)?;
    world.gateway.deployed(&world.lab, "ipsec-tunnels", text(&kept, "id")?)?;
    world.gateway.tunnel(&world.lab, "after", World::peer(2), SITE_CIDR)?;
    world.end()
}
