//! Connects to a name or an address: to the first of several addresses that answers (Happy Eyeballs, RFC 8305).
//!
//! Invariant: only addresses that the allow list permits are dialled, and the address that is dialled is the one that
//! was checked.

use crate::{
    allow::AllowList,
    names::{Names, NoAddress},
    shortage::Shortage,
};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use rustix::net::sockopt::set_tcp_quickack;
use std::{
    fmt,
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout, timeout_at},
};
use wicketgate_system::socket_buffers::{begin_small, settle_receive_buffer};

/// After this time without an answer the next address is dialled, too (RFC 8305 §5: Connection Attempt Delay).
const STAGGER: Duration = Duration::from_millis(250);
/// What remains for a dial after a long lookup. A lookup that takes longer goes on, and the next dial has its answer: the C
/// library asks the second name server after five seconds.
const DIAL: Duration = Duration::from_secs(2);
/// Addresses that are dialled: with the stagger, all of them within a dial's time.
const MOST_ADDRESSES: usize = 16;
/// Failures that a message names.
const MOST_NAMED: usize = 4;

/// Why there is no connection. The text names addresses.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoConnection {
    #[error(transparent)]
    NoAddress(#[from] NoAddress),
    #[error("outside of the agent's allow list")]
    NotAllowed,
    #[error(transparent)]
    Failed(#[from] Failures),
}

/// The failures of all addresses, in the order in which they occurred.
#[derive(Debug)]
pub(crate) struct Failures(Vec<(SocketAddr, io::Error)>);

/// What to connect to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'a> {
    Ip(IpAddr),
    Name(&'a str),
}

/// How much of a TCP connection is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handshake {
    Whole,
    /// The host at the other end accepts; its program never sees a connection. See [`half_open`].
    HalfOpen,
}

/// Connects within `within`, the lookup of a name included.
pub(crate) async fn connect(
    names: &Arc<Names>,
    (place, port): (Place<'_>, u16),
    allow: &AllowList,
    (handshake, within): (Handshake, Duration),
) -> Result<TcpStream, NoConnection> {
    let deadline = Instant::now() + within;
    let mut addresses = match place {
        Place::Ip(ip) => vec![SocketAddr::from((ip, port))],
        Place::Name(name) => {
            timeout_at(deadline - DIAL, names.lookup(name)).await.unwrap_or(Err(NoAddress::NoAnswer))?
        }
    };
    for address in &mut addresses {
        address.set_port(port);
    }
    addresses.retain(|address| allow.permits(*address));
    if addresses.is_empty() {
        return Err(NoConnection::NotAllowed);
    }
    let (tcp, address) = first_to_answer(addresses, handshake, deadline).await?;
    if let Place::Name(name) = place {
        names.worked(name, unnumbered(address));
    }
    Ok(tcp)
}

/// An address as [`Names`] knows it: without the port.
pub(crate) fn unnumbered(mut address: SocketAddr) -> SocketAddr {
    address.set_port(0);
    address
}

/// Dials the addresses, each after the one before it has failed or has not answered for a while.
async fn first_to_answer(
    addresses: Vec<SocketAddr>,
    handshake: Handshake,
    until: Instant,
) -> Result<(TcpStream, SocketAddr), Failures> {
    let mut waiting = interleaved(addresses).into_iter().take(MOST_ADDRESSES);
    let mut dials = FuturesUnordered::new();
    let mut failures = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            dials.push(dial(address, handshake, until));
        } else if dials.is_empty() {
            return Err(Failures(failures));
        }
        let answer = match waiting.len() {
            0 => dials.next().await,
            _ => timeout(STAGGER, dials.next()).await.ok().flatten(),
        };
        match answer {
            Some((address, Ok(tcp))) => return Ok((tcp, address)),
            Some((address, Err(error))) => failures.push((address, error)),
            None => {}
        }
    }
}

async fn dial(
    address: SocketAddr,
    handshake: Handshake,
    until: Instant,
) -> (SocketAddr, io::Result<TcpStream>) {
    let connect = async {
        if handshake == Handshake::HalfOpen {
            return half_open(address).await;
        }
        whole(address).await
    };
    (address, timeout_at(until, connect).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())))
}

/// Connects with a receive buffer that a slow stream does not fill.
async fn whole(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(address)?;
    // Otherwise the buffer is as usual.
    let size = begin_small(&socket, address.ip()).ok();
    let tcp = socket.connect(address).await?;
    if let Some(size) = size {
        settle_receive_buffer(&tcp, size)?;
    }
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}

/// Connects without the last packet of the handshake, which Linux delays by up to 200 ms without `TCP_QUICKACK`. A socket
/// that is dropped earlier sends a reset instead, and the peer's kernel forgets the connection before a program accepts it.
async fn half_open(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(address)?;
    set_tcp_quickack(&socket, false)?;
    socket.set_zero_linger()?;
    socket.connect(address).await
}

/// Alternates between the two families, beginning with that of the first address (RFC 8305 §4).
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let all = addresses.len();
    let is_first_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|a| a.is_ipv6() == is_first_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    (0..all).flat_map(|_| [first.next(), second.next()]).flatten().collect()
}

impl NoConnection {
    /// What the agent or its host has run out of, if that is the cause.
    pub(crate) fn shortage(&self) -> Option<Shortage> {
        match self {
            Self::NoAddress(NoAddress::Shortage(shortage)) => Some(*shortage),
            Self::Failed(Failures(all)) => all.iter().find_map(|(to, error)| Shortage::of_dial(error, *to)),
            _ => None,
        }
    }
}

impl Failures {
    /// The kind of the failure that came nearest to a connection.
    pub(crate) fn kind(&self) -> ErrorKind {
        let kinds = || self.0.iter().map(|(_, error)| error.kind());
        let nearest = [ErrorKind::ConnectionRefused, ErrorKind::TimedOut];
        let near = nearest.into_iter().find(|kind| kinds().any(|other| other == *kind));
        near.or_else(|| kinds().next()).unwrap_or(ErrorKind::Other)
    }
}

impl std::error::Error for Failures {}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(_, error)] = &self.0[..] {
            return f.write_str(&said(error));
        }
        for (n, (address, error)) in self.0.iter().enumerate().take(MOST_NAMED) {
            let separator = if n == 0 { "" } else { ", " };
            write!(f, "{separator}{}: {}", address.ip(), said(error))?;
        }
        match self.0.len().saturating_sub(MOST_NAMED) {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}

fn said(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::TimedOut => "timed out".to_owned(),
        ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};
    use tokio::net::TcpListener;

    /// The longest time in which a user expects a connection although one address is dead.
    const USERS_PATIENCE: Duration = Duration::from_secs(2);
    const LONG: Duration = Duration::from_secs(20);

    /// An address whose packets vanish: the queue of the listener is full, so the kernel drops a SYN.
    struct Silent {
        address: SocketAddr,
        _listener: Socket,
        _queued: Vec<Socket>,
    }

    impl Silent {
        fn on(address: &str) -> Self {
            let address: SocketAddr = address.parse().unwrap();
            let listener = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
            listener.bind(&address.into()).unwrap();
            listener.listen(0).unwrap();
            let address = listener.local_addr().unwrap().as_socket().unwrap();
            let queued = (0..4).map(|_| {
                let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                let _ = socket.connect(&address.into());
                socket
            });
            Self { address, _queued: queued.collect(), _listener: listener }
        }
    }

    #[tokio::test]
    async fn a_silent_address_delays_the_others_by_a_stagger_only() {
        let (silent, listener) = (Silent::on("[::1]:0"), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let good = listener.local_addr().unwrap();
        let until = Instant::now() + LONG;
        let connected =
            timeout(USERS_PATIENCE, first_to_answer(vec![silent.address, good], Handshake::Whole, until))
                .await;
        assert_eq!(connected.expect("within a user's patience").unwrap().1, good);
    }

    #[tokio::test]
    async fn all_failures_are_told_when_no_address_answers() {
        let silent = Silent::on("127.0.0.1:0");
        let refused = {
            let closed = TcpListener::bind("[::1]:0").await.unwrap();
            closed.local_addr().unwrap()
        };
        let until = Instant::now() + Duration::from_secs(1);
        let failures =
            first_to_answer(vec![silent.address, refused], Handshake::Whole, until).await.unwrap_err();
        assert_eq!(failures.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(failures.to_string(), "::1: connection refused, 127.0.0.1: timed out");
    }

    #[tokio::test]
    async fn a_half_open_connection_is_not_seen_by_the_program_that_listens() {
        for ip in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(ip).await.unwrap();
            let address = listener.local_addr().unwrap();
            let until = Instant::now() + LONG;
            drop(dial(address, Handshake::HalfOpen, until).await.1.unwrap());
            // Accepted first, if the one before it was established.
            let (_, whole) = dial(address, Handshake::Whole, until).await;
            let (_, from) = listener.accept().await.unwrap();
            assert_eq!(from, whole.unwrap().local_addr().unwrap());
            drop(listener);
            let refused = dial(address, Handshake::HalfOpen, until).await.1.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        }
    }

    #[test]
    fn families_alternate() {
        let read = |all: &[&str]| all.iter().map(|a| a.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let all = ["[fd00::1]:1", "[fd00::2]:1", "[fd00::3]:1", "10.0.0.1:1"];
        let interleaved = interleaved(read(&all));
        assert_eq!(interleaved, read(&["[fd00::1]:1", "10.0.0.1:1", "[fd00::2]:1", "[fd00::3]:1"]));
    }
}
