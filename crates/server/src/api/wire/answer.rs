//! Answers: one resource or a page, as plain JSON or as HAL, as the client accepts.

use crate::{
    api::wire::{etag::ETag, query::ListQuery},
    error::ApiError,
    state::AppState,
};
use axum::{
    Json,
    extract::FromRequestParts,
    http::{
        HeaderValue, StatusCode,
        header::{ACCEPT, CONTENT_TYPE, ETAG},
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use wicketgate_system::apart;

/// Rows that take a millisecond to write.
const LONG: usize = 100;

const HAL: HeaderValue = HeaderValue::from_static("application/hal+json");

/// The format that the client accepts; plain JSON if it accepts both equally.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Format {
    Json,
    Hal,
}

/// Links of a resource, by relation.
pub(in crate::api) type Links = Vec<(&'static str, String)>;

/// The representation of a resource.
pub(in crate::api) trait Representation: Serialize {
    /// The name of the resource's lists in HAL.
    const LIST: &'static str;

    fn links(&self) -> Links;
}

impl FromRequestParts<AppState> for Format {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        let values: Vec<_> = parts.headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
        // Empty values count as absent (RFC 9110 §5.6.1.2).
        if values.iter().all(|v| v.trim().is_empty()) {
            return Ok(Self::Json);
        }
        negotiate(&values.join(",")).ok_or_else(ApiError::not_acceptable)
    }
}

/// RFC 9110 §12.5.1: for each format, the most specific range that matches it counts.
fn negotiate(accept: &str) -> Option<Format> {
    let quality = |subtype: &str| {
        accept
            .split(',')
            .filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let name = parts.next()?.to_ascii_lowercase();
                let specific = match name.as_str() {
                    "*/*" => 0,
                    "application/*" => 1,
                    other if other.strip_prefix("application/") == Some(subtype) => 2,
                    _ => return None,
                };
                let q = parts.find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")));
                let q = q.map_or(Some(1.0), |q| q.parse::<f32>().ok()).filter(|q| (0.0..=1.0).contains(q))?;
                Some((specific, q))
            })
            .max_by_key(|(specific, _)| *specific)
            .map_or(0.0, |(_, q)| q)
    };
    let (json, hal) = (quality("json"), quality("hal+json"));
    match () {
        () if json <= 0.0 && hal <= 0.0 => None,
        () if hal > json => Some(Format::Hal),
        () => Some(Format::Json),
    }
}

impl Format {
    pub(in crate::api) fn one(self, status: StatusCode, it: &impl Serialize, links: Links) -> Response {
        match self {
            Self::Json => (status, [(ETAG, ETag::of(it).header())], Json(it)).into_response(),
            Self::Hal => {
                let tag = ETag::of(it).hal().header();
                (status, [(ETAG, tag)], [(CONTENT_TYPE, HAL)], Json(with_links(it, links))).into_response()
            }
        }
    }

    pub(in crate::api) fn resource(self, status: StatusCode, it: &impl Representation) -> Response {
        match self {
            Self::Json => self.one(status, it, Links::new()),
            Self::Hal => self.one(status, it, it.links()),
        }
    }

    /// A page of the list at `path`.
    pub(in crate::api) fn page<T: Representation>(
        self,
        path: &str,
        query: &ListQuery,
        total: u64,
        rows: impl Iterator<Item = T>,
    ) -> Response {
        let size = u64::from(query.request.page.size);
        let pages = total.div_ceil(size);
        let is_long = rows.size_hint().0 > LONG;
        let write = || {
            let rows: Vec<_> = rows.collect();
            query.read(rows.len());
            match self {
                Self::Json => Json(Page {
                    content: rows,
                    pageable: Pageable { page_number: query.request.page.number, page_size: size },
                    total_elements: total,
                    total_pages: pages,
                })
                .into_response(),
                Self::Hal => {
                    let mut body = Map::new();
                    let rows: Vec<_> = rows.into_iter().map(|it| with_links(&it, it.links())).collect();
                    if !rows.is_empty() {
                        body.insert("_embedded".to_owned(), json!({ T::LIST: rows }));
                    }
                    body.insert("_links".to_owned(), page_links(path, query, pages));
                    let page = json!({"size": size, "totalElements": total, "totalPages": pages, "number": query.request.page.number});
                    body.insert("page".to_owned(), page);
                    ([(CONTENT_TYPE, HAL)], Json(body)).into_response()
                }
            }
        };
        if is_long { apart(write) } else { write() }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Page<T> {
    content: Vec<T>,
    pageable: Pageable,
    total_elements: u64,
    total_pages: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pageable {
    page_number: u64,
    page_size: u64,
}

fn with_links(it: &impl Serialize, links: Links) -> Value {
    let mut value = serde_json::to_value(it).unwrap_or_default();
    if let Value::Object(object) = &mut value {
        let links: Map<_, _> =
            links.into_iter().map(|(rel, href)| (rel.to_owned(), json!({"href": href}))).collect();
        object.insert("_links".to_owned(), Value::Object(links));
    }
    value
}

fn page_links(path: &str, query: &ListQuery, pages: u64) -> Value {
    let number = query.request.page.number;
    let link = |number: u64| json!({"href": format!("{path}?{}", query.at_page(number))});
    let last = pages.saturating_sub(1);
    let mut links = Map::new();
    links.insert("self".to_owned(), link(number));
    links.insert("first".to_owned(), link(0));
    links.insert("last".to_owned(), link(last));
    if number > 0 {
        // A page beyond the end links back to the last page.
        links.insert("prev".to_owned(), link((number - 1).min(last)));
    }
    if number < last {
        links.insert("next".to_owned(), link(number + 1));
    }
    Value::Object(links)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_media_range_takes_precedence() {
        for (accept, format) in [
            ("*/*", Some(Format::Json)),
            ("application/*", Some(Format::Json)),
            ("application/hal+json", Some(Format::Hal)),
            ("application/hal+json;q=0.5, application/json", Some(Format::Json)),
            ("application/hal+json, */*;q=0.1", Some(Format::Hal)),
            ("text/html, */*;q=0.1", Some(Format::Json)),
            ("application/json;q=0, */*", Some(Format::Hal)),
            ("text/html", None),
            ("application/json;q=0", None),
            ("application/json;q=nonsense", None),
        ] {
            assert_eq!(negotiate(accept), format, "{accept}");
        }
    }
}
