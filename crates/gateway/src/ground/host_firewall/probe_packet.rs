//! Packets that tunnels that are up send to see whether the host lets them pass. They belong to the flow of the peer's
//! IKE SA, as its next message would, and the steering table drops them at the end of the forward hook.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

use socket2::{Domain, Protocol, Socket, Type};
use wicketgate_model::ConnectionState;

use crate::ground::TunnelHandle;

/// Marks a probe together with its length. No IKE daemon uses this class.
pub(in crate::ground) const PROBE_DSCP: u8 = 63;

/// Enough to block a tunnel that is up.
const PACKETS: u64 = 2;

/// The port of IKE and ESP in UDP (RFC 3948): behind the steering, IKE always detects a NAT.
const NAT_TRAVERSAL: u16 = 4500;

/// Sends probes from each tunnel that is up, and returns how many from each address.
pub(super) async fn send(tunnels: &[(Ipv4Addr, Arc<TunnelHandle>)]) -> BTreeMap<Ipv4Addr, u64> {
    let up: Vec<_> = tunnels
        .iter()
        .filter_map(|(inside, tunnel)| {
            let connection = tunnel.connection().borrow().clone();
            let peer = connection.peer.filter(|_| connection.state == ConnectionState::Up)?;
            Some((*inside, Arc::clone(tunnel), SocketAddrV4::new(peer.address, peer.port)))
        })
        .collect();
    let sent = tokio::task::spawn_blocking(move || {
        let sent = up.iter().filter(|(inside, tunnel, peer)| {
            // A tunnel whose link is down cannot be probed, and is told otherwise.
            tunnel.inside(|| from(*inside, *peer)).is_ok()
        });
        sent.map(|(inside, ..)| (*inside, PACKETS)).collect()
    });
    sent.await.unwrap_or_default()
}

/// In the calling thread's namespace.
fn from(inside: Ipv4Addr, peer: SocketAddrV4) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::RAW.cloexec(), Some(Protocol::UDP))?;
    // Nothing is read.
    socket.set_recv_buffer_size(0)?;
    socket.bind(&SocketAddrV4::new(inside, 0).into())?;
    socket.set_tos_v4(u32::from(PROBE_DSCP) << 2)?;
    // A raw socket's destination has no port: it is in the message's UDP header.
    let to = SocketAddrV4::new(*peer.ip(), 0).into();
    for _ in 0..PACKETS {
        socket.send_to(&keepalive(peer.port()), &to)?;
    }
    Ok(())
}

/// A keepalive of NAT traversal, which a peer would ignore (RFC 3948 §2.3), in UDP without a checksum.
fn keepalive(to: u16) -> Vec<u8> {
    let header = [NAT_TRAVERSAL, to, 9, 0];
    header.into_iter().flat_map(u16::to_be_bytes).chain([0xff]).collect()
}
