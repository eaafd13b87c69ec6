//! The pages in HTML: one file each, without scripts, that loads nothing.

use super::page::{PAGES, Part, ReasonPage, parts};
use crate::error::capitalized;
use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

const STYLE: &str = ":root{color-scheme:light dark}\
    body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:44rem;padding:1rem}\
    code{font:14px ui-monospace,monospace}dt{font-weight:700;margin-top:.6rem}dd{margin:0}";

/// Only the style above, by its hash.
pub(super) static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
});

/// Links are relative, so that they lead through a proxy with a path prefix.
pub(super) fn list(pages: &[ReasonPage]) -> String {
    let line = |page: &ReasonPage| {
        let name = escaped(page.name);
        format!("<dt><a href=\"reasons/{name}\">{name}</a></dt><dd>{}</dd>\n", marked(page.meaning))
    };
    let lines: String = pages.iter().map(line).collect();
    document("Reasons and errors", &format!("<h1>Reasons and errors</h1>\n<dl>\n{lines}</dl>\n"))
}

pub(super) fn page(page: &ReasonPage) -> String {
    let name = escaped(page.name);
    let mut body =
        format!("<h1>{name}</h1>\n<p>{} ({})</p>\n<dl>\n", marked(page.meaning), marked(page.field));
    for case in &page.cases {
        if !case.when.is_empty() {
            body += &format!("</dl>\n<h2>{}</h2>\n<dl>\n", marked(&capitalized(case.when)));
        }
        body += &format!(
            "<dt>Cause</dt><dd>{}</dd>\n<dt>Cure</dt><dd>{}</dd>\n",
            marked(case.cause),
            marked(case.cure)
        );
    }
    document(&name, &format!("{body}</dl>\n<p><a href=\"../reasons\">All reasons and errors</a></p>\n"))
}

/// `title` is escaped already.
fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title} · Wicketgate</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
}

/// Of the links, only those to other reasons: the rest of the book is not served.
fn marked(text: &str) -> String {
    let html = |part| match part {
        Part::Words(words) => escaped(words),
        Part::Code(code) => format!("<code>{}</code>", escaped(code)),
        Part::Link(words, target) => {
            let words = escaped(&words.replace('`', ""));
            let name = target.strip_prefix('#').and_then(|name| PAGES.iter().find(|page| page.name == name));
            name.map_or_else(|| words.clone(), |page| format!("<a href=\"{}\">{words}</a>", page.name))
        }
    };
    parts(text).into_iter().map(html).collect()
}

fn escaped(text: &str) -> String {
    let escape = |c| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&quot;".to_owned(),
        '\'' => "&#39;".to_owned(),
        other => other.to_string(),
    };
    text.chars().map(escape).collect()
}
