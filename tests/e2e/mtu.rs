//! Paths whose MTU is smaller than that of the networks at their ends.

use std::{
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::{Agent, Namespace, Site};

use crate::harness::{
    PATIENCE, World,
    bulk::{receive, source, there_and_back, there_and_back_while},
    door,
    home::Home,
    hops::hops,
    targets::{connect, echo},
    text,
};

/// The MTU of the path, in bytes: that of some mobile and PPP networks that use a tunnel themselves.
const NARROW: u32 = 1400;

/// The size of a transfer in each direction, in bytes.
const TRANSFER: u64 = 100 << 20;
const SMALL: u64 = 1 << 20;

/// The timeout that shows that a transfer is stuck in a black hole. A connection's first retransmissions are earlier.
const STUCK: Duration = Duration::from_secs(8);

/// How long nothing has arrived when a transfer counts as stopped.
const STILL: Duration = Duration::from_secs(8);

struct Scene {
    world: World,
    home: Home,
    tunnel: Value,
    site: Site,
    agent: Agent,
}

impl Scene {
    fn set() -> Result<Self> {
        let mut world = World::with_sites(0).start()?;
        let home = world.add_home()?;
        echo(&world.private, world.target(7001))?;
        let (agent, zid) = world.agent("agent")?;
        let tunnel = world.tunnel(0)?;
        world.share("echo", &tunnel, &zid, world.target(7001), 9000)?;
        source(&world.private, world.target(7002), SMALL)?;
        world.share("source", &tunnel, &zid, world.target(7002), 9001)?;
        home.narrow(NARROW)?;
        let site = world.connected_site(0, &tunnel)?;
        Ok(Self { world, home, tunnel, site, agent })
    }

    fn connect(&self, port: u16) -> Result<TcpStream> {
        connect(&self.site.namespace, door(&self.tunnel, port)?, PATIENCE)
    }

    /// Sends [`TRANSFER`] bytes to the echo and receives them. While none arrive, it prints the state of each hop.
    fn transfer(&self, stream: &TcpStream) -> Result<()> {
        let tunnel = self.world.tunnel_namespace(&self.tunnel)?;
        let (back, done) = (AtomicU64::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut seen, mut since) = (0, Instant::now());
                while !done.load(Relaxed) {
                    thread::sleep(Duration::from_millis(200));
                    let now = back.load(Relaxed);
                    if now != seen {
                        (seen, since) = (now, Instant::now());
                    } else if since.elapsed() > STILL {
                        self.explain(seen, &tunnel);
                        since = Instant::now();
                    }
                }
            });
            let sent = there_and_back_while(stream, TRANSFER, &AtomicBool::new(false), &back);
            done.store(true, Relaxed);
            sent.map(drop)
        })
    }

    #[expect(clippy::print_stderr, reason = "the output is that of a failed test")]
    fn explain(&self, back: u64, tunnel: &Namespace) {
        let Self { world, site, agent, .. } = self;
        let hops = hops(&[&site.namespace, tunnel, &world.outside, &world.private]);
        let logs = [world.gateway.process.tail(), agent.process.tail(), site.log_tail()].join("\n");
        eprintln!("nothing has arrived for {STILL:?}, after {back} bytes\n{hops}\n{logs}");
    }
}

#[test]
fn a_hundred_mib_go_both_ways_over_a_path_of_1400_bytes_and_segments_shrink_to_fit() -> Result<()> {
    let scene = Scene::set()?;
    let begin = Instant::now();
    let stream = scene.connect(9000)?;
    scene.transfer(&stream)?;
    eprintln!("{TRANSFER} bytes both ways in {:?}", begin.elapsed());
    ensure!(
        outer(&stream)? > NARROW && scene.home.too_large()? > 0,
        "no packet was too large: the path is not narrow"
    );

    // The ICMP errors reached the tunnel's namespace. The gateway reads the learned path MTU every 30 seconds and when
    // the tunnel changes. From then on, new connections have smaller segments.
    let id = text(&scene.tunnel, "id")?;
    let path = scene.world.gateway.at(&format!("ipsec-tunnels/{id}"));
    scene.world.gateway.api.patch(&path, &json!({"name": "narrow"}))?;
    scene.world.gateway.deployed(&scene.world.lab, "ipsec-tunnels", id)?;
    let stream = scene.connect(9000)?;
    ensure!(outer(&stream)? <= NARROW, "packets of {} bytes", outer(&stream)?);
    scene.world.end()
}

/// The size of the outer packet that carries a connection's largest segment with the default proposal. It has the
/// headers of TCP with timestamps, of two IPs, UDP and ESP; AES-GCM adds an IV of 8 octets and a tag of 16.
fn outer(stream: &TcpStream) -> Result<u32> {
    let inner = socket2::SockRef::from(stream).tcp_mss()? + 12 + 20 + 20;
    Ok(20 + 8 + 8 + 8 + (inner + 2).next_multiple_of(4) + 16)
}

#[test]
fn without_icmp_smaller_segments_at_the_device_restore_large_transfers() -> Result<()> {
    let scene = Scene::set()?;
    scene.home.keep_silent()?;
    // With an answer, the gateway would find the black hole itself: see `black_hole`.
    answers_no_echo(&scene.site.namespace)?;
    // The gateway finds the path MTU of its own packets by itself. A site's device may not.
    let came = receive(&scene.connect(9001)?, &AtomicU64::new(0))?;
    ensure!(came == SMALL, "received {came} of {SMALL} bytes");
    let stream = scene.connect(9000)?;
    stream.set_read_timeout(Some(STUCK))?;
    stream.set_write_timeout(Some(STUCK))?;
    ensure!(there_and_back(&stream, SMALL).is_err(), "the path has no black hole");
    drop(stream);
    clamp(&scene.site.namespace, NARROW - 130)?;
    there_and_back(&scene.connect(9000)?, SMALL)?;
    scene.world.end()
}

fn answers_no_echo(host: &Namespace) -> Result<()> {
    host.nft(
        "table ip mute {
           chain input { type filter hook input priority filter; policy accept; icmp type echo-request drop; }
         }",
    )
}

/// Clamps the MSS as docs/TROUBLESHOOTING.md tells a site to do, for a device that terminates its connections itself.
fn clamp(device: &Namespace, mss: u32) -> Result<()> {
    device.nft(&format!(
        "table ip clamp {{
           chain output {{
             type filter hook output priority filter; policy accept;
             tcp flags syn tcp option maxseg size set {mss}
           }}
           chain input {{
             type filter hook input priority filter; policy accept;
             tcp flags syn tcp option maxseg size set {mss}
           }}
         }}"
    ))
}
