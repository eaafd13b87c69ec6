//! A restart of the gateway leaves its tunnels undisturbed and reopens its listeners at once.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::{
    PATIENCE, World, door,
    targets::{ask, connect, greeting},
    text,
};

/// The longest time from the process's start to its listeners on a busy machine. On an idle machine it is below one
/// second: `make bench` measures it with 200 tunnels.
const LISTENS: Duration = Duration::from_secs(5);

/// The bound of one attempt; attempts repeat until one succeeds.
const TRY: Duration = Duration::from_secs(1);

#[test]
fn a_restart_reopens_listeners_at_once_and_leaves_tunnels_undisturbed() -> Result<()> {
    let mut world = World::with_sites(3).start()?;
    greeting(&world.private, world.target(7001), "here")?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnels = [world.tunnel(0)?, world.tunnel(1)?];
    let mut doors = Vec::new();
    let mut sites = Vec::new();
    for (n, tunnel) in (0..).zip(&tunnels) {
        world.share(&format!("greeting-{n}"), tunnel, &zid, world.target(7001), 9000)?;
        sites.push(world.connected_site(n, tunnel)?);
        doors.push(door(tunnel, 9000)?);
    }
    // A tunnel whose site has a wrong key.
    let shut_out = world.tunnel(2)?;
    let mut stranger = world.site(2)?;
    let config = world.vpn_config(&shut_out)?;
    let key = config.lines().find(|l| l.trim().starts_with("secret =")).context("no key")?;
    stranger.start(&world.lab, &config.replace(key, "    secret = \"another key than the tunnel's\""))?;
    let path = format!("ipsec-tunnels/{}", text(&shut_out, "id")?);
    let failed = |t: &Value| t["connection"]["lastError"]["reason"] == "PreSharedKeysDiffer";
    world.gateway.wait(&world.lab, &path, "refused", PATIENCE, failed)?;
    stranger.stop()?;
    let down = |t: &Value| t["connection"]["state"] == "DOWN";
    world.gateway.wait(&world.lab, &path, "DOWN", PATIENCE, down)?;
    let all = || tunnels.iter().chain([&shut_out]);
    let shown: Vec<_> = all().map(|t| stable_properties(&world, t)).collect::<Result<_>>()?;
    let before: Vec<_> = sites.iter().map(|s| s.swanctl(&["--list-sas", "--raw"])).collect::<Result<_>>()?;
    ensure!(ask(&sites[0].namespace, doors[0], PATIENCE)? == "here");

    let second = format!("ipsec-tunnels/{}", text(&tunnels[1], "id")?);
    let mut carried = world.gateway.api.get(&world.gateway.at(&second))?["connection"]["bytesIn"].clone();
    for is_killed in [false, true] {
        if is_killed {
            world.gateway.process.kill()?;
        } else {
            ensure!(world.gateway.process.stop(PATIENCE)?.success());
        }
        // Clients at the sites connect repeatedly during the restart.
        let begin = Instant::now();
        let back = std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                world.lab.until("the listeners are open", PATIENCE, || {
                    for (site, door) in sites.iter().zip(&doors) {
                        connect(&site.namespace, *door, TRY)?;
                    }
                    Ok(Some(begin.elapsed()))
                })
            });
            let started = world.start_again();
            let back = client.join().map_err(|_| anyhow::anyhow!("the client panicked"))?;
            started.and_then(|gateway| Ok((gateway, back?)))
        });
        let (gateway, took) = back?;
        world.gateway = gateway;
        ensure!(took < LISTENS, "listeners opened after {took:?}\n{}", world.gateway.process.tail());
        world.lab.until("traffic passes", PATIENCE, || ask(&sites[1].namespace, doors[1], TRY).map(Some))?;
        // A restart changes neither statuses nor connections nor their history. The gateway has inspected all
        // connections once it reports new traffic of one.
        let is_new = |t: &Value| t["connection"]["bytesIn"] != carried;
        let counted = world.gateway.wait(&world.lab, &second, "counted again", PATIENCE, is_new)?;
        carried = counted["connection"]["bytesIn"].clone();
        let now: Vec<_> = all().map(|t| stable_properties(&world, t)).collect::<Result<_>>()?;
        ensure!(now == shown, "the connections changed from {shown:#?} to {now:#?}");
        let log = std::fs::read_to_string(world.lab.path("log/wicketgate.log"))?;
        ensure!(!log.contains("ERROR"), "{log}");
    }
    let unique = |sas: &str| -> Vec<String> {
        sas.split_whitespace()
            .filter(|w| w.contains("uniqueid=") || w.contains("spi"))
            .map(str::to_owned)
            .collect()
    };
    for (site, before) in sites.iter().zip(&before) {
        let after = site.swanctl(&["--list-sas", "--raw"])?;
        ensure!(unique(&after) == unique(before), "the SAs changed:\n{before}\n{after}");
    }
    listeners_do_not_wait_for_daemons(&mut world, &tunnels)?;
    for tunnel in &tunnels {
        let path = format!("ipsec-tunnels/{}", text(tunnel, "id")?);
        let up = |t: &Value| t["connection"]["state"] == "UP";
        world.gateway.wait(&world.lab, &path, "UP", PATIENCE, up)?;
    }
    world.end()
}

/// The properties of a tunnel's connection that a restart must not change.
fn stable_properties(world: &World, tunnel: &Value) -> Result<[Value; 4]> {
    let path = format!("ipsec-tunnels/{}", text(tunnel, "id")?);
    let connection = world.gateway.api.get(&world.gateway.at(&path))?["connection"].clone();
    let history = world.gateway.api.get(&world.gateway.at(&format!("{path}/connection-history")))?;
    let [state, since, error] = ["state", "since", "lastError"].map(|key| connection[key].clone());
    Ok([state, since, error, history["content"].clone()])
}

/// Restarts the gateway while the tunnels' daemons are suspended. It must listen before any daemon has answered.
fn listeners_do_not_wait_for_daemons(world: &mut World, tunnels: &[Value]) -> Result<()> {
    let daemons = || -> Result<Vec<i32>> {
        let pid = |slot| world.gateway.data.join(format!("gateway/tunnels/{slot}/pid"));
        (0..tunnels.len()).map(|slot| Ok(std::fs::read_to_string(pid(slot))?.trim().parse()?)).collect()
    };
    let before = daemons()?;
    let tell = |signal| -> Result<()> {
        for pid in before.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            kill_process(pid, signal)?;
        }
        Ok(())
    };
    let namespaces = tunnels.iter().map(|t| world.tunnel_namespace(t)).collect::<Result<Vec<_>>>()?;
    world.gateway.process.kill()?;
    tell(Signal::STOP)?;
    let listens = || -> Result<Option<()>> {
        for namespace in &namespaces {
            let sockets = namespace.enter(|| std::fs::read_to_string("/proc/thread-self/net/tcp"))??;
            let is_listener = |l: &str| l.contains(":2328 00000000:0000 0A ");
            if !sockets.lines().any(is_listener) {
                return Ok(None);
            }
        }
        Ok(Some(()))
    };
    ensure!(listens()?.is_none(), "the port is open without a running gateway");
    let started = world.start_again();
    let listened = world.lab.until("the listeners are open", PATIENCE, listens);
    // The gateway replaces a daemon that does not answer for too long. A listener that is opened only then has waited.
    let after = daemons();
    tell(Signal::CONT)?;
    world.gateway = started?;
    listened?;
    ensure!(after? == before, "the listeners opened only after a daemon was replaced");
    Ok(())
}
