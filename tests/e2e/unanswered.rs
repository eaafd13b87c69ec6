//! A target that takes connections and bytes, and answers none.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::{Value, json};

use crate::harness::{
    PATIENCE, World, door,
    targets::{connect, exchange, serve},
    text,
};

/// From the first moment that a client or an operator could complain until the API says why.
const NAMED: Duration = Duration::from_secs(5);
/// How long a client waits for an answer: more than the second after which it counts.
const WAITS: Duration = Duration::from_millis(1200);

/// What a client sends that expects no answer.
const LINE: &[u8] = b"<13>a line\n";

/// A client that sends a request, and gives up after a time without an answer or sees the end.
fn ask_in_vain(world: &World, door: SocketAddr) -> Result<()> {
    let mut client = connect(&world.outside, door, PATIENCE)?;
    client.set_read_timeout(Some(WAITS))?;
    client.write_all(b"hello")?;
    match client.read(&mut [0; 1]) {
        Ok(0) => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionReset) => Ok(()),
        other => bail!("{other:?} instead of no answer"),
    }
}

/// Three clients at the same time, each of which gets no answer.
fn three_ask_in_vain(world: &World, door: SocketAddr) -> Result<()> {
    thread::scope(|scope| {
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(|| ask_in_vain(world, door))).collect();
        clients.into_iter().try_for_each(|client| client.join().map_err(|_| anyhow!("a client panicked"))?)
    })
}

/// Waits until the share says that its target does not answer, and returns the share. The first client began at `begin`.
fn named(world: &World, path: &str, how: &str, begin: Instant) -> Result<Value> {
    let seen = world.gateway.wait(&world.lab, path, "ConnectionsUnanswered", NAMED, |s| {
        s["statusDetail"]["reason"] == "ConnectionsUnanswered"
    })?;
    wicketgate_lab::named(&format!("ConnectionsUnanswered, \"{how}\""), begin.elapsed());
    ensure!(seen["ready"] == true, "no answer may be what clients expect: {seen}");
    let message = text(&seen["statusDetail"], "message")?;
    ensure!(message.contains(&format!("({how})")), "{message}");
    Ok(seen)
}

#[test]
fn a_target_that_takes_bytes_and_answers_none_is_named_until_it_answers() -> Result<()> {
    let world = World::loopback().start()?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    // A service that hangs: its clients' bytes are read, and that is all.
    let hangs = Arc::new(AtomicBool::new(true));
    let mode = Arc::clone(&hangs);
    serve(&world.private, world.target(7001), move |mut stream| {
        let mut piece = [0; 64];
        while let Ok(n @ 1..) = stream.read(&mut piece) {
            if !mode.load(Relaxed) && stream.write_all(&piece[..n]).is_err() {
                return;
            }
        }
    })?;
    let share = world.share("hung", &tunnel, &zid, world.target(7001), 9001)?;
    let (path, door) = (format!("ipsec-shares/{}", text(&share, "id")?), door(&tunnel, 9001)?);

    // Clients of such a service as syslog send, and end.
    for n in 1..=4 {
        connect(&world.outside, door, PATIENCE)?.write_all(LINE)?;
        world.carried(&share, |sum| sum("rx") == n * LINE.len() as u64)?;
    }
    let seen = world.gateway.wait(&world.lab, &path, "ready", PATIENCE, |s| s["ready"] == true)?;
    ensure!(seen.get("statusDetail").is_none(), "clients that only send miss no answer: {seen}");

    let begin = Instant::now();
    three_ask_in_vain(&world, door)?;
    let seen = named(&world, &path, "silent", begin)?;
    ensure!(seen["statusDetail"]["connections"] == json!({"notServed": 3, "of": 3}), "{seen}");
    let check = world.gateway.api.post(&world.gateway.at(&format!("{path}/check")), &json!({}))?;
    let hop = &check["hops"][4];
    ensure!(hop["state"] == "OK" && hop["reason"] == "ConnectionsUnanswered", "{check}");
    ensure!(hop["advice"].is_string() && text(hop, "message")?.contains("last 3 connections"), "{check}");

    // A check proves nothing, one answer does.
    let seen = world.gateway.wait(&world.lab, &path, "the share", PATIENCE, |s| s["ready"] == true)?;
    ensure!(seen["statusDetail"]["reason"] == "ConnectionsUnanswered", "{seen}");
    hangs.store(false, Relaxed);
    exchange(&mut connect(&world.outside, door, PATIENCE)?, b"hello")?;
    world.gateway.wait(&world.lab, &path, "nothing is wrong", NAMED, |s| s.get("statusDetail").is_none())?;
    world.end()
}

#[test]
fn a_target_that_ends_instead_of_an_answer_is_named() -> Result<()> {
    let world = World::loopback().start()?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    // It expects the PROXY protocol header, which it does not get: a check, which sends nothing, sees no fault.
    serve(&world.private, world.target(7001), |mut stream| {
        let (mut begin, mut rest) = ([0; 5], [0; 23]);
        let is_header = stream.read_exact(&mut begin).is_ok() && begin == *b"\r\n\r\n\0";
        if is_header && stream.read_exact(&mut rest).is_ok() {
            let _ = stream.write_all(b"hello");
        }
    })?;
    let share = world.share("proxied", &tunnel, &zid, world.target(7001), 9001)?;
    let path = format!("ipsec-shares/{}", text(&share, "id")?);
    let begin = Instant::now();
    three_ask_in_vain(&world, door(&tunnel, 9001)?)?;
    let seen = named(&world, &path, "ended", begin)?;
    ensure!(text(&seen["statusDetail"], "message")?.contains("proxyProtocol"), "{seen}");
    let since = seen["statusDetail"]["since"].as_str().context("since when")?;
    ensure!(!since.is_empty());

    // With the header, the share works; a changed share has no past.
    let changed = world.patch(&share, &json!({"proxyProtocol": "v2"}))?;
    ensure!(changed["status"] == "DEPLOYED" && changed.get("statusDetail").is_none(), "{changed}");
    let mut client = connect(&world.outside, door(&tunnel, 9001)?, PATIENCE)?;
    let mut said = [0; 5];
    client.read_exact(&mut said)?;
    ensure!(said == *b"hello");
    world.end()
}

#[test]
fn a_target_that_lets_its_clients_wait_is_named_after_half_a_minute() -> Result<()> {
    /// As long as a client waits that does not give up.
    const OVERDUE: Duration = Duration::from_secs(30);
    let world = World::loopback().start()?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    // Its process is stopped: the kernel accepts for it.
    let _stopped = world.private.listen(world.target(7001))?;
    let share = world.share("stopped", &tunnel, &zid, world.target(7001), 9001)?;
    let door = door(&tunnel, 9001)?;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = connect(&world.outside, door, PATIENCE)?;
        client.write_all(b"hello")?;
        clients.push(client);
    }
    let begin = Instant::now();
    let path = format!("ipsec-shares/{}", text(&share, "id")?);
    world.gateway.wait(&world.lab, &path, "ConnectionsUnanswered", OVERDUE + NAMED, |s| {
        s["statusDetail"]["reason"] == "ConnectionsUnanswered" && s["ready"] == true
    })?;
    ensure!(begin.elapsed() > OVERDUE - NAMED, "after {:?} already", begin.elapsed());
    world.end()
}
