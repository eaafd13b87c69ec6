//! A tunnel of this run, without its engine: its namespace, and its guard, link and path MTU, which are kept as
//! desired.
//!
//! Invariant: whatever may have changed since the last comparison is compared. The kernel reports changes in a few
//! microseconds for each tunnel; a complete comparison takes a hundred times that. What the kernel does not report,
//! such as some settings, is compared every few minutes.

use std::{mem, net::Ipv4Addr, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::debug;
use wicketgate_model::TunnelDesired;

use super::{
    Namespace, NetworkError, TunnelHandle, guard, host_addresses,
    inner_packets::InnerPackets,
    link,
    link_addresses::LinkAddresses,
    namespace_monitor::NamespaceMonitor,
    nft,
    path_mtu::{PathMtu, SAFE},
    path_probe::{self, Outcome},
    ruleset::RulesetGeneration,
};

/// How often the link is compared without a reported change.
const COMPARE_EVERY: Duration = Duration::from_secs(10 * 60);

/// Retransmission timeouts between two looks that are a reason to probe the path: the second one of a connection follows after
/// half a second or more without an acknowledgement.
const STALLED: u64 = 2;

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
    /// The engine's starts and their ends, at the last comparison.
    engine_starts: usize,
    path: PathMtu,
    /// Retransmission timeouts of all connections, at the last look.
    timeouts: u64,
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
        let (engine_starts, timeouts) = (0, 0);
        Self {
            slot,
            handle,
            namespace,
            monitor,
            guard,
            linked,
            engine_starts,
            path,
            timeouts,
            is_distrusted,
            restored,
        }
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
        let (missing, route) =
            link::ensure(&self.namespace, outside, addresses, load_balancer, packets).await?;
        // Read after the comparison: a start during it counts, too.
        let starts = self.handle.engine_starts();
        let was_started = mem::replace(&mut self.engine_starts, starts.count) != starts.count;
        if before.is_some_and(|(had, _)| had == load_balancer) {
            self.restored.extend(missing);
            // A device of the engine that is new has no route yet.
            self.restored.extend(route.filter(|_| !was_started && !starts.is_starting));
        }
        self.linked = Some((load_balancer, now));
        debug!(link = outside, elapsed_ms = now.elapsed().as_millis(), "link was compared");
        Ok(())
    }

    /// Reports who uses ports that no listener has. New rules count from 0, so this comes before them.
    pub(super) fn look_at_unserved(&self) {
        // What an earlier run's rules have counted includes what came while no share was served.
        if self.guard.is_none() {
            return;
        }
        match self.monitor.unserved() {
            Ok(unserved) => self.handle.set_unserved(unserved),
            // Removed rules are restored, and reported, elsewhere.
            Err(error) => debug!(%error, "cannot look for packets to ports without a listener"),
        }
    }

    /// Reports what the path does to packets. The rules that cure it come before this.
    pub(super) fn report_path(&self) {
        self.handle.set_path_warning(self.path.warning());
    }

    /// Reads the path MTU to the peer from the kernel, and probes the path if there is a reason; `Some` where the MTU to use
    /// differs from before.
    pub(super) async fn look_at_path(
        &mut self,
        desired: &TunnelDesired,
        is_up: bool,
    ) -> Result<Option<u32>, NetworkError> {
        let before = self.path.bears();
        let learned = self.monitor.path_mtu(desired.peer_address.get())?;
        self.path.look(learned, is_up, Instant::now());
        if is_up {
            self.probe_path(desired.load_balancer_ip).await;
        } else {
            self.handle.latest_client().forget();
        }
        Ok((self.path.bears() != before).then(|| self.path.bears()))
    }

    /// Probes the path to the client that connected last, if it is time.
    async fn probe_path(&mut self, from: Ipv4Addr) {
        let Some(host) = self.handle.latest_client().get() else { return };
        let timeouts = self.monitor.retransmission_timeouts();
        let has_stalled = timeouts.saturating_sub(mem::replace(&mut self.timeouts, timeouts)) >= STALLED;
        if !self.path.is_due(host, has_stalled, Instant::now()) {
            return;
        }
        let tried = self.path.tries();
        let (middle, large) = (guard::largest_inner(SAFE), guard::largest_inner(tried));
        let probe = move || path_probe::probe(from, host, middle, large);
        let outcome = self.namespace.run_blocking("probe the path to the site", probe).await;
        let outcome = outcome.unwrap_or_else(|error| {
            debug!(%error, "the path to the site could not be probed");
            Outcome::Unclear
        });
        debug!(%host, ?outcome, "the path to the site was probed");
        self.path.probed(host, outcome, (Instant::now(), Timestamp::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::tool::tool;

    const LOAD_BALANCER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);

    /// In a namespace in place of the host's.
    async fn check(inside: &Namespace, name: &str) {
        let handle = Arc::new(TunnelHandle::new(Some(inside.clone()), LOAD_BALANCER));
        let monitor = NamespaceMonitor::set_up(inside).await.unwrap();
        let mut tunnel = RunningTunnel::new(0, Arc::clone(&handle), inside.clone(), monitor);
        let device = async || {
            for verb in ["del", "add"] {
                let made = tool("ip", &["-n", name, "tuntap", verb, "dev", "device", "mode", "tun"]).await;
                assert!(made.is_ok() || verb == "del", "{made:?}");
            }
        };
        let mut restored = async || {
            let packets = InnerPackets::Device("device");
            tunnel.keep_link("wgtest-0", LinkAddresses::of(7, 0), LOAD_BALANCER, packets).await.unwrap();
            tunnel.take_restored()
        };
        handle.starting(device()).await;
        assert!(restored().await.is_empty());
        // The route goes with the device: as of a daemon that was killed, during its start and after it.
        let while_it_starts = async {
            device().await;
            restored().await
        };
        assert!(handle.starting(while_it_starts).await.is_empty());
        handle.starting(device()).await;
        assert!(restored().await.is_empty());
        device().await;
        assert_eq!(restored().await, ["the route into the tunnel was missing"]);
    }

    #[test]
    fn an_engine_that_is_started_again_is_not_another_programs_change() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: namespaces need root");
            return;
        }
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let names = ["host", "inside"].map(|end| format!("wgroute-{end}-{}", std::process::id()));
        let made = names.each_ref().map(|name| runtime().block_on(Namespace::ensure(name)).unwrap());
        let [host, inside] = &made;
        host.run(|| {
            runtime().block_on(check(inside, &names[1]));
            Ok(())
        })
        .unwrap();
        for name in &names {
            runtime().block_on(Namespace::remove(name)).unwrap();
        }
    }
}
