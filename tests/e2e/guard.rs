//! Packets from outside to the gateway's addresses, and from a tunnel to unpublished services, are dropped without an
//! answer.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};
use wicketgate_lab::Namespace;

use crate::{
    e2e::entry_point::uplink_address,
    harness::{
        GATEWAY, PATIENCE, SITE_CLIENT, World,
        packets::{SYN, datagram, echo_request, segment},
        ping::ping,
        targets::{ask, here},
        text,
    },
};

const IKE: u16 = 500;
const NAT_T: u16 = 4500;

/// An IKE header of an unknown version. An IKE daemon answers it with an error (RFC 7296 §2.5).
const HELLO: [u8; 28] =
    [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x30, 34, 8, 0, 0, 0, 0, 0, 0, 0, 28];

/// Counts packets in a namespace, with nftables rules that have their own priority among those of the product.
struct Onlooker<'a>(&'a Namespace);

impl<'a> Onlooker<'a> {
    /// Adds one counter for each rule, in a chain with this hook and priority.
    fn watch(namespace: &'a Namespace, hook: &str, rules: &[(&str, String)]) -> Result<Self> {
        let counters: String = rules.iter().map(|(name, _)| format!("counter {name} {{ }}\n")).collect();
        let rules: String =
            rules.iter().map(|(name, rule)| format!("{rule} counter name {name}\n")).collect();
        namespace.nft(&format!(
            "table ip onlooker {{
               {counters}
               chain seen {{
                 type filter hook {hook}; policy accept;
                 {rules}
               }}
             }}"
        ))?;
        Ok(Self(namespace))
    }

    fn count(&self, name: &str) -> Result<u64> {
        let out = self.0.command("nft").args(["list", "counter", "ip", "onlooker", name]).output()?;
        let said = String::from_utf8_lossy(&out.stdout);
        let packets = said.split_whitespace().skip_while(|w| *w != "packets").nth(1);
        packets.and_then(|p| p.parse().ok()).with_context(|| format!("no count of {name}: {said:?}"))
    }
}

/// Sends packets with their own IP headers.
fn send(from: &Namespace, packets: &[Vec<u8>]) -> Result<()> {
    let raw = from.enter(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))))??;
    for packet in packets {
        let to = packet.get(16..20).and_then(|to| <[u8; 4]>::try_from(to).ok()).context("no IPv4 packet")?;
        raw.send_to(packet, &SocketAddr::from((Ipv4Addr::from(to), 0)).into())?;
    }
    Ok(())
}

#[test]
fn a_scan_shows_ike_to_known_peers_and_nothing_to_others() -> Result<()> {
    let world = World::with_sites(2).start()?;
    let tunnel = world.tunnel(0)?;
    let (known, stranger) = (world.site(0)?, world.site(1)?);

    // The gateway answers IKE messages from the address of the known peer.
    for (port, marker) in [(IKE, &[][..]), (NAT_T, &[0; 4][..])] {
        let socket = known.namespace.enter(|| UdpSocket::bind((World::peer(0), port)))??;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send_to(&[marker, &HELLO].concat(), (GATEWAY, port))?;
        let mut answer = [0; 128];
        let length = socket.recv(&mut answer).with_context(|| format!("no answer from port {port}"))?;
        ensure!(answer[..length].starts_with(&[marker, &HELLO[..8]].concat()), "{:02x?}", &answer[..length]);
    }

    let from_gateway = format!("ip saddr {GATEWAY} meta l4proto");
    let rules = [("answered", format!("{from_gateway} != tcp")), ("last", format!("{from_gateway} tcp"))];
    let seen = Onlooker::watch(&stranger.namespace, "prerouting priority raw", &rules)?;
    let probe = || -> Result<()> {
        let to = |port| SocketAddrV4::new(GATEWAY, port);
        let from = |port| SocketAddrV4::new(World::peer(1), port);
        let mut packets = Vec::new();
        for source in [IKE, NAT_T, 40_000] {
            packets.push(datagram(from(source), to(IKE), &HELLO));
            packets.push(datagram(from(source), to(NAT_T), &[&[0; 4], &HELLO[..]].concat()));
            // An ESP packet in UDP, and a keepalive.
            packets.push(datagram(from(source), to(NAT_T), &[0x5a; 64]));
            packets.push(datagram(from(source), to(NAT_T), &[0xff]));
        }
        send(&stranger.namespace, &packets)?;
        // An ESP packet without UDP.
        let esp =
            stranger.namespace.enter(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(50))))??;
        esp.send_to(&[0x5a; 64], &SocketAddr::from((GATEWAY, 0)).into())?;
        // The agents' port is open to all. Its answer arrives after any answer to the packets above.
        stranger.namespace.connect(world.agents_dial(), PATIENCE).map(drop)
    };
    probe()?;
    ensure!(seen.count("last")? > 0, "the counter does not count");
    assert_eq!(seen.count("answered")?, 0, "packets that answer a stranger");

    // A peer whose tunnel is deleted is a stranger again. A host without the gateway's rules answers.
    world.gateway.clear(&world.lab, PATIENCE)?;
    probe()?;
    assert_eq!(seen.count("answered")?, 0, "packets that answer a stranger");
    let flushed = world.outside.command("nft").args(["flush", "ruleset"]).status()?;
    ensure!(flushed.success(), "cannot remove the rules");
    probe()?;
    ensure!(seen.count("answered")? > 0, "these packets are not answered even without the rules");
    drop(tunnel);
    world.end()
}

#[test]
fn only_answers_to_the_hosts_own_connections_are_admitted() -> Result<()> {
    let world = World::with_sites(1).start()?;
    let stranger = world.site(0)?;
    let own = world.outside.enter(|| UdpSocket::bind((GATEWAY, IKE)))??;
    let other = stranger.namespace.enter(|| UdpSocket::bind((World::peer(0), IKE)))??;
    for socket in [&own, &other] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    own.send_to(&HELLO, (World::peer(0), IKE))?;
    let mut said = [0; 128];
    let (length, from) = other.recv_from(&mut said).context("the host's own IKE message does not leave")?;
    other.send_to(&said[..length], from)?;
    ensure!(own.recv(&mut said).context("the host's own IKE message is not answered")? == HELLO.len());
    let third = stranger.namespace.enter(|| UdpSocket::bind((World::peer(0), 40_001)))??;
    third.send_to(&HELLO, (GATEWAY, IKE))?;
    // The connection to the agents' port completes after the message above arrived or was dropped.
    stranger.namespace.connect(world.agents_dial(), PATIENCE).map(drop)?;
    own.set_nonblocking(true)?;
    ensure!(own.recv(&mut said).is_err(), "a stranger's message was admitted");
    world.end()
}

#[test]
fn a_tunnels_namespace_admits_only_its_peer_and_only_at_the_public_address() -> Result<()> {
    let world = World::with_sites(2).start()?;
    let tunnels = [world.tunnel(0)?, world.tunnel(1)?];
    let (_agent, door) = world.greeting(&tunnels[0])?;
    let site = world.connected_site(0, &tunnels[0])?;
    let neighbour = world.site(1)?;
    let load_balancer: Ipv4Addr = text(&tunnels[0], "loadBalancerIp")?.parse()?;
    let inside = world.tunnel_namespace(&tunnels[0])?;
    let uplink: Ipv4Addr = uplink_address(&inside)?.parse()?;

    // The internet's router sends packets for the gateway's inner addresses to the gateway.
    let internet = world.internet.as_ref().context("no internet")?;
    for network in ["169.254.0.0/16", "100.64.0.0/10"] {
        internet.ip(&format!("route add {network} via {GATEWAY}"))?;
    }
    world.outside.ip(&format!("route add {load_balancer}/32 via {uplink}"))?;
    // A unique source port identifies the neighbour's packets. The counters see packets before any rule drops them.
    let mark = 40_444;
    let rules = [
        ("wrong", format!("iifname uplink ip saddr != {} meta l4proto {{ tcp, udp, icmp }}", World::peer(0))),
        ("spoofed", format!("iifname uplink udp sport {mark} udp dport {IKE}")),
        ("last", format!("iifname uplink udp sport {mark} udp dport {NAT_T}")),
    ];
    let seen = Onlooker::watch(&inside, "prerouting priority -301", &rules)?;
    let to_all = |from: Ipv4Addr| -> Vec<Vec<u8>> {
        let source = SocketAddrV4::new(from, mark);
        let to = |address: Ipv4Addr| {
            let at = |port| SocketAddrV4::new(address, port);
            [
                datagram(source, at(IKE), &HELLO),
                datagram(source, at(NAT_T), &[0x5a; 64]),
                segment(source, at(9000), SYN),
                echo_request(from, address, 1),
            ]
        };
        [uplink, load_balancer].into_iter().flat_map(to).collect()
    };
    // The sources are the neighbour's own address, one of the site's network, and the site's public address.
    send(&neighbour.namespace, &to_all(World::peer(1)))?;
    send(&neighbour.namespace, &to_all(SITE_CLIENT))?;
    let as_peer = to_all(World::peer(0));
    send(&neighbour.namespace, &as_peer)?;
    // A packet from the neighbour's public address is steered to the neighbour's tunnel. Only one from the peer's
    // address reaches the peer's tunnel, where it is useless without the keys.
    let own = SocketAddrV4::new(World::peer(1), mark);
    let spoofed = SocketAddrV4::new(World::peer(0), mark);
    let public = SocketAddrV4::new(GATEWAY, NAT_T);
    send(
        &neighbour.namespace,
        &[datagram(own, public, &[0x5a; 64]), datagram(spoofed, public, &[0x5a; 64])],
    )?;
    let came = || Ok((seen.count("last")? > 0).then_some(()));
    world.lab.until("the packet with the peer's address reaches the peer's tunnel", PATIENCE, came)?;
    assert_eq!((seen.count("last")?, seen.count("wrong")?, seen.count("spoofed")?), (1, 0, 0));
    assert_eq!(ask(&site.namespace, door, PATIENCE)?, "here");

    // Without the host's rules the packets reach the namespace.
    let flushed = world.outside.command("nft").args(["flush", "ruleset"]).status()?;
    ensure!(flushed.success(), "cannot remove the rules");
    send(&neighbour.namespace, &[to_all(World::peer(1)), as_peer].concat())?;
    let came = || Ok((seen.count("wrong")? > 0 && seen.count("spoofed")? > 0).then_some(()));
    world.lab.until("the packets arrive without the rules", PATIENCE, came)?;
    world.end()
}

#[test]
fn a_peer_reaches_ports_of_shares_and_an_echo_and_nothing_else_of_its_load_balancer() -> Result<()> {
    let (world, published) = World::with_sites(1).publish(here)?;
    let site = world.connected_site(0, &published.tunnel)?;
    let inside = world.tunnel_namespace(&published.tunnel)?;
    let load_balancer: Ipv4Addr = text(&published.tunnel, "loadBalancerIp")?.parse()?;
    // Counts packets before and after the product's rules.
    let udp = format!("ip daddr {load_balancer} meta l4proto udp");
    let come = Onlooker::watch(&inside, "prerouting priority raw", &[("came", udp.clone())])?;
    inside.nft(&format!(
        "table ip behind {{
           counter past {{ }}
           chain seen {{ type filter hook input priority 10; policy accept; {udp} counter name past; }}
         }}"
    ))?;

    // The ports that are open to the peer on the uplink, where the daemon listens, and unused ports.
    for port in [IKE, NAT_T, 53, 9000] {
        let socket = site.namespace.enter(|| UdpSocket::bind((SITE_CLIENT, 0)))??;
        socket.send_to(&[&[0; 4], &HELLO[..]].concat(), (load_balancer, port))?;
    }
    // Packets keep their order: once the echo is answered, all of them have been processed.
    let done = true.into();
    let (_, lost) = ping(&site.namespace, SITE_CLIENT, load_balancer, 1, &done)?;
    ensure!(lost.is_empty(), "the echo request is not answered");
    assert_eq!(come.count("came")?, 4);
    let out = inside.command("nft").args(["list", "counter", "ip", "behind", "past"]).output()?;
    let past = String::from_utf8_lossy(&out.stdout).into_owned();
    ensure!(past.contains("packets 0 "), "UDP from the tunnel passed the rules: {past}");

    // A closed TCP port refuses at once: the peer may know which ports are closed, and its device reports them as such.
    for port in [22, 80, 8001, 9001, 65_535] {
        let refused = site.namespace.connect((load_balancer, port).into(), PATIENCE);
        let kind = refused.err().and_then(|e| e.downcast::<std::io::Error>().ok()).map(|e| e.kind());
        assert_eq!(kind, Some(ErrorKind::ConnectionRefused), "port {port}");
    }
    assert_eq!(ask(&site.namespace, published.door, Duration::from_secs(30))?, "here");
    world.end()
}
