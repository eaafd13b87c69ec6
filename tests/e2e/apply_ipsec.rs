//! What a plan of `apply` says of a tunnel's connection is true of a site that is connected.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::Site;

use crate::harness::{
    PATIENCE, World, door,
    targets::{connect, echo, exchange},
    text,
    user::User,
};

/// The wait for a connection that must not be made.
const TRY: Duration = Duration::from_secs(3);

/// A user who changes the tunnel of a site that is connected.
struct Scene<'a> {
    world: &'a World,
    user: User<'a>,
    name: String,
    /// Of the tunnel, below the Frontdoor.
    path: String,
}

impl Scene<'_> {
    /// Applies a change of the tunnel. Returns whether the plan says that it cuts connections, and that the site needs a new
    /// configuration.
    fn apply(&self, change: &str) -> Result<(bool, bool)> {
        let file = self.world.lab.dir("files")?.join("net.yaml");
        fs::write(&file, format!("kind: tunnel\nname: {}\n{change}\n", self.name))?;
        let file = file.display().to_string();
        let plan = self.user.run(&["apply", "-f", &file, "--plan", "-o", "json"], "")?;
        let plan: Value = serde_json::from_slice(&plan.stdout)?;
        let says = |what: &str| plan["steps"][0][what].as_bool().with_context(|| format!("{change}: {plan}"));
        let said = (says("cutsConnections")?, says("needsSiteConfiguration")?);
        let out = self.user.run(&["apply", "-f", &file, "--yes"], "")?;
        let shown = String::from_utf8_lossy(&out.stdout);
        ensure!(out.status.success(), "{change}: {out:?}");
        let advice = format!("! The site needs a new configuration: wicketgate tunnel config {}", self.name);
        assert_eq!(shown.contains(&advice), said.1, "{shown}");
        Ok(said)
    }

    /// Waits until the tunnel is up, and returns the site's IKE SA.
    fn established(&self, site: &Site) -> Result<String> {
        let is_up = |tunnel: &Value| tunnel["connection"]["state"] == "UP";
        self.world.gateway.wait(&self.world.lab, &self.path, "UP", PATIENCE, is_up)?;
        sa(site)?.context("the site has no SA")
    }

    /// Waits until an IKE SA of the site has ended. The site may have connected again.
    fn is_cut(&self, site: &Site, established: &str) -> Result<()> {
        let is_other = || Ok((sa(site)?.as_deref() != Some(established)).then_some(()));
        self.world.lab.until("the site's SA ends", PATIENCE, is_other).with_context(|| site.log_tail())
    }

    /// Connects the site with the configuration that the plan says it needs, and a client of it.
    fn configure(&self, site: &mut Site) -> Result<()> {
        let config = self.user.says(&format!("tunnel config {} --format strongswan", self.name))?;
        let tunnel = self.world.gateway.api.get(&self.world.gateway.at(&self.path))?;
        site.stop()?;
        self.world.connect(site, &tunnel, &config)?;
        exchange(
            &mut connect(&site.namespace, door(&tunnel, 9000)?, PATIENCE)?,
            b"with the new configuration",
        )
    }
}

/// The number that a site's daemon gives its IKE SA.
fn sa(site: &Site) -> Result<Option<String>> {
    let sas = site.swanctl(&["--list-sas"])?;
    let number = sas.split_once(": #").and_then(|(_, rest)| rest.split_once(','));
    Ok(number.map(|(number, _)| number.to_owned()))
}

#[test]
fn what_a_plan_says_of_a_connected_site_is_true() -> Result<()> {
    let (world, published) = World::with_sites(1).publish(echo)?;
    let mut site = world.connected_site(0, &published.tunnel)?;
    let user = User::new(&world, "user")?;
    user.sign_in()?;
    let name = text(&published.tunnel, "name")?.to_owned();
    let path = format!("ipsec-tunnels/{}", text(&published.tunnel, "id")?);
    let scene = Scene { world: &world, user, name, path };

    let mut open = connect(&site.namespace, published.door, PATIENCE)?;
    exchange(&mut open, b"before")?;
    let established = scene.established(&site)?;
    for change in ["description: other", "tags: {team: payments}", "initiate: true", "initiate: false"] {
        assert_eq!(scene.apply(change)?, (false, false), "{change}");
        exchange(&mut open, change.as_bytes()).with_context(|| change.to_owned())?;
        assert_eq!(scene.established(&site)?, established, "{change}");
    }

    // The device's own configuration stays good.
    assert_eq!(scene.apply("enabled: false")?, (true, false));
    scene.is_cut(&site, &established)?;
    scene.apply("enabled: true")?;
    world.lab.until("the site connects again", PATIENCE, || Ok(site.try_again()?.then_some(())))?;

    for (change, is_refused) in [
        ("peerId: vpn.example.org", true),
        ("loadBalancerIp: 10.255.7.7", true),
        // A device of the narrower network is served as far as that goes.
        ("peerCidr: 10.0.0.0/15", false),
    ] {
        let established = scene.established(&site)?;
        assert_eq!(scene.apply(change)?, (true, true), "{change}");
        scene.is_cut(&site, &established).with_context(|| change.to_owned())?;
        ensure!(!is_refused || !site.try_again()?, "{change}: the old configuration still connects");
        scene.configure(&mut site).with_context(|| change.to_owned())?;
    }
    let selectors = world.gateway.api.get(&world.gateway.at(&scene.path))?["connection"]["childSas"][0]
        ["selectors"]["peer"]
        .clone();
    assert_eq!(selectors, json!(["10.0.0.0/15"]));

    // The site has not moved: its packets are those of a stranger, and its device notices that by itself.
    assert_eq!(scene.apply("peerPublicIp: 203.0.113.77")?, (true, true));
    let is_down = |tunnel: &Value| tunnel["connection"]["state"] == "DOWN";
    let tunnel = world.gateway.wait(&world.lab, &scene.path, "DOWN", PATIENCE, is_down)?;
    ensure!(connect(&site.namespace, door(&tunnel, 9000)?, TRY).is_err(), "the old address still connects");
    world.end()
}
