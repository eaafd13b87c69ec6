//! `wicketgate down` removes everything that `wicketgate up` left in the same namespace. In another namespace it
//! removes nothing and names the right one.

use std::{
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};

use crate::harness::{PATIENCE, World, gateway_options, lab, wicketgate_executable};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The nftables tables of the gateway's namespace and the number of tunnel namespaces.
fn left(world: &World) -> Result<(String, usize)> {
    let rules = world.outside.command("nft").args(["list", "tables"]).output()?;
    Ok((String::from_utf8(rules.stdout)?, world.tunnel_namespaces()?.len()))
}

#[test]
fn down_removes_everything_in_the_namespace_of_up_and_names_it_elsewhere() -> Result<()> {
    let mut world = World::with_sites(2).start()?;
    world.tunnel(0)?;
    let second = world.tunnel(1)?;
    let lost = world.tunnel_namespace(&second)?;
    world.gateway.process.stop(PATIENCE)?;
    let before = left(&world)?;
    ensure!(before.0.contains("table ip wicketgate-") && before.1 == 2, "{before:?}");

    let data = world.gateway.data.clone();
    let down = ["down".as_ref(), "--data-dir".as_ref(), data.as_os_str()];
    let elsewhere = Command::new(wicketgate_executable()).args(down).output()?;
    let here = format!(
        "`nsenter --net=/run/netns/{} wicketgate down --data-dir {}`",
        world.outside.name(),
        data.display()
    );
    ensure!(!elsewhere.status.success() && said(&elsewhere).contains(&here), "{}", said(&elsewhere));
    ensure!(left(&world)? == before, "`down` removed something in another namespace");

    // `down` finds a namespace that has lost its name by the daemon in it.
    let pids = Command::new("ip").args(["netns", "pids", lost.name()]).output()?;
    let daemon: u32 = String::from_utf8(pids.stdout)?.trim().parse().context("not one daemon")?;
    ensure!(Command::new("ip").args(["netns", "del", lost.name()]).status()?.success());
    let path = wicketgate_executable().display().to_string();
    let there = world.outside.command(&path).args(down).output()?;
    ensure!(there.status.success(), "{}", said(&there));
    let exe = format!("/proc/{daemon}/exe");
    ensure!(Path::new(&exe).read_link().is_err(), "the daemon in the namespace without a name still runs");
    ensure!(left(&world)? == (String::new(), 0), "{:?}", left(&world)?);

    world.restart()?;
    world.end()
}

#[test]
fn up_refuses_to_start_in_a_private_mount_namespace() -> Result<()> {
    let lab = lab()?;
    let namespace = lab.namespace("gw")?;
    let options = gateway_options(&namespace, "auto", "info");
    let data = lab.path("data");
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace.name()]).arg(options.executable);
    command.args(["up".as_ref(), "--data-dir".as_ref(), data.as_os_str()]);
    let refused = command.output()?;
    ensure!(!refused.status.success() && said(&refused).contains("nsenter --net="), "{}", said(&refused));
    ensure!(!data.exists(), "`up` wrote files before the check");
    lab.remove()
}
