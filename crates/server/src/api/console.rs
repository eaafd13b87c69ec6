//! The web console and the site page: static files that the program contains. They need no token: all
//! that they contain is in the source code.
//!
//! Invariant: their policy lets them load and call only this server, and run no script or style that is not a file of it.

use super::index;
use crate::error::ApiError;
use axum::{
    Router,
    extract::Path,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{
            ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
            VARY,
        },
    },
    response::{IntoResponse, Response},
    routing::get,
};
use wicketgate_console::File;

use crate::state::AppState;

const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Names of assets contain a hash of their content.
const ASSET_KEPT: &str = "public, max-age=31536000, immutable";
/// A page names the assets of this version.
const PAGE_KEPT: &str = "no-cache";
const MISSING: &str = "This program was built without the web console: build it with `make build`.\n";
/// By the end of a file's name.
const MEDIA_TYPES: &[(&str, &str)] = &[
    (".html", "text/html; charset=utf-8"),
    (".js", "text/javascript; charset=utf-8"),
    (".css", "text/css; charset=utf-8"),
    (".svg", "image/svg+xml"),
    (".woff2", "font/woff2"),
    (".json", "application/json"),
    (".txt", "text/plain; charset=utf-8"),
];

/// All paths of the console but `/`, which is of the API too.
pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/site", get(site)).route("/assets/{name}", get(asset))
}

/// `/`: a browser gets the console, and every other client the API's links.
pub(super) async fn root(headers: HeaderMap) -> Response {
    let mut answer =
        if is_browser(&headers) { page("index.html") } else { index::show().await.into_response() };
    answer.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
    answer
}

async fn site() -> Response {
    page("site.html")
}

fn page(name: &str) -> Response {
    match wicketgate_console::file(name) {
        Some(page) => answer(page, PAGE_KEPT),
        None => {
            let text = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
            (StatusCode::NOT_FOUND, text, MISSING).into_response()
        }
    }
}

async fn asset(Path(name): Path<String>) -> Result<Response, ApiError> {
    let path = format!("assets/{name}");
    let file = wicketgate_console::file(&path).ok_or_else(|| ApiError::no_such_path(&format!("/{path}")))?;
    Ok(answer(file, ASSET_KEPT))
}

fn is_browser(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.any(|value| value.to_ascii_lowercase().contains("text/html"))
}

/// Compressed, as it is stored: every browser accepts that.
fn answer(file: &File, kept: &'static str) -> Response {
    let media_type =
        MEDIA_TYPES.iter().find(|(end, _)| file.name.ends_with(end)).map(|(_, media_type)| *media_type);
    let headers: [(HeaderName, &str); 6] = [
        (CONTENT_TYPE, media_type.unwrap_or("application/octet-stream")),
        (CONTENT_ENCODING, "gzip"),
        (CACHE_CONTROL, kept),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        // A page that the console opens cannot replace it.
        (OPENER_POLICY, "same-origin"),
    ];
    (headers, file.gzip).into_response()
}
