//! The pages of docs/reference are what the code says. `make reference` updates them; what they are made from has tests of its own,
//! which hold that it agrees with the code.

use std::{env, fmt::Write as _, fs};

use serde_json::Value;

use crate::source::root;

const METHODS: &[&str] = &["get", "post", "put", "patch", "delete"];

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Fails while the page differs, or writes it if asked to.
fn is_page(path: &str, wanted: &str) {
    if env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(root().join(path), wanted).unwrap();
        return;
    }
    let is = fs::read_to_string(root().join(path)).unwrap_or_default();
    assert!(is == wanted, "{path} is out of date: run `make reference`");
}

/// The scope that an operation needs: none, a token of any kind, or the scope's name.
fn scope(operation: &Value) -> String {
    let ways = operation["security"].as_array().map(Vec::as_slice).unwrap_or_default();
    let scopes = ways.iter().find_map(|way| way["oauth"][0].as_str());
    match (ways, scopes) {
        ([], _) => String::new(),
        (_, Some(scope)) => format!("`{scope}`"),
        (_, None) => "a token".to_owned(),
    }
}

#[test]
fn the_calls_are_those_of_the_document() {
    let document: Value = serde_json::from_str(&read("docs/openapi.json")).unwrap();
    let mut page = String::from(
        "# Calls of the API\n\nOne row for each method and path, with the scope that a token needs. [The API](../API.md) says how they \
         behave,\nand [openapi.json](../openapi.json) has every property, answer and error. `make reference` makes this page from \
         it.\n\n| call | scope | what it does |\n|---|---|---|\n",
    );
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in METHODS {
            let operation = &operations[method];
            if let Some(summary) = operation["summary"].as_str() {
                let method = method.to_uppercase();
                writeln!(page, "| `{method} {path}` | {} | {summary} |", scope(operation)).unwrap();
            }
        }
    }
    is_page("docs/reference/CALLS.md", &page);
}

#[test]
fn the_settings_are_those_of_the_installed_files() {
    let mut page = String::from(
        "# Configuration\n\nThe files that the packages install, with every setting, what it means, and its default. `wicketgate config \
         default` and\n`wicketgate-agent config default` print them; [Serving](../SERVING.md#configuration-file) says how they are \
         read. `make reference` makes\nthis page from them.\n",
    );
    for (file, title) in [("up.toml", "The server and gateway"), ("agent.toml", "The agent")] {
        let text = read(&format!("packaging/etc/{file}"));
        write!(page, "\n## {title}\n\n`/etc/wicketgate/{file}`:\n\n```toml\n{text}```\n").unwrap();
    }
    is_page("docs/reference/CONFIGURATION.md", &page);
}
