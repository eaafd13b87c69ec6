//! Probes: targets get few of them, and none while in use. The program that is probed does not notice.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::harness::{
    AT_ONCE, PATIENCE, World,
    attempts::Attempts,
    door,
    targets::{connect, exchange, serve},
    text,
};

/// The time of a hundred probes, if there were one in each interval, is a hundred of these.
const INTERVAL: Duration = Duration::from_secs(1);
const OBSERVED: u32 = 15;

/// An echo that counts its connections.
fn counting_echo(world: &World, port: u16) -> Result<Arc<AtomicUsize>> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    serve(&world.private, world.target(port), move |mut stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        let mut piece = [0; 4096];
        while let Ok(n @ 1..) = std::io::Read::read(&mut stream, &mut piece) {
            if std::io::Write::write_all(&mut stream, &piece[..n]).is_err() {
                return;
            }
        }
    })?;
    Ok(count)
}

fn share(world: &World, tunnel: &Value, zid: &str, ports: (u16, u16), check: &Value) -> Result<Value> {
    let (target, port) = ports;
    let body = json!({
        "name": format!("share-{port}"), "ipsecTunnelId": tunnel["id"], "envZId": zid,
        "target": world.target(target).to_string(), "ingressPort": port, "healthCheck": check,
    });
    let made = world.gateway.api.post(&world.gateway.at("ipsec-shares"), &body)?;
    world.gateway.deployed(&world.lab, "ipsec-shares", text(&made, "id")?)
}

#[test]
fn targets_of_several_shares_and_agents_get_few_probes_and_none_while_in_use() -> Result<()> {
    let world = World::loopback().start()?;
    let accepted = [7001, 7002, 7003].map(|port| counting_echo(&world, port));
    let [idle, busy, unprobed] = [7001, 7002, 7003].map(|port| Attempts::at(&world.private, port));
    let (idle, busy, unprobed) = (idle?, busy?, unprobed?);
    let (_agent, zid) = world.agent("agent")?;
    let _replica = world.replica("replica")?;
    world.lab.until("both agents are connected", PATIENCE, || {
        let agents = world.gateway.list("agents")?;
        Ok((agents.iter().filter(|a| a["status"] == "CONNECTED").count() == 2).then_some(()))
    })?;
    let tunnel = world.tunnel(0)?;
    let tcp = json!({"type": "tcp", "intervalSeconds": INTERVAL.as_secs()});
    share(&world, &tunnel, &zid, (7002, 9003), &tcp)?;
    let mut client = connect(&world.outside, door(&tunnel, 9003)?, PATIENCE)?;
    exchange(&mut client, b"the only user")?;
    let in_use = busy.so_far()?;
    for port in [9000, 9001, 9002] {
        share(&world, &tunnel, &zid, (7001, port), &tcp)?;
    }
    share(&world, &tunnel, &zid, (7003, 9004), &json!({"type": "none"}))?;
    // With a probe in each interval it would be one for each share and agent.
    thread::sleep(OBSERVED * INTERVAL);
    let (idle, unprobed) = (idle.so_far()?, unprobed.so_far()?);
    ensure!((1..=7).contains(&idle), "{idle} probes of an idle target");
    ensure!(unprobed == 0, "{unprobed} probes of a target that is not to be probed");
    let while_in_use = busy.so_far()? - in_use;
    ensure!(while_in_use == 0, "{while_in_use} probes of a target in use");
    for (accepted, clients) in accepted.into_iter().zip([0, 1, 0]) {
        let accepted = accepted?.load(Ordering::Relaxed);
        // An agent that gets no processor for 200 ms completes a handshake.
        ensure!(
            accepted <= clients + 1,
            "a target accepted {accepted} connections, {clients} of them of clients"
        );
    }
    exchange(&mut client, b"still the only user")?;
    world.end()
}

#[test]
fn a_target_that_dies_when_its_clients_have_left_is_noticed_in_the_interval_of_its_share() -> Result<()> {
    /// Long enough to tell from the time that a share rested before in any case.
    const INTERVAL: Duration = Duration::from_secs(6);
    let world = World::loopback().start()?;
    let (agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    let service = world.private.listen(world.target(7001))?;
    let check = json!({"type": "tcp", "intervalSeconds": INTERVAL.as_secs()});
    let share = share(&world, &tunnel, &zid, (7001, 9001), &check)?;
    let mut client = connect(&world.outside, door(&tunnel, 9001)?, PATIENCE)?;
    let (mut served, _) = service.accept()?;
    thread::scope(|scope| {
        scope.spawn(move || std::io::copy(&mut served.try_clone()?, &mut served));
        exchange(&mut client, b"the last user")?;
        drop(client);
        Ok::<_, anyhow::Error>(())
    })?;

    drop(service);
    let died = Instant::now();
    let path = format!("ipsec-shares/{}", text(&share, "id")?);
    world.gateway.wait(&world.lab, &path, "TargetUnreachable", PATIENCE, |s| {
        s["statusDetail"]["reason"] == "TargetUnreachable"
    })?;
    ensure!(died.elapsed() < INTERVAL + AT_ONCE, "only after {:?}", died.elapsed());
    // The agent's log says which one it is.
    let log = fs::read_to_string(agent.process.log())?;
    let line =
        log.lines().find(|line| line.contains("target became unreachable")).context("not in the log")?;
    let of = [text(&share, "name")?.to_owned(), world.target(7001).to_string()];
    ensure!(of.iter().all(|word| line.contains(word)), "{of:?} are not in {line}");
    world.end()
}
