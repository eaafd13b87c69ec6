//! Fuzz targets are complete: each has seeds, an entry in the manifest, and a test that replays it.

use std::{collections::BTreeSet, fs};

use crate::source::{root, rust_files};

#[test]
fn each_fuzz_target_is_built_has_seeds_and_is_replayed_by_a_test() {
    let names = |directory: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(root().join(directory)).unwrap().map(|entry| entry.unwrap().file_name());
        entries.map(|name| name.to_str().unwrap().trim_end_matches(".rs").to_owned()).collect()
    };
    let targets = names("fuzz/targets");
    assert!(targets.len() > 20, "{targets:?}");
    assert_eq!(targets, names("fuzz/seeds"));
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    let sources = rust_files().into_iter().filter(|path| path.starts_with("crates/"));
    let sources: String = sources.map(|path| fs::read_to_string(root().join(path)).unwrap()).collect();
    for target in targets {
        assert!(manifest.contains(&format!("path = \"targets/{target}.rs\"")), "{target} is not built");
        assert!(sources.contains(&format!("replay(\"{target}\"")), "no test replays {target}");
    }
}
