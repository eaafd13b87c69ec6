//! ICMP errors that no router on the path has sent.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};
use wicketgate_lab::Namespace;

use crate::harness::{
    GATEWAY, PATIENCE, World,
    sas::gateways_swanctl,
    targets::{connect, echo, exchange},
};

/// That a packet of UDP 4500 with this SPI was too large for a line of `mtu` bytes (RFC 792, RFC 1191 §4).
fn too_large(spi: u32, mtu: u16) -> Vec<u8> {
    let mut message = vec![3, 4, 0, 0, 0, 0];
    message.extend(mtu.to_be_bytes());
    message.extend([0x45, 0, 5, 220, 0, 0, 0x40, 0, 63, 17, 0, 0]);
    message.extend(GATEWAY.octets());
    message.extend(World::peer(0).octets());
    message.extend([4500_u16, 4500, 1480, 0].map(u16::to_be_bytes).concat());
    message.extend([spi, 1].map(u32::to_be_bytes).concat());
    let sum =
        message.chunks(2).fold(0_u32, |sum, pair| sum + u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or_default();
    message.splice(2..4, checksum.to_be_bytes());
    message
}

fn send(from: &Namespace, message: &[u8]) -> Result<()> {
    from.enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
        socket.send_to(message, &SocketAddrV4::new(GATEWAY, 0).into())
    })??;
    Ok(())
}

/// What the kernel has learned of the path to the peer.
fn route(inside: &Namespace, peer: Ipv4Addr) -> Result<String> {
    let out = inside.command("ip").args(["route", "get", &peer.to_string()]).output()?;
    ensure!(out.status.success(), "ip route get: {}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8(out.stdout)?)
}

#[test]
fn an_icmp_error_is_believed_only_if_it_quotes_a_packet_that_was_sent_and_down_to_a_floor() -> Result<()> {
    let (world, published) = World::with_sites(1).publish(echo)?;
    let site = world.connected_site(0, &published.tunnel)?;
    let inside = world.tunnel_namespace(&published.tunnel)?;
    let internet = world.internet.as_ref().context("no internet")?;
    let mut stream = connect(&site.namespace, published.door, PATIENCE)?;
    exchange(&mut stream, b"before")?;
    let sas = gateways_swanctl(&world, 0, &["--list-sas"])?;
    let out = sas.lines().find_map(|line| line.trim().strip_prefix("out ")).context("no SA")?;
    let spi = u32::from_str_radix(out.trim_start().split([',', ' ']).next().unwrap_or_default(), 16)
        .with_context(|| format!("no SPI in {out}"))?;

    // One of 2^32 is right; the messages of IKE have 0.
    for guessed in [0, 1, !spi, spi.swap_bytes(), spi ^ 1] {
        send(internet, &too_large(guessed, 600))?;
    }
    // The gateway handles packets in the order of their arrival.
    exchange(&mut stream, b"after")?;
    let before = route(&inside, World::peer(0))?;
    ensure!(!before.contains("mtu"), "a forged error was believed: {before}");

    send(internet, &too_large(spi, 600))?;
    let learned = world.lab.until("the true error is believed", PATIENCE, || {
        Ok(Some(route(&inside, World::peer(0))?).filter(|route| route.contains("mtu")))
    })?;
    ensure!(learned.contains("mtu lock 1200"), "{learned}");
    exchange(&mut stream, b"the connection goes on")?;
    world.end()
}
