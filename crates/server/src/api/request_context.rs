//! What is known of a request before its handler runs, and who sends it as soon as that is known. `observe` makes it.

use axum::{
    extract::FromRequestParts,
    http::{Extensions, request::Parts},
};
use std::{
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, OnceLock},
};
use wicketgate_store::RequestOrigin;

/// Cheap to clone; all clones have the same actor.
#[derive(Debug, Clone, Default)]
pub(super) struct RequestContext {
    pub(super) origin: RequestOrigin,
    actor: Arc<OnceLock<String>>,
}

impl RequestContext {
    pub(super) fn new(origin: RequestOrigin) -> Self {
        Self { origin, actor: Arc::default() }
    }

    pub(super) fn of(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_default()
    }

    /// The address that the request comes from; `None` if it comes through a trusted proxy that names no address.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.origin.address
    }

    /// Its sender has authenticated as this actor.
    pub(super) fn is_of(&self, actor: &str) {
        // The first stays: a request authenticates once.
        let _ = self.actor.set(actor.to_owned());
    }

    pub(super) fn actor(&self) -> Option<&str> {
        self.actor.get().map(String::as_str)
    }
}

impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}
