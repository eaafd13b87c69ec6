//! A real tunnel with ESP in user space: the throughput of a share compared with that of the tunnel itself.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use wicketgate_lab::{
    Agent, AgentOptions, End, GatewayOptions, GatewayProcess, Lab, Namespace, Process, Site,
};

use crate::{
    HOME, Plan,
    peers::{DIRECT, OURS, executables},
    report::{Aim, Report},
};

/// The site's public address.
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The agent's host.
const AGENTS_HOST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// The target's address, on a host beside the agent's.
pub(crate) const PRIVATE: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 2);
/// The client's address.
pub(crate) const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
const AGENTS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(GATEWAY), 7443);
/// The port of the servers, both directly in the tunnel and behind the share.
pub(crate) const STRAIGHT: u16 = 5201;
/// The ingress port of the share.
pub(crate) const SHARE: u16 = 9001;
/// The longest wait for the tunnel, and for each iperf3 beyond its measuring time.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

/// A gateway, an agent and a site with a tunnel, each in a namespace of its own, and a share.
pub(crate) struct Installation {
    gateway: GatewayProcess,
    _agent: Agent,
    device: Site,
    pub(crate) site: Namespace,
    /// The agent's host.
    pub(crate) agents: Namespace,
    /// The host of the target.
    pub(crate) private: Namespace,
    /// The tunnel's namespace, which has the load balancer's address.
    pub(crate) inside: Namespace,
    pub(crate) load_balancer: Ipv4Addr,
}

impl Installation {
    /// `congestion`: the congestion control of all hosts; `None`: the machine's. `site_link` connects the site's namespace, with the address [`PEER`], to that of the Internet, with its first argument.
    pub(crate) fn start(
        lab: &Lab,
        congestion: Option<&str>,
        site_link: impl FnOnce(&Namespace, Ipv4Addr, &Namespace) -> Result<()>,
    ) -> Result<Self> {
        let [net, outside, agents, private, site] =
            ["net", "gw", "agents", "private", "site"].map(|name| lab.namespace(name));
        let (net, outside, agents, private, site) = (net?, outside?, agents?, private?, site?);
        net.sysctl("net/ipv4/ip_forward", "1")?;
        let control = |namespace: &Namespace| {
            congestion.map_or(Ok(()), |name| namespace.sysctl("net/ipv4/tcp_congestion_control", name))
        };
        for namespace in [&outside, &agents, &private, &site] {
            control(namespace)?;
        }
        for (namespace, name, address) in [(&outside, "gw", GATEWAY), (&agents, "agents", AGENTS_HOST)] {
            link(&net, namespace, name, address)?;
        }
        let (near, far) = (format!("{}/24", hop(PRIVATE)), format!("{PRIVATE}/24"));
        Namespace::link(End(&agents, "lan", &near), End(&private, "lan", &far))?;
        site_link(&net, hop(PEER), &site)?;
        let (executable, agent) = executables()?;
        let options = GatewayOptions::measured(&executable, &outside, AGENTS, Some(GATEWAY));
        let gateway = GatewayProcess::start(lab, &options)?;
        let options = AgentOptions::measured(&agent, &agents, AGENTS);
        let (agent, zid) = Agent::enrol(lab, &options, &gateway)?;
        let tunnel = gateway.tunnel(lab, "bench", PEER, "10.0.0.0/16")?;
        let id = tunnel["id"].as_str().context("the tunnel has no id")?;
        let ip = tunnel["loadBalancerIp"].as_str().context("the tunnel has no loadBalancerIp")?;
        let config = gateway.at(&format!("ipsec-tunnels/{id}/vpn-config?format=strongswan"));
        let mut device = Site::new(lab, "charon", &site, PEER, INSIDE)?;
        device.start(lab, &gateway.api.text(&config)?)?;
        device.connected(lab, BOUND)?;
        gateway.share(lab, "bench", &tunnel, &zid, &format!("{PRIVATE}:{STRAIGHT}"), SHARE)?;
        let (inside, load_balancer) = (holder(&outside, ip)?, ip.parse()?);
        // The gateway made it: it has the machine's.
        control(&inside)?;
        Ok(Self { gateway, _agent: agent, device, site, agents, private, inside, load_balancer })
    }

    pub(crate) fn stop(mut self, lab: &Lab) -> Result<()> {
        self.device.stop()?;
        self.gateway.clear(lab, BOUND)
    }
}

/// The router's address in the network of `address`.
fn hop(address: Ipv4Addr) -> Ipv4Addr {
    let [a, b, c, _] = address.octets();
    Ipv4Addr::new(a, b, c, 1)
}

/// Connects a namespace to the Internet.
fn link(net: &Namespace, namespace: &Namespace, name: &str, address: Ipv4Addr) -> Result<()> {
    let (near, far) = (format!("{}/24", hop(address)), format!("{address}/24"));
    Namespace::link(End(net, name, &near), End(namespace, "wan", &far))?;
    namespace.ip(&format!("route add default via {}", hop(address)))
}

pub(crate) fn tunnel(plan: &Plan, report: &mut Report) -> Result<()> {
    let lab = Lab::new("wgesp-", &Path::new(HOME).join("tunnel"), Arc::default())?;
    let installation = Installation::start(&lab, None, |net, _, site| link(net, site, "site", PEER))?;
    let Installation { site, private, inside, load_balancer, .. } = &installation;
    let ip = &load_balancer.to_string();
    let _servers =
        [server(&lab, inside, "straight", ip)?, server(&lab, private, "behind", &PRIVATE.to_string())?];
    for _ in 0..plan.rounds {
        for (way, reverse) in [("up", false), ("down", true)] {
            for (peer, port) in [(DIRECT, STRAIGHT), (OURS, SHARE)] {
                let gbit = iperf(site, ip, port, reverse, plan.time(6.0))?;
                let name = format!("through a tunnel, {way}, Gbit/s");
                report.note(&name, &[Aim::AtLeast(0.9, DIRECT)], peer, gbit);
            }
        }
    }
    installation.stop(&lab)?;
    lab.remove()
}

/// Finds the tunnel's namespace, which has the load balancer's address.
fn holder(outside: &Namespace, ip: &str) -> Result<Namespace> {
    let run = |args: &[&str]| -> Result<String> {
        let out = Command::new("ip").args(args).output().context("can't run ip")?;
        ensure!(out.status.success(), "ip: {}", String::from_utf8_lossy(&out.stderr));
        Ok(String::from_utf8(out.stdout)?)
    };
    let links = run(&["-n", outside.name(), "-o", "link", "show"])?;
    for name in links.lines().filter_map(|l| l.split("link-netns ").nth(1)?.split_whitespace().next()) {
        if run(&["-n", name, "-o", "addr", "show"])?.contains(&format!(" {ip}/")) {
            return Namespace::open(name);
        }
    }
    bail!("no namespace has {ip}")
}

fn server(lab: &Lab, namespace: &Namespace, name: &str, ip: &str) -> Result<Process> {
    let mut command = namespace.command("iperf3");
    command.args(["--server", "--forceflush", "--bind", ip, "--port", &STRAIGHT.to_string()]);
    let log = lab.dir("log")?.join(format!("iperf3-{name}.log"));
    let mut process = Process::start(lab, "iperf3", &mut command, &log)?;
    lab.until("iperf3 listens", BOUND, || {
        process.alive()?;
        Ok(process.said().contains("listening").then_some(()))
    })?;
    Ok(process)
}

/// Measures one stream, and returns the throughput at the receiving end in Gbit/s.
fn iperf(from: &Namespace, ip: &str, port: u16, reverse: bool, time: Duration) -> Result<f64> {
    let mut command = from.command("timeout");
    let seconds = time.as_secs().max(1).to_string();
    command.args([&(time + BOUND).as_secs().to_string(), "iperf3", "--json", "--bind", &INSIDE.to_string()]);
    command.args(["--client", ip, "--port", &port.to_string(), "--time", &seconds, "--omit", "1"]);
    if reverse {
        command.arg("--reverse");
    }
    let mut last = String::new();
    // The server is not ready for the next client at once.
    for _ in 0..10 {
        let out = command
            .stdin(Stdio::null())
            .output()
            .context("can't run iperf3: packaging/install-packages.sh bench installs it")?;
        let said: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
        if let Some(bits) = said["end"]["sum_received"]["bits_per_second"].as_f64().filter(|b| *b > 0.0) {
            return Ok(bits / 1e9);
        }
        last = format!("{} {}", said["error"], String::from_utf8_lossy(&out.stderr).trim());
        thread::sleep(Duration::from_millis(300));
    }
    bail!("iperf3 to port {port}: {last}")
}
