//! Whether the host's own firewall drops what is steered to tunnels. Docker, ufw and firewalld drop in the forward hook
//! whatever they do not know, and a verdict of one table does not overrule a drop of another, so steering cannot prevent it.
//!
//! Packets decide, not rules: the steering table counts each tunnel's packets before and after all other chains of the
//! hook. While another chain is there, each tunnel that is up sends a packet that the last chain drops, so that an idle
//! tunnel is judged, too. Invariant: a look that fails changes no tunnel.

mod foreign_chain;
mod passage;
mod probe_packet;

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};
use tracing::{info, warn};
use wicketgate_model::ConnectionState;
use wicketgate_system::Outage;

use super::{
    NetworkError, TunnelHandle,
    ruleset::{RulesetGeneration, generation},
    tool::listing,
};
use foreign_chain::{ForeignChain, explained};
pub(super) use passage::COUNTED;
#[cfg(any(test, fuzzing))]
pub use passage::fuzz::nft_counters;
use passage::{Count, Flow, Passage, counts};
pub(super) use probe_packet::PROBE_DSCP;

/// How often the host is looked at, and how often the kernel is asked whether its rules were changed, which has it looked at
/// at once. A blocked tunnel is told within 5 s.
const LOOK_EVERY: Duration = Duration::from_secs(3);
const CHANGE_SEEN_WITHIN: Duration = Duration::from_secs(1);

/// A packet that was sent arrives in microseconds, or in milliseconds where a program inspects it: so often, and after
/// such a pause, the counters are read until they agree.
const READINGS: usize = 3;
const BETWEEN_READINGS: Duration = Duration::from_millis(30);

/// What the names of all gateways' links begin with.
pub(super) const LINKS: &str = "wg";

/// The cause and the cure if chains of other programs drop what they do not know, and no rule of theirs names the links of any
/// gateway.
///
/// # Errors
/// The host's rules cannot be read.
pub(crate) async fn drops_by_default() -> Result<Option<(String, String)>, NetworkError> {
    let listed = listing("nft", &["-j", "list", "chains"]).await?;
    let all = foreign_chain::in_forward_hook(&listed).into_iter().chain(foreign_chain::of_legacy().await);
    let mut guilty = Vec::new();
    for chain in all.filter(|chain| chain.drops_by_default) {
        if !names_links(&chain.rules().await?) {
            guilty.push(chain);
        }
    }
    Ok((!guilty.is_empty()).then(|| explained(&guilty, LINKS)))
}

/// Whether rules name links of a gateway: `wg1a2b-` and what follows, or all with `wg*` (nftables) and `wg+` (iptables). WireGuard's
/// links begin in the same way.
fn names_links(rules: &str) -> bool {
    rules.match_indices(LINKS).any(|(at, _)| {
        let rest = &rules[at + LINKS.len()..];
        let is_instance = |rest: &str| {
            let (digits, hyphen) = rest.split_at_checked(4)?;
            Some(digits.bytes().all(|b| b.is_ascii_hexdigit()) && hyphen.starts_with('-'))
        };
        rest.starts_with(['*', '+']) || is_instance(rest) == Some(true)
    })
}

/// See the module.
#[derive(Debug)]
pub(super) struct HostFirewall {
    /// The steering table.
    table: String,
    /// The beginning of the names of tunnels' links.
    links: String,
    /// By the engine's own address in the tunnel's namespace.
    tunnels: wicketgate_system::Mutex<BTreeMap<Ipv4Addr, Weak<TunnelHandle>>>,
    /// Locked during a look.
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The rules of which the chains were read.
    generation: Option<RulesetGeneration>,
    chains: Vec<ForeignChain>,
    /// What was counted before there were such chains does not count.
    is_watching: bool,
    passages: BTreeMap<(Ipv4Addr, Flow), Passage>,
    /// The chains that the log says may drop, and the cause that it says.
    suspected: Vec<ForeignChain>,
    told: Option<String>,
}

impl HostFirewall {
    pub(super) fn new(table: String, links: String) -> Self {
        Self { table, links, tunnels: wicketgate_system::Mutex::default(), seen: Mutex::default() }
    }

    /// Judges the tunnel from now on, in place of an earlier one with the same address.
    pub(super) fn watch_tunnel(&self, inside: Ipv4Addr, tunnel: &Arc<TunnelHandle>) {
        self.tunnels.lock().insert(inside, Arc::downgrade(tunnel));
    }

    pub(super) fn forget_tunnel(&self, inside: Ipv4Addr) {
        self.tunnels.lock().remove(&inside);
    }

    /// Looks for ever. What it sees is the tunnels' [`TunnelHandle::dropped`], and is logged.
    pub(super) async fn watch(&self) {
        let mut outage = Outage::default();
        loop {
            match self.look().await {
                Ok(()) if outage.recovered() => info!("the host's firewall can be looked at again"),
                Ok(()) => {}
                Err(error) => {
                    if outage.failed() {
                        warn!(%error, "cannot see whether the host's firewall drops tunnels' packets: looking again");
                    }
                    let mut seen = self.seen.lock().await;
                    // What was seen becomes too old to be said.
                    seen.passages.values_mut().for_each(|passage| passage.fade(None, Instant::now()));
                    self.show(&mut seen, &self.present()).await;
                }
            }
            let (due, known) = (Instant::now() + LOOK_EVERY, self.seen.lock().await.generation);
            while Instant::now() < due && known == generation().ok() {
                sleep(CHANGE_SEEN_WITHIN.min(due - Instant::now())).await;
            }
        }
    }

    /// Looks now. Cancel-safe.
    ///
    /// # Errors
    /// The host's rules or counters cannot be read, or not within a bound.
    pub(super) async fn look(&self) -> Result<(), NetworkError> {
        let mut seen = self.seen.lock().await;
        // Read before the chains: a change after this is seen next time.
        let now = generation()?;
        let legacy = foreign_chain::of_legacy().await;
        if seen.generation != Some(now) || legacy.is_some() {
            let listed = listing("nft", &["-j", "list", "chains"]).await?;
            seen.chains = foreign_chain::in_forward_hook(&listed).into_iter().chain(legacy.clone()).collect();
            seen.generation = Some(now);
        }
        let tunnels = self.present();
        seen.passages.retain(|(inside, _), _| tunnels.iter().any(|(known, _)| known == inside));
        if seen.chains.is_empty() {
            seen.passages.clear();
            seen.is_watching = false;
        } else if !tunnels.is_empty() {
            if !seen.is_watching {
                seen.passages =
                    self.counts().await?.into_iter().map(|(key, now)| (key, now.into())).collect();
            }
            let sent = probe_packet::send(&tunnels).await;
            let counts = self.settled(&seen.passages, &sent).await?;
            // Without a generation of their own, rules of iptables-legacy may have changed at any time.
            let rules = legacy.is_none().then_some(now);
            let at = Instant::now();
            for (key, count) in counts {
                seen.passages.entry(key).or_default().look(count, rules, at);
            }
        }
        seen.is_watching = !seen.chains.is_empty();
        self.show(&mut seen, &tunnels).await;
        Ok(())
    }

    async fn counts(&self) -> Result<BTreeMap<(Ipv4Addr, Flow), Count>, NetworkError> {
        Ok(counts(&listing("nft", &["-j", "list", "table", "ip", &self.table]).await?))
    }

    /// The counters, once no packet is under way. `sent` are the packets that were just sent from each address.
    async fn settled(
        &self,
        before: &BTreeMap<(Ipv4Addr, Flow), Passage>,
        sent: &BTreeMap<Ipv4Addr, u64>,
    ) -> Result<BTreeMap<(Ipv4Addr, Flow), Count>, NetworkError> {
        let mut reading = 1;
        loop {
            let counts = self.counts().await?;
            let is_settled = counts.iter().all(|(key @ (inside, flow), count)| {
                let sent = sent.get(inside).filter(|_| flow.carries_probes()).copied().unwrap_or_default();
                before.get(key).copied().unwrap_or_default().is_settled(*count, sent)
            });
            if is_settled || reading == READINGS {
                return Ok(counts);
            }
            reading += 1;
            sleep(BETWEEN_READINGS).await;
        }
    }

    fn present(&self) -> Vec<(Ipv4Addr, Arc<TunnelHandle>)> {
        let mut tunnels = self.tunnels.lock();
        tunnels.retain(|_, tunnel| tunnel.strong_count() > 0);
        tunnels.iter().filter_map(|(inside, tunnel)| Some((*inside, tunnel.upgrade()?))).collect()
    }

    /// Sets what the tunnels say, and logs what is new.
    async fn show(&self, seen: &mut Seen, tunnels: &[(Ipv4Addr, Arc<TunnelHandle>)]) {
        let why = explained(&seen.chains, &self.links);
        let mut are_blocked = false;
        for (inside, tunnel) in tunnels {
            let is_up = tunnel.connection().borrow().state == ConnectionState::Up;
            let mut passages = seen.passages.iter().filter(|((of, _), _)| of == inside);
            let is_blocked = passages.any(|(_, passage)| passage.is_blocked(is_up));
            are_blocked |= is_blocked;
            tunnel.set_dropped(is_blocked.then(|| why.clone()));
        }
        let (cause, cure) = why;
        if are_blocked {
            if seen.told.as_ref() != Some(&cause) {
                warn!("{cause}: {cure}");
                seen.told = Some(cause);
            }
        } else if seen.told.take().is_some() {
            info!("the host's firewall is no longer seen to drop tunnels' packets");
        }
        self.suspect(seen).await;
    }

    /// Logs once that chains drop by default, where no rule of theirs names the tunnels' links and no packet has passed.
    async fn suspect(&self, seen: &mut Seen) {
        let drop_by_default = |chains: &[ForeignChain]| -> Vec<_> {
            chains.iter().filter(|chain| chain.drops_by_default).cloned().collect()
        };
        let suspects = drop_by_default(&seen.chains);
        let is_known = seen.told.is_some() || seen.passages.values().any(Passage::passes);
        if is_known || seen.suspected == suspects {
            return;
        }
        seen.suspected.clone_from(&suspects);
        let mut unknown = Vec::new();
        for chain in suspects {
            let rules = chain.rules().await.unwrap_or_default();
            if !rules.contains(&self.links) {
                unknown.push(chain);
            }
        }
        if !unknown.is_empty() {
            let names: Vec<_> = unknown.iter().map(|chain| chain.name.as_str()).collect();
            let (_, cure) = explained(&unknown, &self.links);
            warn!(
                "the firewall of the gateway's host drops in {} what it does not know; if tunnels' packets are not known, \
                 {cure}",
                names.join(", ")
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_of_wireguard_is_none_of_a_gateways() {
        for ours in [r#"iifname "wg1a2b-*" accept"#, r#"iifname "wg*" accept"#, "-A FORWARD -i wg+ -j ACCEPT"]
        {
            assert!(names_links(ours), "{ours}");
        }
        for other in
            [r#"iifname "wg0" accept"#, "-A FORWARD -i wg-office -j ACCEPT", "comment wg", "wg12", ""]
        {
            assert!(!names_links(other), "{other}");
        }
    }
}
