//! An answer that lasts: it ends soon after its caller could no longer begin it.
//!
//! Invariant: looking is no use of a console's session, so that an open page does not keep the session alive.

use super::access::At;
use crate::{
    auth::{Scope, look},
    state::AppState,
};
use axum::http::{HeaderMap, Method};
use std::time::Duration;
use tokio::time::sleep;
use wicketgate_model::FrontdoorId;

/// How long a caller whose token was revoked reads on, at most. All readers together cost some lookups a second.
const LOOKED_EVERY: Duration = Duration::from_secs(5);

/// A caller's permission to read a Frontdoor.
pub(super) struct Permission {
    state: AppState,
    headers: HeaderMap,
    frontdoor: FrontdoorId,
}

impl Permission {
    pub(super) fn of(at: &At, headers: &HeaderMap) -> Self {
        Self { state: at.state.clone(), headers: headers.clone(), frontdoor: at.id() }
    }

    /// Waits until the caller may not read the Frontdoor any longer.
    pub(super) async fn ended(&self) {
        while self.holds().await {
            sleep(LOOKED_EVERY).await;
        }
    }

    /// A database or an identity provider that does not answer ends nothing.
    async fn holds(&self) -> bool {
        let AppState { auth, store, .. } = &self.state;
        let principal = match look(&Method::GET, &self.headers, auth, store).await {
            Ok((principal, _)) => principal,
            Err(error) => return !error.is_of_caller(),
        };
        match store.frontdoor(self.frontdoor).await {
            Ok(found) => principal.need(Scope::Read).is_ok() && found.is_some_and(|f| principal.sees(&f)),
            Err(_) => true,
        }
    }
}
