//! Two sockets inside a namespace: frequent questions need no thread that enters it, and the kernel reports changes to
//! one of them.
//!
//! Invariant: nothing here waits. The kernel answers these requests before the sender continues.

use std::{fs::File, io, net::Ipv4Addr, os::unix::fs::FileExt as _};

use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteAttribute, RouteMessage, RouteMetric},
};
use rtnetlink::{
    RouteMessageBuilder,
    packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    sys::{Socket, SocketAddr, protocols},
};
use rustix::io::Errno;
use tracing::warn;

use super::{
    Namespace, NetworkError,
    link::MTU,
    ruleset::{self, RulesetGeneration},
    unserved::{self, Unserved},
};

// Multicast groups of the kernel's rtnetlink.h, as the bits that a socket is bound to.
const LINKS: u32 = 1;
const IPV4_ADDRESSES: u32 = 1 << 4;
const IPV4_ROUTES: u32 = 1 << 6;
const IPV4_RULES: u32 = 1 << 7;
/// Forwarding and reverse path filtering of a link.
const IPV4_SETTINGS: u32 = 1 << 23;

const CHANGES: u32 = LINKS | IPV4_ADDRESSES | IPV4_ROUTES | IPV4_RULES | IPV4_SETTINGS;

/// The kernel's messages about one link are below 2 KiB; truncation does no harm.
const BUFFER: usize = 1 << 13;

/// See the module.
#[derive(Debug)]
pub(crate) struct NamespaceMonitor {
    routing: Socket,
    rules: socket2::Socket,
    /// The namespace's counters of TCP.
    counters: File,
    /// A change was reported together with an answer.
    has_changed: bool,
}

/// The counters of TCP are a third of this.
const COUNTERS: usize = 1 << 14;

/// Messages read from the routing socket at a time. It holds a few hundred by default; a burst must not keep a thread
/// here.
const AT_ONCE: usize = 2000;

/// A message of the routing socket.
enum Came {
    Nothing,
    Change,
    Answer(Vec<u8>),
    /// Changes can no longer be read.
    Error(io::Error),
}

impl NamespaceMonitor {
    pub(crate) async fn set_up(namespace: &Namespace) -> Result<Self, NetworkError> {
        let open = || {
            let mut routing = Socket::new(protocols::NETLINK_ROUTE)?;
            routing.set_non_blocking(true)?;
            routing.bind(&SocketAddr::new(0, CHANGES))?;
            let counters = File::open("/proc/thread-self/net/netstat")?;
            Ok(Self { routing, rules: ruleset::socket()?, counters, has_changed: false })
        };
        namespace.run_blocking("open netlink sockets", open).await
    }

    /// Whether links, addresses, routes, routing rules or settings may have changed since the last call.
    pub(crate) fn has_changed(&mut self) -> bool {
        let mut has_changed = std::mem::take(&mut self.has_changed);
        for _ in 0..AT_ONCE {
            match self.receive() {
                Came::Nothing => return has_changed,
                // A late answer also justifies a comparison.
                Came::Change | Came::Answer(_) => has_changed = true,
                Came::Error(error) => {
                    warn!(%error, "cannot read changes of a tunnel's network: comparing it");
                    return true;
                }
            }
        }
        // The next call reads the rest.
        true
    }

    /// The generation of the namespace's packet rules.
    pub(crate) fn rules(&self) -> Result<RulesetGeneration, NetworkError> {
        ruleset::generation_by(&self.rules)
            .map_err(NetworkError::io("look whether packet rules were changed"))
    }

    /// How often a TCP connection of the namespace had no acknowledgement in time. 0 if the kernel does not say.
    pub(crate) fn retransmission_timeouts(&self) -> u64 {
        let mut text = vec![0; COUNTERS];
        let length = self.counters.read_at(&mut text, 0).unwrap_or_default();
        timeouts(&String::from_utf8_lossy(text.get(..length).unwrap_or_default())).unwrap_or_default()
    }

    /// Who uses ports of the load balancer that no listener has, or is outside of the site's network.
    pub(crate) fn unserved(&self) -> Result<Vec<Unserved>, NetworkError> {
        let read =
            |set| unserved::read_by(&self.rules, set).map_err(NetworkError::io("read a set of packet rules"));
        Ok([read(unserved::SET)?, read(unserved::OUTSIDE)?].concat())
    }

    /// The path MTU to `peer` that the kernel learned from ICMP, and forgets after ten minutes.
    pub(crate) fn path_mtu(&mut self, peer: Ipv4Addr) -> Result<u32, NetworkError> {
        let route = self.route(peer).map_err(NetworkError::io("look up the route to a peer"))?;
        // Without an answer, nothing was learned.
        let Some(route) = route else { return Ok(MTU) };
        let learned = route.attributes.into_iter().find_map(|attribute| match attribute {
            RouteAttribute::Metrics(metrics) => metrics.into_iter().find_map(|metric| match metric {
                RouteMetric::Mtu(mtu) => Some(mtu),
                _ => None,
            }),
            _ => None,
        });
        Ok(learned.unwrap_or(MTU).min(MTU))
    }

    /// `None` if the socket was too full of change messages for the kernel's answer.
    fn route(&mut self, to: Ipv4Addr) -> io::Result<Option<RouteMessage>> {
        let to = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, 32).build();
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetRoute(to));
        request.header.flags = NLM_F_REQUEST;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.routing.send(&bytes, 0)?;
        for _ in 0..AT_ONCE {
            let answer = match self.receive() {
                Came::Change => {
                    self.has_changed = true;
                    continue;
                }
                Came::Nothing | Came::Error(_) => break,
                Came::Answer(answer) => answer,
            };
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer);
            return match answer.map_err(io::Error::other)?.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => Ok(Some(route)),
                NetlinkPayload::Error(error) => Err(error.to_io()),
                _ => Err(io::Error::other("the kernel's answer is no route")),
            };
        }
        self.has_changed = true;
        Ok(None)
    }

    fn receive(&self) -> Came {
        let mut buffer = Vec::with_capacity(BUFFER);
        match self.routing.recv_from(&mut buffer, 0) {
            // A unicast message is an answer.
            Ok((_, from)) if from.multicast_groups() == 0 => Came::Answer(buffer),
            Ok(_) => Came::Change,
            Err(error) => match Errno::from_io_error(&error) {
                // The socket overflowed, and is empty again soon.
                Some(Errno::NOBUFS | Errno::INTR) => Came::Change,
                Some(Errno::AGAIN) => Came::Nothing,
                _ => Came::Error(error),
            },
        }
    }
}

/// A line of names, and one of their values.
fn timeouts(counters: &str) -> Option<u64> {
    let mut lines = counters.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (lines.next()?.split(' '), lines.next()?.split(' '));
    let (_, value) = names.zip(values).find(|(name, _)| *name == "TCPTimeouts")?;
    value.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::tool::tool;

    const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

    #[test]
    fn the_kernel_counts_retransmission_timeouts() {
        let counters =
            "TcpExt: SyncookiesSent TCPTimeouts TCPLossUndo\nTcpExt: 0 17 3\nIpExt: InNoRoutes\nIpExt: 0\n";
        assert_eq!(timeouts(counters), Some(17));
        assert_eq!(timeouts("TcpExt: TCPTimeouts\n"), None);
        let own = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
        assert!(own.len() < COUNTERS && timeouts(&own).is_some(), "{own}");
    }

    #[tokio::test]
    async fn a_change_is_reported_once_and_a_query_reports_none() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: namespaces need root");
            return;
        }
        let name = format!("wgoutpost-{}", std::process::id());
        let namespace = Namespace::ensure(&name).await.unwrap();
        let mut monitor = NamespaceMonitor::set_up(&namespace).await.unwrap();
        let change = async |arguments: &str| {
            let arguments: Vec<_> = ["-n", &name].into_iter().chain(arguments.split(' ')).collect();
            tool("ip", &arguments).await.unwrap();
        };
        assert!(!monitor.has_changed());
        assert!(monitor.path_mtu(PEER).is_err(), "a peer without a route has a path MTU");
        change("link add there type veth peer name here").await;
        assert!(monitor.has_changed() && !monitor.has_changed());
        for step in ["addr add 192.0.2.1/24 dev here", "link set here up", "link set there up"] {
            change(step).await;
            assert!(monitor.has_changed(), "{step}");
        }
        assert_eq!(monitor.path_mtu(PEER).unwrap(), MTU);
        for (step, mtu) in
            [("route add 192.0.2.2/32 dev here mtu 1400", 1400), ("route del 192.0.2.2/32 dev here", MTU)]
        {
            change(step).await;
            // A change that was reported before the answer is not lost.
            assert_eq!(monitor.path_mtu(PEER).unwrap(), mtu);
            assert!(monitor.has_changed() && !monitor.has_changed(), "{step}");
        }
        change("route add 192.0.2.2/32 dev here mtu 1400").await;
        // More notifications than the socket's buffer holds, an answer included.
        for _ in 0..4 {
            let add = (0..250).map(|n| format!("addr add 198.51.100.{n}/32 dev here\n"));
            let del = (0..250).map(|n| format!("addr del 198.51.100.{n}/32 dev here\n"));
            let batch: String = add.chain(del).collect();
            let file = std::env::temp_dir().join(&name);
            std::fs::write(&file, batch).unwrap();
            change(&format!("-batch {}", file.display())).await;
            std::fs::remove_file(file).unwrap();
        }
        assert_eq!(monitor.path_mtu(PEER).unwrap(), MTU);
        assert!(monitor.has_changed() && !monitor.has_changed());
        assert_eq!(monitor.path_mtu(PEER).unwrap(), 1400);
        let before = monitor.rules().unwrap();
        crate::ground::nft::apply(Some(&namespace), "table ip x {}\n".to_owned()).await.unwrap();
        assert!(monitor.rules().unwrap().follows(before));
        Namespace::remove(&name).await.unwrap();
    }
}
