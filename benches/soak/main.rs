//! What grows while the product runs: steady traffic of three sites over IPsec, and beside it shares, tunnels and agents that come
//! and go, rekeys and backups. `make soak` runs it as root for ten minutes, or `SECONDS=…`, and prints the slope of what the gateway
//! and its agent hold, after a warm-up. It fails if a byte was wrong, a connection failed, or something grows that should not.

mod churn;
mod slope;
mod traffic;

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use churn::Churn;
use serde_json::{Value, json};
use slope::{Growth, Series};
use traffic::Traffic;
use wicketgate_lab::{Agent, AgentOptions, End, GatewayOptions, GatewayProcess, Lab, Namespace, Site};

/// Sites that are connected the whole time.
const SITES: u16 = 3;
/// The first part of the time does not count: caches fill, and allocators reach their size.
const WARM_UP: f64 = 0.35;
/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);
const BOUND: Duration = Duration::from_secs(90);

const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
const AGENTS: SocketAddr = SocketAddr::new(IpAddr::V4(GATEWAY), 7443);
const TARGET: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7001);
const PORT: u16 = 9000;

fn main() -> Result<()> {
    let lasts = Duration::from_secs(env::var("SOAK_SECONDS").map_or(Ok(600), |text| text.parse())?);
    let home = Path::new("/var/lib/wicketgate-bench");
    fs::create_dir_all(home).context("run as root: the soak makes network namespaces")?;
    let ends = Arc::new(AtomicBool::new(false));
    let lab = Lab::new("wgsoak-", &home.join("soak"), Arc::default())?;
    let (outside, sites) = network(&lab)?;
    let executable = Path::new(env!("CARGO_BIN_EXE_wicketgate"));
    let gateway =
        GatewayProcess::start(&lab, &GatewayOptions::measured(executable, &outside, AGENTS, Some(GATEWAY)))?;
    let agent_executable = executable.with_file_name("wicketgate-agent");
    ensure!(agent_executable.exists(), "{} is not built: run `make soak`", agent_executable.display());
    let options = AgentOptions::measured(&agent_executable, &outside, AGENTS);
    let (agent, zid) = Agent::enrol(&lab, &options, &gateway)?;
    let echo = Arc::clone(&ends);
    let listener = outside.listen(TARGET)?;
    thread::spawn(move || traffic::echo(&listener, &echo));
    let tunnels = tunnels(&lab, &gateway, &zid)?;
    let mut device = Site::new(&lab, "device", &sites, peer(0), INSIDE)?;
    device.start(&lab, &configuration(&gateway, &tunnels)?)?;
    let up = gateway.at("ipsec-tunnels?connection.state=UP&size=1");
    lab.until("all sites are connected", BOUND, || {
        Ok((gateway.api.get(&up)?["totalElements"] == SITES).then_some(()))
    })?;

    let traffic = Traffic::start(&sites, &doors(&tunnels)?, &ends);
    let churn =
        Churn { lab: &lab, gateway: &gateway, agent: options, zid: &zid, tunnels: &tunnels, ends: &ends };
    let looks = thread::scope(|scope| {
        let changes = scope.spawn(|| churn.run());
        let looks = watch(&gateway, &agent, lasts);
        ends.store(true, Ordering::Relaxed);
        let counts = changes.join().map_err(|_| anyhow::anyhow!("the churn panicked"))??;
        Ok::<_, anyhow::Error>((looks?, counts))
    });
    let carried = traffic.end();
    let (series, counts) = looks.with_context(|| gateway.process.tail())?;
    report(lasts, &series, (&carried, &counts))?;
    device.stop()?;
    drop(agent);
    lab.remove()?;
    let growing: Vec<_> =
        series.iter().filter(|(_, series)| series.growth(WARM_UP) == Growth::Grows).collect();
    ensure!(carried.failed == 0, "{} connections failed: {}", carried.failed, carried.first_failure);
    ensure!(growing.is_empty(), "something grows that should not");
    Ok(())
}

fn network(lab: &Lab) -> Result<(Namespace, Namespace)> {
    let (outside, sites) = (lab.namespace("gw")?, lab.namespace("sites")?);
    let (near, far) = (format!("{GATEWAY}/24"), format!("{ROUTER}/24"));
    Namespace::link(End(&outside, "wan", &near), End(&sites, "wan", &far))?;
    outside.ip(&format!("route add default via {ROUTER}"))?;
    let addresses: Vec<_> = (0..SITES).map(|n| format!("addr add {}/32 dev lo", peer(n))).collect();
    sites.ip(&addresses.join("\n"))?;
    Ok((outside, sites))
}

fn peer(n: u16) -> Ipv4Addr {
    let [high, low] = n.to_be_bytes();
    Ipv4Addr::new(203, 0, 112 + high, low)
}

fn tunnel(gateway: &GatewayProcess, lab: &Lab, n: u16) -> Result<Value> {
    let body = json!({"name": format!("site-{n}"), "locationId": "local", "peerPublicIp": peer(n).to_string(),
        "peerCidr": "10.0.0.0/16", "peerId": format!("site-{n}.example.org")});
    let made = gateway.api.post(&gateway.at("ipsec-tunnels"), &body)?;
    gateway.deployed(lab, "ipsec-tunnels", made["id"].as_str().context("no id")?)
}

fn tunnels(lab: &Lab, gateway: &GatewayProcess, zid: &str) -> Result<Vec<Value>> {
    let made = (0..SITES).map(|n| {
        let tunnel = tunnel(gateway, lab, n)?;
        gateway.share(lab, &format!("steady-{n}"), &tunnel, zid, &TARGET.to_string(), PORT)?;
        Ok(tunnel)
    });
    made.collect()
}

/// Each tunnel's own configuration, with the site's address as the local address.
fn configuration(gateway: &GatewayProcess, tunnels: &[Value]) -> Result<String> {
    let mut whole = String::new();
    for tunnel in tunnels {
        let id = tunnel["id"].as_str().context("no id")?;
        let path = gateway.at(&format!("ipsec-tunnels/{id}/vpn-config?format=strongswan"));
        let from = format!(
            "local_addrs = {}\n    remote_addrs",
            tunnel["peerPublicIp"].as_str().context("no peer")?
        );
        whole.push_str(&gateway.api.text(&path)?.replacen("remote_addrs", &from, 1));
    }
    Ok(whole)
}

fn doors(tunnels: &[Value]) -> Result<Vec<SocketAddr>> {
    let door = |tunnel: &Value| {
        let address: Ipv4Addr = tunnel["loadBalancerIp"].as_str().context("no address")?.parse()?;
        Ok(SocketAddr::from((address, PORT)))
    };
    tunnels.iter().map(door).collect()
}

/// Looks at the processes until the time is over.
fn watch(gateway: &GatewayProcess, agent: &Agent, lasts: Duration) -> Result<BTreeMap<&'static str, Series>> {
    let begin = Instant::now();
    let mut all: BTreeMap<&'static str, Series> = BTreeMap::new();
    while begin.elapsed() < lasts {
        thread::sleep(LOOK);
        let (at, up, agent) = (begin.elapsed(), gateway.process.pid(), agent.process.pid());
        for (name, value, may_vary) in [
            ("gateway, private memory, KiB", private_kib(up)?, 2 * 1024),
            ("gateway, descriptors", entries(&format!("/proc/{up}/fd"))?, 24),
            ("gateway, threads", entries(&format!("/proc/{up}/task"))?, 12),
            ("agent, private memory, KiB", private_kib(agent)?, 1024),
            ("agent, descriptors", entries(&format!("/proc/{agent}/fd"))?, 24),
            ("network namespaces", entries("/run/netns")?, 2),
            (
                "directories of tunnels",
                entries(&gateway.data.join("gateway/tunnels").display().to_string())?,
                2,
            ),
        ] {
            all.entry(name).or_insert_with(|| Series::new(Some(may_vary))).add(at, value);
        }
        all.entry("rows of the database").or_insert_with(|| Series::new(None)).add(at, rows(gateway)?);
    }
    Ok(all)
}

fn entries(folder: &str) -> Result<u64> {
    Ok(u64::try_from(fs::read_dir(folder).with_context(|| folder.to_owned())?.count())?)
}

/// The private dirty memory of a process in KiB.
fn private_kib(pid: u32) -> Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line =
        rollup.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).context("no Private_Dirty")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// Those of a backup, which is made for it.
fn rows(gateway: &GatewayProcess) -> Result<u64> {
    let file = gateway.data.with_file_name("backup");
    let made = Command::new(env!("CARGO_BIN_EXE_wicketgate"))
        .arg("backup")
        .arg(&file)
        .arg("--data-dir")
        .arg(&gateway.data)
        .output()?;
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    ensure!(made.status.success(), "wicketgate backup: {said}");
    let rows = said.lines().find_map(|line| line.split_once(" rows in ")).context("no rows")?.0;
    Ok(rows.rsplit(' ').next().context("no rows")?.parse()?)
}

fn report(
    lasts: Duration,
    series: &BTreeMap<&'static str, Series>,
    (carried, counts): (&traffic::Carried, &churn::Counts),
) -> Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{} s; the first {:.0} % do not count", lasts.as_secs(), WARM_UP * 100.0)?;
    writeln!(
        out,
        "  {} connections of the sites with {} MiB, {} failed; {counts}",
        carried.connections,
        carried.bytes >> 20,
        carried.failed
    )?;
    for (name, series) in series {
        writeln!(out, "  {name:<32} {}", series.line(WARM_UP))?;
    }
    Ok(())
}
