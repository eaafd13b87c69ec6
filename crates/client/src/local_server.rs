//! A server on this host. Its admin token is sent without TLS, and while the server is down, a program of any user can listen at
//! its address. So before each request, the listener has to belong to root or to the owner of the token.

use std::net::SocketAddr;

use reqwest::Url;
use wicketgate_system::sockets;

use crate::failure::Failure;

/// Checks who listens at `base`, an address of this host.
pub(crate) fn check(base: &Url, owner: u32) -> Result<(), Failure> {
    let unreachable = |why: String| Failure::Unreachable { url: base.clone(), why };
    let host = base.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let (Ok(ip), Some(port)) = (host.parse(), base.port_or_known_default()) else {
        return Err(unreachable("it is no address of this host".to_owned()));
    };
    let address = SocketAddr::new(ip, port);
    let all = sockets::listening();
    let mut all = all.map_err(|e| unreachable(format!("cannot see who listens there in /proc/net: {e}")))?;
    all.retain(|socket| socket.takes(address));
    // The kernel prefers the narrower of two addresses.
    if all.iter().any(|socket| socket.address.is_ipv4() == address.is_ipv4()) {
        all.retain(|socket| socket.address.is_ipv4() == address.is_ipv4());
    }
    match all.iter().find(|socket| socket.user != 0 && socket.user != owner) {
        Some(stranger) => Err(Failure::Stranger { url: base.clone(), user: stranger.user }),
        None if all.is_empty() => Err(unreachable("nothing listens there: start `wicketgate up`".to_owned())),
        None => Ok(()),
    }
}
