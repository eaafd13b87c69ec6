//! Which peer goes to which tunnel: the rules in the gateway's own namespace.
//!
//! One table of one's own, named after the instance. IKE and ESP that come for the gateway's address go to the
//! namespace of the tunnel whose peer sent them; those of anybody else are dropped without a word, where the host itself
//! would say that nobody listens. What answers the host's own is let in: a stranger's, being dropped, never becomes a flow
//! that the kernel knows. Nothing else goes to or comes from a tunnel's link, and where the
//! host did not forward packets before Wicketgate made it do so, it still forwards none of anybody else's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::Ipv4Addr,
};

use tokio::sync::Mutex;

use super::{
    NetworkError, conntrack, nft,
    ruleset::{self, RulesetGeneration},
    sysctl,
};

/// What the names of all instances' tables begin with.
const TABLES: &str = "wicketgate-";

/// The rule before the last one, where the host forwards for nobody else; no other table of ours has it.
const LAST_OF_NO_ROUTER: &str = "ct status dnat accept";

/// Which rules a gateway needs.
#[derive(Debug, Clone)]
pub(crate) struct SteeringConfig {
    /// Four hexadecimal digits.
    pub(crate) instance: String,
    /// The addresses that peers' packets come to: the public one, and behind a 1:1 NAT the host's own.
    pub(crate) arrive_at: BTreeSet<Ipv4Addr>,
    /// What packets of the tunnels are sent from.
    pub(crate) send_from: Ipv4Addr,
    /// With kernel ESP a peer that is behind no NAT sends protocol 50.
    pub(crate) raw_esp: bool,
    /// The host forwarded no packets before.
    pub(crate) was_no_router: bool,
}

/// The table, and the peers in it.
#[derive(Debug)]
pub(crate) struct Steering {
    config: SteeringConfig,
    /// What is in the kernel. The lock is held over each transaction.
    peers: Mutex<Steered>,
}

#[derive(Debug, Default)]
struct Steered {
    /// The inner address for each peer.
    peers: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// The rules in whose generation the table was there.
    seen: Option<RulesetGeneration>,
}

impl Steering {
    /// Replaces what an earlier run left by a table with `peers`, in one step, and lets the host forward.
    pub(crate) async fn start(
        config: SteeringConfig,
        peers: BTreeMap<Ipv4Addr, Ipv4Addr>,
    ) -> Result<Self, NetworkError> {
        nft::apply(None, config.table(&peers)).await?;
        sysctl::set("ip_forward", "1").map_err(NetworkError::io("turn on forwarding"))?;
        Ok(Self { config, peers: Mutex::new(Steered { peers, seen: None }) })
    }

    /// Steers `peer` to `inner`, and to nowhere else; whatever was steered to `inner` before is no more.
    pub(crate) async fn steer(&self, peer: Ipv4Addr, inner: Ipv4Addr) -> Result<(), NetworkError> {
        let mut steered = self.peers.lock().await;
        self.restore(&mut steered).await?;
        if steered.peers.get(&peer) == Some(&inner) {
            return Ok(());
        }
        let mut wanted = steered.peers.clone();
        wanted.retain(|_, to| *to != inner);
        wanted.insert(peer, inner);
        self.change(&mut steered, wanted).await
    }

    /// Steers nobody to `inner`.
    pub(crate) async fn release(&self, inner: Ipv4Addr) -> Result<(), NetworkError> {
        let mut steered = self.peers.lock().await;
        self.restore(&mut steered).await?;
        let mut wanted = steered.peers.clone();
        wanted.retain(|_, to| *to != inner);
        self.change(&mut steered, wanted).await
    }

    /// Removes the table. A host that did not forward before does no longer, unless another instance needs it to;
    /// answers whether it is as it was.
    pub(crate) async fn purge(&self) -> Result<bool, NetworkError> {
        let mut steered = self.peers.lock().await;
        let table = self.config.name();
        let is_last = !nft::tables().await?.iter().any(|name| name.starts_with(TABLES) && *name != table);
        if self.config.was_no_router && is_last {
            // Before the table, which keeps the host from routing for everybody.
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
        let peers = &steered.peers;
        let changed: Vec<_> = differing(peers, &wanted).chain(differing(&wanted, peers)).collect();
        if changed.is_empty() {
            return Ok(());
        }
        nft::apply(None, self.config.difference(peers, &wanted)).await?;
        steered.peers = wanted;
        // Ours was the one change since the table was there, or it is looked for once more.
        steered.seen = seen_after(steered.seen, generation());
        // Whatever the generation: the rules are in force, and old flows go by the ones before.
        forget(changed.into_iter().map(|(peer, _)| peer)).await;
        Ok(())
    }

    /// Makes the table anew if somebody removed it: a firewall of the host that flushes all rules takes it, too.
    async fn restore(&self, steered: &mut Steered) -> Result<(), NetworkError> {
        // Asked before the tables are listed: whatever changes from here on is seen the next time.
        let now = generation()?;
        if steered.seen == Some(now) {
            return Ok(());
        }
        if nft::tables().await?.contains(&self.config.name()) {
            steered.seen = Some(now);
            return Ok(());
        }
        tracing::warn!("the steering rules were gone, and are made anew");
        nft::apply(None, self.config.table(&steered.peers)).await?;
        // What came meanwhile was taken for the host's own, and would be for as long as the peer goes on.
        forget(steered.peers.keys().copied()).await;
        Ok(())
    }
}

/// Of the rules of this process's own namespace.
fn generation() -> Result<RulesetGeneration, NetworkError> {
    ruleset::generation().map_err(NetworkError::io("look whether the host's packet rules were changed"))
}

/// In which generation the table is known to be there, after one transaction of ours.
fn seen_after(
    seen: Option<RulesetGeneration>,
    now: Result<RulesetGeneration, NetworkError>,
) -> Option<RulesetGeneration> {
    let now = now
        .inspect_err(|error| tracing::warn!(%error, "the steering rules are looked for once more"))
        .ok()?;
    seen.filter(|seen| now.follows(*seen)).map(|_| now)
}

/// Has the kernel decide anew where these peers' packets go.
async fn forget(peers: impl Iterator<Item = Ipv4Addr>) {
    for peer in peers {
        // Not for a tunnel to fail on: without it, flows of a peer that moved end when they are idle.
        match tokio::task::spawn_blocking(move || conntrack::forget(peer)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "could not forget a peer's flows"),
            Err(error) => tracing::warn!(%error, "could not forget a peer's flows"),
        }
    }
}

/// Whether the host forwards no packets but Wicketgate's: none at all, or only since another instance made it do so.
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

    /// The whole table, in place of the one that may be there.
    fn table(&self, peers: &BTreeMap<Ipv4Addr, Ipv4Addr>) -> String {
        let Self { instance, send_from, .. } = self;
        let name = self.name();
        let to = join(peers.iter().map(|(peer, inner)| format!("{peer} : {inner}")));
        let from = join(peers.values().map(|inner| format!("{inner} : {send_from}")));
        let here = join(self.arrive_at.iter());
        let (esp_in, esp) = if self.raw_esp {
            (
                format!("    ip daddr {here} ip protocol esp dnat to ip saddr map @inner\n"),
                "    ip protocol esp accept\n",
            )
        } else {
            (String::new(), "")
        };
        let elements = |e: &str| if peers.is_empty() { String::new() } else { format!("elements = {e}") };
        // Another instance's packets are no business of this one's last rule: steered to a tunnel, or an answer.
        let last =
            if self.was_no_router { format!("    {LAST_OF_NO_ROUTER}\n    drop\n") } else { String::new() };
        format!(
            r#"table ip {name} {{}}
delete table ip {name}
table ip {name} {{
  map inner {{ type ipv4_addr : ipv4_addr; {to} }}
  map outer {{ type ipv4_addr : ipv4_addr; {from} }}
  chain arrive {{
    type nat hook prerouting priority dstnat;
    ip daddr {here} udp dport {{ 500, 4500 }} dnat to ip saddr map @inner
{esp_in}  }}
  chain leave {{
    type nat hook postrouting priority srcnat;
    snat to ip saddr map @outer
  }}
  chain steered {{
    udp dport {{ 500, 4500 }} accept
    udp sport {{ 500, 4500 }} accept
{esp}    ct state related icmp type {{ destination-unreachable, time-exceeded, parameter-problem }} accept
    drop
  }}
  chain strangers {{
    type filter hook input priority filter; policy accept;
    ct state established,related accept
    ip daddr {here} udp dport {{ 500, 4500 }} drop
    ip daddr {here} ip protocol esp drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname "wg{instance}-*" oifname "wg{instance}-*" drop
    iifname "wg{instance}-*" goto steered
    oifname "wg{instance}-*" ct status dnat goto steered
    oifname "wg{instance}-*" ct state established,related goto steered
    oifname "wg{instance}-*" drop
{last}  }}
}}
"#,
            to = elements(&to),
            from = elements(&from),
        )
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
        }
        for (peer, inner) in differing(new, old) {
            let _ = writeln!(rules, "add element ip {name} inner {{ {peer} : {inner} }}");
            let _ = writeln!(rules, "add element ip {name} outer {{ {inner} : {send_from} }}");
        }
        rules
    }
}

fn join(items: impl Iterator<Item = impl ToString>) -> String {
    let items: Vec<_> = items.map(|i| i.to_string()).collect();
    format!("{{ {} }}", items.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_generation_is_not_known_the_table_is_looked_for() {
        let [before, now, later] = [7, 8, 9].map(RulesetGeneration::of);
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
        assert_eq!(
            config.difference(&old, &new),
            "delete element ip wicketgate-ab12 inner { 203.0.113.1 }\n\
             delete element ip wicketgate-ab12 outer { 169.254.4.2 }\n\
             add element ip wicketgate-ab12 inner { 203.0.113.2 : 169.254.4.2 }\n\
             add element ip wicketgate-ab12 outer { 169.254.4.2 : 198.51.100.1 }\n"
        );
        assert_eq!(config.difference(&new, &new), "");
        assert!(!config.table(&BTreeMap::new()).contains("elements"));
    }
}
