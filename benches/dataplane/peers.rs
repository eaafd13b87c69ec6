//! The peers that are compared: a direct connection, this product, HAProxy (one hop, no encryption) and rathole (an
//! agent, TLS).

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use wicketgate_lab::{Agent, AgentOptions, GatewayOptions, GatewayProcess, Lab, Namespace, Process};

use crate::{load, peer::Peer, target::Targets};

/// The connection limit of each of this product's shares. The default is only a part of its tunnel's limit.
const MANY: u32 = 20_000;
/// The longest wait until a peer's ports accept connections.
const START: Duration = Duration::from_secs(20);

pub(crate) const DIRECT: &str = "direct";
pub(crate) const OURS: &str = "wicketgate";
pub(crate) const HAPROXY: &str = "haproxy";
pub(crate) const RATHOLE: &str = "rathole";

/// All peers, running.
pub(crate) struct Peers {
    pub(crate) all: Vec<Peer>,
    pub(crate) ours: Ours,
    _others: Vec<Process>,
}

/// The namespaces and the address of the product's processes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places<'a> {
    pub(crate) gateway: &'a Namespace,
    /// The namespace of the agent and of the targets.
    pub(crate) agent: &'a Namespace,
    /// The address that agents dial.
    pub(crate) agents: SocketAddr,
}

/// The product's processes.
pub(crate) struct Ours {
    _gateway: GatewayProcess,
    _agent: Agent,
    /// The address that agents dial.
    pub(crate) agents: SocketAddr,
}

impl Peers {
    /// Starts the peers in `names`, and always this product.
    pub(crate) fn start(
        lab: &Lab,
        namespace: &Namespace,
        targets: &Targets,
        names: &[&'static str],
    ) -> Result<Self> {
        let agents: SocketAddr = (Ipv4Addr::LOCALHOST, 7443).into();
        let places = Places { gateway: namespace, agent: namespace, agents };
        let (ours, peer) = Ours::start(lab, places, targets)?;
        let mut all = vec![peer];
        let mut others = Vec::new();
        for &name in names {
            match name {
                DIRECT => all.push(Peer {
                    name,
                    sink: targets.sink,
                    source: targets.source,
                    echo: targets.echo,
                    answer: targets.answer,
                    echoes: vec![targets.echo],
                    pids: Vec::new(),
                }),
                HAPROXY => {
                    let (process, peer) = haproxy(lab, namespace, targets)?;
                    others.push(process);
                    all.push(peer);
                }
                RATHOLE => {
                    let (processes, peer) = rathole(lab, namespace, targets)?;
                    others.extend(processes);
                    all.push(peer);
                }
                _ => {}
            }
        }
        for peer in &all {
            lab.until(&format!("{} answers", peer.name), START, || {
                load::round_trip(peer.echo)?;
                load::round_trip(peer.answer)?;
                load::connect(peer.sink)?;
                Ok(Some(load::connect(peer.source).map(drop)?))
            })?;
        }
        Ok(Self { all, ours, _others: others })
    }
}

impl Ours {
    pub(crate) fn start(lab: &Lab, places: Places<'_>, targets: &Targets) -> Result<(Self, Peer)> {
        let (executable, agent) = executables()?;
        let Places { gateway, agent: far, agents } = places;
        let options = GatewayOptions::measured(&executable, gateway, agents, None);
        let gateway = GatewayProcess::start(lab, &options)?;
        let options = AgentOptions::measured(&agent, far, agents);
        let (agent, zid) = Agent::enrol(lab, &options, &gateway)?;
        let tunnel = gateway.tunnel(lab, "bench", Ipv4Addr::new(203, 0, 113, 2), "10.0.0.0/16")?;
        let second = gateway.tunnel(lab, "second", Ipv4Addr::new(203, 0, 113, 3), "10.0.0.0/16")?;
        let share = |name, tunnel: &Value, target: SocketAddr, port| -> Result<SocketAddr> {
            let made = gateway.share(lab, name, tunnel, &zid, &target.to_string(), port)?;
            let id = made["id"].as_str().context("the answer has no id")?;
            let many = json!({ "maxConnections": MANY });
            gateway.api.patch(&gateway.at(&format!("ipsec-shares/{id}")), &many)?;
            gateway.deployed(lab, "ipsec-shares", id)?;
            let ip: Ipv4Addr =
                tunnel["loadBalancerIp"].as_str().context("the tunnel has no loadBalancerIp")?.parse()?;
            Ok((ip, port).into())
        };
        let echo = share("echo", &tunnel, targets.echo, 9003)?;
        let peer = Peer {
            name: OURS,
            sink: share("sink", &tunnel, targets.sink, 9001)?,
            source: share("source", &tunnel, targets.source, 9002)?,
            echo,
            answer: share("answer", &tunnel, targets.answer, 9004)?,
            // A tunnel may use half of its gateway's capacity.
            echoes: vec![echo, share("second", &second, targets.echo, 9003)?],
            pids: vec![gateway.process.pid(), agent.process.pid()],
        };
        Ok((Self { _gateway: gateway, _agent: agent, agents }, peer))
    }
}

/// The paths of `wicketgate` and `wicketgate-agent`: in the directory WICKETGATE_BIN, to measure another build, or else
/// built with the benchmark.
pub(crate) fn executables() -> Result<(PathBuf, PathBuf)> {
    let built = Path::new(env!("CARGO_BIN_EXE_wicketgate"));
    let executable = match std::env::var_os("WICKETGATE_BIN") {
        Some(dir) => Path::new(&dir).join("wicketgate"),
        None => built.to_owned(),
    };
    let agent = executable.with_file_name("wicketgate-agent");
    for file in [&executable, &agent] {
        ensure!(file.exists(), "{} is not built: run `make bench`", file.display());
    }
    Ok((executable, agent))
}

/// The targets of a peer that is configured with a name, a port and a target of each. `first`: of four ports.
fn named(targets: &Targets, first: u16) -> [(&'static str, SocketAddr, SocketAddr); 4] {
    let at = |n| SocketAddr::from((Ipv4Addr::LOCALHOST, first + n));
    [
        ("sink", at(0), targets.sink),
        ("source", at(1), targets.source),
        ("echo", at(2), targets.echo),
        ("answer", at(3), targets.answer),
    ]
}

fn peer(name: &'static str, ports: [(&str, SocketAddr, SocketAddr); 4], pids: Vec<u32>) -> Peer {
    let [sink, source, echo, answer] = ports.map(|(_, at, _)| at);
    Peer { name, sink, source, echo, answer, echoes: vec![echo], pids }
}

fn haproxy(lab: &Lab, namespace: &Namespace, targets: &Targets) -> Result<(Process, Peer)> {
    let ports = named(targets, 9101);
    let listeners: String = ports
        .iter()
        .map(|(name, on, to)| format!("listen {name}\n  bind {on} backlog 4096\n  server target {to}\n"))
        .collect();
    let process = start_haproxy(lab, namespace, &listeners)?;
    let peer = peer(HAPROXY, ports, vec![process.pid()]);
    Ok((process, peer))
}

/// HAProxy of Debian's package in TCP mode. By default, it uses one thread per core and as many connections as its
/// limit of descriptors permits.
pub(crate) fn start_haproxy(lab: &Lab, namespace: &Namespace, listeners: &str) -> Result<Process> {
    let defaults = "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n";
    let file = lab.dir("haproxy")?.join("haproxy.cfg");
    fs::write(&file, format!("{defaults}{listeners}"))?;
    let mut command = namespace.command("haproxy");
    command.args(["-db", "-f"]).arg(&file);
    Process::start(lab, HAPROXY, &mut command, &lab.dir("log")?.join("haproxy.log"))
        .context("haproxy is needed: packaging/install-packages.sh bench")
}

/// Rathole as `make bench` installs it, with OpenSSL's TLS and `TCP_NODELAY`.
fn rathole(lab: &Lab, namespace: &Namespace, targets: &Targets) -> Result<(Vec<Process>, Peer)> {
    let executable =
        std::env::var_os("RATHOLE").context("RATHOLE is not set to an executable: run `make bench`")?;
    let dir = lab.dir("rathole")?;
    let (key, certificate, bundle) =
        (dir.join("key.pem"), dir.join("certificate.pem"), dir.join("bundle.pfx"));
    openssl(&[
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ],
        &["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout"],
        &[&key.display().to_string(), "-out", &certificate.display().to_string()],
    ])?;
    openssl(&[
        &["pkcs12", "-export", "-passout", "pass:bench", "-inkey", &key.display().to_string()],
        &["-in", &certificate.display().to_string(), "-out", &bundle.display().to_string()],
    ])?;
    let ports = named(targets, 9201);
    let mut server = format!(
        "[server]\nbind_addr = \"127.0.0.1:9200\"\ndefault_token = \"bench\"\n[server.transport]\ntype = \"tls\"\n\
         [server.transport.tcp]\nnodelay = true\n[server.transport.tls]\npkcs12 = \"{}\"\npkcs12_password = \
         \"bench\"\n",
        bundle.display()
    );
    let mut client = format!(
        "[client]\nremote_addr = \"127.0.0.1:9200\"\ndefault_token = \"bench\"\n[client.transport]\ntype = \
         \"tls\"\n[client.transport.tcp]\nnodelay = true\n[client.transport.tls]\ntrusted_root = \"{}\"\nhostname \
         = \"localhost\"\n",
        certificate.display()
    );
    for (name, on, to) in ports {
        server += &format!("[server.services.{name}]\nbind_addr = \"{on}\"\nnodelay = true\n");
        client += &format!("[client.services.{name}]\nlocal_addr = \"{to}\"\nnodelay = true\n");
    }
    let mut processes = Vec::new();
    for (role, config) in [("server", server), ("client", client)] {
        let file = dir.join(format!("{role}.toml"));
        fs::write(&file, config)?;
        let mut command = namespace.command(&executable.to_string_lossy());
        command.arg(format!("--{role}")).arg(&file).env("RUST_LOG", "warn");
        let log = lab.dir("log")?.join(format!("rathole-{role}.log"));
        processes.push(Process::start(lab, &format!("rathole's {role}"), &mut command, &log)?);
    }
    let peer = peer(RATHOLE, ports, processes.iter().map(Process::pid).collect());
    Ok((processes, peer))
}

fn openssl(args: &[&[&str]]) -> Result<()> {
    let out = Command::new("openssl").args(args.concat()).stdin(Stdio::null()).output();
    let out = out.context("openssl is needed: packaging/install-packages.sh bench")?;
    if !out.status.success() {
        bail!("openssl: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}
