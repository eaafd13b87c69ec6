//! Rule sets, passed to `nft` on standard input. Each is one transaction: it takes effect completely or not at all.

use std::collections::BTreeSet;

use minijinja::{Environment, UndefinedBehavior, Value, value::Serde};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::runtime::Handle;

use super::{
    Namespace, NetworkError,
    tool::{finish, start, tool},
};

/// Prefix of the tables of all instances.
pub(super) const TABLES: &str = "wicketgate-";

const PROGRAM: (&str, &[&str]) = ("nft", &["-f", "-"]);

/// The rules of a template.
pub(crate) fn render(template: &str, values: &serde_json::Value) -> Result<String, NetworkError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let rules = environment.render_str(template, Value::from(Serde(values)));
    rules.map_err(|error| NetworkError::refused("write packet rules", error.to_string()))
}

/// Applies `rules` in `namespace`, or in this process's own.
pub(crate) async fn apply(namespace: Option<&Namespace>, rules: String) -> Result<(), NetworkError> {
    let child = match namespace {
        // A child inherits the namespace of the thread that starts it.
        Some(namespace) => {
            let runtime = Handle::current();
            let start = move || {
                let _entered = runtime.enter();
                start(PROGRAM)
            };
            namespace.run_blocking("start nft", start).await?
        }
        None => start(PROGRAM).map_err(NetworkError::io("start nft"))?,
    };
    finish(child, &rules, "apply packet rules").await.map(drop)
}

/// The names of the IPv4 tables in this process's own namespace.
pub(crate) async fn tables() -> Result<BTreeSet<String>, NetworkError> {
    let listing = tool("nft", &["list", "tables", "ip"]).await?;
    Ok(listing.lines().filter_map(|line| line.strip_prefix("table ip ")).map(str::to_owned).collect())
}

/// The elements of a set of an IPv4 table with two fields, and their packets.
pub(crate) async fn set<A: DeserializeOwned, B: DeserializeOwned>(
    table: &str,
    set: &str,
) -> Result<Vec<SetElement<A, B>>, NetworkError> {
    let listing = tool("nft", &["-j", "list", "set", "ip", table, set]).await?;
    elements(&listing).map_err(|error| NetworkError::refused("read a set of addresses", error.to_string()))
}

/// An element of a set with two fields.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SetElement<A, B> {
    pub(crate) key: (A, B),
    pub(crate) packets: u64,
}

fn elements<A: DeserializeOwned, B: DeserializeOwned>(
    listing: &str,
) -> serde_json::Result<Vec<SetElement<A, B>>> {
    let Listing::<(A, B)> { nftables } = serde_json::from_str(listing)?;
    let sets = nftables.into_iter().filter_map(|part| part.set);
    let found = sets.flat_map(|set| set.elem).map(|Element { elem }| SetElement {
        key: elem.val.concat,
        packets: elem.counter.map_or(0, |counter| counter.packets),
    });
    Ok(found.collect())
}

/// `{"nftables": [{"metainfo": …}, {"set": {"elem": [{"elem": {"val": {"concat": […]}, "counter": {"packets": …}}}]}}]}`
#[derive(Deserialize)]
struct Listing<K> {
    nftables: Vec<Part<K>>,
}

#[derive(Deserialize)]
struct Part<K> {
    set: Option<Set<K>>,
}

#[derive(Deserialize)]
struct Set<K> {
    #[serde(default = "Vec::new")]
    elem: Vec<Element<K>>,
}

#[derive(Deserialize)]
struct Element<K> {
    elem: Counted<K>,
}

#[derive(Deserialize)]
struct Counted<K> {
    val: Concatenation<K>,
    counter: Option<Counter>,
}

#[derive(Deserialize)]
struct Concatenation<K> {
    concat: K,
}

#[derive(Deserialize)]
struct Counter {
    packets: u64,
}

/// A map of an IPv4 table with its elements, as `nft` writes it.
pub(crate) async fn map(table: &str, map: &str) -> Result<String, NetworkError> {
    tool("nft", &["list", "map", "ip", table, map]).await
}

/// The rules of a chain of an IPv4 table, as `nft` writes them.
pub(crate) async fn chain(table: &str, chain: &str) -> Result<String, NetworkError> {
    tool("nft", &["list", "chain", "ip", table, chain]).await
}

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz {
    use super::*;
    use serde::Serialize;
    use serde_json::json;
    use std::{fmt::Debug, net::Ipv4Addr};

    /// The elements that are read of a listing are those that are read of a listing of them.
    pub fn nft_set(listing: &[u8]) {
        let listing = String::from_utf8_lossy(listing);
        same::<Ipv4Addr, u16>(&listing);
        same::<Ipv4Addr, u32>(&listing);
    }

    fn same<A, B>(listing: &str)
    where
        A: DeserializeOwned + Serialize + Debug + PartialEq,
        B: DeserializeOwned + Serialize + Debug + PartialEq,
    {
        let Ok(found) = elements::<A, B>(listing) else { return };
        let elem = |SetElement { key, packets }: &SetElement<A, B>| json!({"elem": {"val": {"concat": key}, "counter": {"packets": packets}}});
        let elem: Vec<_> = found.iter().map(elem).collect();
        let listing = json!({"nftables": [{"set": {"elem": elem}}]}).to_string();
        assert_eq!(elements(&listing).ok(), Some(found));
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn elements_of_a_set_are_read() {
        let empty = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"set": {"family": "ip", "name": "unknown"}}]}"#;
        assert_eq!(elements::<Ipv4Addr, u16>(empty).unwrap(), []);
        let one = r#"{"nftables": [{"metainfo": {}}, {"set": {"name": "unknown", "elem": [{"elem": {"val": {"concat":
            ["192.0.2.77", 4500]}, "expires": 3599, "counter": {"packets": 3, "bytes": 36}}}], "stmt": [{"counter": null}]}}]}"#;
        let key = (Ipv4Addr::new(192, 0, 2, 77), 4500_u16);
        assert_eq!(elements(one).unwrap(), [SetElement { key, packets: 3 }]);
        for other in ["", "\"\"", "{}", r#"{"nftables": [1]}"#, r#"{"nftables": [{"set": {"elem": [1]}}]}"#] {
            assert!(elements::<Ipv4Addr, u16>(other).is_err(), "{other}");
        }
    }
}
