//! A page for each reason and error of the API, at an address that errors and statuses link to. It needs no token.
//!
//! The pages are the same at every installation: nothing of a request is in them.

mod html;
mod page;

use crate::{
    error::{ApiError, capitalized},
    reason_link::PATH,
};
use axum::{
    http::{
        HeaderMap, HeaderName, HeaderValue, Uri,
        header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY},
    },
    response::{IntoResponse, Response},
};
use page::{PAGES, ReasonPage};

const HTML: &str = "text/html";
/// They change with the version of the server alone.
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=300");

pub(super) async fn list(headers: HeaderMap) -> Response {
    if is_browser(&headers) { html_response(html::list(&PAGES)) } else { text_response(list_of(&PAGES)) }
}

/// Names have no character that a URL escapes.
pub(super) async fn show(uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let name = uri.path().strip_prefix(PATH).unwrap_or_default().trim_start_matches('/');
    let page = PAGES.iter().find(|page| page.name == name).ok_or_else(|| ApiError::no_such_reason(name))?;
    Ok(if is_browser(&headers) { html_response(html::page(page)) } else { text_response(text_of(page)) })
}

/// The text of the page of a reason or an error, in any case of letters; of the list without a name.
pub fn explained(name: Option<&str>) -> Option<String> {
    let Some(name) = name else { return Some(list_of(&PAGES)) };
    PAGES.iter().find(|page| page.name.eq_ignore_ascii_case(name)).map(text_of)
}

/// Others get text, whatever they accept: it is short, and reads well in a terminal.
fn is_browser(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.any(|value| value.to_ascii_lowercase().contains(HTML))
}

fn common() -> [(HeaderName, HeaderValue); 2] {
    [(CACHE_CONTROL, KEPT), (VARY, HeaderValue::from_static("Accept"))]
}

fn html_response(body: String) -> Response {
    let kind = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, html::POLICY.as_str())];
    (common(), kind, body).into_response()
}

fn text_response(body: String) -> Response {
    (common(), [(CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
}

fn list_of(pages: &[ReasonPage]) -> String {
    let line = |page: &ReasonPage| format!("{}: {}\n", page.name, page::plain(page.meaning));
    pages.iter().map(line).collect()
}

fn text_of(page: &ReasonPage) -> String {
    let mut text = format!("{} ({})\n\n{}\n", page.name, page::plain(page.field), page::plain(page.meaning));
    for case in &page.cases {
        text += "\n";
        if !case.when.is_empty() {
            text += &format!("{}:\n", capitalized(&page::plain(case.when)));
        }
        text += &format!("Cause: {}\nCure: {}\n", page::plain(case.cause), page::plain(case.cure));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;

    fn named(name: &str) -> &'static ReasonPage {
        PAGES.iter().find(|page| page.name == name).unwrap()
    }

    #[test]
    fn a_page_reads_as_text_and_as_html() {
        let page = named("GatewayIdentityDiffers");
        assert_snapshot!("text", text_of(page));
        assert_snapshot!("html", html::page(page));
    }

    #[test]
    fn html_is_escaped_and_loads_nothing() {
        let cases = vec![page::Case { when: "<b>", cause: "`<i>` & [x\"](#<u>)", cure: "'" }];
        let page = ReasonPage { name: "<n>", meaning: "<m>", field: "<f>", cases };
        let html = html::page(&page);
        for tag in ["<b>", "<i>", "<u>", "<n>", "<m>", "<f>", "x\""] {
            assert!(!html.contains(tag), "{tag}: {html}");
        }
        assert!(html.contains("<code>&lt;i&gt;</code> &amp; x&quot;"), "{html}");
        for page in PAGES.iter() {
            let html = html::page(page);
            assert!(!html.contains("://") && !html.contains("<script"), "{}", page.name);
        }
    }
}
