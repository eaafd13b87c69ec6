//! The PROXY protocol, version 2, binary form, for TCP (HAProxy's `proxy-protocol.txt`, §2.2): tells a target the
//! client's address.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The start of every header.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command `PROXY`: the connection is relayed for a client.
const VERSION_AND_COMMAND: u8 = 0x21;
/// Version 2, command `LOCAL`, without addresses: the connection is the sender's own, to check the target (§2.2).
const CHECK: [u8; 4] = [0x20, 0, 0, 0];
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// The header for a connection from `client` to `server`, the load balancer's address.
pub(crate) fn header(client: SocketAddr, server: SocketAddr) -> Vec<u8> {
    let (family, addresses) = match (client.ip().to_canonical(), server.ip().to_canonical()) {
        (IpAddr::V4(client), IpAddr::V4(server)) => {
            (TCP_OVER_IPV4, [client.octets(), server.octets()].concat())
        }
        (client, server) => (TCP_OVER_IPV6, [v6(client).octets(), v6(server).octets()].concat()),
    };
    let ports = [client.port().to_be_bytes(), server.port().to_be_bytes()].concat();
    let length = u16::try_from(addresses.len() + ports.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&SIGNATURE[..], &[VERSION_AND_COMMAND, family], &length, &addresses, &ports].concat()
}

/// The header for a connection without a client.
pub(crate) fn header_of_check() -> Vec<u8> {
    [&SIGNATURE[..], &CHECK].concat()
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A receiver written from the specification, by offsets, independent of the code above.
    fn read(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr, &[u8])> {
        let (fixed, rest) = bytes.split_at_checked(16)?;
        if fixed[..12] != [0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A]
            || fixed[12] >> 4 != 2
            || fixed[12] & 0xF != 1
        {
            return None;
        }
        let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
        let (block, payload) = rest.split_at_checked(length)?;
        let port = |at: usize| u16::from_be_bytes([block[at], block[at + 1]]);
        let v4 = |at: usize| -> IpAddr { <[u8; 4]>::try_from(&block[at..at + 4]).unwrap().into() };
        let v6 = |at: usize| -> IpAddr { <[u8; 16]>::try_from(&block[at..at + 16]).unwrap().into() };
        match (fixed[13], length) {
            (0x11, 12) => Some(((v4(0), port(8)).into(), (v4(4), port(10)).into(), payload)),
            (0x21, 36) => Some(((v6(0), port(32)).into(), (v6(16), port(34)).into(), payload)),
            _ => None,
        }
    }

    proptest! {
        #[test]
        fn an_independent_receiver_finds_both_addresses(
            client: (IpAddr, u16), server: (IpAddr, u16), payload: Vec<u8>,
        ) {
            let (client, server) = (SocketAddr::from(client), SocketAddr::from(server));
            let bytes = [header(client, server), payload.clone()].concat();
            let (read_client, read_server, rest) = read(&bytes).unwrap();
            prop_assert_eq!(rest, &payload[..]);
            for (was, is) in [(client, read_client), (server, read_server)] {
                prop_assert_eq!((was.ip().to_canonical(), was.port()), (is.ip().to_canonical(), is.port()));
            }
            prop_assert_eq!(read_client.is_ipv4(), client.ip().to_canonical().is_ipv4() && server.ip().to_canonical().is_ipv4());
        }
    }

    #[test]
    fn a_header_has_the_expected_bytes() {
        let bytes = header("172.31.8.9:4000".parse().unwrap(), "100.64.0.1:9000".parse().unwrap());
        let text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(text, "0d0a0d0a000d0a515549540a2111000cac1f0809644000010fa02328");
    }
}
