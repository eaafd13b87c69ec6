//! The time from the POST of a share to the first byte through it, with one connected agent on loopback without IPsec,
//! so that only the control plane is measured. `make bench` runs it as root.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::{Agent, AgentOptions, GatewayOptions, GatewayProcess, Lab};

/// The number of shares that are measured.
const SHARES: u16 = 200;
/// The targets that the run must meet.
const MEDIAN: Duration = Duration::from_millis(100);
const P99: Duration = Duration::from_millis(300);

/// A share that takes longer has failed.
const BOUND: Duration = Duration::from_secs(10);

/// The pause between two attempts to connect until the listener is bound.
const LOOK: Duration = Duration::from_millis(1);

const FIRST_PORT: u16 = 10_000;
const TARGET: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 7001);

fn main() -> Result<()> {
    // If a run is killed, the next one removes the remains in this directory.
    let home = Path::new("/var/lib/wicketgate-bench");
    fs::create_dir_all(home).context("run as root: the benchmark makes a network namespace")?;
    let lab = Lab::new("wgbench-", &home.join("provision"), Arc::default())?;
    let namespace = lab.namespace("gw")?;
    let executable = Path::new(env!("CARGO_BIN_EXE_wicketgate"));
    let agents: SocketAddr = (Ipv4Addr::LOCALHOST, 7443).into();
    let gateway =
        GatewayProcess::start(&lab, &GatewayOptions::measured(executable, &namespace, agents, None))?;
    let agent = executable.with_file_name("wicketgate-agent");
    ensure!(agent.exists(), "{} is not built: run `make bench`", agent.display());
    let options = AgentOptions::measured(&agent, &namespace, agents);
    let (_agent, zid) = Agent::enrol(&lab, &options, &gateway)?;
    let tunnel = gateway.tunnel(&lab, "bench", Ipv4Addr::new(203, 0, 113, 2), "10.0.0.0/16")?;
    let address: Ipv4Addr =
        tunnel["loadBalancerIp"].as_str().context("the tunnel has no loadBalancerIp")?.parse()?;

    // All threads are started inside the namespace and stay in it.
    let mut times = namespace.enter(|| -> Result<Vec<Duration>> {
        let listener = std::net::TcpListener::bind(TARGET)?;
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.write_all(b"!");
            }
        });
        (0..SHARES).map(|n| share(&gateway, &tunnel, &zid, address, FIRST_PORT + n)).collect()
    })??;

    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    let (median, p99, worst) = (at(50), at(99), at(100));
    let mut out = io::stdout();
    writeln!(out, "POST of a share to its first byte, {SHARES} shares one after the other:")?;
    writeln!(out, "  median {median:.1?} (target: under {MEDIAN:?})")?;
    writeln!(out, "  p99    {p99:.1?} (target: under {P99:?})")?;
    writeln!(out, "  worst  {worst:.1?}")?;
    lab.remove()?;
    ensure!(median < MEDIAN && p99 < P99, "the targets were missed");
    Ok(())
}

fn share(
    gateway: &GatewayProcess,
    tunnel: &Value,
    zid: &str,
    address: Ipv4Addr,
    port: u16,
) -> Result<Duration> {
    let target = SocketAddr::from(TARGET).to_string();
    let body = json!({"name": format!("share-{port}"), "ipsecTunnelId": tunnel["id"], "envZId": zid,
        "target": target, "ingressPort": port});
    let begin = Instant::now();
    gateway.api.post(&gateway.at("ipsec-shares"), &body)?;
    while begin.elapsed() < BOUND {
        if first_byte((address, port).into()).is_ok() {
            return Ok(begin.elapsed());
        }
        thread::sleep(LOOK);
    }
    anyhow::bail!("share {port} did not work within {BOUND:?}\n{}", gateway.process.tail())
}

fn first_byte(to: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, BOUND)?;
    stream.set_read_timeout(Some(BOUND))?;
    Ok(stream.read_exact(&mut [0])?)
}
