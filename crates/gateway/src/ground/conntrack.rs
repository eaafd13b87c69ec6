//! Deletes a peer's connection tracking entries.
//!
//! Address translation is decided once for each flow, and a peer that retransmits keeps a flow alive forever. When a
//! peer is steered to another namespace, or to none, its flows have to go.

use std::{io, net::Ipv4Addr};

use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR};
use socket2::Socket;
use wicketgate_system::if_exists;

use super::nfnetlink::{self, HEADER, LENGTH_AND_KIND, NESTED, attribute, find, message, u16_at, u32_at};

// Numbers of the kernel's netlink.h and nfnetlink_conntrack.h.
const GET_CONNTRACK: u16 = 1 << 8 | 1;
const DELETE_CONNTRACK: u16 = 1 << 8 | 2;
const REQUEST_ACK: u16 = NLM_F_REQUEST | NLM_F_ACK;
const REQUEST_DUMP: u16 = NLM_F_REQUEST | NLM_F_DUMP;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const FILTER_IP_SRC: u32 = 1;
const FILTER_PROTO_NUM: u32 = 1 << 3;

const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ESP: u8 = 50;

/// The kernel fills at most 32 KiB at once.
const BUFFER: usize = 1 << 16;

/// Who initiated a flow: the tuple that describes the peer's packets. The filter's attribute has the same number.
const BY_PEER: u16 = CTA_TUPLE_ORIG;
const BY_GATEWAY: u16 = CTA_TUPLE_REPLY;

/// Deletes the UDP and ESP flows with `peer` in this process's own namespace, initiated by either side. Blocks for a
/// moment.
pub(crate) fn forget(peer: Ipv4Addr) -> io::Result<()> {
    let socket = nfnetlink::socket()?;
    for protocol in [PROTOCOL_UDP, PROTOCOL_ESP] {
        // Kernels before 6.12 delete by a complete tuple only, so it is listed first.
        let by_peer = list(&socket, BY_PEER, peer, protocol)?;
        for flow in by_peer.into_iter().chain(list(&socket, BY_GATEWAY, peer, protocol)?) {
            socket.send(&message(DELETE_CONNTRACK, REQUEST_ACK, &flow))?;
            let mut answer = [0u8; 128];
            let length = io::Read::read(&mut &socket, &mut answer)?;
            // It may have expired in the meantime.
            if_exists(acknowledged(&answer[..length]))?;
        }
    }
    Ok(())
}

/// The identity of each flow with `peer`, as the kernel wrote it.
fn list(socket: &Socket, begun: u16, peer: Ipv4Addr, protocol: u8) -> io::Result<Vec<Vec<u8>>> {
    // Kernels before 5.8 ignore the filter and list all flows.
    socket.send(&message(GET_CONNTRACK, REQUEST_DUMP, &filter(begun, peer, protocol)))?;
    let mut flows = Vec::new();
    let mut buffer = vec![0u8; BUFFER];
    loop {
        let length = io::Read::read(&mut &*socket, &mut buffer)?;
        let mut rest = &buffer[..length];
        while let Some(length) = u32_at(rest, 0).filter(|&l| l >= LENGTH_AND_KIND && l <= rest.len()) {
            let (one, next) = rest.split_at(length);
            match u16_at(one, 4) {
                Some(NLMSG_DONE) => return Ok(flows),
                Some(NLMSG_ERROR) => acknowledged(one)?,
                _ => flows.extend(identity(one.get(HEADER..).unwrap_or_default(), begun, peer, protocol)),
            }
            rest = next.get(length.next_multiple_of(4) - length..).unwrap_or_default();
        }
    }
}

/// The attributes that identify a flow for its deletion, if it is one with `peer`.
fn identity(flow: &[u8], begun: u16, peer: Ipv4Addr, protocol: u8) -> Option<Vec<u8>> {
    let tuple = find(flow, begun)?;
    let source = find(find(tuple, CTA_TUPLE_IP)?, CTA_IP_V4_SRC)?;
    let proto = find(find(tuple, CTA_TUPLE_PROTO)?, CTA_PROTO_NUM)?;
    if source != peer.octets() || proto != [protocol] {
        return None;
    }
    let mut identity = attribute(CTA_TUPLE_ORIG | NESTED, find(flow, CTA_TUPLE_ORIG)?);
    for kind in [CTA_ID, CTA_ZONE] {
        identity.extend(find(flow, kind).map(|value| attribute(kind, value)).unwrap_or_default());
    }
    Some(identity)
}

/// An acknowledgement has the negated errno after its header; 0 is success.
fn acknowledged(answer: &[u8]) -> io::Result<()> {
    match (u16_at(answer, 4), u32_at(answer, LENGTH_AND_KIND)) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(_)) => {
            let errno = answer[LENGTH_AND_KIND..]
                .first_chunk()
                .map_or(0, |b| i32::from_ne_bytes(*b).saturating_neg());
            Err(io::Error::from_raw_os_error(errno))
        }
        _ => Err(io::Error::other("the kernel's answer is no acknowledgement")),
    }
}

/// All flows with packets from `peer` on that side.
fn filter(begun: u16, peer: Ipv4Addr, protocol: u8) -> Vec<u8> {
    let ip = attribute(CTA_TUPLE_IP | NESTED, &attribute(CTA_IP_V4_SRC, &peer.octets()));
    let proto = attribute(CTA_TUPLE_PROTO | NESTED, &attribute(CTA_PROTO_NUM, &[protocol]));
    let flags = attribute(begun, &(FILTER_IP_SRC | FILTER_PROTO_NUM).to_ne_bytes());
    [attribute(begun | NESTED, &[ip, proto].concat()), attribute(CTA_FILTER | NESTED, &flags)].concat()
}

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz {
    use super::*;

    /// What is to be deleted has the identity that the kernel gave it, and nothing else is.
    pub(in crate::ground) fn flow(flow: &[u8]) {
        let _ = acknowledged(flow);
        for begun in [BY_PEER, BY_GATEWAY] {
            let Some(identity) = identity(flow, begun, Ipv4Addr::LOCALHOST, PROTOCOL_UDP) else { continue };
            for kind in [CTA_TUPLE_ORIG, CTA_ID, CTA_ZONE] {
                assert_eq!(find(&identity, kind), find(flow, kind));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PEER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

    #[test]
    fn a_flow_is_identified_by_its_tuple_and_its_id() {
        let ip = attribute(CTA_TUPLE_IP | NESTED, &attribute(CTA_IP_V4_SRC, &PEER.octets()));
        let ports = [attribute(CTA_PROTO_NUM, &[PROTOCOL_UDP]), attribute(2, &[1, 2])].concat();
        let tuple = [ip, attribute(CTA_TUPLE_PROTO | NESTED, &ports)].concat();
        let (tuple, id) = (attribute(CTA_TUPLE_ORIG | NESTED, &tuple), attribute(CTA_ID, &[1, 2, 3, 4]));
        let flow = [attribute(3, &[0; 3]), id.clone(), tuple.clone()].concat();
        assert_eq!(identity(&flow, BY_PEER, PEER, PROTOCOL_UDP), Some([&tuple[..], &id].concat()));
        assert_eq!(identity(&flow, BY_PEER, PEER, PROTOCOL_ESP), None);
        assert_eq!(identity(&flow, BY_PEER, Ipv4Addr::new(203, 0, 113, 2), PROTOCOL_UDP), None);
        assert_eq!(identity(&flow, BY_GATEWAY, PEER, PROTOCOL_UDP), None);
        // A flow of the gateway is named by its first packet, too, and recognized by the answers.
        let own = attribute(CTA_TUPLE_ORIG | NESTED, &[1, 2, 3, 4]);
        let answers = [&attribute(CTA_TUPLE_REPLY | NESTED, &tuple[4..])[..], &own, &id].concat();
        assert_eq!(identity(&answers, BY_GATEWAY, PEER, PROTOCOL_UDP), Some([own, id].concat()));
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes: Vec<u8>) {
            identity(&bytes, BY_PEER, PEER, PROTOCOL_UDP);
            let _ = acknowledged(&bytes);
        }
    }
}
