//! A server and a gateway in processes of their own, over real IPsec and PostgreSQL.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use wicketgate_lab::Namespace;

use crate::harness::{
    PATIENCE, World, door,
    targets::{ask, greeting},
    text,
};

/// A new connection of a client, with an answer.
const TRY: Duration = Duration::from_secs(5);

/// Asks again and again, until it is told to end. Returns how many answers came, and why one did not.
pub(super) fn clients(site: &Namespace, door: SocketAddr, ends: &AtomicBool) -> (u32, Option<anyhow::Error>) {
    let mut answers = 0;
    while !ends.load(Ordering::Relaxed) {
        match ask(site, door, TRY) {
            Ok(_) => answers += 1,
            Err(error) => return (answers, Some(error)),
        }
    }
    (answers, None)
}

#[test]
fn a_gateway_serves_on_without_its_server_and_links_again() -> Result<()> {
    let Some((mut world, mut apart)) = World::with_sites(1).start_apart()? else { return Ok(()) };
    greeting(&world.private, world.target(7001), "here")?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    world.share("greeting", &tunnel, &zid, world.target(7001), 9000)?;
    let site = world.connected_site(0, &tunnel)?;
    let door = door(&tunnel, 9000)?;
    ensure!(ask(&site.namespace, door, PATIENCE)? == "here");

    // Killed, and away for some seconds while clients connect.
    let ends = AtomicBool::new(false);
    let (answers, failed) = thread::scope(|scope| -> Result<_> {
        let asking = scope.spawn(|| clients(&site.namespace, door, &ends));
        let mut away = || -> Result<()> {
            world.gateway.process.kill()?;
            let log = apart.gateway.log().to_owned();
            world.lab.until("the gateway has lost its link", PATIENCE, || {
                Ok(std::fs::read_to_string(&log)?.contains("cannot link to the server").then_some(()))
            })?;
            apart.start_server(&mut world)?;
            world.lab.until("the gateway says what it holds", PATIENCE, || {
                Ok(std::fs::read_to_string(&log)?.contains("holds=true").then_some(()))
            })?;
            let path = format!("ipsec-tunnels/{}", text(&tunnel, "id")?);
            world
                .gateway
                .wait(&world.lab, &path, "connected", PATIENCE, |t| t["connection"]["state"] == "UP")?;
            Ok(())
        };
        let done = away();
        ends.store(true, Ordering::Relaxed);
        let asked = asking.join().map_err(|_| anyhow::anyhow!("the clients panicked"))?;
        done.map(|()| asked)
    })?;
    ensure!(failed.is_none(), "a connection failed after {answers}: {failed:?}");
    ensure!(answers > 5, "only {answers} connections were made");

    // A change goes over the new link.
    world.share("second", &tunnel, &zid, world.target(7001), 9001)?;
    ensure!(ask(&site.namespace, SocketAddr::new(door.ip(), 9001), PATIENCE)? == "here");

    // The gateway again: it joins no second time.
    let begin = Instant::now();
    ensure!(apart.gateway.stop(PATIENCE)?.success());
    let said = apart.gateway.said();
    ensure!(!said.contains("did not end in time"), "{:?}\n{said}", begin.elapsed());
    apart.start_gateway(&world)?;
    world.lab.until("traffic passes", PATIENCE, || ask(&site.namespace, door, TRY).map(Some))?;
    let gateways = world.gateway.api.get("/frontdoor/v2/gateways")?;
    ensure!(gateways["totalElements"] == 1, "{gateways}");

    // One that was deleted keeps nothing that a start could serve.
    world.gateway.clear(&world.lab, PATIENCE)?;
    let state = world.lab.path("gateway");
    ensure!(state.join("desired").exists());
    let id = text(&gateways["content"][0], "id")?;
    world.gateway.api.delete(&format!("/frontdoor/v2/gateways/{id}"))?;
    let ended = apart.gateway.wait(PATIENCE)?;
    ensure!(ended.code() == Some(4), "{ended}\n{}", apart.gateway.said());
    ensure!(!state.join("desired").exists() && !state.join("traffic").exists());
    ensure!(apart.gateway.said().contains("this gateway was deleted"), "{}", apart.gateway.said());
    Ok(())
}
