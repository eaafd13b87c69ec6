//! The link from an error or a status to the page of its reason, which says what it means and what to do.

use serde::Serialize;

/// The list of all pages. A page is below it, by the reason's name.
pub(crate) const PATH: &str = "/docs/reasons";

/// `_links` of something that has a reason. The relation is registered at IANA.
#[derive(Debug, Serialize)]
pub(crate) struct ReasonLinks {
    help: ReasonLink,
}

#[derive(Debug, Serialize)]
struct ReasonLink {
    href: String,
}

impl ReasonLinks {
    pub(crate) fn of(reason: &str) -> Self {
        Self { help: ReasonLink { href: path(reason) } }
    }
}

/// Of the page of a reason.
pub(crate) fn path(reason: &str) -> String {
    format!("{PATH}/{reason}")
}
