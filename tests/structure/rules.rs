//! Rules that the dependencies between crates cannot enforce.

use std::fs;

use crate::debt::{LONG_FILES, PROPERTY_NAMES};
use crate::source::{Mentions, root, rust_files, sources};

/// Libraries, and the only files or folders that may use them.
const PLACES: &[(&[&str], &[&str])] = &[
    (&["wicketgate_vici"], &["crates/gateway/src/ipsec/strongswan"]),
    (&["rtnetlink", "netlink_packet_route"], &["crates/gateway/src/ground"]),
    (&["reqwest"], &["crates/client/src", "crates/server/src/auth/oidc/fetch.rs"]),
    (
        &["rustls", "tokio_rustls", "webpki"],
        &[
            "crates/transport/src/",
            "crates/authority/src/",
            "crates/server/src/serve/tls.rs",
            "crates/server/src/auth/oidc/fetch.rs",
        ],
    ),
];

/// Names that `model` may not use: it gets times and new ids as arguments, and does no I/O.
const IMPURE: &[&str] = &[
    "SystemTime",
    "Instant",
    "now",
    "now_v7",
    "new_v4",
    "fs",
    "env",
    "process",
    "thread",
    "TcpStream",
    "UdpSocket",
];

/// The folders that may write or read the API's JSON: the API itself and its clients.
const JSON: &[&str] = &[
    "crates/server/src/api",
    "crates/client/src",
    "crates/cli/src",
    "crates/lab/src",
    "crates/wicketgate/src/demo",
];

/// The most lines of a file, so that it has one subject and can be read in one sitting.
const MAX_LINES: usize = 450;

#[test]
fn restricted_libraries_are_used_only_in_their_places() {
    let mut broken = Vec::new();
    for source in sources() {
        let mentions = Mentions::of(&source);
        for (libraries, places) in PLACES {
            let named =
                mentions.paths.iter().any(|(_, path)| path.iter().any(|part| libraries.contains(&&**part)));
            if named && !places.iter().any(|place| source.path.starts_with(place)) {
                broken.push(format!("{} uses {libraries:?}", source.path));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_model_takes_time_and_ids_as_arguments() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| source.krate == "model") {
        let paths = Mentions::of(source).paths.into_iter().map(|(_, path)| path);
        let named =
            paths.filter(|path| path.len() > 1 && path.iter().any(|part| IMPURE.contains(&part.as_str())));
        broken.extend(named.map(|path| format!("{}: {}", source.path, path.join("::"))));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn only_the_store_has_sql() {
    let is_sql = |text: &str| {
        ["SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM ", "CREATE TABLE ", "ALTER TABLE "]
            .iter()
            .any(|start| text.trim_start().starts_with(start))
    };
    assert_strings("SQL", &["crates/store/src"], is_sql);
}

#[test]
fn only_the_api_and_its_clients_have_json_property_names() {
    let is_property = |text: &str| {
        text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.chars().all(|c| c.is_ascii_alphanumeric())
            && text.contains(|c: char| c.is_ascii_uppercase())
    };
    assert_strings("a property's name", &[JSON, PROPERTY_NAMES].concat(), is_property);
}

#[test]
fn no_file_is_too_long() {
    let lines = |path: &String| fs::read_to_string(root().join(path)).unwrap().lines().count();
    let files = rust_files().into_iter().filter(|path| !LONG_FILES.contains(&&**path));
    let long: Vec<_> =
        files.map(|path| (lines(&path), path)).filter(|(lines, _)| *lines > MAX_LINES).collect();
    assert!(long.is_empty(), "more than {MAX_LINES} lines: {long:#?}");
}

/// Checks that only files below `places` contain strings for which `is_such` is true.
fn assert_strings(what: &str, places: &[&str], is_such: impl Fn(&str) -> bool) {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| !places.iter().any(|place| source.path.starts_with(place)))
    {
        let strings = Mentions::of(source).strings;
        broken.extend(
            strings.iter().filter(|text| is_such(text)).map(|text| format!("{}: {text:?}", source.path)),
        );
    }
    assert!(broken.is_empty(), "{what} outside {places:?}:\n{}", broken.join("\n"));
}
