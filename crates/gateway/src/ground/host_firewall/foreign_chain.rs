//! Chains of other programs in the forward hook, by what `nft` and `iptables-legacy` list.

use serde_json::Value;

use crate::ground::{NetworkError, nft::TABLES, tool::listing};

/// Chains that a message names at most.
const NAMED: usize = 3;

/// A base chain in the forward hook that is not a gateway's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ForeignChain {
    /// `ip filter FORWARD`.
    pub(super) name: String,
    pub(super) drops_by_default: bool,
    is_legacy: bool,
}

impl ForeignChain {
    /// As its program lists them.
    pub(super) async fn rules(&self) -> Result<String, NetworkError> {
        if self.is_legacy {
            return listing("iptables-legacy", &["-S", "FORWARD"]).await;
        }
        let words = ["list", "chain"].into_iter().chain(self.name.split(' '));
        listing("nft", &words.collect::<Vec<_>>()).await
    }

    /// The rules that admit the links whose names begin with `links`.
    fn cure(&self, links: &str) -> String {
        let rule = |nft: &str, iptables: &str| match self.is_legacy {
            true => format!("`iptables-legacy -I FORWARD {iptables} {links}+ -j ACCEPT`"),
            false => format!("`nft insert rule {} {nft} \"{links}*\" accept`", self.name),
        };
        format!("{} and {}", rule("oifname", "-o"), rule("iifname", "-i"))
    }
}

/// The cause and the cure where packets do not pass: of those that drop by default, or of all.
pub(super) fn explained(chains: &[ForeignChain], links: &str) -> (String, String) {
    let by_default: Vec<_> = chains.iter().filter(|chain| chain.drops_by_default).collect();
    let guilty = if by_default.is_empty() { chains.iter().collect() } else { by_default };
    let guilty = guilty.get(..guilty.len().min(NAMED)).unwrap_or_default();
    let names: Vec<_> = guilty.iter().map(|chain| chain.name.as_str()).collect();
    let place = match names.as_slice() {
        [one] => format!("in the chain {one}"),
        several => format!("in one of the chains {}", several.join(", ")),
    };
    let cures: Vec<_> = guilty.iter().map(|chain| chain.cure(links)).collect();
    (
        format!("the firewall of the gateway's host drops tunnels' packets {place}"),
        format!("admit them on the gateway's host, with {}", cures.join(", ")),
    )
}

/// The foreign chains of `nft -j list chains`. An unreadable listing has none.
pub(super) fn in_forward_hook(listing: &str) -> Vec<ForeignChain> {
    let Ok(listing) = serde_json::from_str::<Value>(listing) else { return Vec::new() };
    let all = listing["nftables"].as_array().into_iter().flatten();
    let foreign = all.filter_map(|it| it.get("chain")).filter(|it| {
        it["hook"] == "forward"
            && (it["family"] == "ip" || it["family"] == "inet")
            && !it["table"].as_str().is_some_and(|name| name.starts_with(TABLES))
    });
    let read = |chain: &Value| {
        let words = ["family", "table", "name"].map(|key| chain[key].as_str().unwrap_or_default());
        ForeignChain { name: words.join(" "), drops_by_default: chain["policy"] == "drop", is_legacy: false }
    };
    foreign.map(read).collect()
}

/// The chain of iptables without nftables, where the kernel has its table. Unknown where its program is not installed.
pub(super) async fn of_legacy() -> Option<ForeignChain> {
    let tables = std::fs::read_to_string("/proc/net/ip_tables_names").ok()?;
    tables.lines().find(|name| *name == "filter")?;
    let rules = listing("iptables-legacy", &["-S", "FORWARD"]).await.unwrap_or_default();
    Some(ForeignChain {
        name: "FORWARD of iptables-legacy".to_owned(),
        drops_by_default: rules.lines().any(|rule| rule == "-P FORWARD DROP"),
        is_legacy: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn foreign_chains_of_the_hook_are_found_and_those_that_drop_by_default_are_named() {
        let chain = |family: &str, table: &str, hook: &str, policy: &str| json!({"chain": {"family": family, "table": table, "name": "FORWARD", "hook": hook, "policy": policy}});
        let listing = json!({"nftables": [
            chain("ip", "filter", "forward", "drop"), chain("inet", "monitor", "forward", "accept"),
            chain("ip", "wicketgate-ab12", "forward", "drop"), chain("ip6", "filter", "forward", "drop"),
            chain("ip", "filter", "input", "drop"),
        ]});
        let found = in_forward_hook(&listing.to_string());
        let seen: Vec<_> = found.iter().map(|it| (it.name.as_str(), it.drops_by_default)).collect();
        assert_eq!(seen, [("ip filter FORWARD", true), ("inet monitor FORWARD", false)]);
        let (cause, cure) = explained(&found, "wgab12-");
        assert!(cause.ends_with("drops tunnels' packets in the chain ip filter FORWARD"), "{cause}");
        for rule in ["iifname", "oifname"] {
            let rule = format!("`nft insert rule ip filter FORWARD {rule} \"wgab12-*\" accept`");
            assert!(cure.contains(&rule), "{cure}");
        }
        assert!(explained(&found[1..], "wg").0.ends_with("in the chain inet monitor FORWARD"));
        assert_eq!(in_forward_hook("no JSON"), []);
    }
}
