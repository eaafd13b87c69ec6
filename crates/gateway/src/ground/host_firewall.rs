//! The host's own firewall, where it drops what is steered to tunnels: a base chain in the forward hook that drops by
//! default, as those of Docker, ufw and firewalld.
//!
//! A verdict of one table does not overrule a drop of another, so steering cannot prevent it. The rules are judged by
//! what they say; where they say more than is understood here, the packets that pass decide.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{NetworkError, ruleset::RulesetGeneration, tool::tool};

/// Of the IKE daemons, and of ESP in UDP.
const PORTS: [u64; 2] = [500, 4500];

/// How often packets are counted while a chain drops: hundreds of tunnels ask.
const COUNTED_EVERY: Duration = Duration::from_secs(1);

/// A chain that drops, and how to admit the links called `links` with a star for the rest of the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DroppingChain {
    /// `ip filter FORWARD`.
    chain: String,
    links: String,
    is_legacy: bool,
}

impl DroppingChain {
    /// The cause and the cure.
    pub(super) fn explained(&self) -> (String, String) {
        let Self { chain, links, is_legacy } = self;
        let cause = format!("the firewall of the gateway's host drops tunnels' packets in the chain {chain}");
        let rule = |nft: &str, iptables: &str| match is_legacy {
            true => format!("`iptables-legacy -I FORWARD {iptables} {links}+ -j ACCEPT`"),
            false => format!("`nft insert rule {chain} {nft} \"{links}*\" accept`"),
        };
        let (to, from) = (rule("oifname", "-o"), rule("iifname", "-i"));
        (cause, format!("admit them on the gateway's host, with {to} and {from}"))
    }
}

/// What is known about the host's firewall.
#[derive(Debug, Default)]
pub(super) struct HostFirewall {
    /// The rules that were read last.
    read: Option<RulesetGeneration>,
    dropping: Option<DroppingChain>,
    /// Packets before and after all chains of the forward hook, and when they were counted.
    counted: Option<(u64, u64)>,
    counted_at: Option<Instant>,
    /// The last packets passed.
    passes: bool,
}

impl HostFirewall {
    /// The chain that drops, when the rules have this generation. `table` has the counters.
    pub(super) async fn look(
        &mut self,
        now: RulesetGeneration,
        table: &str,
        links: &str,
    ) -> Result<Option<&DroppingChain>, NetworkError> {
        if self.read != Some(now) {
            let before = self.dropping.take();
            let listing = tool("nft", &["-j", "list", "ruleset"]).await?;
            self.dropping = dropping(&listing, links).or(legacy(links).await);
            if self.dropping != before {
                (self.counted, self.counted_at, self.passes) = (None, None, false);
                if let Some(dropping) = &self.dropping {
                    let (cause, cure) = dropping.explained();
                    tracing::warn!("{cause}: {cure}");
                }
            }
            self.read = Some(now);
        }
        if self.dropping.is_none() {
            return Ok(None);
        }
        if self.counted_at.is_some_and(|at| at.elapsed() < COUNTED_EVERY) {
            return Ok(self.dropping.as_ref().filter(|_| !self.passes));
        }
        self.counted_at = Some(Instant::now());
        let listing = tool("nft", &["-j", "list", "counters", "table", "ip", table]).await?;
        let counted = counted(&listing);
        if let Some(((arrived, passed), (before, passed_before))) = counted.zip(self.counted) {
            // Without packets, what was seen last still holds.
            if arrived > before {
                self.passes = passed > passed_before;
            }
        }
        self.counted = counted;
        Ok(self.dropping.as_ref().filter(|_| !self.passes))
    }
}

/// `-P FORWARD DROP` of iptables without nftables, where the kernel has its table and the program is installed.
async fn legacy(links: &str) -> Option<DroppingChain> {
    let tables = std::fs::read_to_string("/proc/net/ip_tables_names").ok()?;
    tables.lines().find(|name| *name == "filter")?;
    let rules = tool("iptables-legacy", &["-S", "FORWARD"]).await.ok()?;
    let admits = |end: &str| rules.lines().any(|rule| rule.contains(&format!("{end} {links}")));
    let drops = rules.lines().any(|rule| rule == "-P FORWARD DROP") && !(admits("-i") && admits("-o"));
    drops.then(|| DroppingChain {
        chain: "FORWARD of iptables-legacy".to_owned(),
        links: links.to_owned(),
        is_legacy: true,
    })
}

fn counted(listing: &str) -> Option<(u64, u64)> {
    let listing: Value = serde_json::from_str(listing).ok()?;
    let of = |name: &str| {
        let mut counters = listing["nftables"].as_array()?.iter().filter_map(|it| it.get("counter"));
        counters.find(|it| it["name"] == name)?["packets"].as_u64()
    };
    of("arrived").zip(of("passed"))
}

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    ToTunnel,
    FromTunnel,
}

/// The first chain that drops, of `nft -j list ruleset`. An unreadable listing has none.
fn dropping(listing: &str, links: &str) -> Option<DroppingChain> {
    let listing: Value = serde_json::from_str(listing).ok()?;
    let all = listing["nftables"].as_array()?;
    let chains = all.iter().filter_map(|it| it.get("chain"));
    let foreign = chains.filter(|it| {
        it["hook"] == "forward"
            && (it["family"] == "ip" || it["family"] == "inet")
            && !it["table"].as_str().is_some_and(|name| name.starts_with("wicketgate"))
    });
    let rules: Vec<&Value> = all.iter().filter_map(|it| it.get("rule")).collect();
    foreign.into_iter().find_map(|chain| {
        let of = |name: &str| {
            let is_in = |rule: &&&Value| {
                rule["family"] == chain["family"] && rule["table"] == chain["table"] && rule["chain"] == name
            };
            rules.iter().filter(is_in).copied().collect::<Vec<_>>()
        };
        let name = chain["name"].as_str()?;
        let drops_last = of(name).iter().any(|rule| conditions(rule).is_empty() && ends(rule));
        if chain["policy"] != "drop" && !drops_last {
            return None;
        }
        let mut reached = BTreeSet::from([name.to_owned()]);
        let mut rest = vec![name.to_owned()];
        let mut accepting = Vec::new();
        while let Some(name) = rest.pop() {
            for rule in of(&name) {
                let targets = expressions(rule).filter_map(|it| {
                    it["jump"]["target"].as_str().or(it["goto"]["target"].as_str()).map(str::to_owned)
                });
                rest.extend(targets.filter(|target| reached.insert(target.clone())));
                accepting.extend(expressions(rule).any(|it| it.get("accept").is_some()).then_some(rule));
            }
        }
        let admits =
            |way| accepting.iter().any(|rule| conditions(rule).iter().all(|it| fits(it, way, links)));
        let admitted = admits(Way::ToTunnel) && admits(Way::FromTunnel);
        let words =
            [&chain["family"], &chain["table"], &chain["name"]].map(|it| it.as_str().unwrap_or_default());
        (!admitted).then(|| DroppingChain {
            chain: words.join(" "),
            links: links.to_owned(),
            is_legacy: false,
        })
    })
}

fn expressions(rule: &Value) -> impl Iterator<Item = &Value> {
    rule["expr"].as_array().into_iter().flatten()
}

/// Whether the rule drops or rejects.
fn ends(rule: &Value) -> bool {
    expressions(rule).any(|it| it.get("drop").is_some() || it.get("reject").is_some())
}

/// What a packet has to fulfil.
fn conditions(rule: &Value) -> Vec<&Value> {
    let is_action = |it: &&Value| {
        ["accept", "drop", "reject", "counter", "log", "jump", "goto"]
            .iter()
            .any(|name| it.get(name).is_some())
    };
    expressions(rule).filter(|it| !is_action(it)).collect()
}

/// Whether IKE and ESP on this way fulfil the condition. One that is not understood is not fulfilled.
fn fits(condition: &Value, way: Way, links: &str) -> bool {
    let it = &condition["match"];
    let (left, right) = (&it["left"], &it["right"]);
    if it["op"] != "==" && it["op"] != "in" {
        return false;
    }
    let has = |word: &str| right == word || words(right).any(|it| it == word);
    let has_port = || {
        let ports = right.get("set").and_then(Value::as_array).into_iter().flatten().chain([right]);
        ports.filter_map(Value::as_u64).any(|port| PORTS.contains(&port))
    };
    let is_link = right.as_str().is_some_and(|name| {
        let start = name.trim_end_matches('*');
        start.starts_with(links) || (name.ends_with('*') && links.starts_with(start))
    });
    match (left["meta"]["key"].as_str(), way) {
        (Some("oifname"), Way::ToTunnel) | (Some("iifname"), Way::FromTunnel) => return is_link,
        // The host's own links are its own affair.
        (Some("iifname"), Way::ToTunnel) | (Some("oifname"), Way::FromTunnel) => return !is_link,
        (Some("l4proto"), _) => return has("udp"),
        _ => {}
    }
    match (left["payload"]["field"].as_str(), way) {
        (Some("dport"), Way::ToTunnel) | (Some("sport"), Way::FromTunnel) => return has_port(),
        (Some("protocol"), _) => return has("udp"),
        _ => {}
    }
    match left["ct"]["key"].as_str() {
        Some("state") => has("new") || (way == Way::FromTunnel && has("established")),
        Some("status") => has("dnat"),
        _ => false,
    }
}

/// The words of a set, or of a list of flags.
fn words(value: &Value) -> impl Iterator<Item = &str> {
    let set = value.get("set").unwrap_or(value);
    set.as_array().into_iter().flatten().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn listing(policy: &str, rules: &[Value]) -> String {
        let rules = rules.iter().map(|expr| {
            let chain = expr.get("chain").cloned().unwrap_or(json!("FORWARD"));
            json!({"rule": {"family": "ip", "table": "filter", "chain": chain, "expr": expr["expr"]}})
        });
        let chain = |name: &str, hook: Value| {
            json!({"chain": {"family": "ip", "table": name, "name": "FORWARD",
            "type": "filter", "hook": hook, "prio": 0, "policy": policy}})
        };
        let mut all = vec![chain("filter", json!("forward")), chain("wicketgate-ab12", json!("forward"))];
        all.extend(rules);
        json!({"nftables": all}).to_string()
    }

    fn accept(conditions: &[Value]) -> Value {
        let mut expr = conditions.to_vec();
        expr.push(json!({"accept": null}));
        json!({"expr": expr})
    }

    fn is(left: &Value, right: &Value) -> Value {
        json!({"match": {"op": "==", "left": left, "right": right}})
    }

    #[test]
    fn a_chain_that_drops_is_found_until_it_admits_both_ways() {
        let found = |policy: &str, rules: &[Value]| dropping(&listing(policy, rules), "wgab12-").is_some();
        assert!(!found("accept", &[]));
        assert!(found("drop", &[]));
        assert!(found("accept", &[json!({"expr": [{"reject": {"type": "icmpx"}}]})]));
        let link = |key: &str| is(&json!({"meta": {"key": key}}), &json!("wgab12-*"));
        let [to, from] = [accept(&[link("oifname")]), accept(&[link("iifname")])];
        assert!(found("drop", std::slice::from_ref(&to)) && found("drop", std::slice::from_ref(&from)));
        assert!(!found("drop", &[to.clone(), from]));
        let established =
            accept(&[is(&json!({"ct": {"key": "state"}}), &json!({"set": ["established", "related"]}))]);
        assert!(!found("drop", &[to, established.clone()]) && found("drop", &[established]));
        // Docker's own rules are for its own links.
        let docker = accept(&[is(&json!({"meta": {"key": "oifname"}}), &json!("docker0"))]);
        assert!(found("drop", &[docker]));
        let port = |field: &str| {
            let ports =
                is(&json!({"payload": {"protocol": "udp", "field": field}}), &json!({"set": [500, 4500]}));
            accept(&[is(&json!({"meta": {"key": "iifname"}}), &json!("wan")), ports])
        };
        assert!(found("drop", &[port("dport")]));
        let outward =
            is(&json!({"payload": {"protocol": "udp", "field": "sport"}}), &json!({"set": [500, 4500]}));
        assert!(!found("drop", &[port("dport"), accept(&[outward])]));
        // In a chain that the base chain jumps to.
        let jump = json!({"expr": [{"jump": {"target": "USER"}}]});
        assert!(!found("drop", &[jump, json!({"chain": "USER", "expr": [{"accept": null}]})]));
        assert_eq!(dropping("no JSON", "wg"), None);
    }

    #[test]
    fn the_message_has_both_rules() {
        let found = dropping(&listing("drop", &[]), "wgab12-").unwrap().explained().1;
        for rule in ["iifname", "oifname"] {
            let rule = format!("`nft insert rule ip filter FORWARD {rule} \"wgab12-*\" accept`");
            assert!(found.contains(&rule), "{found}");
        }
    }
}
