//! Packets from the site to ports of the load balancer that no listener has, and packets from other networks: the guard counts
//! them by client and port.
//!
//! The kernel refuses such a connection, so that the client sees a closed port and nothing else does. Invariant: reading the
//! counters takes some microseconds and never waits; nearly always there are none.

use std::{
    io::{self, Read as _},
    net::Ipv4Addr,
};

use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR};
use socket2::Socket;
use wicketgate_model::InnerProtocol;

use super::nfnetlink::{HEADER, LENGTH_AND_KIND, attribute, find, message_of, u16_at, u32_at};

/// The guard's table and its sets.
const TABLE: &str = "wicketgate";
pub(super) const SET: &str = "unserved";
pub(super) const OUTSIDE: &str = "outside";

/// The set's capacity, in clients and ports: a few wrong clients, and not a scan.
pub(crate) const MOST: usize = 64;
/// The capacity of the set of clients outside of the site's network: few are told.
pub(super) const MOST_OUTSIDE: usize = 16;

// Numbers of the kernel's netfilter.h and nf_tables.h.
const FAMILY_INET: u8 = 1;
const GET_ELEMENTS: u16 = 10 << 8 | 13;
const NEW_ELEMENTS: u16 = 10 << 8 | 12;
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const ELEMENT: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const KEY_VALUE: u16 = 1;
const ELEMENT_EXPRESSION: u16 = 7;
const EXPRESSION_DATA: u16 = 2;
const COUNTER_PACKETS: u16 = 2;

const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

/// The kernel fills at most 32 KiB at once; a full set is a third of that.
const BUFFER: usize = 1 << 15;

/// Messages read for one question. A full set needs one or two.
const AT_MOST: usize = 16;

/// What one client sent to one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unserved {
    pub(crate) client: Ipv4Addr,
    pub(crate) protocol: InnerProtocol,
    pub(crate) port: u16,
    /// Since the rules were applied, or since ten minutes without any.
    pub(crate) packets: u64,
}

/// Reads a set's counters in the namespace of a socket that does not block, see [`super::ruleset::socket`].
pub(super) fn read_by(mut socket: &Socket, set: &str) -> io::Result<Vec<Unserved>> {
    let mut answer = vec![0; BUFFER];
    // A leftover answer would be taken for this one.
    while socket.read(&mut answer).is_ok() {}
    let text = |kind, text: &str| attribute(kind, &[text.as_bytes(), &[0]].concat());
    let set = [text(LIST_TABLE, TABLE), text(LIST_SET, set)].concat();
    socket.send(&message_of(FAMILY_INET, GET_ELEMENTS, NLM_F_REQUEST | NLM_F_DUMP, &set))?;
    let mut found = Vec::new();
    for _ in 0..AT_MOST {
        let length = socket.read(&mut answer)?;
        if take(answer.get(..length).unwrap_or_default(), &mut found)? {
            break;
        }
    }
    Ok(found)
}

/// Reads the messages of one answer. Returns whether it is the last one.
fn take(mut answer: &[u8], found: &mut Vec<Unserved>) -> io::Result<bool> {
    while let Some(length) = u32_at(answer, 0).filter(|&l| l >= LENGTH_AND_KIND && l <= answer.len()) {
        let (one, next) = answer.split_at(length);
        match u16_at(one, 4) {
            Some(NLMSG_DONE) => return Ok(true),
            Some(NLMSG_ERROR) => return Err(io::Error::other("the kernel does not know the set")),
            Some(NEW_ELEMENTS) => elements(one.get(HEADER..).unwrap_or_default(), found),
            _ => {}
        }
        answer = next.get(length.next_multiple_of(4) - length..).unwrap_or_default();
    }
    Ok(false)
}

fn elements(list: &[u8], found: &mut Vec<Unserved>) {
    let mut rest = find(list, LIST_ELEMENTS).unwrap_or_default();
    while let Some(length) = u16_at(rest, 0).map(usize::from).filter(|&l| l >= 4 && l <= rest.len()) {
        let (one, next) = rest.split_at(length);
        found.extend(find(one, ELEMENT).and_then(element));
        rest = next.get(length.next_multiple_of(4) - length..).unwrap_or_default();
    }
}

fn element(element: &[u8]) -> Option<Unserved> {
    // Each field is padded to four bytes, in network byte order.
    let key = find(find(element, ELEMENT_KEY)?, KEY_VALUE)?;
    let protocol = match *key.get(4)? {
        PROTOCOL_TCP => InnerProtocol::Tcp,
        PROTOCOL_UDP => InnerProtocol::Udp,
        _ => return None,
    };
    let port = u16::from_be_bytes(*key.get(8..)?.first_chunk()?);
    let counter = find(find(element, ELEMENT_EXPRESSION)?, EXPRESSION_DATA)?;
    let packets = u64::from_be_bytes(*find(counter, COUNTER_PACKETS)?.first_chunk()?);
    Some(Unserved { client: Ipv4Addr::from(*key.first_chunk::<4>()?), protocol, port, packets })
}

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz {
    use super::*;

    /// No answer gives more elements than it has room for.
    pub(in crate::ground) fn elements_of(answer: &[u8]) {
        let mut found = Vec::new();
        let _ = take(answer, &mut found);
        elements(answer, &mut found);
        // Each has at least its own header and those of its parts.
        assert!(found.len() <= 2 * (answer.len() / 16), "{found:?}");
        element(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::{Namespace, nft, ruleset, tool::tool};
    use proptest::prelude::*;
    use std::net::UdpSocket;

    #[tokio::test]
    async fn what_the_kernel_counts_is_read() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: namespaces need root");
            return;
        }
        let name = format!("wgunserved-{}", std::process::id());
        let namespace = Namespace::ensure(&name).await.unwrap();
        let socket = namespace.run(ruleset::socket).unwrap();
        assert!(read_by(&socket, SET).is_err(), "a set is read that does not exist");
        let elements: Vec<_> = (1..MOST).map(|n| format!("10.0.0.{n} . tcp . {}", 8000 + n)).collect();
        // As the guard's, with what no packet of this test adds.
        let rules = format!(
            "table inet {TABLE} {{
               set {SET} {{
                 type ipv4_addr . inet_proto . inet_service; size {MOST}; flags dynamic,timeout; timeout 10m; counter;
                 elements = {{ {} }}
               }}
               chain output {{
                 type filter hook output priority filter; policy accept;
                 meta l4proto udp update @{SET} {{ ip daddr . meta l4proto . udp dport }}
               }}
             }}",
            elements.join(", ")
        );
        nft::apply(Some(&namespace), rules).await.unwrap();
        tool("ip", &["-n", &name, "link", "set", "lo", "up"]).await.unwrap();
        let send = || {
            let from = UdpSocket::bind("127.0.0.1:0")?;
            // The second one belongs to the same element, and the last one has no room.
            for to in ["127.0.0.1:53", "127.0.0.1:53", "127.0.0.1:54"] {
                from.send_to(b"?", to)?;
            }
            Ok(())
        };
        namespace.run(send).unwrap();
        let mut all = read_by(&socket, SET).unwrap();
        all.sort_by_key(|one| one.port);
        assert_eq!(all.len(), MOST);
        let client = Ipv4Addr::LOCALHOST;
        assert_eq!(all[0], Unserved { client, protocol: InnerProtocol::Udp, port: 53, packets: 2 });
        let client = Ipv4Addr::new(10, 0, 0, 63);
        assert_eq!(all[63], Unserved { client, protocol: InnerProtocol::Tcp, port: 8063, packets: 0 });
        Namespace::remove(&name).await.unwrap();
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes: Vec<u8>) {
            let _ = take(&bytes, &mut Vec::new());
            elements(&bytes, &mut Vec::new());
            element(&bytes);
        }
    }
}
