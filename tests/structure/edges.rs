//! Which crates may depend on which.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::debt::UNUSED;
use crate::source::{files_below, root};

/// For each crate, the crates of the workspace on which it may depend. Tests may depend on more.
const EDGES: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("system", &[]),
    ("settings", &["system"]),
    ("vici", &[]),
    ("link", &["model", "system"]),
    ("seal", &[]),
    ("store", &["model", "seal", "system"]),
    ("transport", &["model", "system"]),
    ("authority", &["model", "system", "transport"]),
    ("agent", &["model", "settings", "system", "transport"]),
    ("gateway", &["link", "model", "seal", "system", "transport", "vici"]),
    ("console", &[]),
    ("server", &["authority", "console", "link", "model", "store", "system", "transport"]),
    ("lab", &["system"]),
    ("seeds", &[]),
    ("client", &["system"]),
    ("cli", &["client", "system"]),
    (
        "wicketgate",
        &[
            "authority",
            "cli",
            "gateway",
            "lab",
            "link",
            "model",
            "server",
            "settings",
            "store",
            "system",
            "transport",
        ],
    ),
];

/// Libraries on which only some crates may depend, because only these crates do the libraries' work.
const OWNERS: &[(&str, &[&str])] = &[
    ("axum", &["server"]),
    ("hyper", &["agent", "server"]),
    ("netlink-packet-route", &["gateway"]),
    ("rcgen", &["authority"]),
    ("reqwest", &["client", "server"]),
    ("rtnetlink", &["gateway"]),
    ("sqlx", &["store"]),
];

/// The libraries on which `model` may depend. None of them reads a clock, generates random numbers, waits, or does I/O.
const PURE: &[&str] = &["base64", "ipnet", "jiff", "secrecy", "serde", "serde_json", "thiserror", "uuid"];

#[test]
fn crates_depend_only_on_the_crates_that_the_architecture_allows() {
    let dependencies = dependencies();
    let folders: BTreeSet<_> = dependencies.keys().map(String::as_str).collect();
    assert_eq!(folders, EDGES.iter().map(|(krate, _)| *krate).collect(), "each crate needs a line in EDGES");
    for (krate, allowed) in EDGES {
        let others = dependencies[*krate].iter().filter_map(|name| folder(name));
        let forbidden: Vec<_> = others.filter(|other| !allowed.contains(other)).collect();
        assert!(forbidden.is_empty(), "{krate} may not depend on {forbidden:?}");
    }
}

#[test]
fn only_the_owners_of_a_library_depend_on_it() {
    let dependencies = dependencies();
    for (library, owners) in OWNERS {
        let users = dependencies.iter().filter(|(_, names)| names.contains(*library));
        let users: Vec<_> = users.map(|(krate, _)| krate.as_str()).collect();
        assert_eq!(users, *owners, "the crates that depend on {library}");
    }
}

#[test]
fn the_model_depends_only_on_pure_libraries() {
    let forbidden: Vec<_> =
        dependencies()["model"].iter().filter(|name| !PURE.contains(&name.as_str())).cloned().collect();
    assert!(forbidden.is_empty(), "model may not depend on {forbidden:?}");
}

/// Every dependency is used: its name occurs in the sources of the crate. The check needs no additional tool.
#[test]
fn every_dependency_is_used() {
    let mut unused = Vec::new();
    for package in metadata()["packages"].as_array().unwrap() {
        let targets = package["targets"].as_array().unwrap().iter();
        let mut dirs: Vec<_> =
            targets.map(|target| Path::new(text(target, "src_path")).parent().unwrap()).collect();
        dirs.dedup();
        let sources: String = dirs.iter().flat_map(|dir| files_below(dir)).map(|file| read(&file)).collect();
        let words: BTreeSet<_> = sources.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        for used in package["dependencies"].as_array().unwrap() {
            let name = used["rename"].as_str().unwrap_or(text(used, "name"));
            let name = if name == "rustls-webpki" { "webpki" } else { name };
            if !words.contains(&*name.replace('-', "_")) {
                unused.push(format!("{} does not use {name}", text(package, "name")));
            }
        }
    }
    unused.retain(|line| !UNUSED.contains(&line.as_str()));
    assert!(unused.is_empty(), "{}", unused.join("\n"));
}

/// The folder of a package of this workspace; `None` for other packages.
fn folder(package: &str) -> Option<&str> {
    if package == "wicketgate" { Some(package) } else { package.strip_prefix("wicketgate-") }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap()
}

/// The dependencies of each crate, by the name of its folder, without those that only tests need.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap().iter().map(|package| {
        let built_from =
            package["dependencies"].as_array().unwrap().iter().filter(|used| used["kind"] != "dev");
        let names = built_from.map(|used| text(used, "name").to_owned()).collect();
        (folder(text(package, "name")).unwrap().to_owned(), names)
    });
    packages.collect()
}

/// The output of `cargo metadata` for the workspace's packages.
fn metadata() -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
