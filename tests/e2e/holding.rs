//! A long-lived tunnel: its SAs are rekeyed by either end, and by both at once, without an interruption.

use std::{
    net::Shutdown,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::harness::{
    PATIENCE, SITE_CLIENT, World,
    bulk::there_and_back_while,
    ping::ping,
    sas::{By, Kind, Sas, rekey, rekey_by_both},
    targets::{connect, echo},
    text,
};

const PINGS: u16 = 1000;

/// The smallest size of a transfer in each direction, in MiB. `WICKETGATE_TEST_TRANSFER_MIB` overrides it.
const TRANSFER: u64 = 64;

/// The longest time between two rekeys of a transfer. A rekey waits for a number of bytes, so that the machine's speed
/// does not matter.
const LONG: Duration = Duration::from_secs(120);

#[test]
fn a_thousand_pings_are_all_answered_while_both_ends_rekey() -> Result<()> {
    let world = World::with_sites(1).start()?;
    let tunnel = world.tunnel(0)?;
    let site = world.connected_site(0, &tunnel)?;
    let load_balancer = text(&tunnel, "loadBalancerIp")?.parse()?;
    let before = Sas::of(&site)?;
    let done = AtomicBool::new(false);
    let (sent, lost) = thread::scope(|scope| {
        let pings = scope.spawn(|| ping(&site.namespace, SITE_CLIENT, load_balancer, PINGS, &done));
        let rekeyed = (|| {
            for by in [By::Site, By::Gateway] {
                for kind in [Kind::Child, Kind::Ike, Kind::Child] {
                    rekey(&world, &site, by, kind).with_context(|| format!("{kind:?} by {by:?}"))?;
                }
            }
            for kind in [Kind::Child, Kind::Ike] {
                rekey_by_both(&world, &site, kind).with_context(|| format!("{kind:?} by both"))?;
            }
            anyhow::Ok(())
        })();
        done.store(true, Ordering::Release);
        let pings = pings.join().map_err(|_| anyhow!("the pings panicked"))?;
        rekeyed.and(pings)
    })?;
    ensure!(lost.is_empty(), "{} of {sent} pings were lost: {lost:?}", lost.len());
    let after = Sas::of(&site)?;
    ensure!(after.ike != before.ike && after.child != before.child, "{before:?}, {after:?}");
    // The API does not report that the tunnel was down.
    let path = format!("ipsec-tunnels/{}", text(&tunnel, "id")?);
    let seen = world.gateway.api.get(&world.gateway.at(&path))?;
    ensure!(seen["connection"]["state"] == "UP" && seen["connection"]["lastError"].is_null(), "{seen}");
    world.end()
}

#[test]
fn a_transfer_is_complete_over_six_rekeys() -> Result<()> {
    let mib = std::env::var("WICKETGATE_TEST_TRANSFER_MIB").map_or(Ok(TRANSFER), |mib| mib.parse())?;
    let size = mib << 20;
    let (world, published) = World::with_sites(1).publish(echo)?;
    let site = world.connected_site(0, &published.tunnel)?;
    let stream = connect(&site.namespace, published.door, PATIENCE)?;
    let (more, back) = (AtomicBool::new(true), AtomicU64::new(0));
    let begin = Instant::now();
    let moved = thread::scope(|scope| {
        let transfer = scope.spawn(|| there_and_back_while(&stream, size, &more, &back));
        let rekeyed = (|| {
            let ends = [By::Site, By::Gateway].into_iter().cycle();
            let kinds = [Kind::Child, Kind::Child, Kind::Ike].into_iter().cycle();
            for (n, (by, kind)) in (1..=6).zip(ends.zip(kinds)) {
                let due = || Ok((back.load(Ordering::Acquire) >= size / 8 * n).then_some(()));
                world.lab.until("enough bytes are received for the next rekey", LONG, due)?;
                rekey(&world, &site, by, kind).with_context(|| format!("{kind:?} by {by:?}"))?;
            }
            anyhow::Ok(())
        })();
        // The transfer ends only now, so that data was in flight during each rekey.
        more.store(false, Ordering::Release);
        if rekeyed.is_err() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let transfer = transfer.join().map_err(|_| anyhow!("the client panicked"))?;
        rekeyed.and(transfer)
    })?;
    eprintln!("{} MiB in each direction over six rekeys in {:?}", moved >> 20, begin.elapsed());
    world.end()
}
