//! A site with another vendor's IKE and ESP, Libreswan, with the configuration that the product generates for it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use wicketgate_lab::Wire;

use crate::harness::{
    PATIENCE, SITE_CIDR, SITE_CLIENT, World,
    bulk::there_and_back,
    door,
    libreswan::Libreswan,
    sas::{Sas, gateways_swanctl},
    targets::{connect_as, echo},
    text,
};

/// The longest wait for the daemon. It tests its algorithms when it starts, and the processor may be emulated.
const LONG: Duration = Duration::from_secs(120);

/// The size of one transfer in each direction, in bytes.
const TRANSFER: u64 = 2 << 20;

/// Starts Libreswan with its generated configuration and waits until its log contains `said`.
fn start(world: &World, site: &mut Libreswan, tunnel: &Value, said: &str) -> Result<()> {
    site.start(&world.lab, &world.vpn_config_for(tunnel, "libreswan")?)?;
    let up = world.lab.until(said, LONG, || Ok(site.log().contains(said).then_some(())));
    up.with_context(|| site.log_tail())
}

#[test]
fn libreswan_negotiates_ike_and_child_sas_with_its_generated_configuration() -> Result<()> {
    let world = World::with_sites(1).start()?;
    let Some(mut site) = world.libreswan(0)? else { return world.end() };
    let tunnel = world.tunnel(0)?;
    start(&world, &mut site, &tunnel, "established IKE SA; authenticated peer using authby=secret")?;

    // Without ESP in the kernel, Libreswan cannot use the negotiated CHILD SA. The gateway can, and reports it.
    let path = format!("ipsec-tunnels/{}", text(&tunnel, "id")?);
    let up = world.gateway.wait(&world.lab, &path, "UP", PATIENCE, |t| t["connection"]["state"] == "UP")?;
    let algorithms = &up["connection"]["algorithms"];
    assert_eq!(algorithms["ike"], "AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384");
    ensure!(text(algorithms, "esp")?.starts_with("AES_GCM_16-256"), "{algorithms}");
    let seen = gateways_swanctl(&world, 0, &["--list-sas"])?;
    for selector in [format!("local  {}/32", text(&tunnel, "loadBalancerIp")?), format!("remote {SITE_CIDR}")]
    {
        ensure!(seen.contains(&selector), "no {selector}:\n{seen}");
    }
    world.end()
}

#[test]
#[ignore = "needs a kernel with ESP: make test-kernel"]
fn libreswan_carries_data_while_either_end_rekeys() -> Result<()> {
    let world = World::with_sites(1).start()?;
    let Some(mut site) = world.libreswan(0)? else { return world.end() };
    echo(&world.private, world.target(7001))?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    world.share("echo", &tunnel, &zid, world.target(7001), 9000)?;
    let internet = world.internet.as_ref().context("no internet")?;
    let wire = Wire::watch(&world.lab, internet, &[World::peer(0)], "10.0.0.0/8, 100.64.0.0/10")?;
    start(&world, &mut site, &tunnel, "initiator established Child SA")?;

    let transfer = || -> Result<()> {
        // Bind the site's inner address: by default, the device's own packets have its public address.
        let stream = connect_as(&site.namespace, SITE_CLIENT, door(&tunnel, 9000)?, PATIENCE)?;
        there_and_back(&stream, TRANSFER)
    };
    transfer()?;
    let replaced = |begin: &dyn Fn() -> Result<String>, ike: bool| -> Result<()> {
        let before = Sas::of_gateway(&world, 0)?;
        begin()?;
        let done = || {
            let now = Sas::of_gateway(&world, 0)?;
            let alone = now.ike.len() == 1 && now.child.len() == 1;
            let is_new = if ike { now.ike != before.ike } else { now.child != before.child };
            Ok((alone && is_new).then_some(()))
        };
        world.lab.until("the SA has been replaced", LONG, done).with_context(|| site.log_tail())?;
        transfer()
    };
    let whack = |what: &str| site.whack(&[what, "--name", "wg-site-0"]);
    replaced(&|| whack("--rekey-ipsec"), false)?;
    replaced(&|| whack("--rekey-ike"), true)?;
    replaced(&|| gateways_swanctl(&world, 0, &["--rekey", "--child", "site"]), false)?;
    replaced(&|| gateways_swanctl(&world, 0, &["--rekey", "--ike", "tunnel"]), true)?;

    ensure!(wire.esp(World::peer(0))? > 1000 && wire.inner()? == 0, "the transfer did not use ESP");
    world.end()
}
