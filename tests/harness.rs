//! A [`World`] is one installation of the product and its surroundings, in its own network namespaces.

pub(crate) mod attempts;
pub(crate) mod builder;
pub(crate) mod bulk;
pub(crate) mod esp;
pub(crate) mod held_back;
pub(crate) mod home;
pub(crate) mod hops;
pub(crate) mod libreswan;
pub(crate) mod line;
pub(crate) mod machine;
pub(crate) mod packets;
pub(crate) mod ping;
pub(crate) mod redacted;
pub(crate) mod sas;
pub(crate) mod service_manager;
pub(crate) mod targets;
pub(crate) mod user;
pub(crate) mod walkthrough;

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use wicketgate_lab::{Agent, AgentOptions, End, GatewayOptions, GatewayProcess, Lab, Namespace, Site, sweep};

pub(crate) use builder::Apart;
use builder::WorldBuilder;
use home::Home;
use libreswan::Libreswan;

/// The directory of the tests' files. Only root may write here, so that a lab's ledger can be trusted.
const HOME: &str = "/var/lib/wicketgate-tests";

/// The network of every site, and the address of a client in it.
pub(crate) const SITE_CIDR: &str = "10.0.0.0/16";
pub(crate) const SITE_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);

pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub(crate) const PRIVATE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// The address of a target on a host of its own.
const FAR_TARGET: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 2);

const API_PORT: u16 = 8080;
const AGENT_PORT: u16 = 7443;

/// The longest wait for an operation that normally takes milliseconds. It is long because the machine may be busy:
/// only an operation that never completes is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The longest duration of an operation that must not wait for a timeout. The shortest timeout of the product is 5 s.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(4);

pub(crate) struct World {
    pub(crate) lab: Lab,
    pub(crate) gateway: GatewayProcess,
    /// The namespace in which `wicketgate up` runs.
    pub(crate) outside: Namespace,
    /// The namespace of agents and targets. Without IPsec it is the same as `outside`.
    pub(crate) private: Namespace,
    /// The router between all namespaces. It exists only with sites.
    pub(crate) internet: Option<Namespace>,
    sites: Vec<Namespace>,
    ipsec: &'static str,
    log: &'static str,
}

impl World {
    /// A world without IPsec: everything uses the loopback interface of one namespace.
    pub(crate) fn loopback() -> WorldBuilder {
        WorldBuilder::new(None)
    }

    /// A world with IPsec and `count` sites in their own namespaces. The sites are not connected.
    pub(crate) fn with_sites(count: u8) -> WorldBuilder {
        WorldBuilder::new(Some(count))
    }

    /// Adds a site behind a NAT router. The router has the site's public address.
    pub(crate) fn add_home(&mut self) -> Result<Home> {
        let n = u8::try_from(self.sites.len())?;
        let (peer, outside) = (Self::peer(n), format!("site{n}"));
        let internet = self.internet.as_ref().context("no internet")?;
        let router = self.lab.namespace(&format!("home{n}"))?;
        let hop = join(internet, &router, &outside, peer)?;
        let (home, device) = Home::furnish(&self.lab, &outside, router, internet, &outside, hop)?;
        self.sites.push(device);
        Ok(home)
    }

    /// The public address of site `n`.
    pub(crate) fn peer(n: u8) -> Ipv4Addr {
        Ipv4Addr::new(203, 0, 100 + n, 2)
    }

    /// The address at which a target of this world can listen.
    pub(crate) fn target(&self, port: u16) -> SocketAddr {
        let ip = if self.ipsec == "off" { Ipv4Addr::LOCALHOST } else { PRIVATE };
        (ip, port).into()
    }

    /// Adds a host that the agents reach through the internet's router, and an address of it at which a target can listen.
    /// `name` is the router's interface.
    pub(crate) fn add_private(&self, name: &str, port: u16) -> Result<(Namespace, SocketAddr)> {
        let (internet, namespace) =
            (self.internet.as_ref().context("no internet")?, self.lab.namespace(name)?);
        join(internet, &namespace, name, FAR_TARGET)?;
        Ok((namespace, (FAR_TARGET, port).into()))
    }

    /// The URL of the API inside [`World::outside`].
    pub(crate) fn url(&self) -> String {
        format!("http://{}:{API_PORT}", Ipv4Addr::LOCALHOST)
    }

    /// The address that agents connect to.
    pub(crate) fn agents_dial(&self) -> SocketAddr {
        agent_listen(self.ipsec)
    }

    /// Enrols an agent, and returns its environment's `zId`.
    pub(crate) fn agent(&self, name: &str) -> Result<(Agent, String)> {
        self.agent_of(name, &agent_executable()?)
    }

    /// Like [`World::agent`], with a program that starts the agent.
    pub(crate) fn agent_of(&self, name: &str, executable: &Path) -> Result<(Agent, String)> {
        Agent::enrol(&self.lab, &self.agent_options(name, executable), &self.gateway)
    }

    /// Starts an agent with the identity in its state directory, or with an enrolment code, and does not wait for it.
    pub(crate) fn start_agent(&self, name: &str, code: Option<&str>) -> Result<Agent> {
        Agent::start(&self.lab, &self.agent_options(name, &agent_executable()?), code)
    }

    /// An executable shell script.
    pub(crate) fn script(&self, name: &str, lines: &str) -> Result<PathBuf> {
        let path = self.lab.dir("scripts")?.join(name);
        fs::write(&path, format!("#!/bin/sh\n{lines}\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    pub(crate) fn agent_options<'a>(&'a self, name: &'a str, executable: &'a Path) -> AgentOptions<'a> {
        let (namespace, server) = (&self.private, self.agents_dial());
        AgentOptions { executable, namespace, name, server, allow: &["*:*"], log: self.log }
    }

    /// Starts `wicketgate up` again with the same data, after it was stopped or killed.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.gateway = self.start_again()?;
        Ok(())
    }

    /// Starts `wicketgate up` like [`World::restart`], for tests that inspect the world during the start.
    pub(crate) fn start_again(&self) -> Result<GatewayProcess> {
        start(&self.lab, &self.outside, self.ipsec, self.log)
    }

    /// Starts `wicketgate up` like [`World::restart`], with a script of these lines in place of `program`.
    pub(crate) fn start_with(&self, program: &str, lines: &str) -> Result<GatewayProcess> {
        self.script(program, lines)?;
        let options = gateway_options(&self.outside, self.ipsec, self.log);
        let real = options.executable.display();
        let started =
            self.script("started", &format!("PATH=\"$(dirname \"$0\"):$PATH\" exec {real} \"$@\""))?;
        GatewayProcess::start(&self.lab, &GatewayOptions { executable: &started, ..options })
    }

    /// Creates a tunnel for site `n` and waits until it is `DEPLOYED`.
    pub(crate) fn tunnel(&self, n: u8) -> Result<Value> {
        self.gateway.tunnel(&self.lab, &format!("site-{n}"), Self::peer(n), SITE_CIDR)
    }

    /// Creates a share and waits until it is `DEPLOYED`.
    pub(crate) fn share(
        &self,
        name: &str,
        tunnel: &Value,
        zid: &str,
        target: SocketAddr,
        port: u16,
    ) -> Result<Value> {
        self.gateway.share(&self.lab, name, tunnel, zid, &target.to_string(), port)
    }

    /// Starts an agent and a service that sends "here", and publishes the service at port 9000 of a tunnel. Returns the
    /// agent and the share's address.
    pub(crate) fn greeting(&self, tunnel: &Value) -> Result<(Agent, SocketAddr)> {
        targets::here(&self.private, self.target(7001))?;
        let (agent, zid) = self.agent("agent")?;
        self.share("greeting", tunnel, &zid, self.target(7001), 9000)?;
        Ok((agent, door(tunnel, 9000)?))
    }

    /// Changes a share and waits until the change is `DEPLOYED`.
    pub(crate) fn patch(&self, share: &Value, change: &Value) -> Result<Value> {
        let id = text(share, "id")?;
        self.gateway.api.patch(&self.gateway.at(&format!("ipsec-shares/{id}")), change)?;
        self.gateway.deployed(&self.lab, "ipsec-shares", id)
    }

    /// Starts another agent of the only environment.
    pub(crate) fn replica(&self, name: &str) -> Result<Agent> {
        let environments = self.gateway.list("environments")?;
        let environment = environments.first().context("no environment")?;
        let body = json!({"environmentId": environment["id"]});
        let made = self.gateway.api.post(&self.gateway.at("agents/enrollments"), &body)?;
        self.start_agent(name, Some(text(&made, "enrollmentCode")?))
    }

    /// All past events of a resource, in their order.
    pub(crate) fn events(&self, kind: &str, id: &str) -> Result<Vec<Value>> {
        let token = fs::read_to_string(self.gateway.data.join("admin.token"))?;
        let header = self.lab.dir("events")?.join("header");
        fs::write(&header, format!("Authorization: Bearer {}\nLast-Event-ID: 0\n", token.trim()))?;
        // They arrive at once. The stream does not end, so that curl needs a timeout.
        let mut curl = self.outside.command("curl");
        curl.args(["-q", "-sSN", "-m", "3", "-H", &format!("@{}", header.display())]);
        let out = curl.arg(self.url() + &self.gateway.at("events")).output()?;
        let said = String::from_utf8(out.stdout)?;
        let events = said.lines().filter_map(|l| serde_json::from_str(l.strip_prefix("data: ")?).ok());
        Ok(events.filter(|e: &Value| e["type"] == kind && e["id"] == id).collect())
    }

    /// Waits until `wanted` accepts the sums over the share's metrics samples.
    pub(crate) fn carried(&self, share: &Value, wanted: impl Fn(&dyn Fn(&str) -> u64) -> bool) -> Result<()> {
        let path = format!("ipsec-shares/{}/metrics?duration=15m", text(share, "id")?);
        self.gateway.wait(&self.lab, &path, "counted", PATIENCE, |metrics| {
            let samples = metrics["samples"].as_array().cloned().unwrap_or_default();
            wanted(&|key: &str| samples.iter().filter_map(|s| s[key].as_u64()).sum())
        })?;
        Ok(())
    }

    /// The configuration that the product generates for strongSwan at the tunnel's remote end.
    pub(crate) fn vpn_config(&self, tunnel: &Value) -> Result<String> {
        self.vpn_config_for(tunnel, "strongswan")
    }

    /// The configuration that the product generates for `device`.
    pub(crate) fn vpn_config_for(&self, tunnel: &Value, device: &str) -> Result<String> {
        let path = format!("ipsec-tunnels/{}/vpn-config?format={device}", text(tunnel, "id")?);
        self.gateway.api.text(&self.gateway.at(&path))
    }

    /// Site `n`, not connected.
    pub(crate) fn site(&self, n: u8) -> Result<Site> {
        let namespace = self.sites.get(usize::from(n)).context("no such site")?;
        let mut site = Site::new(&self.lab, &format!("charon{n}"), namespace, Self::peer(n), SITE_CLIENT)?;
        if is_kernel_lane() {
            site.use_kernel_esp();
        }
        Ok(site)
    }

    /// Site `n` with a Libreswan that is not started. `None` if Libreswan is not available.
    ///
    /// # Errors
    /// Fails in CI if Libreswan is not available.
    #[expect(clippy::print_stderr, reason = "the output names the tests that were skipped")]
    pub(crate) fn libreswan(&self, n: u8) -> Result<Option<Libreswan>> {
        let unpacked = match std::env::var_os("WICKETGATE_TEST_LIBRESWAN").filter(|root| !root.is_empty()) {
            Some(root) => Ok(root.into()),
            None => wicketgate_lab::unpacked(&["libreswan"]),
        };
        let root = match unpacked {
            Ok(root) => root,
            Err(error) if std::env::var_os("CI").is_none() => {
                eprintln!("SKIPPED: {error:#}");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let namespace = self.sites.get(usize::from(n)).context("no such site")?;
        Libreswan::new(&self.lab, &format!("pluto{n}"), namespace, SITE_CLIENT, &root).map(Some)
    }

    /// Site `n`, connected to its tunnel.
    pub(crate) fn connected_site(&self, n: u8, tunnel: &Value) -> Result<Site> {
        let mut site = self.site(n)?;
        self.connect(&mut site, tunnel, &self.vpn_config(tunnel)?)?;
        Ok(site)
    }

    /// Connects a site to its tunnel with `vpn_config`.
    pub(crate) fn connect(&self, site: &mut Site, tunnel: &Value, vpn_config: &str) -> Result<()> {
        site.start(&self.lab, vpn_config)?;
        site.connected(&self.lab, PATIENCE)?;
        let path = format!("ipsec-tunnels/{}", text(tunnel, "id")?);
        self.gateway.wait(&self.lab, &path, "UP", PATIENCE, |t| t["connection"]["state"] == "UP")?;
        Ok(())
    }

    /// The namespaces of the tunnels that are linked to the gateway's namespace.
    pub(crate) fn tunnel_namespaces(&self) -> Result<BTreeSet<String>> {
        let out = Command::new("ip").args(["-n", self.outside.name(), "-o", "link", "show"]).output()?;
        ensure!(out.status.success(), "ip: {}", String::from_utf8_lossy(&out.stderr));
        let links = String::from_utf8(out.stdout)?;
        let names = links.lines().filter_map(|l| l.split("link-netns ").nth(1)?.split_whitespace().next());
        let own = self.outside.name().trim_end_matches("gw");
        Ok(names.filter(|n| !n.starts_with(own)).map(str::to_owned).collect())
    }

    /// The namespace of a tunnel: the one that has its load balancer's address.
    pub(crate) fn tunnel_namespace(&self, tunnel: &Value) -> Result<Namespace> {
        let address = format!(" {}/", text(tunnel, "loadBalancerIp")?);
        for name in self.tunnel_namespaces()? {
            let out = Command::new("ip").args(["-n", &name, "-o", "addr", "show"]).output()?;
            if String::from_utf8_lossy(&out.stdout).contains(&address) {
                return Namespace::open(&name);
            }
        }
        bail!("no namespace has{address}")
    }

    /// Deletes the tunnels over the API, stops the processes, and checks that nothing remains.
    pub(crate) fn end(mut self) -> Result<()> {
        self.gateway.clear(&self.lab, PATIENCE)?;
        if self.ipsec != "off" {
            let left = self.tunnel_namespaces()?;
            ensure!(left.is_empty(), "namespaces of deleted tunnels remain: {left:?}");
        }
        let status = self.gateway.process.stop(PATIENCE)?;
        ensure!(status.success(), "wicketgate up: {status}\n{}", self.gateway.process.tail());
        self.lab.remove()
    }
}

/// Links a namespace to the internet's router and returns its next hop. `name` is the router's interface.
pub(crate) fn join(
    internet: &Namespace,
    namespace: &Namespace,
    name: &str,
    address: Ipv4Addr,
) -> Result<Ipv4Addr> {
    let [a, b, c, _] = address.octets();
    let hop = Ipv4Addr::new(a, b, c, 1);
    let (near, far) = (format!("{hop}/24"), format!("{address}/24"));
    Namespace::link(End(internet, name, &near), End(namespace, "wan", &far))?;
    namespace.ip(&format!("route add default via {hop}"))?;
    Ok(hop)
}

/// Whether the tests run under a kernel with ESP. `make test-kernel` sets the variable.
fn is_kernel_lane() -> bool {
    std::env::var_os("WICKETGATE_TEST_ESP").is_some_and(|esp| esp == "kernel")
}

/// Creates a lab for one test. First removes the labs of test processes that no longer run.
pub(crate) fn lab() -> Result<Lab> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    ensure!(rustix::process::geteuid().is_root(), "these tests create network namespaces: run them as root");
    fs::create_dir_all(HOME).with_context(|| format!("cannot create {HOME}"))?;
    for entry in fs::read_dir(HOME)?.flatten() {
        let name = entry.file_name();
        let pid = name.to_string_lossy().split('-').next().unwrap_or_default().to_owned();
        if !Path::new("/proc").join(pid).exists() {
            // Another test may be removing it at the same time.
            let _ = sweep(&entry.path());
        }
    }
    let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    Lab::new(&format!("wgt-{name}-"), &Path::new(HOME).join(&name), std::sync::Arc::default())
}

pub(crate) fn wicketgate_executable() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_wicketgate"))
}

/// Cargo builds the agent for another package, into the same directory.
pub(crate) fn agent_executable() -> Result<PathBuf> {
    let path = wicketgate_executable().with_file_name("wicketgate-agent");
    ensure!(path.exists(), "{} is not built: run `make test`", path.display());
    Ok(path)
}

fn start(lab: &Lab, namespace: &Namespace, ipsec: &str, log: &str) -> Result<GatewayProcess> {
    GatewayProcess::start(lab, &gateway_options(namespace, ipsec, log))
}

/// The options with which a world starts `wicketgate up`.
pub(crate) fn gateway_options<'a>(
    namespace: &'a Namespace,
    ipsec: &'a str,
    log: &'a str,
) -> GatewayOptions<'a> {
    GatewayOptions {
        executable: wicketgate_executable(),
        namespace,
        listen: (Ipv4Addr::LOCALHOST, API_PORT).into(),
        agent_listen: agent_listen(ipsec),
        ipsec,
        public_address: (ipsec != "off").then_some(GATEWAY),
        log,
    }
}

fn agent_listen(ipsec: &str) -> SocketAddr {
    let ip = if ipsec == "off" { Ipv4Addr::LOCALHOST } else { GATEWAY };
    (ip, AGENT_PORT).into()
}

/// The value of a string property.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("no {key} in {value}"))
}

/// The address of a tunnel's share with ingress port `port`.
pub(crate) fn door(tunnel: &Value, port: u16) -> Result<SocketAddr> {
    Ok((text(tunnel, "loadBalancerIp")?.parse::<Ipv4Addr>()?, port).into())
}

/// The body of a request that creates a share.
pub(crate) fn share_body(name: &str, tunnel: &Value, zid: &str, target: SocketAddr, port: u16) -> Value {
    json!({"name": name, "ipsecTunnelId": tunnel["id"], "envZId": zid, "target": target.to_string(),
        "ingressPort": port})
}
