//! A gateway and remote sites in network namespaces of the test.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs;
use std::fs::File;
use std::future::Future;
use std::io::Read as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;
use wicketgate_gateway::ipsec::{Backend, IpsecConfig, IpsecMode, TunnelHandle};
use wicketgate_lab::{End, Lab, Namespace, Site};
use wicketgate_model::{Connection, Generation, TunnelDesired, TunnelId};

pub(crate) const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(crate) const PORT: u16 = 8443;
/// The load balancer's address, the same for all tunnels: each tunnel has its own namespace.
pub(crate) const LOAD_BALANCER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
pub(crate) const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
pub(crate) const SITE: &str = "10.0.0.0/16";

/// The switch for IP forwarding of the calling thread's namespace.
pub(crate) const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// The longest wait for one event. Most take milliseconds, but the machine may be busy or emulated.
pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) lab: Lab,
    pub(crate) gateway: Namespace,
    pub(crate) state_dir: PathBuf,
    pub(crate) sites: Vec<Site>,
    _dir: tempfile::TempDir,
}

impl World {
    /// A gateway with one public address, and `sites` remote sites behind one router, which is the gateway itself.
    pub(crate) fn new(name: &str, sites: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let prefix = format!("ipsec-{name}-{}-", std::process::id());
        let lab = Lab::new(&prefix, &dir.path().join("lab"), Arc::default()).unwrap();
        let gateway = lab.namespace("gw").unwrap();
        gateway.ip(&format!("addr add {PUBLIC}/32 dev lo")).unwrap();
        // A new namespace inherits the switch from the machine, which may be a router.
        gateway.enter(|| fs::write(FORWARDING, "0")).unwrap().unwrap();
        let sites = (0..sites).map(|n| site(&lab, &gateway, n)).collect();
        let state_dir = dir.path().join("state");
        fs::create_dir(&state_dir).unwrap();
        fs::set_permissions(&state_dir, fs::Permissions::from_mode(0o700)).unwrap();
        Self { lab, gateway, state_dir, sites, _dir: dir }
    }

    pub(crate) async fn backend(&self) -> Backend {
        let config = IpsecConfig {
            mode: IpsecMode::Auto,
            state_dir: self.state_dir.clone(),
            public_address: Some(PUBLIC),
        };
        Backend::start(config).await.unwrap()
    }

    /// Runs `test` with every thread of its runtime in the gateway's namespace.
    pub(crate) fn run<F: Future<Output = ()>>(mut self, test: impl FnOnce(Self) -> F + Send) {
        self.sites.shrink_to_fit();
        let gateway = self.gateway.clone();
        let file = File::open(format!("/run/netns/{}", gateway.name())).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .on_thread_start(move || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            })
            .build()
            .unwrap();
        gateway.enter(|| runtime.block_on(test(self))).unwrap();
    }

    /// Connects a site's tunnel, with the site as the initiator.
    pub(crate) fn connect(&self, site: usize) {
        let site = &self.sites[site];
        let up = || Ok(site.try_connect()?.then_some(()));
        self.lab.until("the site's tunnel is up", SOON, up).unwrap();
    }

    /// Connects from a site's network through its tunnel.
    pub(crate) fn talk(&self, site: usize, bound: Duration) -> anyhow::Result<String> {
        let to = SocketAddr::from((LOAD_BALANCER, PORT));
        self.sites[site].namespace.enter(|| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            socket.bind(&SocketAddr::from((INSIDE, 0)).into())?;
            socket.connect_timeout(&to.into(), bound)?;
            let mut stream = std::net::TcpStream::from(socket);
            stream.set_read_timeout(Some(bound))?;
            stream.write_all(b"hello")?;
            let mut said = String::new();
            stream.read_to_string(&mut said)?;
            Ok(said)
        })?
    }

    /// What exists of this instance: namespaces, links, steering rules and directories.
    pub(crate) fn traces(&self) -> Vec<String> {
        let instance = fs::read_to_string(self.state_dir.join("instance")).unwrap();
        let instance = instance.trim();
        let mut traces = Vec::new();
        for entry in fs::read_dir("/run/netns").unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            traces.extend(name.starts_with(&format!("wicketgate-{instance}")).then_some(name));
        }
        let links = output(self.gateway.command("ip").args(["-o", "link"]));
        traces.extend(links.lines().filter(|l| l.contains(&format!("wg{instance}-"))).map(str::to_owned));
        let steered = output(self.gateway.command("nft").args(["list", "ruleset"]));
        traces.extend(steered.lines().filter(|l| l.contains("169.254.")).map(str::to_owned));
        for entry in fs::read_dir(self.state_dir.join("tunnels")).unwrap() {
            traces.push(entry.unwrap().path().display().to_string());
        }
        traces
    }
}

/// Cleans up after a failed test, too.
impl Drop for World {
    fn drop(&mut self) {
        let Ok(instance) = fs::read_to_string(self.state_dir.join("instance")) else { return };
        for slot in 0..=9 {
            let name = format!("wicketgate-{}-{slot}", instance.trim());
            if !PathBuf::from(format!("/run/netns/{name}")).exists() {
                continue;
            }
            for pid in output(Command::new("ip").args(["netns", "pids", &name])).lines() {
                if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

pub(crate) fn site(lab: &Lab, gateway: &Namespace, n: u8) -> Site {
    let namespace = lab.namespace(&format!("p{n}")).unwrap();
    let (near, far) = (format!("203.0.{n}.1/24"), format!("203.0.{n}.2/24"));
    let link = format!("w{n}");
    Namespace::link(End(gateway, &link, &near), End(&namespace, "p", &far)).unwrap();
    namespace.ip(&format!("route add default via 203.0.{n}.1")).unwrap();
    Site::new(lab, &format!("site{n}"), &namespace, Ipv4Addr::new(203, 0, n, 2), INSIDE).unwrap()
}

pub(crate) fn key(n: u8) -> String {
    format!("a key for tests only, number {n}")
}

pub(crate) fn desired(n: u8, keys: &[&str]) -> TunnelDesired {
    TunnelDesired {
        id: TunnelId::new(Uuid::from_u128(n.into())),
        generation: Generation::FIRST,
        frontdoor: None,
        name: "test".parse().unwrap(),
        slot: n.into(),
        peer_address: format!("203.0.{n}.2").parse().unwrap(),
        peer_cidr: SITE.parse().unwrap(),
        peer_id: format!("site-{n}.example").parse().unwrap(),
        load_balancer_ip: LOAD_BALANCER,
        keys: keys.iter().map(|k| k.parse().unwrap()).collect(),
        previous_until: Vec::new(),
        ike_proposals: Default::default(),
        esp_proposals: Default::default(),
        initiate: false,
        cut: None,
        enabled: true,
    }
}

/// The configuration that a customer would paste into strongSwan.
pub(crate) fn vpn_config(n: u8, key: &str) -> String {
    format!(
        "connections {{ wg {{
  version = 2
  local_addrs = 203.0.{n}.2
  remote_addrs = {PUBLIC}
  proposals = aes256gcm16-prfsha384-ecp384
  encap = yes
  mobike = no
  local {{ auth = psk
    id = site-{n}.example
  }}
  remote {{ auth = psk
    id = {PUBLIC}
  }}
  children {{ net {{
    local_ts = {SITE}
    remote_ts = {LOAD_BALANCER}/32
    esp_proposals = aes256gcm16-ecp384
  }} }}
}} }}
secrets {{ ike-wg {{
  id-a = site-{n}.example
  id-b = {PUBLIC}
  secret = \"{key}\"
}} }}
"
    )
}

/// The same, with one IKE suite and one ESP suite.
pub(crate) fn vpn_config_of(ike: &str, esp: &str) -> String {
    vpn_config(0, &key(0))
        .replace("aes256gcm16-prfsha384-ecp384", ike)
        .replace("esp_proposals = aes256gcm16-ecp384", &format!("esp_proposals = {esp}"))
}

/// Answers every connection with `answer`, as long as the tunnel of the listener exists.
pub(crate) fn serve(tunnel: &TunnelHandle, answer: &'static str) {
    let listener = tunnel.bind(PORT).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // With a linger time of zero, closing would reset the connection. Here all data should arrive.
            socket2::SockRef::from(&stream).set_linger(None).unwrap();
            let mut hello = [0; 5];
            let _ = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut hello).await;
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await;
        }
    });
}

pub(crate) async fn wait_for(
    tunnel: &TunnelHandle,
    what: &str,
    is: impl FnMut(&Connection) -> bool,
) -> Connection {
    let mut connection = tunnel.connection();
    match timeout(SOON, connection.wait_for(is)).await {
        Ok(seen) => seen.unwrap().clone(),
        Err(_) => panic!("timed out after {SOON:?} waiting for: {what}; {:?}", tunnel.connection().borrow()),
    }
}

pub(crate) fn output(command: &mut Command) -> String {
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

/// The value of the kernel's IPsec counter `name` in a namespace.
pub(crate) fn xfrm_counter(namespace: &str, name: &str) -> u64 {
    let file = format!("--net=/run/netns/{namespace}");
    let counters = output(Command::new("nsenter").args([&file, "cat", "/proc/net/xfrm_stat"]));
    let line = counters.lines().find(|l| l.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The number of TCP segments that TCP has received in a namespace since its creation.
pub(crate) fn segments_in(namespace: &str) -> u64 {
    let file = format!("--net=/run/netns/{namespace}");
    let counters = output(Command::new("nsenter").args([&file, "cat", "/proc/net/snmp"]));
    let mut tcp = counters.lines().filter_map(|l| l.strip_prefix("Tcp: ")).map(|l| l.split(' '));
    let (names, values) = (tcp.next().unwrap(), tcp.next().unwrap());
    names.zip(values).find(|(name, _)| *name == "InSegs").unwrap().1.parse().unwrap()
}

/// Whether the test runs as root. Also initializes logging as `RUST_LOG` requests.
pub(crate) fn is_root() -> bool {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: real tunnels need root");
    }
    root
}

/// The charon that serves the tunnel of this slot.
pub(crate) fn charon_of(world: &World, slot: u8) -> i32 {
    let pid = fs::read_to_string(world.state_dir.join(format!("tunnels/{slot}/pid"))).unwrap();
    pid.trim().parse().unwrap()
}
