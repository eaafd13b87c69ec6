//! Forgetting a peer's connections.
//!
//! Address translation is decided once for each flow, and a peer that retransmits keeps a flow alive for ever. Where
//! a peer is steered to another namespace, or to none, the kernel has to forget what it decided.

use std::{io, net::Ipv4Addr};

use socket2::{Domain, Protocol, Socket, Type};

// Numbers of the kernel's netlink.h, nfnetlink.h and nfnetlink_conntrack.h.
const AF_NETLINK: i32 = 16;
const NETLINK_NETFILTER: i32 = 12;
const DELETE_CONNTRACK: u16 = 1 << 8 | 2;
const REQUEST_ACK: u16 = 1 | 4;
const NLMSG_ERROR: u16 = 2;
const NESTED: u16 = 1 << 15;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_IP: u16 = 1;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const FILTER_IP_SRC: u32 = 1;
const FILTER_PROTO_NUM: u32 = 1 << 3;
const AF_INET: u8 = 2;

const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ESP: u8 = 50;

/// Forgets the UDP and ESP flows that came from `peer`, in this process's own namespace. Blocks for a moment.
pub(crate) fn forget(peer: Ipv4Addr) -> io::Result<()> {
    let socket = Socket::new(
        Domain::from(AF_NETLINK),
        Type::DGRAM.cloexec(),
        Some(Protocol::from(NETLINK_NETFILTER)),
    )?;
    socket.set_read_timeout(Some(super::TOOL_TIMEOUT))?;
    for protocol in [PROTOCOL_UDP, PROTOCOL_ESP] {
        socket.send(&request(peer, protocol))?;
        let mut answer = [0u8; 128];
        let length = io::Read::read(&mut &socket, &mut answer)?;
        // struct nlmsghdr (16 bytes), then for an error or acknowledgement its negated errno.
        match (&answer[..length.min(20)], u16_at(&answer, 4)) {
            ([.., a, b, c, d], NLMSG_ERROR) => match i32::from_ne_bytes([*a, *b, *c, *d]) {
                0 => {}
                errno => return Err(io::Error::from_raw_os_error(-errno)),
            },
            _ => return Err(io::Error::other("the kernel's answer is no acknowledgement")),
        }
    }
    Ok(())
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_ne_bytes([b[0], b[1]]))
}

/// All flows whose first packet came from `peer`: a deletion without a whole tuple, but with a filter.
fn request(peer: Ipv4Addr, protocol: u8) -> Vec<u8> {
    let ip = attribute(CTA_TUPLE_IP | NESTED, &attribute(CTA_IP_V4_SRC, &peer.octets()));
    let proto = attribute(CTA_TUPLE_PROTO | NESTED, &attribute(CTA_PROTO_NUM, &[protocol]));
    let flags = attribute(CTA_FILTER_ORIG_FLAGS, &(FILTER_IP_SRC | FILTER_PROTO_NUM).to_ne_bytes());
    let body = [
        // struct nfgenmsg: family, version, resource.
        vec![AF_INET, 0, 0, 0],
        attribute(CTA_TUPLE_ORIG | NESTED, &[ip, proto].concat()),
        attribute(CTA_FILTER | NESTED, &flags),
    ]
    .concat();
    let length = u32::try_from(16 + body.len()).unwrap_or_default();
    [
        &length.to_ne_bytes()[..],
        &DELETE_CONNTRACK.to_ne_bytes(),
        &REQUEST_ACK.to_ne_bytes(),
        &1u32.to_ne_bytes(),
        &0u32.to_ne_bytes(),
        &body,
    ]
    .concat()
}

/// A netlink attribute: length, type, value, padded to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or_default();
    let mut out = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    out.resize(out.len().next_multiple_of(4), 0);
    out
}
