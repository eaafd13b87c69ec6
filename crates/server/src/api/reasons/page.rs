//! What each page says. The meaning of a name is the documentation of its value in the code; cause and cure are the row of
//! docs/TROUBLESHOOTING.md, which a test holds to have one for each. A row that begins with the name is of it.

use crate::error::{ErrorCode, OAuthErrorCode};
use std::{collections::BTreeSet, sync::LazyLock};
use wicketgate_model::{ConnectionDoubt, ConnectionFault, FailureReason, Reason};

const ROWS: &str = include_str!("../../../../../docs/TROUBLESHOOTING.md");

pub(super) struct ReasonPage {
    pub(super) name: &'static str,
    pub(super) meaning: &'static str,
    /// Where the API shows it. This and the texts of cases are Markdown: words, code and links.
    pub(super) field: &'static str,
    pub(super) cases: Vec<Case>,
}

/// A row.
pub(super) struct Case {
    /// What else is seen; empty if it is the only case.
    pub(super) when: &'static str,
    pub(super) cause: &'static str,
    pub(super) cure: &'static str,
}

/// In the order of the lists in the code.
pub(super) static PAGES: LazyLock<Vec<ReasonPage>> = LazyLock::new(|| {
    let mut seen = BTreeSet::new();
    let first = |(name, _): &(&'static str, &'static str)| seen.insert(*name);
    meanings().filter(first).map(|(name, meaning)| page(name, meaning)).collect()
});

/// Every reason and error that the API can give, with its meaning. A name of OAuth may also be one of the API's.
fn meanings() -> impl Iterator<Item = (&'static str, &'static str)> {
    let reasons = Reason::ALL.into_iter().map(|it| (it.as_str(), it.meaning()));
    let faults = ConnectionFault::ALL.into_iter().map(|it| (it.as_str(), it.meaning()));
    let doubts = ConnectionDoubt::ALL.into_iter().map(|it| (it.as_str(), it.meaning()));
    let failures = FailureReason::ALL.into_iter().map(|it| (it.as_str(), it.meaning()));
    let errors = ErrorCode::ALL.into_iter().map(|it| (it.as_str(), it.meaning()));
    let oauth = OAuthErrorCode::ALL.into_iter().map(|it| (it.as_str(), it.meaning()));
    reasons.chain(faults).chain(doubts).chain(failures).chain(errors).chain(oauth)
}

fn page(name: &'static str, meaning: &'static str) -> ReasonPage {
    let mut page = ReasonPage { name, meaning, field: "", cases: Vec::new() };
    let mut field = "";
    for line in ROWS.lines() {
        let Some(cells) = line.strip_prefix("| ").map(|line| line.split(" | ").collect::<Vec<_>>()) else {
            continue;
        };
        match cells[..] {
            [heading, "cause", "cure", ..] => field = heading,
            [first, cause, cure, ..] => {
                let rest = first.strip_prefix('`').and_then(|first| first.strip_prefix(name));
                if let Some(when) = rest.and_then(|rest| rest.strip_prefix('`')) {
                    let (_, cause) = cause.split_once("</a>").unwrap_or(("", cause));
                    page.field = field;
                    page.cases.push(Case { when: when.trim_start_matches([',', ' ']), cause, cure });
                }
            }
            _ => {}
        }
    }
    page
}

/// A part of a text in Markdown.
pub(super) enum Part<'a> {
    Words(&'a str),
    Code(&'a str),
    /// The words, and where they lead.
    Link(&'a str, &'a str),
}

/// The parts of a text with code and links. What is not closed is words.
pub(super) fn parts(text: &str) -> Vec<Part<'_>> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(['`', '[']) {
        let (words, marked) = rest.split_at(at);
        let inside = &marked[1..];
        let found = if marked.starts_with('`') {
            inside.split_once('`').map(|(code, after)| (Part::Code(code), after))
        } else {
            inside.split_once("](").and_then(|(words, link)| {
                link.split_once(')').map(|(target, after)| (Part::Link(words, target), after))
            })
        };
        let Some((part, after)) = found else { break };
        parts.extend([Part::Words(words), part]);
        rest = after;
    }
    parts.push(Part::Words(rest));
    parts
}

/// The text without its marks.
pub(super) fn plain(text: &str) -> String {
    let word = |part| match part {
        Part::Words(text) | Part::Code(text) => text.to_owned(),
        Part::Link(words, _) => words.replace('`', ""),
    };
    parts(text).into_iter().map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_and_error_has_a_meaning_a_cause_and_a_cure() {
        let lacking: Vec<_> = PAGES
            .iter()
            .filter(|page| {
                let cases = &page.cases;
                let is_whole = |case: &Case| !case.cause.is_empty() && !case.cure.is_empty();
                page.meaning.is_empty() || cases.is_empty() || !cases.iter().all(is_whole)
            })
            .map(|page| page.name)
            .collect();
        assert!(
            lacking.is_empty(),
            "no meaning in the code, or no row in docs/TROUBLESHOOTING.md: {lacking:?}"
        );
        // An address is of one name, so only OAuth's may be another list's.
        let names: Vec<_> = meanings().map(|(name, _)| name).collect();
        assert_eq!(names.len() - PAGES.len(), 1, "a name is in two lists");
    }
}
