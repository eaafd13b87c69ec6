//! Tunnels with real charons, in namespaces of the test's own: remote sites on one side, the back end on the other.
//!
//! Everything that the back end does in "its own" namespace it does in one that the test made, since every thread of
//! the test's runtime has entered that. Needs root; says so and passes where it is not.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test")]

use std::{
    fs::{self, File},
    future::Future,
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::{
        fd::AsFd as _,
        unix::fs::{MetadataExt as _, PermissionsExt as _},
    },
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::time::timeout;
use uuid::Uuid;
use wicketgate_gateway::ipsec::{Backend, IpsecConfig, IpsecMode, TunnelHandle};
use wicketgate_lab::{End, Lab, Namespace, Site};
use wicketgate_model::{
    Connection, ConnectionFault, ConnectionState, EspMode, Generation, TunnelDesired, TunnelId,
};

mod ipsec {
    mod lost;
    mod mended;
    mod places;
}

const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const PORT: u16 = 8443;
/// The same for every tunnel and every site: that it may be is what the namespaces are for.
const LOAD_BALANCER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
const SITE: &str = "10.0.0.0/16";

/// Of the namespace that the thread is in.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// For what should take milliseconds, on a machine that others use, or one that is emulated.
const SOON: Duration = Duration::from_secs(60);

struct World {
    lab: Lab,
    gateway: Namespace,
    state_dir: PathBuf,
    sites: Vec<Site>,
    _dir: tempfile::TempDir,
}

impl World {
    /// A gateway with one public address, and `sites` remote sites behind one router, which is the gateway itself.
    fn new(name: &str, sites: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let prefix = format!("ipsec-{name}-{}-", std::process::id());
        let lab = Lab::new(&prefix, &dir.path().join("lab"), Arc::default()).unwrap();
        let gateway = lab.namespace("gw").unwrap();
        gateway.ip(&format!("addr add {PUBLIC}/32 dev lo")).unwrap();
        // A new namespace has what the machine has, which may be a router.
        gateway.enter(|| fs::write(FORWARDING, "0")).unwrap().unwrap();
        let sites = (0..sites).map(|n| site(&lab, &gateway, n)).collect();
        let state_dir = dir.path().join("state");
        fs::create_dir(&state_dir).unwrap();
        fs::set_permissions(&state_dir, fs::Permissions::from_mode(0o700)).unwrap();
        Self { lab, gateway, state_dir, sites, _dir: dir }
    }

    async fn backend(&self) -> Backend {
        let config = IpsecConfig {
            mode: IpsecMode::Auto,
            state_dir: self.state_dir.clone(),
            public_address: Some(PUBLIC),
        };
        Backend::start(config).await.unwrap()
    }

    /// Runs `story` with every thread of its runtime in the gateway's namespace.
    fn tell<F: Future<Output = ()>>(mut self, story: impl FnOnce(Self) -> F + Send) {
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
        gateway.enter(|| runtime.block_on(story(self))).unwrap();
    }

    /// Brings a site's tunnel up from its side.
    fn connect(&self, site: usize) {
        let site = &self.sites[site];
        let up = || Ok(site.try_connect()?.then_some(()));
        self.lab.until("the site's tunnel is up", SOON, up).unwrap();
    }

    /// Connects from a site's network through its tunnel.
    fn talk(&self, site: usize, bound: Duration) -> anyhow::Result<String> {
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

    /// What is there with this instance's name: namespaces, links, tables, directories, charons.
    fn traces(&self) -> Vec<String> {
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

/// A test that failed leaves as little as one that passed.
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

fn site(lab: &Lab, gateway: &Namespace, n: u8) -> Site {
    let namespace = lab.namespace(&format!("p{n}")).unwrap();
    let (near, far) = (format!("203.0.{n}.1/24"), format!("203.0.{n}.2/24"));
    let link = format!("w{n}");
    Namespace::link(End(gateway, &link, &near), End(&namespace, "p", &far)).unwrap();
    namespace.ip(&format!("route add default via 203.0.{n}.1")).unwrap();
    Site::new(lab, &format!("site{n}"), &namespace, Ipv4Addr::new(203, 0, n, 2), INSIDE).unwrap()
}

fn key(n: u8) -> String {
    format!("a key for tests only, number {n}")
}

fn desired(n: u8, keys: &[&str]) -> TunnelDesired {
    TunnelDesired {
        id: TunnelId::new(Uuid::from_u128(n.into())),
        generation: Generation::FIRST,
        name: "test".parse().unwrap(),
        slot: n.into(),
        peer_address: format!("203.0.{n}.2").parse().unwrap(),
        peer_cidr: SITE.parse().unwrap(),
        peer_id: format!("site-{n}.example").parse().unwrap(),
        load_balancer_ip: LOAD_BALANCER,
        keys: keys.iter().map(|k| k.parse().unwrap()).collect(),
        ike_proposals: Default::default(),
        esp_proposals: Default::default(),
        initiate: false,
    }
}

/// What a customer would paste into a strongSwan of theirs.
fn vpn_config(n: u8, key: &str) -> String {
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

/// The same, with one suite of algorithms for each.
fn vpn_config_of(ike: &str, esp: &str) -> String {
    vpn_config(0, &key(0))
        .replace("aes256gcm16-prfsha384-ecp384", ike)
        .replace("esp_proposals = aes256gcm16-ecp384", &format!("esp_proposals = {esp}"))
}

/// Answers every connection with `answer`, for as long as the listener's tunnel is there.
fn serve(tunnel: &TunnelHandle, answer: &'static str) {
    let listener = tunnel.bind(PORT).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // What is closed before its end is reset; here all that was said is to come.
            socket2::SockRef::from(&stream).set_linger(None).unwrap();
            let mut hello = [0; 5];
            let _ = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut hello).await;
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await;
        }
    });
}

async fn wait_for(tunnel: &TunnelHandle, what: &str, is: impl FnMut(&Connection) -> bool) -> Connection {
    let mut connection = tunnel.connection();
    match timeout(SOON, connection.wait_for(is)).await {
        Ok(seen) => seen.unwrap().clone(),
        Err(_) => panic!("not within {SOON:?}: {what}; {:?}", tunnel.connection().borrow()),
    }
}

fn output(command: &mut Command) -> String {
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

/// What the kernel in a namespace counts under `name` of its IPsec statistics.
fn xfrm_counter(namespace: &str, name: &str) -> u64 {
    let file = format!("--net=/run/netns/{namespace}");
    let counters = output(Command::new("nsenter").args([&file, "cat", "/proc/net/xfrm_stat"]));
    let line = counters.lines().find(|l| l.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// TCP segments that came to a socket, or might have, in a namespace since it was made.
fn segments_in(namespace: &str) -> u64 {
    let file = format!("--net=/run/netns/{namespace}");
    let counters = output(Command::new("nsenter").args([&file, "cat", "/proc/net/snmp"]));
    let mut tcp = counters.lines().filter_map(|l| l.strip_prefix("Tcp: ")).map(|l| l.split(' '));
    let (names, values) = (tcp.next().unwrap(), tcp.next().unwrap());
    names.zip(values).find(|(name, _)| *name == "InSegs").unwrap().1.parse().unwrap()
}

/// Also sets up what `RUST_LOG` asks for.
fn is_root() -> bool {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: real tunnels need root");
    }
    root
}

/// The charon that serves the tunnel of this slot.
fn charon_of(world: &World, slot: u8) -> i32 {
    let pid = fs::read_to_string(world.state_dir.join(format!("tunnels/{slot}/pid"))).unwrap();
    pid.trim().parse().unwrap()
}

#[test]
fn two_sites_with_one_subnet_are_served_apart() {
    if !is_root() {
        return;
    }
    World::new("two", 2).tell(|mut world| async move {
        let backend = world.backend().await;
        let started = Instant::now();
        let (first, second) = (desired(0, &[&key(0)]), desired(1, &[&key(1)]));
        let (first, second) = tokio::join!(backend.ensure(&first), backend.ensure(&second));
        let (first, second) = (first.unwrap(), second.unwrap());
        eprintln!("two tunnels were ready after {:?}", started.elapsed());
        serve(&first, "first");
        serve(&second, "second");
        assert_eq!(first.bind(PORT).unwrap_err().kind(), ErrorKind::AddrInUse);

        for n in 0..2 {
            world.sites[usize::from(n)].start(&world.lab, &vpn_config(n, &key(n))).unwrap();
            world.connect(usize::from(n));
        }
        let up = wait_for(&first, "the first is up", |c| c.state == ConnectionState::Up).await;
        let algorithms = up.algorithms.unwrap();
        assert_eq!(algorithms.ike, "AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384");
        assert!(algorithms.esp.starts_with("AES_GCM_16-256"), "{}", algorithms.esp);
        wait_for(&second, "the second is up", |c| c.state == ConnectionState::Up).await;
        assert_eq!(world.talk(0, SOON).unwrap(), "first");
        assert_eq!(world.talk(1, SOON).unwrap(), "second");
        let closed = world.sites[0].namespace.connect((LOAD_BALANCER, PORT + 1).into(), SOON).unwrap_err();
        assert!(format!("{closed:#}").contains("refused"), "{closed:#}");
        wait_for(&first, "bytes are counted", |c| c.bytes_in > 100 && c.bytes_out > 100).await;

        // The same again takes no step, and what is bound stays bound.
        let again = backend.ensure(&desired(0, &[&key(0)])).await.unwrap();
        assert!(Arc::ptr_eq(&again, &first));
        assert_eq!(world.talk(0, SOON).unwrap(), "first");

        backend.remove(desired(0, &[]).id).await.unwrap();
        assert!(backend.left_over().await.unwrap().is_empty());
        assert_eq!(world.talk(1, SOON).unwrap(), "second");
        backend.purge().await.unwrap();
        assert_eq!(world.traces(), Vec::<String>::new());
    });
}

#[test]
fn a_wrong_key_says_so_and_the_right_one_heals_it() {
    if !is_root() {
        return;
    }
    World::new("key", 1).tell(|mut world| async move {
        let backend = world.backend().await;
        let tunnel = backend.ensure(&desired(0, &[&key(0)])).await.unwrap();
        world.sites[0].start(&world.lab, &vpn_config(0, &key(7))).unwrap();
        assert!(!world.sites[0].try_connect().unwrap());
        let failed = wait_for(&tunnel, "the failure", |c| c.last_error.is_some()).await;
        assert_eq!(failed.last_error.unwrap().reason, ConnectionFault::PreSharedKeysDiffer);
        assert_eq!(failed.state, ConnectionState::Down);

        // The newest key is the site's; the one before stays valid.
        let same = backend.ensure(&desired(0, &[&key(7), &key(0)])).await.unwrap();
        assert!(Arc::ptr_eq(&same, &tunnel));
        world.connect(0);
        let up = wait_for(&tunnel, "the tunnel is up", |c| c.state == ConnectionState::Up).await;
        assert_eq!(up.last_error, None);

        // The next change of key: the site has not heard of it yet.
        backend.ensure(&desired(0, &[&key(8), &key(7)])).await.unwrap();
        wait_for(&tunnel, "a new key ends no connection", |c| c.state == ConnectionState::Up).await;
        world.sites[0].swanctl(&["--terminate", "--ike", "wg"]).unwrap();
        wait_for(&tunnel, "the site has ended it", |c| c.state == ConnectionState::Down).await;
        world.connect(0);
        wait_for(&tunnel, "the older key is good", |c| c.state == ConnectionState::Up).await;
        backend.purge().await.unwrap();
    });
}

/// Each fault that a site's device can have, provoked, and what is said of it. docs/OPERATIONS.md has the same words.
#[test]
fn each_fault_at_the_site_is_told_in_words_with_its_cure() {
    if !is_root() {
        return;
    }
    World::new("faults", 1).tell(|mut world| async move {
        let backend = world.backend().await;
        let tunnel = backend.ensure(&desired(0, &[&key(0)])).await.unwrap();
        let good = vpn_config(0, &key(0));
        let suite = "aes256gcm16-prfsha384-ecp384";
        let at_start = [
            (ConnectionFault::PreSharedKeysDiffer, vpn_config(0, &key(7)), KEYS_DIFFER),
            (
                ConnectionFault::PeerIdentityDiffers,
                good.replace("site-0.example", "site-9.example"),
                OTHER_PEER,
            ),
            (
                ConnectionFault::GatewayIdentityDiffers,
                good.replace(&format!("= {PUBLIC}\n  }}"), "= gw.example\n  }")
                    .replace(&format!("id-b = {PUBLIC}"), "id-b = gw.example"),
                OTHER_GATEWAY,
            ),
            (
                ConnectionFault::NoCommonIkeProposal,
                vpn_config_of("aes128-sha1-modp2048", "aes256gcm16-ecp384"),
                NO_IKE,
            ),
            (ConnectionFault::NoCommonEspProposal, vpn_config_of(suite, "aes128-sha1"), NO_ESP),
            (ConnectionFault::TrafficSelectorsDiffer, good.replace(SITE, "10.1.0.0/16"), OTHER_SITE),
            (
                ConnectionFault::TrafficSelectorsDiffer,
                good.replace(&format!("{LOAD_BALANCER}/32"), "100.65.0.0/16"),
                OTHER_BEHIND,
            ),
            (
                ConnectionFault::IkeVersionDiffers,
                good.replace("version = 2", "version = 1").replace(suite, "aes256-sha256-ecp256"),
                OTHER_VERSION,
            ),
        ];
        let said = |c: &Connection, reason, message| {
            c.last_error.as_ref().is_some_and(|e| e.reason == reason && e.to_string() == message)
        };
        world.sites[0].start(&world.lab, &good).unwrap();
        for (reason, config, message) in at_start {
            world.sites[0].load(&config).unwrap();
            let _ = world.sites[0].swanctl(&["--terminate", "--ike", "wg", "--force"]);
            assert!(!world.sites[0].try_connect().unwrap(), "{reason:?}");
            let seen = wait_for(&tunnel, message, |c| said(c, reason, message)).await;
            assert_ne!(seen.state, ConnectionState::Up);
        }

        // The group of a CHILD SA shows at its first rekey: what is up stays up, and says so.
        world.sites[0].load(&vpn_config_of(suite, "aes256gcm16-ecp521")).unwrap();
        assert!(world.sites[0].try_again().unwrap());
        let up = wait_for(&tunnel, "it is up", |c| c.state == ConnectionState::Up).await;
        assert_eq!(up.last_error, None);
        world.sites[0].swanctl(&["--rekey", "--child", "net"]).unwrap();
        let seen =
            wait_for(&tunnel, NO_GROUP, |c| said(c, ConnectionFault::NoCommonEspProposal, NO_GROUP)).await;
        assert_eq!(seen.state, ConnectionState::Up);

        // The key is being changed, and the device has the old one.
        backend.ensure(&desired(0, &[&key(8), &key(0)])).await.unwrap();
        world.sites[0].load(&good).unwrap();
        let _ = world.sites[0].try_again().unwrap();
        wait_for(&tunnel, REFUSED, |c| said(c, ConnectionFault::PeerRefusedGateway, REFUSED)).await;
        world.connect(0);
        let up = wait_for(&tunnel, "it is up again", |c| c.state == ConnectionState::Up).await;
        assert_eq!(up.last_error, None);
        backend.purge().await.unwrap();
    });
}

const KEYS_DIFFER: &str = "the pre-shared keys differ: put the key from the tunnel's vpn-config into the site's device, or set the device's key on the tunnel with POST …/psk";
const OTHER_PEER: &str = "the peer identifies itself as site-9.example, but the tunnel's peerId is site-0.example: change the device's local identity or peerId";
const OTHER_GATEWAY: &str = "the peer asks for the identity gw.example, but the gateway's is 198.51.100.1: set 198.51.100.1 as the remote identity on the site's device";
const NO_IKE: &str = "the peer offered AES_CBC_128/HMAC_SHA1_96/PRF_HMAC_SHA1/MODP_2048 for the IKE SA, which is none of ikeProposals: set a proposal from the tunnel's vpn-config on the site's device, or add what it offers to ikeProposals unless it is weak";
const NO_ESP: &str = "the peer offered AES_CBC_128/HMAC_SHA1_96 for the CHILD SA, which is none of espProposals: set a proposal from the tunnel's vpn-config on the site's device, or add what it offers to espProposals unless it is weak";
const NO_GROUP: &str = "the peer offered AES_GCM_16_256/ECP_521 for the CHILD SA, which is none of espProposals: set a proposal from the tunnel's vpn-config on the site's device, or add what it offers to espProposals unless it is weak";
const OTHER_SITE: &str = "the peer's traffic selector 10.1.0.0/16 is outside peerCidr, 10.0.0.0/16: change the device's local network or peerCidr";
const OTHER_BEHIND: &str = "the peer asks for 100.65.0.0/16, but the tunnel only offers loadBalancerIp: set 100.64.0.1/32 as the remote network on the site's device";
const OTHER_VERSION: &str = "the peer speaks IKEv1: set its device to IKEv2";
const REFUSED: &str = "the peer rejects the gateway's key or its identity, 198.51.100.1: copy both from the tunnel's vpn-config to the site's device; while two keys are valid, the gateway uses the other one for the next attempt";

/// A device that knows one suite only: each of what is offered, and what a tunnel can ask for beside it. The group of
/// a CHILD SA shows once it is rekeyed.
#[test]
fn each_proposal_is_negotiated_and_no_other() {
    const SUITES: [(&str, &str, &str, &str); 9] = [
        (
            "aes256gcm16-prfsha384-ecp384",
            "AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384",
            "aes256gcm16-ecp384",
            "AES_GCM_16-256/ECP_384",
        ),
        (
            "aes256gcm16-prfsha256-ecp256",
            "AES_GCM_16-256/PRF_HMAC_SHA2_256/ECP_256",
            "aes256gcm16-ecp256",
            "AES_GCM_16-256/ECP_256",
        ),
        (
            "aes256gcm16-prfsha384-x25519",
            "AES_GCM_16-256/PRF_HMAC_SHA2_384/CURVE_25519",
            "aes256gcm16-x25519",
            "AES_GCM_16-256/CURVE_25519",
        ),
        (
            "aes256gcm16-prfsha384-modp2048",
            "AES_GCM_16-256/PRF_HMAC_SHA2_384/MODP_2048",
            "aes256gcm16-modp2048",
            "AES_GCM_16-256/MODP_2048",
        ),
        (
            "aes256-sha384-ecp384",
            "AES_CBC-256/HMAC_SHA2_384_192/PRF_HMAC_SHA2_384/ECP_384",
            "aes256-sha256-ecp256",
            "AES_CBC-256/HMAC_SHA2_256_128/ECP_256",
        ),
        (
            "aes256-sha256-ecp256",
            "AES_CBC-256/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/ECP_256",
            "aes256-sha256-modp2048",
            "AES_CBC-256/HMAC_SHA2_256_128/MODP_2048",
        ),
        (
            "aes256-sha256-modp2048",
            "AES_CBC-256/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_2048",
            "aes256gcm16-ecp384",
            "AES_GCM_16-256/ECP_384",
        ),
        (
            "aes128-sha512-modp3072",
            "AES_CBC-128/HMAC_SHA2_512_256/PRF_HMAC_SHA2_512/MODP_3072",
            "aes128-sha512-modp4096",
            "AES_CBC-128/HMAC_SHA2_512_256/MODP_4096",
        ),
        (
            "aes128gcm16-prfsha512-ecp521",
            "AES_GCM_16-128/PRF_HMAC_SHA2_512/ECP_521",
            "aes128-sha384-ecp521",
            "AES_CBC-128/HMAC_SHA2_384_192/ECP_521",
        ),
    ];
    /// Those that have to be asked for.
    const OTHERS: usize = 2;
    if !is_root() {
        return;
    }
    World::new("suites", 1).tell(|mut world| async move {
        let backend = world.backend().await;
        let offered = desired(0, &[&key(0)]);
        let tunnel = backend.ensure(&offered).await.unwrap();
        serve(&tunnel, "here");
        assert_eq!(offered.ike_proposals.all().len(), SUITES.len() - OTHERS);
        for (n, (ike, ike_seen, esp, esp_seen)) in SUITES.into_iter().enumerate() {
            let config = vpn_config_of(ike, esp);
            if n == 0 {
                world.sites[0].start(&world.lab, &config).unwrap();
            } else {
                world.sites[0].load(&config).unwrap();
            }
            let is_offered = n < SUITES.len() - OTHERS;
            if !is_offered {
                assert!(!world.sites[0].try_again().unwrap(), "{ike} was not offered");
                let refused = |c: &Connection| {
                    c.last_error.as_ref().is_some_and(|e| e.reason == ConnectionFault::NoCommonIkeProposal)
                };
                wait_for(&tunnel, "no proposal is chosen", refused).await;
                let asked = TunnelDesired {
                    ike_proposals: vec![ike.parse().unwrap()].try_into().unwrap(),
                    esp_proposals: vec![esp.parse().unwrap()].try_into().unwrap(),
                    ..offered.clone()
                };
                assert!(Arc::ptr_eq(&backend.ensure(&asked).await.unwrap(), &tunnel));
            }
            assert!(world.sites[0].try_again().unwrap(), "{ike} {esp}");
            let is_it = |c: &Connection| {
                c.state == ConnectionState::Up && c.algorithms.as_ref().is_some_and(|a| a.ike == ike_seen)
            };
            wait_for(&tunnel, ike_seen, is_it).await;
            world.sites[0].swanctl(&["--rekey", "--child", "net"]).unwrap();
            wait_for(&tunnel, esp_seen, |c| c.algorithms.as_ref().is_some_and(|a| a.esp == esp_seen)).await;
            assert_eq!(world.talk(0, SOON).unwrap(), "here");
        }

        // What is not to be used any more is ended, though its SA is well; what still is, is left alone.
        let narrowed = TunnelDesired {
            ike_proposals: vec!["aes256gcm16-prfsha384-ecp384".parse().unwrap()].try_into().unwrap(),
            ..offered.clone()
        };
        backend.ensure(&narrowed).await.unwrap();
        wait_for(&tunnel, "the other suite is ended", |c| c.state == ConnectionState::Down).await;
        assert!(!world.sites[0].try_again().unwrap());
        world.sites[0].load(&vpn_config_of(SUITES[0].0, SUITES[0].2)).unwrap();
        assert!(world.sites[0].try_again().unwrap());
        let up = wait_for(&tunnel, "the suite that is left", |c| c.state == ConnectionState::Up).await;
        let sas = world.sites[0].swanctl(&["--list-sas"]).unwrap();
        backend.ensure(&offered).await.unwrap();
        assert_eq!(world.talk(0, SOON).unwrap(), "here");
        assert_eq!(tunnel.connection().borrow().since, up.since);
        let id = |sas: &str| {
            sas.split_once(": #").and_then(|(_, rest)| rest.split_once(',')).map(|(id, _)| id.to_owned())
        };
        let after = world.sites[0].swanctl(&["--list-sas"]).unwrap();
        assert!(id(&sas).is_some() && id(&sas) == id(&after), "{sas}\n{after}");
        backend.purge().await.unwrap();
    });
}

#[test]
fn a_killed_charon_comes_back_with_its_tunnel() {
    if !is_root() {
        return;
    }
    World::new("kill", 2).tell(|mut world| async move {
        let backend = world.backend().await;
        let (first, second) = (desired(0, &[&key(0)]), desired(1, &[&key(1)]));
        let (first, second) = (backend.ensure(&first).await.unwrap(), backend.ensure(&second).await.unwrap());
        serve(&first, "first");
        serve(&second, "second");
        for n in 0..2 {
            world.sites[usize::from(n)].start(&world.lab, &vpn_config(n, &key(n))).unwrap();
            world.connect(usize::from(n));
        }
        assert_eq!(world.talk(0, SOON).unwrap(), "first");
        wait_for(&first, "the first is up", |c| c.state == ConnectionState::Up).await;
        let other = wait_for(&second, "the second is up", |c| c.state == ConnectionState::Up).await.since;

        let pid = rustix::process::Pid::from_raw(charon_of(&world, 0)).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let killed = Instant::now();
        // ESP in the kernel goes on meanwhile, so that traffic alone says nothing.
        let is_back = || first.problem().is_none() && charon_of(&world, 0) != pid.as_raw_nonzero().get();
        while !is_back() || world.talk(0, Duration::from_millis(500)).is_err() {
            assert!(killed.elapsed() < SOON, "no traffic yet");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        eprintln!("traffic again {:?} after the charon was killed", killed.elapsed());
        wait_for(&first, "the first is up again", |c| c.state == ConnectionState::Up).await;
        assert_eq!(world.talk(0, SOON).unwrap(), "first");
        assert_eq!(world.talk(1, SOON).unwrap(), "second");
        assert_eq!(second.connection().borrow().since, other);
        backend.purge().await.unwrap();
        assert_eq!(world.traces(), Vec::<String>::new());
    });
}

#[test]
fn nothing_but_the_tunnel_reaches_a_listener() {
    if !is_root() {
        return;
    }
    World::new("clear", 2).tell(|mut world| async move {
        let backend = world.backend().await;
        let tunnel = backend.ensure(&desired(0, &[&key(0)])).await.unwrap();
        serve(&tunnel, "first");
        let to = SocketAddr::from((LOAD_BALANCER, PORT));
        let short = Duration::from_millis(600);

        // In clear, before there is a tunnel: from the site, and from the gateway's host, which routes to the link.
        let instance = fs::read_to_string(world.state_dir.join("instance")).unwrap();
        let link = format!("wg{}-0", instance.trim());
        world.gateway.ip(&format!("route add {LOAD_BALANCER}/32 dev {link}")).unwrap();
        assert!(world.gateway.connect(to, short).is_err(), "the gateway's host got through in clear");
        assert!(world.talk(0, short).is_err(), "the site got through in clear");
        assert_eq!(
            segments_in(&link.replace("wg", "wicketgate-")),
            0,
            "a segment in clear came past the guard"
        );
        // The host is no router for anybody else.
        let stranger = SocketAddr::from((Ipv4Addr::new(203, 0, 1, 2), PORT));
        let _open = world.sites[1].namespace.listen(stranger).unwrap();
        assert!(
            world.sites[0].namespace.connect(stranger, short).is_err(),
            "the gateway routed between sites"
        );

        world.sites[0].start(&world.lab, &vpn_config(0, &key(0))).unwrap();
        world.connect(0);
        assert_eq!(world.talk(0, SOON).unwrap(), "first");
        assert!(world.gateway.connect(to, short).is_err(), "the gateway's host got through in clear");

        // Through the site's own daemon, from outside what was negotiated: a source that is not the site's.
        let site = &world.sites[0].namespace;
        site.ip("addr add 10.9.9.9/32 dev lo").unwrap();
        site.ip(&format!("route add {LOAD_BALANCER}/32 dev ipsec0 src 10.9.9.9 table 219")).unwrap();
        output(
            site.command("ip").args(["rule", "add", "from", "10.9.9.9", "table", "219", "priority", "10"]),
        );
        let outside = site.enter(|| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            socket.bind(&SocketAddr::from((Ipv4Addr::new(10, 9, 9, 9), 0)).into())?;
            socket.connect_timeout(&to.into(), short)
        });
        assert!(outside.unwrap().is_err(), "a source outside the selectors got through");
        backend.purge().await.unwrap();
    });
}

#[test]
fn the_next_run_adopts_what_is_there_and_removes_what_is_not_wished_for() {
    if !is_root() {
        return;
    }
    World::new("adopt", 2).tell(|mut world| async move {
        let backend = world.backend().await;
        let (first, second) = (desired(0, &[&key(0)]), desired(1, &[&key(1)]));
        serve(&backend.ensure(&first).await.unwrap(), "before");
        backend.ensure(&second).await.unwrap();
        world.sites[0].start(&world.lab, &vpn_config(0, &key(0))).unwrap();
        world.connect(0);
        assert_eq!(world.talk(0, SOON).unwrap(), "before");
        let charon = charon_of(&world, 0);
        let config =
            IpsecConfig { mode: IpsecMode::Auto, state_dir: world.state_dir.clone(), public_address: None };
        let refused = Backend::start(config).await.unwrap_err();
        assert!(refused.to_string().contains("another gateway is running"), "{refused}");
        drop(backend);

        let backend = world.backend().await;
        let mut left_over = backend.left_over().await.unwrap();
        left_over.sort();
        assert_eq!(left_over, [first.id, second.id]);
        // Another network behind the peer is for the guard first.
        let narrowed = TunnelDesired { peer_cidr: "10.0.1.0/24".parse().unwrap(), ..first.clone() };
        assert!(backend.found(&narrowed).is_none());
        assert!(backend.found(&first).is_some());
        let tunnel = backend.ensure(&first).await.unwrap();
        assert_eq!(charon_of(&world, 0), charon);
        wait_for(&tunnel, "the adopted tunnel is up", |c| c.state == ConnectionState::Up).await;
        assert_eq!(backend.left_over().await.unwrap(), [second.id]);
        // Found, and then not wished for: nobody holds its namespace.
        let inode = |path: PathBuf| fs::metadata(path).map(|file| file.ino()).ok();
        let instance = fs::read_to_string(world.state_dir.join("instance")).unwrap();
        let namespace = inode(format!("/run/netns/wicketgate-{}-1", instance.trim()).into());
        let holders = || {
            let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
            open.filter(|fd| inode(fd.path()) == namespace).count()
        };
        assert!(backend.found(&second).is_some() && namespace.is_some() && holders() > 0);
        backend.remove(second.id).await.unwrap();
        assert_eq!(backend.left_over().await.unwrap(), []);
        assert_eq!(holders(), 0);
        assert!(
            !world.traces().iter().any(|t| t.ends_with("-1") || t.ends_with("/1")),
            "{:?}",
            world.traces()
        );
        // The old listener is this process's, and still there.
        assert_eq!(world.talk(0, SOON).unwrap(), "before");

        // Found dead, it is started anew.
        let pid = rustix::process::Pid::from_raw(charon).unwrap();
        drop(backend);
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let backend = world.backend().await;
        backend.ensure(&first).await.unwrap();
        assert_ne!(charon_of(&world, 0), charon);
        backend.purge().await.unwrap();
        assert_eq!(world.traces(), Vec::<String>::new());
    });
}

/// A peer that knows no NAT traversal, or believes that there is no NAT, sends protocol 50.
#[test]
fn esp_without_udp_comes_to_its_own_tunnel_only() {
    if !is_root() {
        return;
    }
    World::new("raw", 2).tell(|world| async move {
        let backend = world.backend().await;
        if backend.esp() != EspMode::Kernel {
            eprintln!("SKIPPED: ESP without UDP needs ESP in the kernel");
            return backend.purge().await.unwrap();
        }
        backend.ensure(&desired(0, &[&key(0)])).await.unwrap();
        let instance = fs::read_to_string(world.state_dir.join("instance")).unwrap();
        let namespace = format!("wicketgate-{}-0", instance.trim());
        let unknown = || xfrm_counter(&namespace, "XfrmInNoStates");
        // No SA has this index: the tunnel's kernel says that it looked for one.
        let send = |site: usize| {
            world.sites[site].namespace.enter(|| {
                let protocol = Some(socket2::Protocol::from(50));
                let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, protocol)?;
                socket.send_to(&[0x5a; 64], &SocketAddr::from((PUBLIC, 0)).into())
            })
        };
        assert_eq!(unknown(), 0);
        send(1).unwrap().unwrap();
        send(0).unwrap().unwrap();
        let come = || Ok((unknown() > 0).then_some(()));
        world.lab.until("ESP has come to the tunnel", SOON, come).unwrap();
        assert_eq!(unknown(), 1, "another peer's came, too");
        backend.purge().await.unwrap();
    });
}

#[test]
fn rules_that_the_hosts_firewall_flushed_come_back() {
    if !is_root() {
        return;
    }
    World::new("flush", 1).tell(|mut world| async move {
        let backend = world.backend().await;
        let wanted = desired(0, &[&key(0)]);
        let tunnel = backend.ensure(&wanted).await.unwrap();
        serve(&tunnel, "first");
        world.sites[0].start(&world.lab, &vpn_config(0, &key(0))).unwrap();
        world.connect(0);
        let steering = || output(world.gateway.command("nft").args(["list", "ruleset"]));
        let before = steering();
        assert!(before.contains("203.0.0.2"), "{before}");
        output(world.gateway.command("nft").args(["flush", "ruleset"]));
        assert_eq!(steering(), "");

        // The next check, in which nothing of the tunnel has changed.
        backend.ensure(&wanted).await.unwrap();
        assert_eq!(steering(), before);
        assert_eq!(world.talk(0, SOON).unwrap(), "first");
        world.sites[0].swanctl(&["--terminate", "--ike", "wg"]).unwrap();
        world.connect(0);
        assert_eq!(world.talk(0, SOON).unwrap(), "first");

        output(world.gateway.command("nft").args(["flush", "ruleset"]));
        backend.remove(wanted.id).await.unwrap();
        assert!(!steering().contains("203.0.0.2"));
        backend.purge().await.unwrap();
        assert_eq!(world.traces(), Vec::<String>::new());
    });
}

#[test]
fn the_last_one_out_leaves_no_router() {
    if !is_root() {
        return;
    }
    World::new("last", 0).tell(|world| async move {
        let forwards = || fs::read_to_string(FORWARDING).unwrap().trim().to_owned();
        let remembered = || fs::read_to_string(world.state_dir.join("forwarding"));
        let rules = || output(world.gateway.command("nft").args(["list", "ruleset"]));
        assert_eq!(forwards(), "0");
        let backend = world.backend().await;
        assert_eq!((forwards().as_str(), remembered().unwrap().as_str()), ("1", "off\n"));

        // The next one finds a host that forwards, but only since the first one came.
        let dir = tempfile::tempdir().unwrap();
        let config = IpsecConfig {
            mode: IpsecMode::Auto,
            state_dir: dir.path().to_owned(),
            public_address: Some(PUBLIC),
        };
        let other = Backend::start(config).await.unwrap();
        backend.purge().await.unwrap();
        assert_eq!((forwards().as_str(), remembered().unwrap().as_str()), ("1", "off\n"));
        assert!(rules().contains("\t\tdrop\n\t}\n}"), "the other one opened the host: {}", rules());
        other.purge().await.unwrap();
        assert_eq!((forwards().as_str(), rules().as_str()), ("0", ""));
        drop(backend);

        // A crash in an older version left it empty.
        fs::write(FORWARDING, "1").unwrap();
        fs::write(world.state_dir.join("forwarding"), "").unwrap();
        let backend = world.backend().await;
        assert!(rules().contains("\t\tdrop\n\t}\n}"), "the host was opened: {}", rules());
        backend.purge().await.unwrap();
        assert_eq!(forwards(), "0");
        assert!(remembered().is_err());

        // A router stays one.
        fs::write(FORWARDING, "1").unwrap();
        drop(backend);
        let backend = world.backend().await;
        assert!(!rules().contains("\t\tdrop\n\t}\n}"), "{}", rules());
        backend.purge().await.unwrap();
        backend.purge().await.unwrap();
        assert_eq!(forwards(), "1");
    });
}

#[test]
fn a_peer_whose_tunnel_is_made_anew_is_steered_to_the_new_one() {
    if !is_root() {
        return;
    }
    World::new("anew", 1).tell(|mut world| async move {
        let backend = world.backend().await;
        world.sites[0].start(&world.lab, &vpn_config(0, &key(0))).unwrap();
        // Whoever has called, and whose flows they are.
        for initiate in [false, true] {
            let old = TunnelDesired { initiate, ..desired(0, &[&key(0)]) };
            let tunnel = backend.ensure(&old).await.unwrap();
            if !initiate {
                world.connect(0);
            }
            wait_for(&tunnel, "the old tunnel is up", |c| c.state == ConnectionState::Up).await;
            backend.remove(old.id).await.unwrap();
            // Another tunnel for the same peer, in another slot, while the kernel still knows the old flows.
            let new = TunnelDesired { id: desired(7, &[]).id, slot: 7, initiate: false, ..old };
            let tunnel = backend.ensure(&new).await.unwrap();
            serve(&tunnel, "anew");
            world.connect(0);
            wait_for(&tunnel, "the new tunnel is up", |c| c.state == ConnectionState::Up).await;
            assert_eq!(world.talk(0, SOON).unwrap(), "anew");
            backend.remove(new.id).await.unwrap();
        }
        backend.purge().await.unwrap();
        assert_eq!(world.traces(), Vec::<String>::new());
    });
}

/// Without IPsec, and without root.
#[tokio::test]
async fn off_is_a_loopback_address() {
    let config =
        IpsecConfig { mode: IpsecMode::Off, state_dir: PathBuf::from("/nonexistent"), public_address: None };
    let backend = Backend::start(config).await.unwrap();
    let desired = TunnelDesired { load_balancer_ip: Ipv4Addr::new(127, 77, 3, 9), ..desired(0, &[&key(0)]) };
    let tunnel = backend.ensure(&desired).await.unwrap();
    assert!(Arc::ptr_eq(&tunnel, &backend.ensure(&desired).await.unwrap()));
    let listener: TcpListener = tunnel.bind(0).unwrap();
    assert_eq!(listener.local_addr().unwrap().ip(), Ipv4Addr::new(127, 77, 3, 9));
    // A connection that came before anybody has looked at the listener is as all others.
    listener.set_nonblocking(false).unwrap();
    let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let accepted = socket2::SockRef::from(&accepted);
    assert_eq!(accepted.linger().unwrap(), Some(Duration::ZERO));
    assert!(accepted.tcp_nodelay().unwrap());
    assert_eq!(tunnel.connection().borrow().state, ConnectionState::Down);
    assert_eq!((backend.esp(), backend.public_address()), (EspMode::Off, None));
    backend.remove(desired.id).await.unwrap();
}
