//! A remote site that violates the negotiated traffic selectors: its ESP is valid, but the inner packets are not
//! permitted.
//!
//! No correct daemon sends such packets, so the test is an ESP endpoint itself, with the keys of the site's tunnel. Two
//! mechanisms drop them: the policy of the gateway's IKE daemon, and the rules of the tunnel's namespace. Each is
//! tested without the other. Every test sends a permitted echo request last. Packets keep their order, so its reply
//! shows that the earlier packets were processed, and the test does not have to wait for a timeout.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use wicketgate_lab::{Namespace, Site};

use crate::{
    e2e::entry_point::uplink_address,
    harness::{
        GATEWAY, SITE_CIDR, SITE_CLIENT, World,
        esp::Esp,
        packets::{Answer, Kind, RST, SYN, SYN_ACK, echo_request, segment},
        targets::greeting,
        text,
    },
};

/// An address in the site's network, like the client's.
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 0, 255, 254);
/// Addresses outside the site's network: one that differs in a single bit, and one that has nothing in common.
const BESIDE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(172, 16, 9, 9);

/// A network with [`SITE_CIDR`] and [`BESIDE`], which a gateway's daemon with a wrong configuration would negotiate.
const TOO_WIDE: &str = "10.0.0.0/8";

const PORT: u16 = 9000;

/// The source port of the only permitted connection.
const CLIENT_PORT: u16 = 40_000;

/// The longest wait for an answer, which takes milliseconds on an idle machine. The SA ends after 30 s of silence.
const ANSWER: Duration = Duration::from_secs(15);

/// From a dropped packet to its warning. The gateway looks every four seconds; the rest is for a busy machine.
const NAMED: Duration = Duration::from_secs(8);

/// The initial state of a test: a tunnel with a share, and a site that is not connected.
struct Scene {
    world: World,
    tunnel: Value,
    load_balancer: Ipv4Addr,
    inside: Namespace,
    site: Site,
}

impl Scene {
    fn set() -> Result<Self> {
        let world = World::with_sites(1).start()?;
        greeting(&world.private, world.target(7001), "here")?;
        let (_agent, zid) = world.agent("agent")?;
        let tunnel = world.tunnel(0)?;
        world.share("greeting", &tunnel, &zid, world.target(7001), PORT)?;
        let load_balancer = text(&tunnel, "loadBalancerIp")?.parse()?;
        let inside = world.tunnel_namespace(&tunnel)?;
        let mut site = world.site(0)?;
        site.log_keys();
        Ok(Self { world, tunnel, load_balancer, inside, site })
    }

    fn door(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.load_balancer, PORT)
    }

    /// Counts the decrypted packets that reach the namespace's stack, with permitted and with other addresses. The
    /// counters precede all rules of the product.
    fn count(&self) -> Result<()> {
        self.inside.nft(&format!(
            "table ip onlooker {{
               counter right {{ }}
               counter wrong {{ }}
               chain decrypted {{
                 type filter hook prerouting priority raw; policy accept;
                 iifname ipsec0 ip saddr {SITE_CIDR} ip daddr {} counter name right accept
                 iifname ipsec0 counter name wrong
               }}
             }}",
            self.load_balancer
        ))
    }

    /// The numbers of permitted and of other packets.
    fn counted(&self) -> Result<(u64, u64)> {
        let count = |name: &str| -> Result<u64> {
            let out =
                self.inside.command("nft").args(["list", "counter", "ip", "onlooker", name]).output()?;
            let said = String::from_utf8_lossy(&out.stdout);
            let packets = said.split_whitespace().skip_while(|w| *w != "packets").nth(1);
            packets.and_then(|p| p.parse().ok()).with_context(|| format!("no count of {name}: {said:?}"))
        };
        Ok((count("right")?, count("wrong")?))
    }

    /// Checks that permitted packets from several addresses of the site are answered. This shows that other packets are
    /// not dropped because they are malformed. Returns the number of packets sent.
    fn answers(&self, esp: &mut Esp) -> Result<u64> {
        for (mark, from) in [(1, SITE_CLIENT), (2, NEIGHBOUR)] {
            esp.send(&echo_request(from, self.load_balancer, mark))?;
            let reply = Answer { from: self.load_balancer, to: from, kind: Kind::EchoReply(mark) };
            assert_eq!(Answer::parse(&esp.receive(ANSWER)?)?, reply);
        }
        let client = SocketAddrV4::new(SITE_CLIENT, CLIENT_PORT);
        esp.send(&segment(client, self.door(), SYN))?;
        let reply =
            Answer { from: self.load_balancer, to: SITE_CLIENT, kind: Kind::Segment(SYN_ACK, client.port()) };
        assert_eq!(Answer::parse(&esp.receive(ANSWER)?)?, reply);
        esp.send(&segment(client, self.door(), RST))?;
        Ok(4)
    }

    /// Sends `packets` and then a permitted echo request, and checks that only the echo request is answered.
    fn only_the_last_is_answered(&self, esp: &mut Esp, packets: &[Vec<u8>], mark: u16) -> Result<()> {
        for packet in packets {
            esp.send(packet)?;
        }
        esp.send(&echo_request(SITE_CLIENT, self.load_balancer, mark))?;
        // On a slow machine, the stack may retransmit its SYN-ACK for the abandoned connection.
        let again = Kind::Segment(SYN_ACK, CLIENT_PORT);
        let mut answer = Answer::parse(&esp.receive(ANSWER)?)?;
        while answer == (Answer { from: self.load_balancer, to: SITE_CLIENT, kind: again }) {
            answer = Answer::parse(&esp.receive(ANSWER)?)?;
        }
        let last = Answer { from: self.load_balancer, to: SITE_CLIENT, kind: Kind::EchoReply(mark) };
        ensure!(answer == last, "{answer:?} answers a packet outside the selectors");
        Ok(())
    }

    /// Echo requests and first segments from `sources` to the load balancer.
    fn from(&self, sources: &[Ipv4Addr]) -> Vec<Vec<u8>> {
        let both = |&source: &Ipv4Addr| {
            let syn = segment(SocketAddrV4::new(source, 40_001), self.door(), SYN);
            [echo_request(source, self.load_balancer, 100), syn]
        };
        sources.iter().flat_map(both).collect()
    }

    /// Echo requests and first segments from the site's client to other addresses than the load balancer's: the
    /// namespace's other address, one to which the namespace has a route, and an unused one.
    fn to_others(&self) -> Result<Vec<Vec<u8>>> {
        let uplink: Ipv4Addr = uplink_address(&self.inside)?.parse()?;
        let unused = Ipv4Addr::from(u32::from(self.load_balancer) ^ 1);
        let both = |to: Ipv4Addr| {
            let (client, door) = (SocketAddrV4::new(SITE_CLIENT, 40_002), SocketAddrV4::new(to, PORT));
            [echo_request(SITE_CLIENT, to, 200), segment(client, door, SYN)]
        };
        Ok([uplink, GATEWAY, unused].into_iter().flat_map(both).collect())
    }

    /// Waits until the tunnel tells of packets outside its selectors, with these words.
    fn is_told(&self, words: &str) -> Result<Value> {
        let path = format!("ipsec-tunnels/{}", text(&self.tunnel, "id")?);
        let is_told = |tunnel: &Value| {
            let mut all = tunnel["connection"]["warnings"].as_array().into_iter().flatten();
            all.any(|warning| {
                warning["reason"] == "PacketsOutsideSelectors"
                    && warning["message"].as_str().is_some_and(|message| message.contains(words))
            })
        };
        self.world.gateway.wait(&self.world.lab, &path, "told", NAMED, is_told)
    }

    fn without_rules(&self) -> Result<()> {
        self.inside.nft("delete table inet wicketgate")
    }
}

#[test]
fn the_gateways_daemon_drops_packets_outside_the_selectors() -> Result<()> {
    let mut scene = Scene::set()?;
    let config = scene.world.vpn_config(&scene.tunnel)?;
    scene.world.connect(&mut scene.site, &scene.tunnel, &config)?;
    scene.count()?;
    let mut esp = Esp::take_over(&mut scene.site, GATEWAY)?;
    let mut right = scene.answers(&mut esp)?;

    let begin = Instant::now();
    let packets = [scene.from(&[BESIDE, ELSEWHERE]), scene.to_others()?].concat();
    scene.only_the_last_is_answered(&mut esp, &packets, 3)?;
    let told = scene.is_told(&format!("packets from {SITE_CLIENT}, {BESIDE}, {ELSEWHERE} to "))?;
    for row in ["Not even ping works.", "PacketsOutsideSelectors"] {
        wicketgate_lab::named(row, begin.elapsed());
    }
    let takes = format!("since it takes packets from {SITE_CIDR} to {}/32 only", scene.load_balancer);
    ensure!(told.to_string().contains(&takes), "{told}");
    ensure!(told["ready"] == true, "{told}");
    right += 1;
    assert_eq!(scene.counted()?, (right, 0), "permitted and other packets in the namespace's stack");
    // The daemon drops the packets also without the namespace's rules.
    scene.without_rules()?;
    scene.only_the_last_is_answered(&mut esp, &packets, 4)?;
    right += 1;
    assert_eq!(scene.counted()?, (right, 0), "permitted and other packets in the namespace's stack");
    scene.world.end()
}

#[test]
fn a_namespaces_rules_drop_what_its_daemon_lets_through() -> Result<()> {
    let mut scene = Scene::set()?;
    widen(&scene)?;
    let config = scene.world.vpn_config(&scene.tunnel)?;
    let wide = config.replace(&format!("local_ts = {SITE_CIDR}"), &format!("local_ts = {TOO_WIDE}"));
    ensure!(wide != config, "the configuration does not have the site's network: {config}");
    scene.world.connect(&mut scene.site, &scene.tunnel, &wide)?;
    scene.count()?;
    let mut esp = Esp::take_over(&mut scene.site, GATEWAY)?;
    let right = scene.answers(&mut esp)?;

    let packets = scene.from(&[BESIDE]);
    scene.only_the_last_is_answered(&mut esp, &packets, 3)?;
    // The packets reached the rules, and the rules dropped them.
    assert_eq!(scene.counted()?, (right + 1, u64::try_from(packets.len())?));
    scene.is_told(&format!("packets from {BESIDE} to {} came", scene.load_balancer))?;
    // Without the rules the packets are served: the rules dropped them above.
    scene.without_rules()?;
    let stranger = SocketAddrV4::new(BESIDE, 40_003);
    for (packet, kind) in [
        (echo_request(BESIDE, scene.load_balancer, 5), Kind::EchoReply(5)),
        (segment(stranger, scene.door(), SYN), Kind::Segment(SYN_ACK, stranger.port())),
    ] {
        esp.send(&packet)?;
        let served = Answer { from: scene.load_balancer, to: BESIDE, kind };
        assert_eq!(Answer::parse(&esp.receive(ANSWER)?)?, served);
    }
    scene.world.end()
}

/// Configures [`TOO_WIDE`] as the site's network in the gateway's daemon, without the gateway's knowledge.
fn widen(scene: &Scene) -> Result<()> {
    let run = scene.world.gateway.data.join("gateway/tunnels/0/run");
    let socket = fs::canonicalize(run.join("charon.vici")).context("the gateway's daemon has no socket")?;
    let config = scene.world.lab.path("too-wide.conf");
    let (uplink, peer) = (uplink_address(&scene.inside)?, World::peer(0));
    fs::write(
        &config,
        format!(
            "connections {{ tunnel {{
  version = 2
  local_addrs = {uplink}
  remote_addrs = {peer}
  encap = yes
  mobike = no
  dpd_delay = 10s
  proposals = aes256gcm16-prfsha384-ecp384
  local {{ auth = psk
    id = {GATEWAY}
  }}
  remote {{ auth = psk
    id = {peer}
  }}
  children {{ site {{
    local_ts = {}/32
    remote_ts = {TOO_WIDE}
    esp_proposals = aes256gcm16-ecp384
  }} }}
}} }}
",
            scene.load_balancer
        ),
    )?;
    let mut swanctl = Command::new("timeout");
    swanctl.args(["10", "swanctl", "--load-conns", "--uri", &format!("unix://{}", socket.display())]);
    let out = swanctl.arg("--file").arg(&config).output()?;
    ensure!(out.status.success(), "swanctl: {}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

#[test]
#[ignore = "needs a kernel with ESP: make test-kernel"]
fn kernel_esp_tells_of_senders_outside_the_selectors() -> Result<()> {
    let mut scene = Scene::set()?;
    let config = scene.world.vpn_config(&scene.tunnel)?;
    scene.world.connect(&mut scene.site, &scene.tunnel, &config)?;
    let mut esp = Esp::take_over(&mut scene.site, GATEWAY)?;
    scene.answers(&mut esp)?;
    let packets = scene.from(&[BESIDE, ELSEWHERE]);
    scene.only_the_last_is_answered(&mut esp, &packets, 3)?;
    scene.is_told(&format!("packets from {BESIDE}, {ELSEWHERE} to {} came", scene.load_balancer))?;
    scene.world.end()
}
