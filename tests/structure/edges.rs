//! Which crate may know which.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::source::root;

/// Of each crate, the crates of the workspace that it may be built from. Tests may use more.
const EDGES: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("system", &[]),
    ("vici", &[]),
    ("link", &["model"]),
    ("store", &["model"]),
    ("transport", &["model", "system"]),
    ("authority", &["model", "system", "transport"]),
    ("agent", &["model", "system", "transport"]),
    ("gateway", &["link", "model", "system", "transport", "vici"]),
    ("server", &["authority", "link", "model", "store", "system", "transport"]),
    ("lab", &["system"]),
    (
        "wicketgate",
        &["authority", "gateway", "lab", "link", "model", "server", "store", "system", "transport"],
    ),
];

/// Dependencies that only some crates may have, because they do what only those crates do.
const OWNERS: &[(&str, &[&str])] = &[
    ("axum", &["server"]),
    ("hyper", &["server"]),
    ("netlink-packet-route", &["gateway"]),
    ("rcgen", &["authority"]),
    ("reqwest", &["server"]),
    ("rtnetlink", &["gateway"]),
    ("sqlx", &["store"]),
];

/// What `model` may be built from: none of these reads a clock, draws a random number, waits, or opens anything.
const PURE: &[&str] = &["ipnet", "jiff", "secrecy", "serde", "serde_json", "thiserror", "uuid"];

#[test]
fn crates_depend_on_each_other_as_the_architecture_says() {
    let dependencies = dependencies();
    let folders: BTreeSet<_> = dependencies.keys().map(String::as_str).collect();
    assert_eq!(folders, EDGES.iter().map(|(krate, _)| *krate).collect(), "each crate has a line in EDGES");
    for (krate, allowed) in EDGES {
        let others = dependencies[*krate].iter().filter_map(|name| folder(name));
        let forbidden: Vec<_> = others.filter(|other| !allowed.contains(other)).collect();
        assert!(forbidden.is_empty(), "{krate} may not depend on {forbidden:?}");
    }
}

#[test]
fn only_its_owners_depend_on_a_library_that_does_their_work() {
    let dependencies = dependencies();
    for (library, owners) in OWNERS {
        let users = dependencies.iter().filter(|(_, names)| names.contains(*library));
        let users: Vec<_> = users.map(|(krate, _)| krate.as_str()).collect();
        assert_eq!(users, *owners, "what depends on {library}");
    }
}

#[test]
fn the_model_depends_on_nothing_that_acts() {
    let forbidden: Vec<_> =
        dependencies()["model"].iter().filter(|name| !PURE.contains(&name.as_str())).cloned().collect();
    assert!(forbidden.is_empty(), "model is pure: {forbidden:?}");
}

/// The folder of a crate of this workspace.
fn folder(package: &str) -> Option<&str> {
    if package == "wicketgate" { Some(package) } else { package.strip_prefix("wicketgate-") }
}

/// Of each crate, by the name of its folder: what it is built from, without what only its tests need.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter().map(|package| {
        let built_from =
            package["dependencies"].as_array().unwrap().iter().filter(|used| used["kind"] != "dev");
        let names = built_from.map(|used| used["name"].as_str().unwrap().to_owned()).collect();
        (folder(package["name"].as_str().unwrap()).unwrap().to_owned(), names)
    });
    packages.collect()
}
