//! What every request handler has at hand.

use crate::{
    auth::{Auth, Principal},
    claim,
    feed::Feed,
    gateway_status::GatewayStatus,
    questions::Questions,
    reconciler::LastRun,
    telemetry::Metrics,
};
use jiff::{Timestamp, TimestampRound, Unit};
use std::{net::Ipv4Addr, sync::Arc};
use tokio::sync::{Notify, watch};
use uuid::Uuid;
use wicketgate_model::{EspMode, LoadBalancerPools, LocationId};
use wicketgate_store::{FrontdoorRow, FrontdoorSpec, Store, StoreError, WriteContext};
use wicketgate_transport::trust::Fingerprint;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct AppState {
    pub store: Store,
    /// Wakes the reconciler: every accepted write does.
    pub wake: Arc<Notify>,
    pub pools: LoadBalancerPools,
    /// The sites that have gateways.
    pub locations: Arc<[LocationId]>,
    pub gateway: watch::Receiver<GatewayStatus>,
    /// When the reconciler last ran.
    pub last_run: watch::Receiver<LastRun>,
    pub metrics: Arc<Metrics>,
    pub feed: Feed,
    pub questions: Questions,
    /// Of the CA that agents are to trust.
    pub ca: Fingerprint,
    /// The URL that agents dial, if it is known.
    pub agent_server: Option<String>,
    pub auth: Auth,
}

impl AppState {
    /// One accepted request of `principal`, now.
    pub(crate) fn act(&self, principal: &Principal) -> WriteContext {
        WriteContext {
            claim: claim::held(),
            ..WriteContext::new(principal.actor.clone(), now(), Uuid::now_v7)
        }
    }

    /// Whether the gateway has ESP in UDP only (RFC 3948).
    pub(crate) fn needs_udp_encapsulation(&self) -> bool {
        self.gateway.borrow().esp == Some(EspMode::Userland)
    }

    pub(crate) fn gateway_address(&self) -> Option<Ipv4Addr> {
        self.gateway.borrow().public_address
    }
}

/// To the microsecond, as the database keeps times: what a 202 says is what a later GET says.
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    now.round(TimestampRound::new().smallest(Unit::Microsecond).mode(jiff::RoundMode::Trunc)).unwrap_or(now)
}

/// Makes the Frontdoor that is there from the first start; `None` if there has been one before.
pub async fn ensure_first_frontdoor(store: &Store) -> Result<Option<FrontdoorRow>, StoreError> {
    let Ok(default_namespace) = "default".parse() else { return Ok(None) };
    let spec =
        FrontdoorSpec { organization: "default".to_owned(), default_namespace, ipsec_shares_enabled: true };
    store.ensure_first_frontdoor(&spec, &WriteContext::new("server", now(), Uuid::now_v7)).await
}
