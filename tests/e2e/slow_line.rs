//! Slow lines and slow readers: no limit and no stop ends a stream while what it has received is on its way.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use wicketgate_lab::{Agent, End, Namespace, Site};

use crate::harness::{
    PATIENCE, World,
    bulk::source,
    door,
    targets::{connect, serve},
};

/// The size of a download, in bytes: more than fits into all buffers on the way.
const OBJECT: usize = 1 << 20;
/// The rate of a slow line, in bytes a second, and as `tc` writes it.
const RATE: usize = 32_000;
const LINE: &str = "256kbit";
/// A line on which what the gateway holds takes seconds, but less than it has after a stop.
const SLOWEST: &str = "80kbit";
/// What a target beside the agent's host may have got rid of, and a client on such a line not received: 0.46 MB. It is 0.79 MB if the
/// target is told of the kernel's first window.
const AHEAD: usize = 600 << 10;
/// What fits into the gateway's buffers for one connection.
const HELD: usize = 32 << 10;
/// What the slow reader reads at a time, and how often: 100 KiB a second.
const PIECE: usize = 10 << 10;
const EVERY: Duration = Duration::from_millis(100);

struct Scene {
    world: World,
    tunnel: Value,
    zid: String,
    site: Site,
    _agent: Agent,
}

impl Scene {
    fn set() -> Result<Self> {
        let world = World::with_sites(1).start()?;
        let (agent, zid) = world.agent("agent")?;
        let tunnel = world.tunnel(0)?;
        let site = world.connected_site(0, &tunnel)?;
        Ok(Self { world, tunnel, zid, site, _agent: agent })
    }

    fn share(&self, n: u16) -> Result<Value> {
        self.world.share(
            &format!("share-{n}"),
            &self.tunnel,
            &self.zid,
            self.world.target(7000 + n),
            9000 + n,
        )
    }

    fn connect(&self, n: u16) -> Result<TcpStream> {
        connect(&self.site.namespace, door(&self.tunnel, 9000 + n)?, PATIENCE)
    }

    /// Limits the line to the site, with a queue of 400 ms.
    fn slow_down(&self, rate: &str) -> Result<()> {
        let internet = self.world.internet.as_ref().context("no internet")?;
        let tbf = [
            "qdisc", "add", "dev", "site0", "root", "tbf", "rate", rate, "burst", "3000", "latency", "400ms",
        ];
        let status = internet.command("tc").args(tbf).status()?;
        ensure!(status.success(), "tc: {status}");
        Ok(())
    }
}

#[test]
fn a_download_from_a_server_that_closes_is_complete_on_a_slow_line_and_for_a_slow_reader() -> Result<()> {
    let scene = Scene::set()?;
    source(&scene.world.private, scene.world.target(7001), OBJECT as u64)?;
    let share = scene.share(1)?;
    // Less than the line or the reader takes for what the kernel holds.
    scene.world.patch(&share, &json!({"idleTimeoutSeconds": 3}))?;

    let mut client = scene.connect(1)?;
    socket2::SockRef::from(&client).set_recv_buffer_size(2 * PIECE)?;
    let (began, mut got, mut piece) = (Instant::now(), 0, [0; PIECE]);
    loop {
        match client.read(&mut piece).with_context(|| format!("after {got} bytes"))? {
            0 => break,
            n => got += n,
        }
        thread::sleep(EVERY);
    }
    ensure!(got == OBJECT, "the slow reader received {got} bytes");
    ensure!(began.elapsed() > Duration::from_secs(5), "it was not slow: {:?}", began.elapsed());

    scene.slow_down(LINE)?;
    let (began, mut all) = (Instant::now(), Vec::new());
    let read = scene.connect(1)?.read_to_end(&mut all);
    read.with_context(|| format!("after {} bytes and {:?}", all.len(), began.elapsed()))?;
    ensure!(all.len() == OBJECT, "{} bytes arrived over the slow line", all.len());
    let least = Duration::from_secs((OBJECT / RATE / 2) as u64);
    ensure!(began.elapsed() > least, "the line was not slow: {:?}", began.elapsed());
    scene.world.end()
}

#[test]
fn a_target_gets_rid_of_little_that_a_slow_line_has_not_delivered() -> Result<()> {
    let scene = Scene::set()?;
    let written = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&written);
    let host = scene.world.lab.namespace("target")?;
    Namespace::link(End(&scene.world.private, "lan", "10.88.0.1/24"), End(&host, "lan", "10.88.0.2/24"))?;
    serve(&host, "10.88.0.2:7001".parse()?, move |mut stream| {
        // Linux's default. BBR's buffer follows the rate of the network in between.
        let _ = socket2::SockRef::from(&stream).set_tcp_congestion(b"cubic");
        while stream.write_all(&[7; 1 << 10]).is_ok() {
            counter.fetch_add(1 << 10, Ordering::Relaxed);
        }
    })?;
    scene.world.share("share-1", &scene.tunnel, &scene.zid, "10.88.0.2:7001".parse()?, 9001)?;
    scene.slow_down(LINE)?;
    let mut client = scene.connect(1)?;
    // Seconds, in which all buffers on the way fill.
    let mut got = vec![0; 4 * RATE];
    client.read_exact(&mut got)?;
    let ahead = written.load(Ordering::Relaxed) - got.len();
    ensure!(ahead < AHEAD, "{ahead} bytes are ahead of the client");
    drop(client);
    scene.world.end()
}

#[test]
fn a_gateway_that_stops_delivers_what_it_has_received_before_it_resets_a_connection() -> Result<()> {
    let mut scene = Scene::set()?;
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    serve(&scene.world.private, scene.world.target(7001), move |mut stream| {
        let _ = stream.write_all(&[7; HELD]);
        // It stays open: nobody has ended.
        let _ = released.lock().map(|released| released.recv());
        let _ = stream.shutdown(Shutdown::Both);
    })?;
    let share = scene.share(1)?;
    scene.world.gateway.process.stop(PATIENCE)?;
    scene.world.restart_with("--drain 0")?;
    scene.world.gateway.deployed(&scene.world.lab, "ipsec-shares", crate::harness::text(&share, "id")?)?;
    scene.slow_down(SLOWEST)?;

    let mut client = scene.connect(1)?;
    scene.world.carried(&share, |sum| sum("tx") == HELD as u64)?;
    let pid = i32::try_from(scene.world.gateway.process.pid()).ok().and_then(Pid::from_raw);
    kill_process(pid.context("no process id")?, Signal::TERM)?;
    let mut all = Vec::new();
    let end = client.read_to_end(&mut all).map_err(|error| error.kind());
    ensure!(all.len() == HELD, "{} of {HELD} bytes arrived before {end:?}", all.len());
    ensure!(end == Err(ErrorKind::ConnectionReset), "a connection that was cut looks complete: {end:?}");
    let status = scene.world.gateway.process.wait(PATIENCE)?;
    ensure!(status.success(), "{status}\n{}", scene.world.gateway.process.tail());
    drop(release);
    scene.world.restart()?;
    scene.world.end()
}
