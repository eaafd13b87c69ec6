//! The newest list of the environment's gateways that the agent has seen, kept over restarts.
//!
//! Invariants: the server's CA has signed it for this environment; it never goes back to an older era or version.

use crate::{server_address::ServerAddress, state::State};
use std::{collections::BTreeMap, sync::Arc};
use tokio::{sync::watch, task::spawn_blocking};
use tracing::{info, warn};
use wicketgate_model::{EnvironmentId, Era, GatewayId, GatewayList, SignedGatewayList};
use wicketgate_system::Mutex;
use wicketgate_transport::trust::{CaCertificate, TrustError};

/// See the module.
pub(crate) struct KnownGateways {
    environment: EnvironmentId,
    ca: CaCertificate,
    /// Of the newest list; `None`: none was seen.
    age: Mutex<Option<(Era, u64)>>,
    /// What the newest list has the agent dial.
    dialled: watch::Sender<BTreeMap<GatewayId, ServerAddress>>,
}

/// Why a list is not followed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnfitList {
    #[error("it is {0}")]
    Unverified(TrustError),
    #[error("it is of another environment")]
    OtherEnvironment,
    #[error("it is older than one that was seen before (era {0}, version {1})")]
    Older(Era, u64),
}

impl KnownGateways {
    /// With the list that was kept. One of another authority or environment is of before another enrolment.
    pub(crate) fn new(state: &State) -> anyhow::Result<Self> {
        let (age, dialled) = Default::default();
        let known = Self { environment: state.environment(), ca: state.ca()?, age, dialled };
        match state.gateways() {
            Ok(Some(kept)) => {
                if let Err(why) = known.follow(&kept) {
                    info!(%why, "the list of gateways in the state directory is not used");
                }
            }
            Ok(None) => {}
            Err(error) => {
                warn!(error = format!("{error:#}"), "the list of gateways in the state directory is not used")
            }
        }
        Ok(known)
    }

    /// Follows a list that a gateway has passed on, and keeps it, unless it is older than the newest one.
    pub(crate) async fn take(&self, signed: SignedGatewayList, state: &Arc<State>) {
        match self.follow(&signed) {
            Ok(true) => {}
            Ok(false) => return,
            Err(why) => return warn!(%why, "a list of gateways was refused"),
        }
        let state = Arc::clone(state);
        let dir = state.path().display().to_string();
        let saved = spawn_blocking(move || state.save_gateways(&signed)).await;
        if let Ok(Err(error)) = saved {
            warn!(%error, dir, "cannot save the list of gateways: free space there, or make it writable");
        }
    }

    /// What the newest list has the agent dial.
    pub(crate) fn dialled(&self) -> watch::Receiver<BTreeMap<GatewayId, ServerAddress>> {
        self.dialled.subscribe()
    }

    /// Whether the newest list has the gateway.
    pub(crate) fn lists(&self, gateway: GatewayId) -> bool {
        self.dialled.borrow().contains_key(&gateway)
    }

    /// Returns whether the list is newer than the newest one.
    fn follow(&self, signed: &SignedGatewayList) -> Result<bool, UnfitList> {
        let list = self.ca.verify_gateways(signed).map_err(UnfitList::Unverified)?;
        if list.environment != self.environment {
            return Err(UnfitList::OtherEnvironment);
        }
        let mut newest = self.age.lock();
        match *newest {
            Some((era, version)) if list.age() < (era, version) => {
                return Err(UnfitList::Older(era, version));
            }
            Some(age) if list.age() == age => return Ok(false),
            _ => *newest = Some(list.age()),
        }
        let dialled = addresses(&list);
        self.dialled.send_if_modified(|before| {
            let is_change = *before != dialled;
            if is_change {
                info!(version = list.version, gateways = dialled.len(), "the gateways of the environment");
                *before = dialled;
            }
            is_change
        });
        Ok(true)
    }
}

fn addresses(list: &GatewayList) -> BTreeMap<GatewayId, ServerAddress> {
    let listed = list.gateways.iter().take(GatewayList::MOST);
    let address = |url: &str| url.parse::<ServerAddress>();
    listed
        .filter_map(|gateway| match address(&gateway.url) {
            Ok(address) => Some((gateway.id, address)),
            Err(error) => {
                warn!(gateway.id = %gateway.id, url = gateway.url, %error, "a gateway of the environment has no address that can be dialled");
                None
            }
        })
        .collect()
}
