//! The pages are a book: docs/SUMMARY.md lists each, and each relative link leads to a file and a heading that exist.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use crate::source::root;

const BOOK: &str = "docs";
/// Pages beside the book. They may link into it; the book does not link to them, since it is also read elsewhere.
const BESIDE: &[&str] = &["README.md", "CONTRIBUTING.md"];

/// The pages of the book, by their paths from the repository's root.
pub(crate) fn pages() -> Vec<PathBuf> {
    let (mut pages, mut folders) = (Vec::new(), vec![PathBuf::from(BOOK)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if root().join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// The lines of a page outside of its code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// The targets of a text's links, without those of images and references.
fn links(text: &str) -> Vec<String> {
    let all = prose(text).collect::<Vec<_>>().join("\n");
    all.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

/// The anchors of a page: of its headings, as GitHub and mdBook make them, and those that it names itself.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#')).map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    });
    let named = text.split("<a id=\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()));
    headings.chain(named).collect()
}

/// The path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(plain.pop()),
            std::path::Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

#[test]
fn the_summary_lists_each_page_once() {
    let summary = fs::read_to_string(root().join(BOOK).join("SUMMARY.md")).unwrap();
    let mut counts: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for link in links(&summary) {
        *counts.entry(Path::new(BOOK).join(link)).or_default() += 1;
    }
    let wrong: Vec<_> = pages()
        .into_iter()
        .filter(|page| !page.ends_with("SUMMARY.md"))
        .filter(|page| counts.get(page) != Some(&1))
        .collect();
    assert!(wrong.is_empty(), "not once in docs/SUMMARY.md: {wrong:?}");
}

#[test]
fn each_link_leads_to_a_file_and_a_heading() {
    let mut wrong = Vec::new();
    for page in pages().into_iter().chain(BESIDE.iter().map(PathBuf::from)) {
        let text = fs::read_to_string(root().join(&page)).unwrap();
        for link in links(&text).into_iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let to = if file.is_empty() { page.clone() } else { plain(&page.parent().unwrap().join(file)) };
            if page.starts_with(BOOK) && !to.starts_with(BOOK) {
                wrong.push(format!("{}: {link} leaves the book", page.display()));
                continue;
            }
            // A picture is no text.
            match fs::read(root().join(&to)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()) {
                Err(_) => wrong.push(format!("{}: {link}: there is no such file", page.display())),
                Ok(text) if !anchor.is_empty() && !anchors(&text).contains(anchor) => {
                    wrong.push(format!("{}: {link}: there is no such heading", page.display()));
                }
                Ok(_) => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
