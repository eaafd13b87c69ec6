//! The assignments that the agent has checked and serves.
//!
//! Invariants: an assignment in the table was signed by the server's CA for this environment; the generation of a
//! share never decreases, not even over restarts; a share whose newest target the allow list does not permit is not
//! served with an older target either.

use crate::{allow::AllowList, state::State};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    task::spawn_blocking,
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use wicketgate_model::{
    Assignment, EnvironmentId, Generation, HealthCheck, ShareId, SignedAssignment, Target,
};
use wicketgate_system::{Mutex, Outage};
use wicketgate_transport::trust::{CaCertificate, TrustError};

/// Newest generations are written together, at most this often. A crash loses those of the last second.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// Shares whose newest generation is kept. Above it, those of the oldest shares are dropped; ids are in the order of
/// creation.
const MOST_GENERATIONS: usize = 100_000;

pub(crate) struct Assignments {
    environment: EnvironmentId,
    ca: CaCertificate,
    /// Replaced when the agent's configuration is reloaded.
    pub(crate) allow: watch::Receiver<Arc<AllowList>>,
    table: Mutex<Table>,
    generations_changed: Notify,
}

struct Table {
    shares: HashMap<ShareId, Held>,
    newest_generations: BTreeMap<ShareId, Generation>,
}

/// The newest assignment of a share.
struct Held {
    generation: Generation,
    target: Target,
    /// By the allow list when it was last looked at. Otherwise the share is not served.
    is_allowed: bool,
    signed: SignedAssignment,
}

/// What is served, how it is probed, and what it is called.
pub(crate) struct Served {
    pub(crate) target: Target,
    pub(crate) health_check: HealthCheck,
    pub(crate) name: Option<String>,
}

/// Why an assignment is not served. The text may name a target: the agent, which runs in its network, logs it, and the gateway
/// does at DEBUG only.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("the assignment is {0}")]
    Unverified(TrustError),
    #[error("the assignment is for another environment")]
    OtherEnvironment,
    #[error("the assignment is older than generation {0}, seen before")]
    Older(Generation),
    #[error(
        "{0} is not in the agent's allow list: start the agent with an --allow that covers it, or choose another target"
    )]
    NotAllowed(Target),
}

impl Assignments {
    pub(crate) fn new(state: &State, allow: watch::Receiver<Arc<AllowList>>) -> anyhow::Result<Self> {
        let table = Table { shares: HashMap::new(), newest_generations: state.newest_generations()? };
        Ok(Self {
            environment: state.environment(),
            ca: state.ca()?,
            allow,
            table: Mutex::new(table),
            generations_changed: Notify::new(),
        })
    }

    /// Checks an assignment and serves it. Returns what is served, or why it is not served. `None`: it cannot be parsed.
    pub(crate) fn take(
        &self,
        signed: &SignedAssignment,
    ) -> Option<(ShareId, Generation, Result<Served, Unfit>)> {
        let (assignment, verified) = match self.ca.verify(signed) {
            Ok(assignment) => (assignment, Ok(())),
            // Only to name the share in the refusal.
            Err(error) => (serde_json::from_str(&signed.body).ok()?, Err(error)),
        };
        let Assignment { environment, share, generation, target, health_check, name } = assignment;
        let served = match verified {
            Err(error) => Err(Unfit::Unverified(error)),
            Ok(()) if environment != self.environment => Err(Unfit::OtherEnvironment),
            Ok(()) => {
                let held = Held {
                    generation,
                    is_allowed: self.allow.borrow().may_permit(&target),
                    target: target.clone(),
                    signed: signed.clone(),
                };
                let health_check = health_check.unwrap_or_default();
                self.place(share, held).map(|()| Served { target, health_check, name })
            }
        };
        Some((share, generation, served))
    }

    fn place(&self, share: ShareId, held: Held) -> Result<(), Unfit> {
        let mut table = self.table.lock();
        let Table { shares, newest_generations } = &mut *table;
        match newest_generations.get(&share) {
            Some(newest) if held.generation < *newest => {
                return Err(Unfit::Older(*newest));
            }
            Some(newest) if held.generation == *newest => {}
            _ => {
                newest_generations.insert(share, held.generation);
                while newest_generations.len() > MOST_GENERATIONS {
                    newest_generations.pop_first();
                }
                self.generations_changed.notify_one();
            }
        }
        let refused = (!held.is_allowed).then(|| Unfit::NotAllowed(held.target.clone()));
        shares.insert(share, held);
        refused.map_or(Ok(()), Err)
    }

    /// The assignments about which the allow list, which has changed, now says otherwise. They have to be taken again.
    pub(crate) fn to_take_again(&self) -> Vec<SignedAssignment> {
        let (table, allow) = (self.table.lock(), self.allow.borrow());
        let held = table.shares.values();
        let differ = held.filter(|held| allow.may_permit(&held.target) != held.is_allowed);
        differ.map(|held| held.signed.clone()).collect()
    }

    pub(crate) fn withdraw(&self, share: ShareId) {
        self.table.lock().shares.remove(&share);
    }

    /// Forgets the assignments: a new gateway connection sends all of them.
    pub(crate) fn clear(&self) {
        self.table.lock().shares.clear();
    }

    /// The target of the share, at this generation or a newer one.
    pub(crate) fn target(&self, share: ShareId, at_least: Generation) -> Option<Target> {
        let table = self.table.lock();
        let held = table.shares.get(&share).filter(|held| held.is_allowed && held.generation >= at_least);
        held.map(|held| held.target.clone())
    }

    /// Writes the newest generations after changes, and once more when the agent stops.
    pub(crate) async fn keep_generations(&self, state: &Arc<State>, stop: &CancellationToken) {
        let (mut outage, state_dir) = (Outage::default(), state.path());
        loop {
            let changed = stop.run_until_cancelled(self.generations_changed.notified()).await;
            let newest_generations = self.table.lock().newest_generations.clone();
            let state = Arc::clone(state);
            let saved = spawn_blocking(move || state.save_newest_generations(&newest_generations)).await;
            match saved {
                Ok(Err(error)) => {
                    self.generations_changed.notify_one();
                    if outage.failed() {
                        let dir = state_dir.display();
                        warn!(%error, %dir, "cannot write the state directory, retrying: free space there, or make it writable");
                    }
                }
                Ok(Ok(())) if outage.recovered() => info!("the state directory is writable again"),
                _ => {}
            }
            if changed.is_none() {
                return;
            }
            stop.run_until_cancelled(sleep(WRITE_EVERY)).await;
        }
    }
}
