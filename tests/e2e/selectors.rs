//! A remote site that does not keep to what was negotiated: its ESP is in order, and what is in it is not.
//!
//! No honest daemon sends such packets, so the test speaks ESP itself, with the keys of the site's own tunnel. Two
//! things stop them, each tried here without the other: the gateway's IKE daemon knows its policy, and the tunnel's
//! namespace has its own rules. An echo from inside goes after them each time; since packets keep their order, its
//! reply says that they were dealt with, and nothing has to be waited for.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    process::Command,
    time::Duration,
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

/// In the site's network, as the client is; and not, by one bit and by all of them.
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 0, 255, 254);
const BESIDE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(172, 16, 9, 9);

/// Holds [`SITE_CIDR`] and [`BESIDE`]: what a gateway's daemon with a wrong configuration would negotiate.
const TOO_WIDE: &str = "10.0.0.0/8";

const PORT: u16 = 9000;

/// Of the one connection that is in order.
const CLIENT_PORT: u16 = 40_000;

/// For an answer: milliseconds, on a machine that has nothing else to do. Half a minute of silence ends the SA.
const ANSWER: Duration = Duration::from_secs(15);

/// What a test of this file begins with: a share, a tunnel, and a site that is not connected yet.
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

    /// Counts what is decrypted and given to the namespace's stack, by whether it is from and to the right ones:
    /// before any rule of the product, which therefore has no part in it.
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

    /// What was counted: right and wrong.
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

    /// That permitted packets are answered, whichever address of the site's it comes from: what is dropped
    /// otherwise is not dropped for a fault of the packets'. Returns how many packets it took.
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

    /// Sends `packets`, and then an echo request from inside: only that is answered.
    fn only_the_last_is_answered(&self, esp: &mut Esp, packets: &[Vec<u8>], mark: u16) -> Result<()> {
        for packet in packets {
            esp.send(packet)?;
        }
        esp.send(&echo_request(SITE_CLIENT, self.load_balancer, mark))?;
        // A slow machine's stack repeats what it said to the connection that was given up.
        let again = Kind::Segment(SYN_ACK, CLIENT_PORT);
        let mut answer = Answer::parse(&esp.receive(ANSWER)?)?;
        while answer == (Answer { from: self.load_balancer, to: SITE_CLIENT, kind: again }) {
            answer = Answer::parse(&esp.receive(ANSWER)?)?;
        }
        let last = Answer { from: self.load_balancer, to: SITE_CLIENT, kind: Kind::EchoReply(mark) };
        ensure!(answer == last, "{answer:?} came back to a packet from outside the selectors");
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

    /// The same from the site's client to other places than the load balancer: the namespace itself by its other
    /// address, one that it has a route to, and an unused one.
    fn to_others(&self) -> Result<Vec<Vec<u8>>> {
        let uplink: Ipv4Addr = uplink_address(&self.inside)?.parse()?;
        let unused = Ipv4Addr::from(u32::from(self.load_balancer) ^ 1);
        let both = |to: Ipv4Addr| {
            let (client, door) = (SocketAddrV4::new(SITE_CLIENT, 40_002), SocketAddrV4::new(to, PORT));
            [echo_request(SITE_CLIENT, to, 200), segment(client, door, SYN)]
        };
        Ok([uplink, GATEWAY, unused].into_iter().flat_map(both).collect())
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

    let packets = [scene.from(&[BESIDE, ELSEWHERE]), scene.to_others()?].concat();
    scene.only_the_last_is_answered(&mut esp, &packets, 3)?;
    right += 1;
    assert_eq!(scene.counted()?, (right, 0), "right and wrong packets that came to the namespace's stack");
    // It is not the namespace's rules that did it.
    scene.without_rules()?;
    scene.only_the_last_is_answered(&mut esp, &packets, 4)?;
    right += 1;
    assert_eq!(scene.counted()?, (right, 0), "right and wrong packets that came to the namespace's stack");
    scene.world.end()
}

#[test]
fn a_namespaces_rules_drop_what_its_daemon_lets_through() -> Result<()> {
    let mut scene = Scene::set()?;
    widen(&scene)?;
    let config = scene.world.vpn_config(&scene.tunnel)?;
    let wide = config.replace(&format!("local_ts = {SITE_CIDR}"), &format!("local_ts = {TOO_WIDE}"));
    ensure!(wide != config, "the configuration has another network: {config}");
    scene.world.connect(&mut scene.site, &scene.tunnel, &wide)?;
    scene.count()?;
    let mut esp = Esp::take_over(&mut scene.site, GATEWAY)?;
    let right = scene.answers(&mut esp)?;

    let packets = scene.from(&[BESIDE]);
    scene.only_the_last_is_answered(&mut esp, &packets, 3)?;
    // They came as far as to the rules, and no further.
    assert_eq!(scene.counted()?, (right + 1, u64::try_from(packets.len())?));
    // And without the rules they are served: what was seen above was the rules' work.
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

/// Tells the gateway's daemon, behind the gateway's back, that the site's network is [`TOO_WIDE`].
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
