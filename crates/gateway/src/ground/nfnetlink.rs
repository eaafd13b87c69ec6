//! Messages to and from the kernel's netfilter: their socket, headers and attributes.

use std::io;

use socket2::{Domain, Protocol, Socket, Type};

// Numbers of the kernel's netlink.h and nfnetlink.h.
const AF_NETLINK: i32 = 16;
const NETLINK_NETFILTER: i32 = 12;
const AF_INET: u8 = 2;
pub(super) const NESTED: u16 = 1 << 15;

/// struct nlmsghdr, and with it struct nfgenmsg.
pub(super) const LENGTH_AND_KIND: usize = 16;
pub(super) const HEADER: usize = LENGTH_AND_KIND + 4;

/// A socket of the calling thread's namespace; reading from it is bounded.
pub(super) fn socket() -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::from(AF_NETLINK),
        Type::DGRAM.cloexec(),
        Some(Protocol::from(NETLINK_NETFILTER)),
    )?;
    socket.set_read_timeout(Some(super::tool::TOOL_TIMEOUT))?;
    Ok(socket)
}

/// The value of the first attribute of this kind.
pub(super) fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    while let Some(length) = u16_at(attributes, 0).map(usize::from) {
        let value = attributes.get(4..length)?;
        if u16_at(attributes, 2)? & !NESTED == kind {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_ne_bytes(*b))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?)).ok()
}

pub(super) fn message(kind: u16, flags: u16, attributes: &[u8]) -> Vec<u8> {
    message_of(AF_INET, kind, flags, attributes)
}

/// A message about one family of protocols.
pub(super) fn message_of(family: u8, kind: u16, flags: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + attributes.len()).unwrap_or_default();
    [
        &length.to_ne_bytes()[..],
        &kind.to_ne_bytes(),
        &flags.to_ne_bytes(),
        &1u32.to_ne_bytes(),
        &0u32.to_ne_bytes(),
        // struct nfgenmsg: family, version, resource.
        &[family, 0, 0, 0],
        attributes,
    ]
    .concat()
}

/// A netlink attribute: length, type, value, padded to four bytes.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or_default();
    let mut out = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    out.resize(out.len().next_multiple_of(4), 0);
    out
}
