//! docs/TROUBLESHOOTING.md has a row for each reason that the API can give, the tests that its rows name exist, and each row says
//! how soon its fault is named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use wicketgate_model::{ConnectionDoubt, ConnectionFault, FailureReason, Reason};

use crate::source::{root, rust_files};

const PAGE: &str = "docs/TROUBLESHOOTING.md";

/// What a row says instead of a time, see the page.
const AT_ONCE: &str = "at once";
const NOT_NAMED: &str = "not named";
/// Seconds within which a fault is to be named.
const PROMISED: f64 = 5.0;
/// Rows that are named later or not at all, and why.
const LATE: &[(&str, &str)] = &[
    ("The same, and no unknown address is listed.", "no packet of the device arrives"),
    ("Slower than another site on a similar line.", "nothing fails"),
    (
        "Traffic stops for up to half a minute and resumes.",
        "the device's packets arrive from the new port, so that the gateway asks it later",
    ),
    ("Traffic, or agents that connect, are shown late.", "a shorter lag passes by itself"),
    ("GatewayUnreachable", "a gateway without a link serves on, and finds another server within 30 s"),
    ("RedundancyLost", "a gateway without a link may find another server within 30 s, and serves meanwhile"),
    ("NoTrafficReceived", "a site that is idle for half a minute looks the same"),
];

/// The cells of each row of the page's tables, without the headings.
fn rows() -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join(PAGE)).unwrap();
    let mut rows = Vec::new();
    let mut is_body = false;
    for line in text.lines() {
        let Some(cells) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else {
            is_body = line.starts_with("|---");
            continue;
        };
        if is_body {
            rows.push(cells.split(" | ").map(str::to_owned).collect());
        }
    }
    rows
}

/// The words of a text that stand in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn each_reason_has_a_row() {
    let rows = rows();
    assert!(rows.len() >= 40, "{} rows", rows.len());
    let named: BTreeSet<&str> =
        rows.iter().flat_map(|row| row[..2].iter()).flat_map(|cell| quoted(cell)).collect();
    let all = Reason::NAMES
        .iter()
        .copied()
        .chain(ConnectionFault::NAMES.iter().copied())
        .chain(ConnectionDoubt::NAMES.iter().copied())
        .chain(FailureReason::NAMES.iter().copied());
    // The anchor in its row is the address of a reason.
    let text = fs::read_to_string(root().join(PAGE)).unwrap();
    let has_address = |reason: &str| text.matches(&format!("<a id=\"{reason}\"></a>")).count() == 1;
    let missing: Vec<_> = all.filter(|reason| !named.contains(reason) || !has_address(reason)).collect();
    assert!(missing.is_empty(), "{PAGE} has no row, or not one address, for {missing:?}");
}

/// The text of each file, by the last part of its module path, or of the folder if the file is `tests.rs`.
fn texts() -> BTreeMap<String, String> {
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for path in rust_files() {
        let parts: Vec<_> = path.trim_end_matches(".rs").trim_end_matches("/tests").split('/').collect();
        let text = fs::read_to_string(root().join(&path)).unwrap();
        texts.entry((*parts.last().unwrap()).to_owned()).or_default().push_str(&text);
    }
    texts
}

#[test]
fn each_row_says_how_soon_its_fault_is_named() {
    let texts = texts();
    let (mut wrong, mut late) = (Vec::new(), BTreeSet::new());
    for row in rows() {
        let (name, after) = (row[0].replace('`', ""), row[row.len() - 2].as_str());
        let seconds = after.strip_suffix(" s").and_then(|seconds| seconds.parse::<f64>().ok());
        let measures = |test: &str| {
            test.split_once("::")
                .is_some_and(|(module, _)| texts.get(module).is_some_and(|t| t.contains("named(")))
        };
        match seconds {
            Some(_) if !quoted(row.last().unwrap()).any(measures) => {
                wrong.push(format!("no test measures: {name}"));
            }
            None if ![AT_ONCE, NOT_NAMED].contains(&after) => wrong.push(format!("{name}: {after}")),
            _ => {}
        }
        if after == NOT_NAMED || seconds.is_some_and(|seconds| seconds > PROMISED) {
            late.insert(name);
        }
    }
    let excused: BTreeSet<_> = LATE.iter().map(|(name, _)| (*name).to_owned()).collect();
    wrong.extend(late.symmetric_difference(&excused).map(|name| format!("{name}: late or not, and why?")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_row_names_its_tests() {
    let functions = texts();
    let mut wrong = Vec::new();
    for row in rows() {
        let tests: Vec<_> = quoted(row.last().unwrap()).collect();
        if tests.is_empty() {
            wrong.push(format!("no test provokes: {}", row[0]));
        }
        for test in tests {
            let exists = test.split_once("::").is_some_and(|(module, name)| {
                functions.get(module).is_some_and(|text| text.contains(&format!("fn {name}(")))
            });
            if !exists {
                wrong.push(format!("{test} does not exist"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
