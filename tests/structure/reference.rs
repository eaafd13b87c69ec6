//! The pages of docs/reference are what the code says. `make reference` updates them; what they are made from has tests of its own,
//! which hold that it agrees with the code. Programs and metrics have their tests where they are defined.

use std::{fmt::Write as _, fs};

use serde_json::Value;
use wicketgate_lab::reference::hold;

use crate::source::root;

const METHODS: &[&str] = &["get", "post", "put", "patch", "delete"];

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
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
    hold("CALLS.md", &page).unwrap();
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
    hold("CONFIGURATION.md", &page).unwrap();
}

#[test]
fn alerts_and_dashboards_name_metrics_of_the_reference() {
    let page = read("docs/reference/METRICS.md");
    let mut wrong = Vec::new();
    for file in [
        "prometheus/alerts.yml",
        "grafana/wicketgate-fleet.json",
        "grafana/wicketgate-share.json",
        "grafana/wicketgate-tunnel.json",
    ] {
        let text = read(&format!("packaging/{file}"));
        for name in text
            .split(|c: char| !c.is_ascii_lowercase() && c != '_')
            .filter(|word| word.starts_with("wicketgate_"))
        {
            let family = name.trim_end_matches("_bucket");
            if !page.contains(&format!("| `{family}")) {
                wrong.push(format!("{file}: {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "not in docs/reference/METRICS.md: {wrong:?}");
}
