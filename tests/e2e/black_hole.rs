//! Paths that drop large packets silently: no ICMP error says so, and smaller packets pass.

use std::{
    net::TcpStream,
    sync::atomic::AtomicU64,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::{Agent, Namespace, Site};

use crate::harness::{
    PATIENCE, World,
    bulk::{receive, source, there_and_back},
    door,
    targets::{connect, echo},
    text,
};

/// From the first packet that is lost to the warning. The gateway looks every four seconds and probes for one; the rest is for
/// a busy machine.
const NAMED: Duration = Duration::from_secs(8);

/// The end of the timeout of a transfer that is stuck.
const STUCK: Duration = Duration::from_secs(3);

const TRANSFER: u64 = 1 << 20;

/// What a middle box on the line drops: large packets, and fragments.
const LARGE: &str = "ip length > 1300 drop";
const FRAGMENTS: &str = "ip frag-off & 0x3fff != 0 drop";

struct Scene {
    world: World,
    tunnel: Value,
    share: Value,
    site: Site,
    _agent: Agent,
}

impl Scene {
    /// An echo at port 9000 and a source at port 9001, behind a middle box with `rules` for the line to the site.
    fn set(rules: &[String]) -> Result<Self> {
        let world = World::with_sites(1).start()?;
        echo(&world.private, world.target(7001))?;
        source(&world.private, world.target(7002), TRANSFER)?;
        let (agent, zid) = world.agent("agent")?;
        let tunnel = world.tunnel(0)?;
        let share = world.share("echo", &tunnel, &zid, world.target(7001), 9000)?;
        world.share("source", &tunnel, &zid, world.target(7002), 9001)?;
        let scene = Self { site: world.connected_site(0, &tunnel)?, world, tunnel, share, _agent: agent };
        scene.middle_box(rules)?;
        Ok(scene)
    }

    fn internet(&self) -> Result<&Namespace> {
        self.world.internet.as_ref().context("no internet")
    }

    fn middle_box(&self, rules: &[String]) -> Result<()> {
        let rules = rules.join("\n");
        self.internet()?.nft(&format!(
            "table ip box {{}}\ndelete table ip box\n
             table ip box {{ chain forward {{ type filter hook forward priority -10; policy accept;\n {rules}\n }}\n }}"
        ))
    }

    fn connect(&self, port: u16) -> Result<TcpStream> {
        connect(&self.site.namespace, door(&self.tunnel, port)?, PATIENCE)
    }

    fn upload(&self, bound: Duration) -> Result<()> {
        let stream = self.connect(9000)?;
        stream.set_read_timeout(Some(bound))?;
        stream.set_write_timeout(Some(bound))?;
        there_and_back(&stream, TRANSFER)
    }

    fn download(&self, bound: Duration) -> Result<()> {
        let stream = self.connect(9001)?;
        stream.set_read_timeout(Some(bound))?;
        let came = receive(&stream, &AtomicU64::new(0))?;
        ensure!(came == TRANSFER, "{came} of {TRANSFER} bytes");
        Ok(())
    }

    fn path(&self) -> Result<String> {
        Ok(format!("ipsec-tunnels/{}", text(&self.tunnel, "id")?))
    }

    /// Waits until the tunnel has the warning or not.
    fn warns(&self, wanted: bool, bound: Duration) -> Result<Value> {
        let what = if wanted { "warned of lost packets" } else { "not warned" };
        let is = |tunnel: &Value| is_warned(tunnel, "LargePacketsLost") == wanted;
        self.world.gateway.wait(&self.world.lab, &self.path()?, what, bound, is)
    }

    /// A transfer hangs, its cause is named in time, and new connections pass in both directions. Returns the time from the
    /// begin of the transfer until it is named.
    fn is_named_and_cured(&self, transfer: fn(&Self, Duration) -> Result<()>) -> Result<Duration> {
        let begin = Instant::now();
        let after = thread::scope(|scope| {
            let stuck = scope.spawn(|| transfer(self, STUCK));
            let named = self.warns(true, NAMED)?;
            let after = begin.elapsed();
            for row in ["LargePacketsLost", "Connections open and small answers arrive; large ones hang."] {
                wicketgate_lab::named(row, after);
            }
            ensure!(named["ready"] == true && named["connection"]["state"] == "UP", "{named}");
            ensure!(stuck.join().is_ok_and(|ended| ended.is_err()), "the path has no black hole");
            anyhow::Ok(after)
        })?;
        // The guard's rules are in force before the warning is told.
        self.upload(PATIENCE)?;
        self.download(PATIENCE)?;
        Ok(after)
    }
}

fn is_warned(tunnel: &Value, of: &str) -> bool {
    let mut all = tunnel["connection"]["warnings"].as_array().into_iter().flatten();
    all.any(|warning| warning["reason"] == of)
}

#[test]
fn large_packets_that_vanish_in_one_direction_are_named_and_new_connections_pass() -> Result<()> {
    // From the site: the gateway sees nothing of what its client sends.
    let scene = Scene::set(&[format!("iifname site0 {LARGE}"), FRAGMENTS.to_owned()])?;
    let share = format!("ipsec-shares/{}/check", text(&scene.share, "id")?);
    let check = scene.world.gateway.api.post(&scene.world.gateway.at(&share), &json!({}))?;
    ensure!(check["ok"] == true, "the line is at fault: {check}");
    ensure!(scene.connect(9999).is_err(), "a port without a share is open");
    eprintln!("from the site: named after {:?}", scene.is_named_and_cured(Scene::upload)?);

    // The rules with the smaller segments replace those that have counted the refused connection.
    let tunnel = scene.world.gateway.api.get(&scene.world.gateway.at(&scene.path()?))?;
    ensure!(is_warned(&tunnel, "PortWithoutShare"), "{tunnel}");

    scene.middle_box(&[])?;
    // Two probes have to pass.
    scene.warns(false, 2 * PATIENCE)?;

    // To the site, on a path that was good when the connection came up.
    scene.middle_box(&[format!("oifname site0 {LARGE}"), FRAGMENTS.to_owned()])?;
    eprintln!("to the site: named after {:?}", scene.is_named_and_cured(Scene::download)?);
    scene.world.end()
}

#[test]
fn packets_that_are_lost_whatever_their_size_are_no_black_hole() -> Result<()> {
    // One of five, in each direction.
    let lossy = "iifname site0 numgen random mod 5 == 0 drop\noifname site0 numgen random mod 5 == 0 drop";
    let scene = Scene::set(&[lossy.to_owned()])?;
    let inside = scene.world.tunnel_namespace(&scene.tunnel)?;
    inside.nft(
        "table ip onlooker {
           counter probes { }
           chain seen {
             type filter hook output priority raw; policy accept;
             icmp type echo-request ip length > 1300 counter name probes
           }
         }",
    )?;
    let probes = || -> Result<u64> {
        let out = inside.command("nft").args(["list", "counter", "ip", "onlooker", "probes"]).output()?;
        let said = String::from_utf8_lossy(&out.stdout);
        let packets = said.split_whitespace().skip_while(|word| *word != "packets").nth(1);
        packets.and_then(|packets| packets.parse().ok()).context("no count")
    };
    // Losses are a reason to probe again and again: each probe has to tell them from a black hole.
    for _ in 0..3 {
        let before = probes()?;
        scene.world.lab.until("the path is probed", PATIENCE, || {
            let _ = scene.download(STUCK);
            Ok((probes()? > before).then_some(()))
        })?;
        let tunnel = scene.world.gateway.api.get(&scene.world.gateway.at(&scene.path()?))?;
        ensure!(!is_warned(&tunnel, "LargePacketsLost"), "{tunnel}");
    }
    scene.world.end()
}

#[test]
fn a_host_that_limits_its_answers_is_no_black_hole() -> Result<()> {
    let scene = Scene::set(&[])?;
    // Two in a row pass, and one in 80 ms after that.
    scene.site.namespace.nft(
        "table ip policer {
           counter dropped { }
           chain input {
             type filter hook input priority filter; policy accept;
             icmp type echo-request limit rate over 12/second burst 2 packets counter name dropped drop
           }
         }",
    )?;
    scene.upload(PATIENCE)?;
    // The first may be told before the probe, the second during it, and the third is told after it.
    for port in [9997, 9998, 9999] {
        ensure!(scene.connect(port).is_err(), "a port without a share is open");
        let is_told = |t: &Value| {
            let mut all = t["connection"]["warnings"].as_array().into_iter().flatten();
            all.any(|warning| {
                warning["ports"].as_array().is_some_and(|ports| ports.iter().any(|p| p["port"] == port))
            })
        };
        let seen =
            scene.world.gateway.wait(&scene.world.lab, &scene.path()?, "looked at", PATIENCE, is_told)?;
        ensure!(!is_warned(&seen, "LargePacketsLost"), "{seen}");
    }
    scene.world.end()
}
