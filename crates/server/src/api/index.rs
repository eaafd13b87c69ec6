//! `/`: links to what this address has, for a person or a client that knows nothing else. It requires no token, and so
//! shows nothing that the API's document does not.

use crate::reason_link;
use axum::Json;
use serde_json::{Map, Value, json};

/// Relations, and the paths of the API that they lead to.
const LINKS: &[(&str, &str)] = &[
    ("self", "/"),
    ("frontdoors", "/frontdoor/v2"),
    ("service-desc", "/openapi.json"),
    ("service-doc", "/docs"),
    ("help", reason_link::PATH),
    ("token", "/oauth/token"),
    ("jwks", "/.well-known/jwks.json"),
    ("live", "/livez"),
    ("ready", "/readyz"),
];

/// Whatever `Accept` says: a browser and `curl` see the same. `service-desc` and `service-doc` are relations of RFC 8631.
pub(super) async fn show() -> Json<Value> {
    let link = |(relation, path): &(&str, &str)| ((*relation).to_owned(), json!({"href": path}));
    let links: Map<_, _> = LINKS.iter().map(link).collect();
    Json(json!({"name": "Wicketgate", "version": env!("CARGO_PKG_VERSION"), "_links": links}))
}
