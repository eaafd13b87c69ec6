//! A tunnel's namespace answers only its peer, and only packets that arrived through ESP.

use std::{
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use wicketgate_lab::Namespace;

use crate::harness::{
    PATIENCE, World,
    targets::{ask, here},
    text,
};

/// The wait for an answer to packets that must be dropped.
const TRY: Duration = Duration::from_secs(2);

#[test]
fn cleartext_from_the_uplink_to_a_listener_is_dropped_for_every_source() -> Result<()> {
    let (world, published) = World::with_sites(1).publish(here)?;
    let site = world.connected_site(0, &published.tunnel)?;
    assert_eq!(ask(&site.namespace, published.door, PATIENCE)?, "here");

    // Cleartext from the gateway's own namespace over the tunnel's uplink, as if the host were tricked into this route.
    let inside = world.tunnel_namespace(&published.tunnel)?;
    let lb = text(&published.tunnel, "loadBalancerIp")?;
    world.outside.ip(&format!("route add {lb}/32 via {}", uplink_address(&inside)?))?;
    world.outside.ip("addr add 10.0.0.77/32 dev lo")?;
    world.outside.ip("addr add 172.16.9.9/32 dev lo")?;
    let before = segments_in(&inside)?;
    for source in [None, Some("10.0.0.77"), Some("172.16.9.9")] {
        ensure!(
            !reaches(&world.outside, source, published.door, TRY)?,
            "cleartext from {source:?} was served"
        );
    }
    // No segment reached the namespace's TCP stack, so that a later answer is impossible.
    assert_eq!(segments_in(&inside)?, before);

    // Without the rules the same packets reach the TCP stack: the rules dropped them above. The gateway restores them within
    // seconds, and the answer leaves by the tunnel's device, so the client gets none.
    let end = Instant::now() + PATIENCE;
    while segments_in(&inside)? == before {
        ensure!(Instant::now() < end, "the packets do not arrive even without the rules");
        let flushed = inside.command("nft").args(["flush", "ruleset"]).status()?;
        ensure!(flushed.success(), "cannot remove the rules");
        reaches(&world.outside, None, published.door, TRY)?;
    }
    world.end()
}

/// Whether `door` returns the greeting. curl binds the source address, and accepts the greeting as HTTP/0.9.
fn reaches(from: &Namespace, source: Option<&str>, door: SocketAddr, bound: Duration) -> Result<bool> {
    let mut command = from.command("curl");
    command.args(["-q", "-s", "--http0.9", "--noproxy", "*", "-m", &bound.as_secs().to_string()]);
    if let Some(source) = source {
        command.args(["--interface", source]);
    }
    let out = command.arg(format!("http://{door}/")).output()?;
    Ok(String::from_utf8_lossy(&out.stdout).contains("here"))
}

/// The number of TCP segments that the stack has received since the namespace was created.
fn segments_in(inside: &Namespace) -> Result<u64> {
    let counters = inside.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let mut tcp = counters.lines().filter_map(|l| l.strip_prefix("Tcp: ")).map(|l| l.split(' '));
    let (names, values) = tcp.next().zip(tcp.next()).context("no TCP counters")?;
    let segments = names.zip(values).find(|(name, _)| *name == "InSegs").context("no segment counter")?;
    Ok(segments.1.parse()?)
}

/// The address of the tunnel's side of its uplink.
pub(super) fn uplink_address(inside: &Namespace) -> Result<String> {
    let out =
        Command::new("ip").args(["-n", inside.name(), "-o", "-4", "route", "show", "default"]).output()?;
    let route = String::from_utf8(out.stdout)?;
    let device = route.split(" dev ").nth(1).and_then(|d| d.split_whitespace().next());
    let device = device.with_context(|| format!("no default route: {route}"))?;
    let out =
        Command::new("ip").args(["-n", inside.name(), "-o", "-4", "addr", "show", "dev", device]).output()?;
    let address = String::from_utf8(out.stdout)?;
    let address = address.split(" inet ").nth(1).and_then(|a| a.split(['/', ' ']).next());
    Ok(address.context("no address on the uplink")?.to_owned())
}
