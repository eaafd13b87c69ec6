//! Stopping, changing or replacing a part does not interrupt established connections.

use std::{
    io::Read as _,
    net::{Shutdown, SocketAddr},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use wicketgate_lab::{Agent, Process};
use wicketgate_system::Mutex;

use crate::harness::{
    AT_ONCE, PATIENCE, World, door,
    targets::{ask, connect, echo, exchange, greeting, is_reset},
};

/// The number of concurrent ping-pongs, and of the exchanges on one connection before the next connection.
const PING_PONGS: usize = 200;
const EXCHANGES: usize = 20;
/// The pause between two exchanges, since this is not a load test.
const BETWEEN: Duration = Duration::from_millis(5);

/// The bound of one attempt; attempts repeat until one succeeds.
const TRY: Duration = Duration::from_secs(2);

#[test]
fn replacing_both_agents_interrupts_none_of_two_hundred_ping_pongs() -> Result<()> {
    let world = World::loopback().start()?;
    echo(&world.private, world.target(7001))?;
    let (first, zid) = world.agent("first")?;
    let second = world.replica("second")?;
    both_are_connected(&world)?;
    let tunnel = world.tunnel(0)?;
    world.share("echo", &tunnel, &zid, world.target(7001), 9000)?;
    let door = door(&tunnel, 9000)?;

    let (stop, done, failed) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| -> Result<()> {
        for _ in 0..PING_PONGS {
            scope.spawn(|| {
                let played = world.outside.enter(|| {
                    while !stop.load(Relaxed) {
                        ping_pong(door)?;
                        done.fetch_add(1, Relaxed);
                    }
                    Ok(())
                });
                if let Err(error) = played.and_then(|played: Result<()>| played) {
                    failed.lock().push(format!("{error:#}"));
                }
            });
        }
        let exchanged = (|| {
            for (name, mut agent) in [("first", first), ("second", second)] {
                let before = done.load(Relaxed);
                world.lab.until("another round of ping-pongs has finished", PATIENCE, || {
                    Ok((done.load(Relaxed) >= before + PING_PONGS).then_some(()))
                })?;
                let status = agent.process.stop(PATIENCE)?;
                ensure!(status.success(), "{status}\n{}", agent.process.tail());
                ensure!(!agent.process.said().contains("were aborted"), "{}", agent.process.tail());
                let mut agent: Agent = world.start_agent(name, None)?;
                both_are_connected(&world).map_err(|e| e.context(agent.process.tail()))?;
                agent.process.alive()?;
            }
            Ok(())
        })();
        stop.store(true, Relaxed);
        exchanged
    })?;
    let failed = std::mem::take(&mut *failed.lock());
    ensure!(failed.is_empty(), "{} of {PING_PONGS} failed: {}", failed.len(), failed[0]);
    world.end()
}

/// One connection with [`EXCHANGES`] exchanges and an orderly end.
fn ping_pong(door: SocketAddr) -> Result<()> {
    let mut stream = std::net::TcpStream::connect_timeout(&door, PATIENCE).context("connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    for n in 0..EXCHANGES {
        exchange(&mut stream, &[b'.'; 64]).with_context(|| format!("exchange {n}"))?;
        thread::sleep(BETWEEN);
    }
    stream.shutdown(Shutdown::Write)?;
    ensure!(stream.read(&mut [0; 1]).context("end")? == 0, "an extra byte at the end");
    Ok(())
}

fn both_are_connected(world: &World) -> Result<()> {
    world.lab.until("two agents are connected", PATIENCE, || {
        let agents = world.gateway.list("agents")?;
        Ok((agents.iter().filter(|a| a["status"] == "CONNECTED" || a["connectedSince"].is_string()).count()
            == 2)
            .then_some(()))
    })
}

#[test]
fn a_share_that_changes_its_target_and_port_keeps_its_connections() -> Result<()> {
    let world = World::loopback().start()?;
    echo(&world.private, world.target(7001))?;
    greeting(&world.private, world.target(7002), "the new one")?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    let share = world.share("echo", &tunnel, &zid, world.target(7001), 9000)?;
    let mut before = connect(&world.outside, door(&tunnel, 9000)?, PATIENCE)?;
    exchange(&mut before, b"before")?;

    world.patch(&share, &json!({"target": world.target(7002).to_string()}))?;
    exchange(&mut before, b"after the target changed")?;
    assert_eq!(ask(&world.outside, door(&tunnel, 9000)?, PATIENCE)?, "the new one");
    world.patch(&share, &json!({"ingressPort": 9001}))?;
    exchange(&mut before, b"after the port changed")?;
    assert_eq!(ask(&world.outside, door(&tunnel, 9001)?, PATIENCE)?, "the new one");
    ensure!(world.outside.connect(door(&tunnel, 9000)?, TRY).is_err(), "the old port is still open");
    world.end()
}

#[test]
fn a_stopped_gateway_drains_connections_until_a_second_signal() -> Result<()> {
    let (mut world, published) = World::loopback().publish(echo)?;

    let mut inside = connect(&world.outside, published.door, PATIENCE)?;
    exchange(&mut inside, b"before")?;
    terminate(&world.gateway.process)?;
    world.lab.until("new connections are refused", PATIENCE, || {
        Ok(world.outside.connect(published.door, TRY).is_err().then_some(()))
    })?;
    exchange(&mut inside, b"while it drains")?;
    inside.shutdown(Shutdown::Write)?;
    assert_eq!(inside.read(&mut [0; 1])?, 0);
    let status = world.gateway.process.wait(AT_ONCE)?;
    ensure!(status.success(), "{status}\n{}", world.gateway.process.tail());

    world.restart()?;
    let mut inside = world.lab.until("the share is served again", PATIENCE, || {
        let mut stream = connect(&world.outside, published.door, TRY)?;
        exchange(&mut stream, b"before")?;
        Ok(Some(stream))
    })?;
    terminate(&world.gateway.process)?;
    world.lab.until("new connections are refused", PATIENCE, || {
        Ok(world.outside.connect(published.door, TRY).is_err().then_some(()))
    })?;
    exchange(&mut inside, b"while it drains")?;
    terminate(&world.gateway.process)?;
    is_reset(inside)?;
    let status = world.gateway.process.wait(AT_ONCE)?;
    ensure!(status.success(), "{status}\n{}", world.gateway.process.tail());
    world.restart()?;
    world.end()
}

/// Sends `SIGTERM` to a process and does not wait for its end.
fn terminate(process: &Process) -> Result<()> {
    let pid = i32::try_from(process.pid()).ok().and_then(Pid::from_raw).context("no process id")?;
    kill_process(pid, Signal::TERM).context("cannot send SIGTERM")
}
