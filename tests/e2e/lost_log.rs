//! A log that cannot be written: a full disk behind it, or a reader that is gone.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};

use crate::harness::{
    PATIENCE, World, agent_executable, door,
    targets::{ask, greeting},
};

const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9480);

#[test]
fn a_log_that_cannot_be_written_stops_no_service() -> Result<()> {
    let mut world = World::loopback().start()?;
    greeting(&world.private, world.target(7001), "here")?;
    ensure!(world.gateway.process.stop(PATIENCE)?.success());
    let flags = format!("[ \"$1\" = up ] && set -- \"$@\" --admin-listen {METRICS}");
    world.restart_after(&format!("exec 2>/dev/full\n{flags}"))?;
    let program = agent_executable()?;
    let agent = world.script("agent.sh", &format!("exec {} \"$@\" 2>/dev/full", program.display()))?;
    // Each step writes to both logs.
    let (_agent, zid) = world.agent_of("agent", &agent)?;
    let tunnel = world.tunnel(0)?;
    world.share("greeting", &tunnel, &zid, world.target(7001), 9000)?;
    ensure!(ask(&world.private, door(&tunnel, 9000)?, PATIENCE)? == "here");
    let metrics =
        world.private.command("curl").args(["-s", &format!("http://{METRICS}/metrics")]).output()?;
    let text = String::from_utf8(metrics.stdout)?;
    let lost = text.lines().find_map(|line| line.strip_prefix("wicketgate_log_lines_lost_total "));
    let lost: u64 = lost.context("no counter of lost lines")?.parse()?;
    ensure!(lost > 0, "{text}");
    world.end()
}
