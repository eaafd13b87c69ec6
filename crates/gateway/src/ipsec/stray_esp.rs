//! ESP of a peer to which the gateway has no SA: the peer has not noticed that the gateway gave the SA up.
//!
//! Raw sockets in the tunnel's namespace receive a copy of what the guard admits: packets of the tunnel's peer, or with its
//! forged address. A filter in the kernel leaves out the SAs that exist, from the moment it is attached. So a packet is a hint only (RFC 7296 §1.5). The answer is smaller, and the
//! caller limits how often it is sent.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

use crate::ground::{Namespace, NetworkError};

/// The port of IKE and ESP in UDP (RFC 3948).
const NAT_TRAVERSAL: u16 = 4500;

/// The protocol number of ESP that is not in UDP.
const ESP: i32 = 50;

/// Headers of IPv4 without options, of UDP, and of ESP.
const IP: usize = 20;
const UDP: usize = 8;
const ESP_HEADER: usize = 8;

/// More than the headers: the rest of a packet is not needed.
const BUFFER: usize = 128;

/// SAs that the filter leaves out: far more than a tunnel has.
const FILTERED: usize = 64;

/// A few packets. What a busy peer sends meanwhile is dropped.
const RECEIVE_BUFFER: usize = 16 << 10;

/// The sockets. See the module.
#[derive(Debug)]
pub(super) struct StrayEsp {
    in_udp: AsyncFd<Socket>,
    bare: AsyncFd<Socket>,
    /// For what was received before the filter, and for what it has no room for.
    existing: Vec<u32>,
}

/// A packet's SPI and where it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StrayPacket {
    pub(super) spi: u32,
    pub(super) from: SocketAddrV4,
}

impl StrayEsp {
    /// Watches the packets to `inside`, the engine's own address in `namespace`, with another SPI than `existing`.
    pub(super) async fn watch(
        namespace: &Namespace,
        inside: Ipv4Addr,
        existing: Vec<u32>,
    ) -> Result<Self, NetworkError> {
        let filtered = existing.clone();
        let open = move || {
            let open = |protocol: Protocol| {
                let socket = Socket::new(Domain::IPV4, Type::RAW.cloexec(), Some(protocol))?;
                let headers = if protocol == Protocol::UDP { UDP } else { 0 };
                socket.attach_filter(&others(headers, &filtered))?;
                socket.set_nonblocking(true)?;
                socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
                socket.bind(&SocketAddrV4::new(inside, 0).into())?;
                Ok::<_, io::Error>(socket)
            };
            Ok((open(Protocol::UDP)?, open(Protocol::from(ESP))?))
        };
        let (in_udp, bare) = namespace.run_blocking("open raw sockets", open).await?;
        let watch = |socket| watch(socket).map_err(NetworkError::io("watch a raw socket"));
        Ok(Self { in_udp: watch(in_udp)?, bare: watch(bare)?, existing })
    }

    /// Waits for a packet of ESP. Cancel-safe.
    pub(super) async fn packet(&self) -> io::Result<StrayPacket> {
        loop {
            let received = tokio::select! {
                packet = receive(&self.in_udp) => packet?,
                packet = receive(&self.bare) => packet?,
            };
            if let Some(packet) = stray(&received, &self.existing) {
                return Ok(packet);
            }
        }
    }

    /// Tells the peer, without protection, that the SPI is unknown: it may check whether the gateway is alive.
    pub(super) fn answer(&self, packet: StrayPacket) -> io::Result<()> {
        let message = invalid_spi(packet);
        // A raw socket's destination has no port: it is in the message's UDP header.
        let to = SocketAddrV4::new(*packet.from.ip(), 0);
        self.in_udp.get_ref().send_to(&message, &to.into()).map(drop)
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe for types that could close the descriptor; a Socket does not"
)]
fn watch(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    AsyncFd::with_interest(socket, Interest::READABLE)
}

async fn receive(socket: &AsyncFd<Socket>) -> io::Result<Vec<u8>> {
    socket
        .async_io(Interest::READABLE, |mut socket| {
            let mut buffer = [0; BUFFER];
            let length = io::Read::read(&mut socket, &mut buffer)?;
            Ok(buffer[..length].to_vec())
        })
        .await
}

/// A program of the kernel's packet filter that admits packets of IPv4 whose ESP, `headers` bytes behind the header of IP, has
/// none of these SPIs, and is not IKE, which has 0 there (RFC 3948 §2.2). Of too many SPIs, the program has the first.
fn others(headers: usize, spis: &[u32]) -> Vec<SockFilter> {
    // From the kernel's `linux/filter.h`.
    const LOAD_HEADER_LENGTH: u16 = 0xb1;
    const LOAD_WORD_BEHIND: u16 = 0x40;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let spis: Vec<_> = std::iter::once(0).chain(spis.iter().copied().take(FILTERED)).collect();
    let offset = u32::try_from(headers).unwrap_or_default();
    let mut program =
        vec![SockFilter::new(LOAD_HEADER_LENGTH, 0, 0, 0), SockFilter::new(LOAD_WORD_BEHIND, 0, 0, offset)];
    for (at, spi) in spis.iter().enumerate() {
        // Over the other comparisons and the first end.
        let over = u8::try_from(spis.len() - at).unwrap_or_default();
        program.push(SockFilter::new(JUMP_IF_EQUAL, over, 0, *spi));
    }
    program.extend([SockFilter::new(RETURN, 0, 0, u32::MAX), SockFilter::new(RETURN, 0, 0, 0)]);
    program
}

/// The ESP packet in an IPv4 packet, if it is one and belongs to none of the SAs that exist.
fn stray(packet: &[u8], existing: &[u32]) -> Option<StrayPacket> {
    let header = usize::from(packet.first()? & 15) * 4;
    let source = Ipv4Addr::from(*packet.get(12..16)?.first_chunk::<4>()?);
    let payload = packet.get(header.max(IP)..)?;
    let (port, esp) = if i32::from(*packet.get(9)?) == ESP {
        (NAT_TRAVERSAL, payload)
    } else {
        let port = |at: usize| Some(u16::from_be_bytes(*payload.get(at..)?.first_chunk()?));
        if port(2)? != NAT_TRAVERSAL {
            return None;
        }
        (port(0)?, payload.get(UDP..)?)
    };
    // Zero marks IKE, and a keepalive is one byte (RFC 3948 §2).
    let spi = u32::from_be_bytes(*esp.first_chunk()?);
    let is_stray = spi != 0 && esp.len() > ESP_HEADER && !existing.contains(&spi);
    is_stray.then_some(StrayPacket { spi, from: SocketAddrV4::new(source, port) })
}

/// UDP with an unprotected INFORMATIONAL message that has one notify, INVALID_SPI (RFC 7296 §1.5, §3.1, §3.10.1).
fn invalid_spi(packet: StrayPacket) -> Vec<u8> {
    const NOTIFY_PAYLOAD: u8 = 41;
    const VERSION_2: u8 = 0x20;
    const INFORMATIONAL: u8 = 37;
    const INITIATOR: u8 = 0x08;
    const INVALID_SPI: u16 = 11;
    // Payload header and notify: no protocol, no SPI of its own, and the unknown SPI as data.
    let mut notify = vec![0, 0, 0, 12, 0, 0];
    notify.extend(INVALID_SPI.to_be_bytes());
    notify.extend(packet.spi.to_be_bytes());
    // Neither the SPIs of an IKE SA nor a message id have a meaning.
    let mut ike = vec![0; 16];
    ike.extend([NOTIFY_PAYLOAD, VERSION_2, INFORMATIONAL, INITIATOR]);
    ike.extend(0_u32.to_be_bytes());
    let length = |more: usize| u16::try_from(more).unwrap_or(u16::MAX);
    ike.extend([0, 0]);
    ike.extend(length(28 + notify.len()).to_be_bytes());
    let mut message = Vec::new();
    for field in [NAT_TRAVERSAL, packet.from.port(), length(UDP + 4 + ike.len() + notify.len()), 0] {
        // The last one is the checksum, which is optional.
        message.extend(field.to_be_bytes());
    }
    // The mark of IKE on the port of ESP.
    message.extend([0; 4]);
    message.extend(ike);
    message.extend(notify);
    message
}

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz {
    use super::*;

    /// Only ESP of no SA that exists is answered, from where it came, and with less than was received.
    pub fn esp_packet(bytes: &[u8]) {
        let existing = [1, 0xc102_0304];
        let Some(packet) = stray(bytes, &existing) else { return };
        assert!(packet.spi != 0 && !existing.contains(&packet.spi));
        assert_eq!(bytes[12..16], packet.from.ip().octets());
        let answer = invalid_spi(packet);
        assert!(answer.len() <= 64 && answer.ends_with(&packet.spi.to_be_bytes()));
        assert_eq!(answer[2..4], packet.from.port().to_be_bytes());
        assert_eq!(usize::from(u16::from_be_bytes([answer[4], answer[5]])), answer.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 203, 0, 113, 2, 169, 254, 4, 2];
        packet.extend(payload);
        packet
    }

    fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = [from, to, 0, 0].map(u16::to_be_bytes).concat();
        packet.extend(payload);
        ipv4(17, &packet)
    }

    #[test]
    fn esp_is_told_from_ike_and_keepalives() {
        let esp = [0xc1, 2, 3, 4, 0, 0, 0, 9, 1, 1, 1, 1];
        let found = |port| {
            Some(StrayPacket { spi: 0xc102_0304, from: format!("203.0.113.2:{port}").parse().unwrap() })
        };
        assert_eq!(stray(&udp(20_001, 4500, &esp), &[7]), found(20_001));
        assert_eq!(stray(&ipv4(50, &esp), &[]), found(4500));
        assert_eq!(stray(&ipv4(50, &esp), &[7, 0xc102_0304]), None, "it came before the filter");
        let ike = [0; 40];
        for other in
            [udp(4500, 4500, &ike), udp(4500, 4500, &[0xff]), udp(500, 500, &esp), udp(4500, 4500, &esp[..8])]
        {
            assert_eq!(stray(&other, &[]), None, "{other:?}");
        }
    }

    #[test]
    fn an_answer_is_smaller_than_the_smallest_esp_packet() {
        let packet = StrayPacket { spi: 0xc102_0304, from: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 20_001) };
        let message = invalid_spi(packet);
        // UDP, ESP header, IV, an inner IPv4 header with trailer, and tag.
        assert!(message.len() <= 8 + 8 + 8 + 24 + 16, "{}", message.len());
        assert_eq!(message.len(), usize::from(u16::from_be_bytes([message[4], message[5]])));
        assert_eq!(message[2..4], 20_001_u16.to_be_bytes());
        assert_eq!(message[message.len() - 6..], [0, 11, 0xc1, 2, 3, 4]);
    }

    proptest! {
        #[test]
        fn no_packet_panics(bytes: Vec<u8>) {
            stray(&bytes, &[]);
        }
    }
}
