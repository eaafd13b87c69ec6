//! A tunnel of this run, below its IKE: its namespace, and the guard, the link and the path that are kept as they should be.
//!
//! Invariant: what may have been changed since it was last compared is compared. The kernel says whether anything was, in a
//! few microseconds a tunnel, and a whole comparison takes a hundred times that. What it does not say, such as some
//! settings, is compared every few minutes all the same.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::debug;
use wicketgate_model::{ConnectionState, TunnelDesired};

use super::{charon::CharonHome, daemon::Daemon, path_mtu::PathMtu};
use crate::{
    ipsec::{Tunnel, TunnelReporter},
    netns::{
        Namespace, NetnsError,
        guard::{self, EspPath},
        link::{self, LinkAddresses},
        namespace_monitor::NamespaceMonitor,
        nft,
        ruleset::RulesetGeneration,
    },
};

/// How often the link is compared although nobody is known to have changed anything.
const COMPARE_EVERY: Duration = Duration::from_secs(10 * 60);

/// See the module.
#[derive(Debug)]
pub(super) struct RunningTunnel {
    pub(super) slot: u16,
    pub(super) tunnel: Arc<Tunnel>,
    pub(super) namespace: Namespace,
    pub(super) report: Arc<TunnelReporter>,
    pub(super) daemon: Daemon,
    monitor: NamespaceMonitor,
    /// The rules of the guard, and the generation that they made: while that is the newest, they are as they were.
    guard: Option<(String, RulesetGeneration)>,
    /// The load balancer that is on the link, and when it was seen there.
    linked: Option<(Ipv4Addr, Instant)>,
    path: PathMtu,
}

impl RunningTunnel {
    /// A tunnel of which nothing but the namespace, where the monitor is, may be there yet. Its charon is started, or adopted.
    pub(super) fn start(
        slot: u16,
        home: CharonHome,
        monitor: NamespaceMonitor,
        report: Arc<TunnelReporter>,
        tunnel: Arc<Tunnel>,
    ) -> Self {
        Self {
            slot,
            tunnel,
            namespace: home.namespace.clone(),
            daemon: Daemon::start(home, Arc::clone(&report)),
            report,
            monitor,
            guard: None,
            linked: None,
            path: PathMtu::default(),
        }
    }

    /// Applies the guard's rules, unless they are there and nobody has changed any since.
    pub(super) async fn keep_guard(
        &mut self,
        desired: &TunnelDesired,
        esp: EspPath,
    ) -> Result<(), NetnsError> {
        let (peer, site) = (desired.peer_address.get(), desired.peer_cidr.get());
        let rules = guard::rules(esp, peer, site, desired.load_balancer_ip, self.path.bears());
        let before = self.monitor.rules()?;
        if self.guard.as_ref().is_some_and(|(has, made)| *has == rules && *made == before) {
            return Ok(());
        }
        nft::apply(Some(&self.namespace), rules.clone()).await?;
        let made = self.monitor.rules()?;
        self.guard = made.follows(before).then_some((rules, made));
        Ok(())
    }

    /// Brings the link called `outside` to what it should be, unless it was and nobody has changed anything since.
    pub(super) async fn keep_link(
        &mut self,
        outside: &str,
        addresses: LinkAddresses,
        load_balancer: Ipv4Addr,
    ) -> Result<(), NetnsError> {
        let now = Instant::now();
        // Asked before it is looked at: whatever changes from here on is news the next time.
        let has_changed = self.monitor.has_changed();
        let is_known = self
            .linked
            .is_some_and(|(has, at)| has == load_balancer && now.duration_since(at) < COMPARE_EVERY);
        if is_known && !has_changed && link::is_own(addresses.outside) {
            return Ok(());
        }
        self.linked = None;
        link::ensure(&self.namespace, outside, addresses, load_balancer).await?;
        self.linked = Some((load_balancer, now));
        debug!(link = outside, elapsed_ms = now.elapsed().as_millis(), "link was compared");
        Ok(())
    }

    /// Asks the kernel what the path to `peer` bears; answers `Some` where that is something else than before.
    pub(super) fn look_at_path(&mut self, peer: Ipv4Addr) -> Result<Option<u32>, NetnsError> {
        let learned = self.monitor.path_mtu(peer)?;
        let is_up = self.tunnel.connection().borrow().state == ConnectionState::Up;
        Ok(self.path.look(learned, is_up, Instant::now()).then(|| self.path.bears()))
    }
}
