//! The assignments that the agent has checked and serves.
//!
//! Invariants: an assignment in the table was signed by the server's CA for this environment; the generation of a
//! share never decreases within an era, nor the era, not even over restarts; a share whose newest target the allow list does
//! not permit is not served with an older target either; none is served after its end; a share is in the table while a gateway
//! assigns it, and is served to the gateways that do.

mod given;

use crate::{
    allow::AllowList,
    generations::{Generations, Older},
    state::State,
};
use given::Given;
use jiff::Timestamp;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    task::spawn_blocking,
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use wicketgate_model::{
    Assignment, EXPIRED_ASSIGNMENT, EnvironmentId, Era, GatewayId, Generation, HealthCheck, ShareId,
    SignedAssignment, Target,
};
use wicketgate_system::{Mutex, Outage};
use wicketgate_transport::trust::{CaCertificate, TrustError};

/// Newest generations are written together, at most this often. A crash loses those of the last second.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// Between looks at the clock while a stream waits for the end of its share's assignment: the clock may be set.
const CLOCK_READ_EVERY: Duration = Duration::from_secs(3600);

pub(crate) struct Assignments {
    environment: EnvironmentId,
    ca: CaCertificate,
    /// Replaced when the agent's configuration is reloaded.
    pub(crate) allow: watch::Receiver<Arc<AllowList>>,
    table: Mutex<Table>,
    generations_changed: Notify,
}

#[derive(Default)]
struct Table {
    /// Those that a gateway assigns.
    shares: HashMap<ShareId, Held>,
    given: HashMap<GatewayId, Given>,
    generations: Generations,
}

/// The newest assignment of a share.
struct Held {
    generation: Generation,
    target: Target,
    /// By the allow list when it was last looked at. Otherwise the share is not served.
    is_allowed: bool,
    expires_at: Option<Timestamp>,
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
    #[error(transparent)]
    Older(#[from] Older),
    #[error(
        "{words}, on {0} by this host's clock: correct the clock if it is wrong; otherwise the gateway keeps \
         newer ones of the server to itself",
        words = EXPIRED_ASSIGNMENT
    )]
    Expired(Timestamp),
    #[error(
        "{0} is not in the agent's allow list: start the agent with an --allow that covers it, or choose another target"
    )]
    NotAllowed(Target),
}

impl Assignments {
    pub(crate) fn new(state: &State, allow: watch::Receiver<Arc<AllowList>>) -> anyhow::Result<Self> {
        let table = Table { generations: state.generations()?, ..Table::default() };
        Ok(Self {
            environment: state.environment(),
            ca: state.ca()?,
            allow,
            table: Mutex::new(table),
            generations_changed: Notify::new(),
        })
    }

    /// Checks an assignment that this gateway has sent, and serves it. Returns what is served, or why it is not served. `None`: it
    /// cannot be parsed.
    pub(crate) fn take(
        &self,
        from: GatewayId,
        signed: &SignedAssignment,
        now: Timestamp,
    ) -> Option<(ShareId, Generation, Result<Served, Unfit>)> {
        let (assignment, verified) = match self.ca.verify(signed) {
            Ok(assignment) => (assignment, Ok(())),
            // Only to name the share in the refusal.
            Err(error) => (serde_json::from_str(&signed.body).ok()?, Err(error)),
        };
        let Assignment { environment, share, era, generation, target, health_check, name, expires_at } =
            assignment;
        let served = match verified {
            Err(error) => Err(Unfit::Unverified(error)),
            Ok(()) if environment != self.environment => Err(Unfit::OtherEnvironment),
            Ok(()) if expires_at.is_some_and(|end| end <= now) => {
                let end = expires_at?;
                self.table.lock().given.entry(from).or_default().expired.insert(share, (end, signed.clone()));
                Err(Unfit::Expired(end))
            }
            Ok(()) => {
                let held = Held {
                    generation,
                    expires_at,
                    is_allowed: self.allow.borrow().may_permit(&target),
                    target: target.clone(),
                    signed: signed.clone(),
                };
                let health_check = health_check.unwrap_or_default();
                self.place(from, (share, era), held).map(|()| Served { target, health_check, name })
            }
        };
        Some((share, generation, served))
    }

    fn place(&self, from: GatewayId, (share, era): (ShareId, Era), held: Held) -> Result<(), Unfit> {
        let mut table = self.table.lock();
        let begins_era = table.generations.era() < era;
        if table.generations.admit(era, share, held.generation)? {
            self.generations_changed.notify_one();
        }
        if begins_era {
            // What was assigned before a restore ends with it.
            table.shares.clear();
            table.given.clear();
        }
        let given = table.given.entry(from).or_default();
        given.shares.insert(share, held.is_allowed);
        given.expired.remove(&share);
        given.first_end = given.first_end.min(held.expires_at.unwrap_or(Timestamp::MAX));
        let refused = (!held.is_allowed).then(|| Unfit::NotAllowed(held.target.clone()));
        table.shares.insert(share, held);
        refused.map_or(Ok(()), Err)
    }

    /// Removes the assignments of this gateway that have ended.
    pub(crate) fn take_expired(&self, of: GatewayId, now: Timestamp) -> Vec<(ShareId, Generation, Unfit)> {
        let mut table = self.table.lock();
        let Table { shares, given, .. } = &mut *table;
        let Some(given) = given.get_mut(&of).filter(|given| given.first_end <= now) else {
            return Vec::new();
        };
        let end = |share: &ShareId| shares.get(share).and_then(|held| held.expires_at);
        let over: Vec<_> =
            given.shares.extract_if(|share, _| end(share).is_some_and(|end| end <= now)).collect();
        given.first_end = given.shares.keys().filter_map(end).min().unwrap_or(Timestamp::MAX);
        let mut ended = Vec::new();
        for (share, _) in over {
            let Some((held, end)) = shares.get(&share).and_then(|held| Some((held, held.expires_at?))) else {
                continue;
            };
            given.expired.insert(share, (end, held.signed.clone()));
            ended.push((share, held.generation, Unfit::Expired(end)));
        }
        for (share, ..) in &ended {
            table.release(*share);
        }
        ended
    }

    /// Assignments of this gateway that had expired, and have not by the clock as it is now. They have to be taken again.
    pub(crate) fn take_valid_again(&self, of: GatewayId, now: Timestamp) -> Vec<SignedAssignment> {
        let mut table = self.table.lock();
        let Some(given) = table.given.get_mut(&of) else { return Vec::new() };
        let valid = given.expired.extract_if(|_, (end, _)| now < *end);
        valid.map(|(_, (_, signed))| signed).collect()
    }

    /// Waits until the share's assignment has ended and no later one was taken: its streams end then.
    pub(crate) async fn expired(&self, share: ShareId) {
        let (mut end, begun) = (Timestamp::MAX, self.table.lock().generations.era());
        loop {
            {
                let table = self.table.lock();
                match table.shares.get(&share) {
                    Some(held) => end = held.expires_at.unwrap_or(Timestamp::MAX),
                    // It was of before a restore.
                    None if table.generations.era() > begun => return,
                    None => {}
                }
            }
            let left = Timestamp::now().duration_until(end);
            match Duration::try_from(left) {
                Ok(left) if !left.is_zero() => sleep(left.min(CLOCK_READ_EVERY)).await,
                _ => return,
            }
        }
    }

    /// The assignments of this gateway about which the allow list, which has changed, now says otherwise than it was told. They have
    /// to be taken again.
    pub(crate) fn to_take_again(&self, of: GatewayId) -> Vec<SignedAssignment> {
        let (table, allow) = (self.table.lock(), self.allow.borrow());
        let given = table.given.get(&of).into_iter().flat_map(|given| &given.shares);
        let held = given.filter_map(|(share, told)| Some((table.shares.get(share)?, *told)));
        let differ = held.filter(|(held, told)| allow.may_permit(&held.target) != *told);
        differ.map(|(held, _)| held.signed.clone()).collect()
    }

    /// The gateway does not assign the share any more.
    pub(crate) fn withdraw(&self, by: GatewayId, share: ShareId) {
        let mut table = self.table.lock();
        if let Some(given) = table.given.get_mut(&by) {
            given.shares.remove(&share);
            given.expired.remove(&share);
        }
        table.release(share);
    }

    /// Forgets what this gateway assigns: a new connection to it sends everything, or there will be none.
    pub(crate) fn clear(&self, of: GatewayId) {
        let mut table = self.table.lock();
        let Some(given) = table.given.remove(&of) else { return };
        for share in given.shares.into_keys() {
            table.release(share);
        }
    }

    /// The target of a share that this gateway assigns, at this generation or a newer one.
    pub(crate) fn target(
        &self,
        of: GatewayId,
        (share, at_least): (ShareId, Generation),
        now: Timestamp,
    ) -> Option<Target> {
        let table = self.table.lock();
        table.given.get(&of).filter(|given| given.shares.contains_key(&share))?;
        let held = table.shares.get(&share).filter(|held| held.is_allowed && held.generation >= at_least);
        let held = held.filter(|held| held.expires_at.is_none_or(|end| now < end));
        held.map(|held| held.target.clone())
    }

    /// Writes the newest generations after changes, and once more when the agent stops.
    pub(crate) async fn keep_generations(&self, state: &Arc<State>, stop: &CancellationToken) {
        let (mut outage, state_dir) = (Outage::default(), state.path());
        loop {
            let changed = stop.run_until_cancelled(self.generations_changed.notified()).await;
            let change = self.table.lock().generations.take_change();
            let state = Arc::clone(state);
            let saved =
                spawn_blocking(move || change.map_or(Ok(()), |change| state.save_generations(change))).await;
            match saved {
                Ok(Err(error)) => {
                    self.table.lock().generations.failed();
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

impl Table {
    /// Forgets the share if no gateway assigns it.
    fn release(&mut self, share: ShareId) {
        if !self.given.values().any(|given| given.shares.contains_key(&share)) {
            self.shares.remove(&share);
        }
    }
}
