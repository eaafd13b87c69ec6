//! The paths and functions that the repository's pages name exist.

use std::fs;

use crate::source::{Mentions, Source, root, sources};

const PAGES: &[&str] =
    &["README.md", "CONTRIBUTING.md", "GLOSSARY.md", "docs/ARCHITECTURE.md", "docs/PERFORMANCE.md"];

#[test]
fn paths_on_pages_exist() {
    let sources = sources();
    let mut wrong = Vec::new();
    for page in PAGES {
        let text = fs::read_to_string(root().join(page)).unwrap();
        let words: Vec<_> = text.split('`').collect();
        // Every second part is inside backquotes.
        for (at, word) in words.iter().enumerate().skip(1).step_by(2).filter(|(_, word)| is_path(word)) {
            let Some(source) = source(&sources, word) else {
                wrong.push(format!("{page}: {word} does not exist"));
                continue;
            };
            let item = words[at - 1].split_whitespace().collect::<Vec<_>>() == ["in"];
            if let Some(name) = words.get(at.wrapping_sub(2)).filter(|_| item)
                && !source.is_none_or(|source| defines(source, name))
            {
                wrong.push(format!("{page}: {word} does not define {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn is_path(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    word.contains('/') && word.ends_with(".rs") && word.chars().all(plain)
}

/// The file of a path, which is relative to the repository's root or omits `crates` and `src`. The inner value is its
/// source, if the file is part of a crate. `None` if the file does not exist.
fn source<'a>(sources: &'a [Source], path: &str) -> Option<Option<&'a Source>> {
    let long = path
        .split_once('/')
        .map(|(krate, inside)| format!("crates/{krate}/src/{inside}"))
        .unwrap_or_default();
    let found = sources.iter().find(|source| source.path == path || source.path == long);
    (found.is_some() || root().join(path).exists()).then_some(found)
}

fn defines(source: &Source, name: &str) -> bool {
    let text = fs::read_to_string(root().join(&source.path)).unwrap();
    Mentions::of(source).items.iter().any(|item| item.name == name)
        || text.contains(&format!("fn {name}("))
        || text.contains(&format!("fn {name}<"))
        // An item that a macro of this file declares, such as `extractors!`.
        || text.contains(&format!("\n    {name}: "))
}
