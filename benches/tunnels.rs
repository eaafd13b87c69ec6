//! Many tunnels on one gateway: the time of a cold start, the private memory of each tunnel, the time to create one
//! more, the idle processor time, and the time until a restarted gateway listens again. It uses real IKE daemons with
//! ESP in user space. One strongSwan with as many connections stands for all sites. `make bench` runs it as root.

use std::{
    fs,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::{Agent, AgentOptions, End, GatewayOptions, GatewayProcess, Lab, Namespace, Site};

/// The number of tunnels of the gateway.
const TUNNELS: u16 = 200;
/// The tunnels that are created one after the other in addition.
const MORE: u16 = 5;

/// The targets that the run must meet.
const COLD: Duration = Duration::from_secs(60);
const MEMORY_KIB: u64 = 6 * 1024;
const ONE_MORE: Duration = Duration::from_millis(300);
const LISTENS: Duration = Duration::from_secs(1);

/// A step that takes longer has failed.
const BOUND: Duration = Duration::from_secs(180);
/// The pause between two checks.
const LOOK: Duration = Duration::from_millis(5);
/// The time in which all tunnels come to rest after the last change: a changed tunnel is checked again within 30 s.
const SETTLE: Duration = Duration::from_secs(40);
/// The time for which the idle processor time is measured.
const IDLE: Duration = Duration::from_secs(30);

const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
const AGENTS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(GATEWAY), 7443);
const PORT: u16 = 9000;

/// The kernel's clock ticks per second (USER_HZ), which are the same on all supported platforms.
const TICKS: f64 = 100.0;

fn main() -> Result<()> {
    let home = Path::new("/var/lib/wicketgate-bench");
    fs::create_dir_all(home).context("run as root: the benchmark makes network namespaces")?;
    let lab = Lab::new("wgmany-", &home.join("tunnels"), Arc::default())?;
    let (outside, sites) = (lab.namespace("gw")?, lab.namespace("sites")?);
    let (near, far) = (format!("{GATEWAY}/24"), format!("{ROUTER}/24"));
    Namespace::link(End(&outside, "wan", &near), End(&sites, "wan", &far))?;
    outside.ip(&format!("route add default via {ROUTER}"))?;
    let addresses: Vec<_> = (0..TUNNELS).map(|n| format!("addr add {}/32 dev lo", peer(n))).collect();
    sites.ip(&addresses.join("\n"))?;

    let executable = Path::new(env!("CARGO_BIN_EXE_wicketgate"));
    let options = GatewayOptions::measured(executable, &outside, AGENTS, Some(GATEWAY));
    let mut gateway = GatewayProcess::start(&lab, &options)?;
    let alone = private_kib(gateway.process.pid())?;
    for n in 0..TUNNELS {
        create(&gateway, n)?;
    }
    all_are_deployed(&lab, &gateway)?;

    // Only the database remains, as after a restart of the host.
    gateway.process.stop(BOUND)?;
    let down = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{}", outside.name()))
        .arg(executable)
        .args(["down", "--data-dir"])
        .arg(&gateway.data)
        .output()?;
    ensure!(down.status.success(), "wicketgate down: {}", String::from_utf8_lossy(&down.stderr));
    ensure!(daemons(&gateway.data)?.is_empty(), "IKE daemons remain after `wicketgate down`");
    let begin = Instant::now();
    gateway = GatewayProcess::start(&lab, &options)?;
    all_are_deployed(&lab, &gateway)?;
    let cold = begin.elapsed();

    let mut more = Vec::new();
    for n in TUNNELS..TUNNELS + MORE {
        let begin = Instant::now();
        let made = create(&gateway, n)?;
        let path =
            gateway.at(&format!("ipsec-tunnels/{}", made["id"].as_str().context("the tunnel has no id")?));
        while gateway.api.get(&path)?["status"] != "DEPLOYED" {
            ensure!(
                begin.elapsed() < BOUND,
                "the additional tunnel was not deployed\n{}",
                gateway.process.tail()
            );
            thread::sleep(LOOK);
        }
        more.push(begin.elapsed());
    }
    more.sort_unstable();
    let one_more = more.get(more.len() / 2).copied().context("no additional tunnel was measured")?;

    thread::sleep(SETTLE);
    let unconnected = idle(&gateway)?;

    // All sites connect, and one has a share.
    let agent = executable.with_file_name("wicketgate-agent");
    ensure!(agent.exists(), "{} is not built: run `make bench`", agent.display());
    let agent = AgentOptions::measured(&agent, &outside, AGENTS);
    let (_agent, zid) = Agent::enrol(&lab, &agent, &gateway)?;
    let tunnels = gateway.list("ipsec-tunnels")?;
    let first = tunnels.first().context("the gateway has no tunnel")?;
    gateway.share(&lab, "bench", first, &zid, "127.0.0.1:7001", PORT)?;
    let mut device = Site::new(&lab, "device", &sites, peer(0), INSIDE)?;
    device.start(&lab, &configuration(&gateway, &tunnels)?)?;
    let connected = gateway.at("ipsec-tunnels?connection.state=UP&size=1");
    lab.until("all sites are connected", BOUND, || {
        Ok((gateway.api.get(&connected)?["totalElements"] == TUNNELS).then_some(()))
    })?;
    thread::sleep(SETTLE);
    let idle = idle(&gateway)?;
    let own = daemons(&gateway.data)?;
    let count = u64::try_from(own.len())?;
    let theirs = own.iter().map(|pid| private_kib(*pid)).sum::<Result<u64>>()? / count;
    let ours = private_kib(gateway.process.pid())?.saturating_sub(alone) / count;

    let door: SocketAddr = (address(first, "loadBalancerIp")?, PORT).into();
    gateway.process.stop(BOUND)?;
    let (mut command, _) = GatewayProcess::command(&lab, &options)?;
    let begin = Instant::now();
    let mut again = wicketgate_lab::Process::start(&lab, "again", &mut command, &lab.path("again.log"))?;
    let listens = sites.enter(|| -> Result<Duration> {
        while begin.elapsed() < BOUND {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            socket.bind(&SocketAddr::from((INSIDE, 0)).into())?;
            if socket.connect_timeout(&door.into(), Duration::from_secs(1)).is_ok() {
                return Ok(begin.elapsed());
            }
            thread::sleep(LOOK);
        }
        anyhow::bail!("the restarted gateway does not listen")
    })??;

    let mut out = io::stdout();
    writeln!(out, "{TUNNELS} tunnels on one gateway:")?;
    writeln!(out, "  all DEPLOYED after a cold start   {cold:.1?} (target: within {COLD:?})")?;
    writeln!(
        out,
        "  own memory of each, connected     {} KiB: {theirs} of its daemon, {ours} of the gateway (target: {MEMORY_KIB})",
        theirs + ours
    )?;
    writeln!(out, "  one more, from POST to DEPLOYED   {one_more:.0?} (target: under {ONE_MORE:?})")?;
    writeln!(out, "  idle, no peer connected           {unconnected} of processor a minute")?;
    writeln!(out, "  idle, all connected, with DPD     {idle} of processor a minute")?;
    writeln!(out, "  a restarted gateway listens after {listens:.2?} (target: within {LISTENS:?})")?;
    again.stop(BOUND)?;
    device.stop()?;
    lab.remove()?;
    ensure!(
        cold <= COLD && theirs + ours <= MEMORY_KIB && one_more < ONE_MORE && listens <= LISTENS,
        "the targets were missed"
    );
    Ok(())
}

fn peer(n: u16) -> Ipv4Addr {
    let [high, low] = n.to_be_bytes();
    Ipv4Addr::new(203, 0, 112 + high, low)
}

fn create(gateway: &GatewayProcess, n: u16) -> Result<Value> {
    let body = json!({"name": format!("site-{n}"), "locationId": "local", "peerPublicIp": peer(n).to_string(),
        "peerCidr": "10.0.0.0/16", "peerId": format!("site-{n}.example.org")});
    gateway.api.post(&gateway.at("ipsec-tunnels"), &body)
}

fn all_are_deployed(lab: &Lab, gateway: &GatewayProcess) -> Result<()> {
    let deployed = gateway.at("ipsec-tunnels?status=DEPLOYED&size=1");
    lab.until("all are deployed", BOUND, || {
        // Right after a start, the statuses in the database may be those of the previous run.
        let are_there = daemons(&gateway.data)?.len() >= usize::from(TUNNELS);
        Ok((are_there && gateway.api.get(&deployed)?["totalElements"] == TUNNELS).then_some(()))
    })
    .with_context(|| gateway.process.tail())
}

/// The configuration of the sites' strongSwan: each tunnel's own, with the site's address as the local address.
fn configuration(gateway: &GatewayProcess, tunnels: &[Value]) -> Result<String> {
    let mut whole = String::new();
    for tunnel in tunnels.iter().take(usize::from(TUNNELS)) {
        let id = tunnel["id"].as_str().context("the tunnel has no id")?;
        let path = gateway.at(&format!("ipsec-tunnels/{id}/vpn-config?format=strongswan"));
        let from = format!("local_addrs = {}\n    remote_addrs", address(tunnel, "peerPublicIp")?);
        whole.push_str(&gateway.api.text(&path)?.replacen("remote_addrs", &from, 1));
    }
    Ok(whole)
}

fn address(tunnel: &Value, name: &str) -> Result<Ipv4Addr> {
    Ok(tunnel[name].as_str().with_context(|| format!("no {name}"))?.parse()?)
}

/// The process ids of the gateway's IKE daemons whose VICI socket exists.
fn daemons(data: &Path) -> Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir(data.join("gateway/tunnels"))? {
        let dir: PathBuf = entry?.path();
        if dir.join("run/charon.vici").exists() {
            pids.extend(
                fs::read_to_string(dir.join("pid")).ok().and_then(|pid| pid.trim().parse::<u32>().ok()),
            );
        }
    }
    Ok(pids)
}

/// The private dirty memory of a process in KiB.
fn private_kib(pid: u32) -> Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line =
        rollup.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).context("no Private_Dirty")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// Processor time in seconds.
struct Cost {
    gateway: f64,
    daemons: f64,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:.2} s: {:.2} of the gateway, {:.2} of all daemons",
            self.gateway + self.daemons,
            self.gateway,
            self.daemons
        )
    }
}

/// The processor seconds per minute of the gateway and its daemons, measured for half a minute.
fn idle(gateway: &GatewayProcess) -> Result<Cost> {
    let pids = daemons(&gateway.data)?;
    let read = || -> Result<(f64, f64)> {
        Ok((seconds(gateway.process.pid())?, pids.iter().map(|pid| seconds(*pid)).sum::<Result<f64>>()?))
    };
    let begin = Instant::now();
    let before = read()?;
    thread::sleep(IDLE);
    let after = read()?;
    let minutes = begin.elapsed().as_secs_f64() / 60.0;
    Ok(Cost { gateway: (after.0 - before.0) / minutes, daemons: (after.1 - before.1) / minutes })
}

/// The processor seconds of a process, including the child processes that it has waited for.
fn seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("the stat file has no process name")?;
    // utime, stime, cutime, cstime (proc(5)).
    let times = fields.split_whitespace().skip(11).take(4);
    Ok(times.map(str::parse::<f64>).sum::<Result<f64, _>>()? / TICKS)
}
