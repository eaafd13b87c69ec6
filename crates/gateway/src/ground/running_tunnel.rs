//! A tunnel of this run, without its engine: its namespace, and its guard, link and path MTU, which are kept as
//! desired.
//!
//! Invariant: whatever may have changed since the last comparison is compared. The kernel reports changes in a few
//! microseconds for each tunnel; a complete comparison takes a hundred times that. What the kernel does not report,
//! such as some settings, is compared every few minutes.

use std::{mem, net::Ipv4Addr, sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::debug;
use wicketgate_model::TunnelDesired;

use super::{
    Namespace, NetworkError, TunnelHandle, guard, host_addresses, inner_packets::InnerPackets, link,
    link_addresses::LinkAddresses, namespace_monitor::NamespaceMonitor, nft, path_mtu::PathMtu,
    ruleset::RulesetGeneration,
};

/// How often the link is compared without a reported change.
const COMPARE_EVERY: Duration = Duration::from_secs(10 * 60);

/// See the module.
#[derive(Debug)]
pub(crate) struct RunningTunnel {
    pub(crate) slot: u16,
    pub(crate) handle: Arc<TunnelHandle>,
    pub(crate) namespace: Namespace,
    monitor: NamespaceMonitor,
    /// The guard's rules and their generation: unchanged while that is the newest.
    guard: Option<(String, RulesetGeneration)>,
    /// The load balancer on the link, and when the link was compared.
    linked: Option<(Ipv4Addr, Instant)>,
    path: PathMtu,
    is_distrusted: bool,
    /// What others had changed, and what was restored since [`RunningTunnel::take_restored`].
    restored: Vec<String>,
}

impl RunningTunnel {
    /// A tunnel of which nothing was compared yet.
    pub(super) fn new(
        slot: u16,
        handle: Arc<TunnelHandle>,
        namespace: Namespace,
        monitor: NamespaceMonitor,
    ) -> Self {
        let (guard, linked, path) = (None, None, PathMtu::default());
        let (is_distrusted, restored) = (false, Vec::new());
        Self { slot, handle, namespace, monitor, guard, linked, path, is_distrusted, restored }
    }

    /// What was restored since the last call.
    pub(super) fn take_restored(&mut self) -> Vec<String> {
        mem::take(&mut self.restored)
    }

    /// Has the next [`RunningTunnel::keep_link`] compare the link, whatever the kernel reported.
    pub(super) fn distrust(&mut self) {
        self.is_distrusted = true;
    }

    /// Applies the guard's rules, unless they are unchanged.
    pub(super) async fn keep_guard(
        &mut self,
        desired: &TunnelDesired,
        packets: InnerPackets,
    ) -> Result<(), NetworkError> {
        let (peer, site) = (desired.peer_address.get(), desired.peer_cidr.get());
        let rules = guard::rules(packets, peer, site, desired.load_balancer_ip, self.path.bears())?;
        let before = self.monitor.rules()?;
        if self.guard.as_ref().is_some_and(|(has, made)| *has == rules && *made == before) {
            return Ok(());
        }
        nft::apply(Some(&self.namespace), rules.clone()).await?;
        if self.guard.as_ref().is_some_and(|(has, _)| *has == rules) {
            self.restored.push("the packet rules in the tunnel's namespace were changed".to_owned());
        }
        let made = self.monitor.rules()?;
        self.guard = made.follows(before).then_some((rules, made));
        Ok(())
    }

    /// Brings the link called `outside` to the desired state, unless it is unchanged.
    pub(super) async fn keep_link(
        &mut self,
        outside: &str,
        addresses: LinkAddresses,
        load_balancer: Ipv4Addr,
        packets: InnerPackets,
    ) -> Result<(), NetworkError> {
        let now = Instant::now();
        // Read before the comparison: a change during it is reported next time.
        let has_changed = self.monitor.has_changed() || mem::take(&mut self.is_distrusted);
        let is_known = self
            .linked
            .is_some_and(|(has, at)| has == load_balancer && now.duration_since(at) < COMPARE_EVERY);
        if is_known && !has_changed && host_addresses::is_own(addresses.outside) {
            return Ok(());
        }
        let before = self.linked.take();
        let missing = link::ensure(&self.namespace, outside, addresses, load_balancer, packets).await?;
        if before.is_some_and(|(had, _)| had == load_balancer) {
            self.restored.extend(missing);
        }
        self.linked = Some((load_balancer, now));
        debug!(link = outside, elapsed_ms = now.elapsed().as_millis(), "link was compared");
        Ok(())
    }

    /// Reads the path MTU to `peer` from the kernel; `Some` where it differs from before.
    pub(super) fn look_at_path(&mut self, peer: Ipv4Addr, is_up: bool) -> Result<Option<u32>, NetworkError> {
        let learned = self.monitor.path_mtu(peer)?;
        Ok(self.path.look(learned, is_up, Instant::now()).then(|| self.path.bears()))
    }
}
