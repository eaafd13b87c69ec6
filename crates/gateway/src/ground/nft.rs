//! Rule sets, passed to `nft` on standard input. Each is one transaction: it takes effect completely or not at all.

use std::collections::BTreeSet;

use minijinja::{Environment, UndefinedBehavior, Value, value::Serde};
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

/// The rules of a chain of an IPv4 table, as `nft` writes them.
pub(crate) async fn chain(table: &str, chain: &str) -> Result<String, NetworkError> {
    tool("nft", &["list", "chain", "ip", table, chain]).await
}
