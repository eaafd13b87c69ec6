//! Which crate may know which.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::debt::UNUSED;
use crate::source::{files_below, root};

/// Of each crate, the crates of the workspace that it may be built from. Tests may use more.
const EDGES: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("system", &[]),
    ("vici", &[]),
    ("link", &["model", "system"]),
    ("store", &["model", "system"]),
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
const PURE: &[&str] = &["base64", "ipnet", "jiff", "secrecy", "serde", "serde_json", "thiserror", "uuid"];

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

/// No tool that has to be installed is needed for it: a crate's name is in the text of whatever uses it.
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

/// The folder of a crate of this workspace.
fn folder(package: &str) -> Option<&str> {
    if package == "wicketgate" { Some(package) } else { package.strip_prefix("wicketgate-") }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap()
}

/// Of each crate, by the name of its folder: what it is built from, without what only its tests need.
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

/// What cargo knows of the workspace's own packages.
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
