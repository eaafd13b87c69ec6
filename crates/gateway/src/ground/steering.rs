//! Steering of peers to tunnels: the rules in the gateway's own namespace.
//!
//! One table, named after the instance. IKE and ESP for the gateway's address go to the namespace of the tunnel whose
//! peer sent them. Packets of strangers are dropped silently, where the host itself would answer that nothing listens.
//! Answers to the host's own packets are admitted; a stranger's packet is dropped and never becomes a known flow.
//! Nothing else enters or leaves a tunnel's link. A host that did not forward packets before forwards only these.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io, mem,
    net::Ipv4Addr,
};

use serde::Serialize;
use serde_json::json;
use tokio::sync::Mutex;

use super::{
    NetworkError, conntrack,
    host_firewall::{COUNTED, PROBE_DSCP},
    nft::{self, SetElement, TABLES},
    ruleset::{RulesetGeneration, generation},
    sysctl,
};

/// The rule before the last one on a host that forwards nothing else. No other table of ours has it.
const LAST_OF_NO_ROUTER: &str = "ct status dnat accept";

/// What the rules depend on.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SteeringConfig {
    /// Four hexadecimal digits.
    pub(crate) instance: String,
    /// The addresses that peers' packets arrive at: the public one, and behind a 1:1 NAT the host's own.
    pub(crate) arrive_at: BTreeSet<Ipv4Addr>,
    /// The source address of the tunnels' packets.
    pub(crate) send_from: Ipv4Addr,
    /// With kernel ESP, a peer without a NAT sends protocol 50.
    pub(crate) raw_esp: bool,
    /// The host forwarded no packets before Wicketgate.
    pub(crate) was_no_router: bool,
}

/// The table, and the peers in it.
#[derive(Debug)]
pub(crate) struct Steering {
    config: SteeringConfig,
    /// The state in the kernel, locked during each transaction.
    peers: Mutex<Steered>,
}

#[derive(Debug, Default)]
struct Steered {
    /// The inner address for each peer.
    peers: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// The generation of the rules in which the table was last seen.
    seen: Option<RulesetGeneration>,
    /// The peers of transactions whose end was not seen: they may have taken effect.
    unsure: BTreeSet<Ipv4Addr>,
}

impl Steering {
    /// Replaces the table of an earlier run by one with `peers`, in one step, and turns on forwarding.
    pub(crate) async fn start(
        config: SteeringConfig,
        peers: BTreeMap<Ipv4Addr, Ipv4Addr>,
    ) -> Result<Self, NetworkError> {
        nft::apply(None, config.table(&peers)?).await?;
        sysctl::set("ip_forward", "1").map_err(NetworkError::io("turn on forwarding"))?;
        Ok(Self { config, peers: Mutex::new(Steered { peers, ..Steered::default() }) })
    }

    /// Whether peers' packets arrive at the address.
    pub(crate) fn is_own(&self, address: Ipv4Addr) -> bool {
        self.config.arrive_at.contains(&address)
    }

    /// Steers `peer`, and no other peer, to `inner`; without a peer, steers none. Returns whether the table had been
    /// removed and is restored.
    ///
    /// # Errors
    /// The peer is steered elsewhere: it stays there until that is withdrawn. `inner` has no peer then.
    pub(crate) async fn steer(&self, peer: Option<Ipv4Addr>, inner: Ipv4Addr) -> Result<bool, NetworkError> {
        let mut steered = self.peers.lock().await;
        let is_restored = self.restore(&mut steered).await?;
        if steered.unsure.is_empty() && peer.is_some_and(|peer| steered.peers.get(&peer) == Some(&inner)) {
            return Ok(is_restored);
        }
        let mut wanted = steered.peers.clone();
        wanted.retain(|_, to| *to != inner);
        let is_taken = peer.is_some_and(|peer| wanted.contains_key(&peer));
        wanted.extend(peer.filter(|_| !is_taken).map(|peer| (peer, inner)));
        self.change(&mut steered, wanted).await?;
        if is_taken { Err(taken()) } else { Ok(is_restored) }
    }

    /// The packets from addresses that are no peer's, by address and port. Empty without the table.
    pub(crate) async fn unknown(&self) -> Result<Vec<SetElement<Ipv4Addr, u16>>, NetworkError> {
        nft::set(&self.config.name(), "unknown").await
    }

    /// The first four bytes of what these addresses have sent to UDP 4500 in the last seconds: SPIs of ESP, or 0 for IKE.
    pub(crate) async fn unknown_spis(&self) -> Result<Vec<SetElement<Ipv4Addr, u32>>, NetworkError> {
        nft::set(&self.config.name(), "unknown_spi").await
    }

    /// Removes the table. A host that did not forward before stops forwarding, unless another instance needs it.
    /// Returns whether forwarding is restored.
    pub(crate) async fn purge(&self) -> Result<bool, NetworkError> {
        let mut steered = self.peers.lock().await;
        let table = self.config.name();
        let is_last = !nft::tables().await?.iter().any(|name| name.starts_with(TABLES) && *name != table);
        if self.config.was_no_router && is_last {
            // Before the table, which keeps the host from routing for others.
            sysctl::set("ip_forward", "0").map_err(NetworkError::io("turn off forwarding"))?;
        }
        nft::apply(None, format!("table ip {table} {{}}\ndelete table ip {table}\n")).await?;
        *steered = Steered::default();
        Ok(!self.config.was_no_router || is_last)
    }

    async fn change(
        &self,
        steered: &mut Steered,
        wanted: BTreeMap<Ipv4Addr, Ipv4Addr>,
    ) -> Result<(), NetworkError> {
        let Some(rules) = self.config.transaction(steered, &wanted)? else { return Ok(()) };
        let peers = &steered.peers;
        let changed = differing(peers, &wanted).chain(differing(&wanted, peers)).map(|(peer, _)| peer);
        steered.unsure.extend(changed);
        nft::apply(None, rules).await?;
        steered.peers = wanted;
        // Our transaction was the only one since the table was seen; otherwise it is looked for again.
        steered.seen = seen_after(steered.seen, generation());
        // In any case the new rules are in force, and old flows still follow the previous ones.
        forget(mem::take(&mut steered.unsure).into_iter()).await;
        Ok(())
    }

    /// Restores the table if it was removed or emptied, for example by a host firewall that flushes all rules. Returns
    /// whether it was.
    async fn restore(&self, steered: &mut Steered) -> Result<bool, NetworkError> {
        // Read before the tables are listed: a change after this is seen next time.
        let now = generation()?;
        if steered.seen == Some(now) {
            return Ok(false);
        }
        let name = self.config.name();
        // A flush of a table leaves its chains.
        if nft::tables().await?.contains(&name) && nft::chain(&name, "arrive").await?.contains("dnat") {
            steered.seen = Some(now);
            return Ok(false);
        }
        tracing::warn!("steering rules were removed: restoring them");
        nft::apply(None, self.config.table(&steered.peers)?).await?;
        // Packets in the meantime became flows of the host itself, which would last as long as the peer sends.
        forget(steered.peers.keys().copied()).await;
        Ok(true)
    }
}

/// Another tunnel had the address, and is being removed or moved.
fn taken() -> NetworkError {
    let message = "another tunnel still has it at this gateway; it is tried again";
    NetworkError::refused("steer the packets of the peer's address", message)
}

/// The generation in which the table is known to exist, after one transaction of ours.
fn seen_after(
    seen: Option<RulesetGeneration>,
    now: Result<RulesetGeneration, NetworkError>,
) -> Option<RulesetGeneration> {
    let now = now
        .inspect_err(|error| tracing::warn!(%error, "cannot read the rules' generation: the steering rules are looked for again"))
        .ok()?;
    seen.filter(|seen| now.follows(*seen)).map(|_| now)
}

/// Makes the kernel decide again where these peers' packets go.
async fn forget(peers: impl Iterator<Item = Ipv4Addr>) {
    for peer in peers {
        // Not a reason to fail a tunnel: without it, flows of a moved peer end when idle.
        let forgotten = tokio::task::spawn_blocking(move || conntrack::forget(peer)).await;
        if let Err(error) = forgotten.map_err(io::Error::from).flatten() {
            tracing::warn!(%error, "could not delete a peer's flows");
        }
    }
}

/// Whether the host forwards only Wicketgate's packets: none, or only since another instance turned it on.
pub(crate) async fn is_no_router() -> Result<bool, NetworkError> {
    if sysctl::get("ip_forward").map_err(NetworkError::io("look whether the host forwards"))? == "0" {
        return Ok(true);
    }
    for table in nft::tables().await?.iter().filter(|name| name.starts_with(TABLES)) {
        if nft::chain(table, "forward").await?.contains(LAST_OF_NO_ROUTER) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The entries of `a` that are not in `b`.
fn differing<'a>(
    a: &'a BTreeMap<Ipv4Addr, Ipv4Addr>,
    b: &'a BTreeMap<Ipv4Addr, Ipv4Addr>,
) -> impl Iterator<Item = (Ipv4Addr, Ipv4Addr)> + use<'a> {
    a.iter().filter(|(k, v)| b.get(*k) != Some(*v)).map(|(k, v)| (*k, *v))
}

impl SteeringConfig {
    fn name(&self) -> String {
        format!("{TABLES}{}", self.instance)
    }

    /// The whole table, which replaces an existing one.
    fn table(&self, peers: &BTreeMap<Ipv4Addr, Ipv4Addr>) -> Result<String, NetworkError> {
        let values = json!({
            "table": self.name(),
            "config": self,
            "inner": peers.iter().collect::<Vec<_>>(),
            "outer": peers.values().map(|inner| (inner, self.send_from)).collect::<Vec<_>>(),
            "counted": COUNTED,
            "probe_dscp": PROBE_DSCP,
            "last_of_no_router": LAST_OF_NO_ROUTER,
        });
        nft::render(include_str!("steering.nft"), &values)
    }

    /// The rules that make `wanted` of the steered peers, unless they are: the difference, or all where a part is unknown.
    fn transaction(
        &self,
        steered: &Steered,
        wanted: &BTreeMap<Ipv4Addr, Ipv4Addr>,
    ) -> Result<Option<String>, NetworkError> {
        if !steered.unsure.is_empty() {
            return self.table(wanted).map(Some);
        }
        Ok((steered.peers != *wanted).then(|| self.difference(&steered.peers, wanted)))
    }

    /// One transaction from `old` to `new`.
    fn difference(&self, old: &BTreeMap<Ipv4Addr, Ipv4Addr>, new: &BTreeMap<Ipv4Addr, Ipv4Addr>) -> String {
        let name = self.name();
        let send_from = self.send_from;
        let mut rules = String::new();
        // Writing to a String can't fail.
        for (peer, inner) in differing(old, new) {
            let _ = writeln!(rules, "delete element ip {name} inner {{ {peer} }}");
            let _ = writeln!(rules, "delete element ip {name} outer {{ {inner} }}");
            for set in COUNTED {
                let _ = writeln!(rules, "delete element ip {name} {set} {{ {inner} . udp, {inner} . esp }}");
            }
        }
        for (peer, inner) in differing(new, old) {
            let _ = writeln!(rules, "add element ip {name} inner {{ {peer} : {inner} }}");
            let _ = writeln!(rules, "add element ip {name} outer {{ {inner} : {send_from} }}");
            for set in COUNTED {
                let _ = writeln!(rules, "add element ip {name} {set} {{ {inner} . udp, {inner} . esp }}");
            }
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_generation_causes_another_lookup_of_the_table() {
        let [before, now, later] = [7, 8, 9].map(RulesetGeneration);
        assert_eq!(seen_after(Some(before), Ok(now)), Some(now));
        assert_eq!(seen_after(Some(before), Ok(later)), None);
        assert_eq!(seen_after(None, Ok(now)), None);
        let failed = NetworkError::io("ask")(std::io::ErrorKind::TimedOut.into());
        assert_eq!(seen_after(Some(before), Err(failed)), None);
    }

    #[test]
    fn a_difference_removes_before_it_adds() {
        let config = SteeringConfig {
            instance: "ab12".to_owned(),
            arrive_at: [Ipv4Addr::new(198, 51, 100, 1)].into(),
            send_from: Ipv4Addr::new(198, 51, 100, 1),
            raw_esp: false,
            was_no_router: true,
        };
        let inner = Ipv4Addr::new(169, 254, 4, 2);
        let old = BTreeMap::from([(Ipv4Addr::new(203, 0, 113, 1), inner)]);
        let new = BTreeMap::from([(Ipv4Addr::new(203, 0, 113, 2), inner)]);
        let counted = |verb: &str| {
            let line = |set| {
                format!(
                    "{verb} element ip wicketgate-ab12 {set} {{ 169.254.4.2 . udp, 169.254.4.2 . esp }}\n"
                )
            };
            COUNTED.map(line).concat()
        };
        assert_eq!(
            config.difference(&old, &new),
            format!(
                "delete element ip wicketgate-ab12 inner {{ 203.0.113.1 }}\n\
                 delete element ip wicketgate-ab12 outer {{ 169.254.4.2 }}\n\
                 {}\
                 add element ip wicketgate-ab12 inner {{ 203.0.113.2 : 169.254.4.2 }}\n\
                 add element ip wicketgate-ab12 outer {{ 169.254.4.2 : 198.51.100.1 }}\n\
                 {}",
                counted("delete"),
                counted("add")
            )
        );
        assert_eq!(config.difference(&new, &new), "");
        assert!(!config.table(&BTreeMap::new()).unwrap().contains("elements"));
        // A transaction that was given up may have removed what a difference would remove.
        let mut steered = Steered { peers: old.clone(), ..Steered::default() };
        assert_eq!(config.transaction(&steered, &old).unwrap(), None);
        assert_eq!(config.transaction(&steered, &new).unwrap(), Some(config.difference(&old, &new)));
        steered.unsure.extend(new.keys());
        for wanted in [old, new] {
            let whole = config.table(&wanted).unwrap();
            assert_eq!(config.transaction(&steered, &wanted).unwrap(), Some(whole));
        }
    }
}
