//! Builds inner packets: IPv4 (RFC 791) with an echo request (RFC 792), a datagram (RFC 768) or the first segment of a
//! TCP connection (RFC 9293). Every checksum is correct, so that only a rule can drop a packet.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context as _, Result, ensure};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;

pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const SYN_ACK: u8 = 0x12;

/// The first sequence number of every connection. It is fixed, since no test depends on it.
const FIRST_SEQUENCE: u32 = 1;

/// An echo request that is identified by `mark`.
pub(crate) fn echo_request(from: Ipv4Addr, to: Ipv4Addr, mark: u16) -> Vec<u8> {
    ipv4(ICMP, from, to, &echo_message(mark))
}

/// The ICMP message of an echo request, without an IP header.
pub(crate) fn echo_message(mark: u16) -> Vec<u8> {
    let mut message = vec![ECHO_REQUEST, 0, 0, 0, 0x77, 0x67];
    message.extend(mark.to_be_bytes());
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// A segment without data: [`SYN`], or [`RST`] after it.
pub(crate) fn segment(from: SocketAddrV4, to: SocketAddrV4, flags: u8) -> Vec<u8> {
    let sequence = if flags == SYN { FIRST_SEQUENCE } else { FIRST_SEQUENCE + 1 };
    let mut segment = Vec::with_capacity(20);
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    // No acknowledgement, a header of five words, an unused window, the checksum, no urgent data.
    segment.extend([0, 0, 0, 0, 5 << 4, flags, 0x20, 0, 0, 0, 0, 0]);
    let pseudo_header =
        [&from.ip().octets()[..], &to.ip().octets(), &[0, TCP], &20_u16.to_be_bytes()].concat();
    let sum = checksum(&[&pseudo_header, &segment]);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    ipv4(TCP, *from.ip(), *to.ip(), &segment)
}

/// A UDP datagram (RFC 768) without the optional checksum.
pub(crate) fn datagram(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    let header = [from.port(), to.port(), length, 0].map(u16::to_be_bytes).concat();
    ipv4(UDP, *from.ip(), *to.ip(), &[&header, payload].concat())
}

fn ipv4(protocol: u8, from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    // No identification, don't fragment, a TTL of 64.
    packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    let sum = checksum(&[&packet]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// The Internet checksum (RFC 1071). Every part except the last has an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|p| p.chunks(2));
    let sum =
        words.fold(0, |sum: u32, w| sum + u32::from(w[0]) * 256 + w.get(1).map_or(0, |b| u32::from(*b)));
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !u16::try_from(sum).unwrap_or_default()
}

/// The content of a received packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An echo reply, with the mark of its request.
    EchoReply(u16),
    /// A TCP segment, with its flags and destination port.
    Segment(u8, u16),
    /// Another protocol, with its number.
    Other(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) from: Ipv4Addr,
    pub(crate) to: Ipv4Addr,
    pub(crate) kind: Kind,
}

impl Answer {
    pub(crate) fn parse(packet: &[u8]) -> Result<Self> {
        ensure!(packet.first().is_some_and(|b| b >> 4 == 4), "not an IPv4 packet: {packet:02x?}");
        let address = |at: usize| -> Option<Ipv4Addr> {
            Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?))
        };
        let payload = packet.get(usize::from(packet[0] & 0xf) * 4..).context("truncated")?;
        let port = |at: usize| payload.get(at..at + 2).map(|p| u16::from_be_bytes([p[0], p[1]]));
        let kind = match (packet[9], payload.first().copied().context("truncated")?) {
            (ICMP, ECHO_REPLY) => Kind::EchoReply(port(6).context("truncated")?),
            (TCP, _) => {
                let flags = payload.get(13).context("truncated")?;
                Kind::Segment(*flags, port(2).context("truncated")?)
            }
            (protocol, _) => Kind::Other(protocol),
        };
        let (from, to) = (address(12).context("truncated")?, address(16).context("truncated")?);
        Ok(Self { from, to, kind })
    }
}
