//! ESP in the kernel at both ends. These tests need a kernel with ESP and netem: `make test-kernel` boots one and runs
//! them there, together with other end-to-end tests of ESP.

use std::{
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use wicketgate_lab::{Namespace, Wire};

use crate::{
    e2e::entry_point::uplink_address,
    harness::{
        GATEWAY, PATIENCE, World, door,
        sas::{By, Kind, gateways_swanctl, rekey},
        targets::{ask, connect, echo_after_end, greeting, here, send_and_end},
    },
};

/// The number of bytes sent and echoed. With 1 % loss and 40 ms delay a connection transfers about 400 kB per second.
const TRANSFER: usize = 6 << 20;

/// The longest time for the transfer and the rekeys on an emulated processor.
const LONG: Duration = Duration::from_secs(120);

/// The rekeys during the transfer, in this order.
const REKEYS: [(By, Kind); 4] =
    [(By::Site, Kind::Child), (By::Site, Kind::Ike), (By::Gateway, Kind::Child), (By::Gateway, Kind::Ike)];

/// The kernel's list of ESP states of both directions, with their byte counters.
struct States(String);

impl States {
    fn of(namespace: &Namespace) -> Result<Self> {
        let out = namespace.command("ip").args(["-s", "xfrm", "state"]).output()?;
        ensure!(out.status.success(), "ip xfrm state: {}", String::from_utf8_lossy(&out.stderr));
        Ok(Self(String::from_utf8(out.stdout)?))
    }

    fn spis(&self) -> Vec<&str> {
        let mut spis: Vec<_> =
            self.0.lines().filter_map(|l| l.split("spi ").nth(1)?.split('(').next()).collect();
        spis.sort_unstable();
        spis
    }

    /// Checks that every state uses AES-256-GCM with a 16-octet tag (RFC 4106), and that all of them or none are in UDP
    /// (RFC 3948).
    fn are_in_order(&self, in_udp: bool) -> Result<()> {
        let count = |what: &str| self.0.matches(what).count();
        let (states, ciphers) = (count("proto esp"), count("aead rfc4106(gcm(aes))"));
        let encapsulated = count("encap type espinudp");
        ensure!(states >= 2 && ciphers == states, "{states} states, {ciphers} with AES-GCM:\n{}", self.0);
        ensure!(
            encapsulated == if in_udp { states } else { 0 },
            "{encapsulated} of {states} in UDP:\n{}",
            self.0
        );
        Ok(())
    }
}

#[test]
#[ignore = "needs a kernel with ESP and netem: make test-kernel"]
fn a_transfer_is_complete_over_a_slow_and_lossy_link_during_rekeys() -> Result<()> {
    let world = World::with_sites(2).start()?;
    echo_after_end(&world.private, world.target(7001))?;
    greeting(&world.private, world.target(7002), "the other customer")?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnels = [world.tunnel(0)?, world.tunnel(1)?];
    world.share("echo", &tunnels[0], &zid, world.target(7001), 9000)?;
    world.share("greeting", &tunnels[1], &zid, world.target(7002), 9000)?;
    let sites = [world.connected_site(0, &tunnels[0])?, world.connected_site(1, &tunnels[1])?];
    let inside = world.tunnel_namespace(&tunnels[0])?;
    let before = States::of(&inside)?;
    before.are_in_order(true)?;
    let tun = inside.command("ip").args(["link", "show", "type", "tun"]).output()?;
    ensure!(tun.stdout.is_empty(), "ESP uses a TUN device: {}", String::from_utf8_lossy(&tun.stdout));

    let netem = "qdisc add dev wan root netem delay 40ms loss 1%";
    ensure!(sites[0].namespace.command("tc").args(netem.split(' ')).status()?.success(), "no netem");
    let sent: Vec<u8> = (0..TRANSFER).map(|n| (n ^ (n >> 8)).to_le_bytes()[0]).collect();
    let stream = connect(&sites[0].namespace, door(&tunnels[0], 9000)?, PATIENCE)?;
    stream.set_read_timeout(Some(LONG))?;
    stream.set_write_timeout(Some(LONG))?;
    let rekeys = thread::scope(|scope| {
        let transfer = scope.spawn(|| send_and_end(stream, &sent));
        let begin = Instant::now();
        let mut rekeys = 0;
        while !transfer.is_finished() && begin.elapsed() < LONG {
            let (by, kind) = REKEYS[rekeys % REKEYS.len()];
            rekey(&world, &sites[0], by, kind)?;
            rekeys += 1;
            assert_eq!(ask(&sites[1].namespace, door(&tunnels[1], 9000)?, PATIENCE)?, "the other customer");
        }
        let back = transfer.join().map_err(|_| anyhow!("the client panicked"))??;
        ensure!(back == sent, "received {} of {} bytes, or different ones", back.len(), sent.len());
        Ok(rekeys)
    })?;
    // A replaced SA remains for some seconds, for packets in flight.
    let removed = world.lab.until("the first SAs are removed", PATIENCE, || {
        let after = States::of(&inside)?;
        after.are_in_order(true)?;
        Ok(after.spis().iter().all(|spi| !before.spis().contains(spi)).then_some(()))
    });
    let listed = || {
        let [site, gateway] =
            [sites[0].swanctl(&["--list-sas"]), gateways_swanctl(&world, 0, &["--list-sas"])];
        format!("site: {site:?}\ngateway: {gateway:?}\n{}", sites[0].log())
    };
    removed.with_context(listed)?;
    eprintln!("{TRANSFER} bytes in each direction, {rekeys} rekeys meanwhile");
    ensure!(rekeys >= 2, "only {rekeys} rekeys");
    world.end()
}

#[test]
#[ignore = "needs a kernel with ESP: make test-kernel"]
fn a_peer_without_nat_traversal_is_served_by_esp_without_udp() -> Result<()> {
    let (world, published) = World::with_sites(1).publish(here)?;
    let inside = world.tunnel_namespace(&published.tunnel)?;
    let internet = world.internet.as_ref().context("no internet")?;
    let wire = Wire::watch(&world.lab, internet, &[World::peer(0)], "10.0.0.0/8, 100.64.0.0/10")?;

    // strongSwan always offers NAT traversal, and the gateway's daemon is behind the host's NAT. If the site reverses
    // the translation, both ends see the same addresses, and neither requests ESP in UDP.
    let mut site = world.site(0)?;
    let daemon: Ipv4Addr = uplink_address(&inside)?.parse()?;
    site.namespace.nft(&format!(
        "table ip reverse {{
           chain output {{
             type nat hook output priority -100;
             ip daddr {daemon} dnat to {GATEWAY}
           }}
         }}"
    ))?;
    let config = world.vpn_config(&published.tunnel)?;
    let direct = config
        .replace(&format!("remote_addrs = {GATEWAY}"), &format!("remote_addrs = {daemon}"))
        .replace("encap = yes", "encap = no");
    ensure!(direct != config && !direct.contains("encap = yes"), "unexpected configuration: {config}");
    world.connect(&mut site, &published.tunnel, &direct)?;

    States::of(&inside)?.are_in_order(false)?;
    for _ in 0..5 {
        assert_eq!(ask(&site.namespace, published.door, PATIENCE)?, "here");
    }
    let packets = wire.esp(World::peer(0))?;
    ensure!(packets >= 30, "{packets} ESP packets");
    let (_, seen) = wire.search(&world.lab, &["here"])?;
    ensure!(seen.is_empty(), "seen on the wire: {seen:?}");
    world.end()
}
