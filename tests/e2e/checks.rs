//! What the API reports about the path of a share: the hops of a check, and the state that each agent reports.

use std::{
    io::{self, Read as _, Write as _},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::named;

use crate::harness::{
    PATIENCE, World, door,
    targets::{connect, exchange, greeting, here, serve},
    text,
};

/// The name and the state of each hop of a check.
fn states(check: &Value) -> Result<Vec<(String, String)>> {
    let hops = check["hops"].as_array().context("no hops")?;
    hops.iter().map(|hop| Ok((text(hop, "hop")?.to_owned(), text(hop, "state")?.to_owned()))).collect()
}

#[test]
fn a_walk_and_the_agents_tell_how_a_share_is() -> Result<()> {
    let (world, mut published) = World::loopback().publish(here)?;
    let path = world.gateway.at(&format!("ipsec-shares/{}/check", text(&published.share, "id")?));
    let run_check = || world.gateway.api.post(&path, &json!({}));
    // The gateway probes an agent every few seconds. The latency of its hop is known after the first probe.
    let well = world.lab.until("every hop was measured", PATIENCE, || {
        let check = run_check()?;
        let hops = check["hops"].as_array().context("no hops")?;
        let is_measured = |hop: &Value| hop["latencyMs"].is_number() || hop["state"] == "SKIPPED";
        Ok(hops.iter().all(is_measured).then_some(check))
    })?;
    let reported = states(&well)?;
    let reported: Vec<_> = reported.iter().map(|(hop, state)| (hop.as_str(), state.as_str())).collect();
    // Without IPsec there is no peer.
    assert_eq!(
        reported,
        [("tunnel", "OK"), ("ikeSa", "SKIPPED"), ("listener", "OK"), ("agent", "OK"), ("target", "OK")]
    );
    assert_eq!(well["ok"], true, "{well}");

    let agents = world.gateway.list("agents")?;
    let one = agents.first().context("no agent")?;
    assert_eq!((&one["status"], one.get("lastSeen")), (&json!("CONNECTED"), None));
    assert_eq!(one["shares"], json!([{"id": published.share["id"], "state": "SERVING"}]));
    assert_eq!(well["hops"][3]["agentId"], one["id"], "the agent that connected to the target");

    // The agent reports a target without a listener.
    let change = json!({"target": world.target(7002).to_string()});
    world
        .gateway
        .api
        .patch(&world.gateway.at(&format!("ipsec-shares/{}", text(&published.share, "id")?)), &change)?;
    world.lab.until("the agent reports that it cannot reach the target", PATIENCE, || {
        let _ = run_check()?;
        let agents = world.gateway.list("agents")?;
        Ok(agents.iter().any(|a| a["shares"][0]["state"] == "UNREACHABLE").then_some(()))
    })?;
    let failed = run_check()?;
    assert_eq!(states(&failed)?.pop(), Some(("target".to_owned(), "FAILED".to_owned())));
    ensure!(text(&failed["hops"][4], "advice").is_ok(), "the failed hop has no advice: {failed}");

    published.agent.process.kill()?;
    let killed = Instant::now();
    let share = format!("ipsec-shares/{}", text(&published.share, "id")?);
    let is_offline = |s: &Value| s["statusDetail"]["reason"] == "AgentOffline";
    world.gateway.wait(&world.lab, &share, "without an agent", PATIENCE, is_offline)?;
    named("AgentOffline", killed.elapsed());
    let gone = world.lab.until("the agent is OFFLINE", PATIENCE, || {
        let agents = world.gateway.list("agents")?;
        Ok(agents.into_iter().find(|a| a["status"] == "OFFLINE"))
    })?;
    assert!(gone["lastSeen"].is_string() && gone.get("shares").is_none(), "{gone}");
    let offline = run_check()?;
    assert_eq!(offline["hops"][3]["reason"], "AgentOffline");
    world.end()
}

/// What a check finds at one hop: its state and reason.
fn found(world: &World, share: &Value, hop: usize) -> Result<(Value, Value)> {
    let path = world.gateway.at(&format!("ipsec-shares/{}/check", text(share, "id")?));
    let check = world.gateway.api.post(&path, &json!({}))?;
    ensure!(check["ok"] == (check["hops"][hop]["state"] == "OK"), "{check}");
    Ok((check["hops"][hop]["state"].clone(), check["hops"][hop]["reason"].clone()))
}

#[test]
fn a_check_fails_where_every_client_fails() -> Result<()> {
    const LISTENER: usize = 2;
    const TARGET: usize = 4;
    let world = World::loopback().start()?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    let failed = |reason: &str| (json!("FAILED"), json!(reason));

    // The target accepts, and ends the connection without a byte.
    greeting(&world.private, world.target(7001), "")?;
    let share = world.share("mute", &tunnel, &zid, world.target(7001), 9001)?;
    assert_eq!(found(&world, &share, TARGET)?, failed("TargetClosed"));

    // The target reads the client's request, and takes the PROXY protocol header for one.
    let picky = world.private.listen(world.target(7002))?;
    std::thread::spawn(move || {
        for stream in picky.incoming().flatten() {
            std::thread::spawn(move || -> Result<()> {
                let mut stream = stream;
                let mut first = [0; 4];
                stream.read_exact(&mut first)?;
                let answer = if first == *b"GET " { "HTTP/1.1 200 OK" } else { "HTTP/1.1 400 Bad Request" };
                Ok(stream.write_all(answer.as_bytes())?)
            });
        }
    });
    let share = world.share("picky", &tunnel, &zid, world.target(7002), 9002)?;
    assert_eq!(found(&world, &share, TARGET)?, (json!("OK"), Value::Null));
    world.patch(&share, &json!({"proxyProtocol": "v2"}))?;
    assert_eq!(found(&world, &share, TARGET)?, failed("TargetClosed"));

    // All places of the share are taken.
    let dials = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&dials);
    serve(&world.private, world.target(7003), move |stream| {
        count.fetch_add(1, Relaxed);
        let _ = io::copy(&mut &stream, &mut &stream);
    })?;
    let share = world.share("full", &tunnel, &zid, world.target(7003), 9003)?;
    world.patch(&share, &json!({"maxConnections": 1, "healthCheck": {"type": "none"}}))?;
    let before = dials.load(Relaxed);
    let client = thread::scope(|scope| -> Result<_> {
        let check = scope.spawn(|| found(&world, &share, LISTENER));
        world.lab.until("the check has dialled", PATIENCE, || {
            Ok((dials.load(Relaxed) > before || check.is_finished()).then_some(()))
        })?;
        // The check waits for a sign of the target, and takes no client's place meanwhile.
        let mut client = connect(&world.outside, door(&tunnel, 9003)?, PATIENCE)?;
        exchange(&mut client, b"hello")?;
        assert_eq!(check.join().expect("no panic")?, (json!("OK"), Value::Null));
        Ok(client)
    })?;
    let before = dials.load(Relaxed);
    assert_eq!(found(&world, &share, LISTENER)?, failed("ConnectionLimit"));
    assert_eq!(dials.load(Relaxed), before, "the check is one connection more than the share allows");
    drop(client);
    world.lab.until("the place is free again", PATIENCE, || {
        Ok((found(&world, &share, LISTENER)?.0 == "OK").then_some(()))
    })?;
    world.end()
}
