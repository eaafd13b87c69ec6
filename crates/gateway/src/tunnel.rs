//! One task for each tunnel keeps it as desired: the IPsec side through the engine, the listeners of its shares itself. The
//! task compares, takes the missing steps, and retries failed ones.
//!
//! Invariant: a wake-up carries no data. Whatever wakes the task, it reads the whole inbox.

mod inbox;
mod listeners;
mod peer_log;
mod retry;
mod unserved_ports;

use std::{io, pin::pin, sync::Arc, time::Duration};

use futures_util::future::OptionFuture;
use jiff::Timestamp;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info, warn};
use wicketgate_model::{Connection, ConnectionState, Problem, Reason, TunnelDesired, TunnelId};

pub(crate) use inbox::TunnelInbox;
use listeners::TunnelListeners;
use peer_log::PeerLog;
use retry::Retry;
use unserved_ports::UnservedPorts;

use crate::ipsec::{OutsideSelectors, TunnelHandle};
pub(crate) use crate::parts::GatewayParts;

/// How long a tunnel that is being disabled waits until its connections are reset: their ends pass through its SAs.
const RESET_WITHIN: Duration = Duration::from_secs(1);
const RESET_CHECKED_EVERY: Duration = Duration::from_millis(10);

/// How often a tunnel is compared with its desired state without a reason: it may have been changed from outside.
const CHECK_EVERY: Duration = Duration::from_secs(4);

/// See the module.
pub(crate) struct TunnelTask {
    id: TunnelId,
    inbox: Arc<TunnelInbox>,
    parts: GatewayParts,
    /// Without a permit nothing is set up, and what an earlier run set up is removed.
    permit: Option<OwnedSemaphorePermit>,
    is_cleared: bool,
    /// What the engine was last asked for, and when it is asked again.
    asked: Option<Arc<TunnelDesired>>,
    check_at: Instant,
    retry: Retry,
    /// The engine's tunnel, once it was set up, and the current failure.
    tunnel: Option<Arc<TunnelHandle>>,
    /// When the next of its keys becomes invalid.
    key_end: Option<Timestamp>,
    failure: Option<Problem>,
    listeners: TunnelListeners,
    unserved: UnservedPorts,
    outside: OutsideSelectors,
    log: PeerLog,
}

impl TunnelTask {
    pub(crate) fn new(
        id: TunnelId,
        inbox: Arc<TunnelInbox>,
        parts: GatewayParts,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let listeners = TunnelListeners::new(id, Arc::clone(&inbox.places));
        Self {
            id,
            inbox,
            parts,
            permit,
            is_cleared: false,
            asked: None,
            check_at: Instant::now(),
            retry: Retry::default(),
            tunnel: None,
            key_end: None,
            failure: None,
            listeners,
            unserved: UnservedPorts::default(),
            outside: OutsideSelectors::default(),
            log: PeerLog::default(),
        }
    }

    /// Runs until nothing is left of the tunnel, or the gateway stops.
    pub(crate) async fn run(mut self) {
        let stop = self.parts.stop.clone();
        stop.run_until_cancelled(async {
            loop {
                let (desired, changes) = self.inbox.read();
                // Without a server, they end here.
                let desired = desired.map(|desired| desired.with_valid_keys(Timestamp::now()));
                self.key_end = desired.as_ref().and_then(|desired| desired.next_key_end());
                let released = self.listeners.apply(changes, &self.parts.observations).await;
                self.unserved.released(released, Timestamp::now());
                match desired {
                    Some(desired) if !desired.enabled => self.disable(&desired).await,
                    Some(desired) if self.has_permit() => self.serve(desired).await,
                    Some(desired) => {
                        self.report_full(&desired);
                        self.wait_for_permit().await;
                        continue;
                    }
                    None if self.remove().await => return,
                    None => {}
                }
                self.wait().await;
            }
        })
        .await;
    }

    /// Waits for a reason to compare again.
    async fn wait(&self) {
        let due =
            [Some(self.check_at), self.retry.at, self.listeners.retry.at, self.expiry(), self.key_expiry()];
        let due = due.into_iter().flatten().min();
        let changed = OptionFuture::from(self.tunnel.as_ref().map(|tunnel| tunnel.changed()));
        tokio::select! {
            () = self.inbox.woken() => {}
            Some(()) = changed => {}
            () = tokio::time::sleep_until(due.unwrap_or(self.check_at)) => {}
        }
    }

    /// When the next share expires. The host's clock may be set: it is read again at each check.
    fn expiry(&self) -> Option<Instant> {
        self.listeners.next_expiry().map(|left| Instant::now() + left.min(CHECK_EVERY))
    }

    /// When the next key becomes invalid.
    fn key_expiry(&self) -> Option<Instant> {
        let left = Duration::try_from(self.key_end?.duration_since(Timestamp::now())).unwrap_or_default();
        Some(Instant::now() + left.min(CHECK_EVERY))
    }

    fn has_permit(&mut self) -> bool {
        if self.permit.is_none() {
            self.permit = Arc::clone(&self.parts.tunnel_permits).try_acquire_owned().ok();
        }
        self.permit.is_some()
    }

    /// Waits for a permit or a change. Meanwhile it removes what an earlier run with more permits left: nothing would keep
    /// that as desired, revoked keys included.
    async fn wait_for_permit(&mut self) {
        if !self.is_cleared {
            self.is_cleared = matches!(self.clear().await, Some(Ok(())));
        }
        let again = self.retry.at;
        let permits = Arc::clone(&self.parts.tunnel_permits);
        tokio::select! {
            permit = permits.acquire_owned() => self.permit = permit.ok(),
            () = self.inbox.woken() => {}
            () = tokio::time::sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
        }
    }

    fn report_full(&mut self, desired: &TunnelDesired) {
        let max = self.parts.max_tunnels;
        let full = format!(
            "the gateway holds its maximum of {max} tunnels: delete one, or give the gateway more memory, open files, or \
             --max-tunnels"
        );
        warn!(tunnel.id = %self.id, tunnel.name = %desired.name, max, "tunnel refused: the gateway is full");
        self.refuse(desired, Problem::new(Reason::GatewayFull, full));
    }

    /// Reports a problem of the tunnel, and with it of its shares.
    fn refuse(&mut self, desired: &TunnelDesired, problem: Problem) {
        self.listeners.refuse(&problem, &self.parts.observations);
        self.report(desired, Some(problem));
    }

    /// Ends the tunnel's SAs and what serves them, and reports it when nothing is left. Its place is free for another tunnel.
    async fn disable(&mut self, desired: &TunnelDesired) {
        self.check_at = Instant::now() + CHECK_EVERY;
        self.parts.backend.set_disabled(self.id, Some(desired.peer_address.get()));
        self.listeners.reset().await;
        if self.tunnel.is_some() {
            let reset = async {
                while !self.inbox.places.connections.is_empty() {
                    sleep(RESET_CHECKED_EVERY).await;
                }
            };
            // What does not end in time is not told to the site.
            let _ = timeout(RESET_WITHIN, reset).await;
        }
        self.forget();
        if !self.is_cleared {
            let Some(cleared) = self.clear().await else { return };
            self.is_cleared = cleared.is_ok();
            match cleared {
                Ok(()) => {
                    info!(tunnel.id = %self.id, tunnel.name = %desired.name, "tunnel is disabled: nothing of it is left")
                }
                Err(error) => {
                    return self.refuse(desired, Problem::new(Reason::TunnelFailed, error.to_string()));
                }
            }
        }
        self.permit = None;
        self.listeners.refuse(&Problem::disabled(), &self.parts.observations);
        self.parts.observations.update_tunnel(self.id, |seen| {
            (seen.ready, seen.problem) = (Some(desired.generation), Some(Problem::disabled()));
            if seen.connection != Connection::down(seen.connection.since) {
                seen.connection = Connection::down(Timestamp::now());
            }
        });
    }

    async fn serve(&mut self, desired: Arc<TunnelDesired>) {
        let now = Instant::now();
        self.is_cleared = false;
        self.parts.backend.set_disabled(self.id, None);
        // Compared as a whole: an expired key does not make a new generation.
        let is_new = self.asked.as_ref() != Some(&desired);
        if self.asked.as_ref().is_some_and(|asked| asked.peer_cidr != desired.peer_cidr) {
            self.outside = OutsideSelectors::default();
        }
        let is_due = self.retry.at.unwrap_or(self.check_at) <= now;
        if self.asked.is_none()
            && self.tunnel.is_none()
            && let Some(found) = self.parts.backend.found(&desired)
        {
            debug!(tunnel.id = %self.id, "tunnel of an earlier run adopted");
            self.listeners.listen(&found, None, &self.parts).await;
            self.tunnel = Some(found);
        }
        if is_new || is_due {
            self.check_at = now + CHECK_EVERY;
            match self.ensure(&desired).await {
                Ok(tunnel) => {
                    self.retry.worked();
                    self.failure = None;
                    if self.tunnel.as_ref().is_none_or(|old| !Arc::ptr_eq(old, &tunnel)) {
                        // Another namespace or address: listeners at the old one receive nothing any more.
                        self.listeners.close().await;
                        info!(tunnel.id = %self.id, tunnel.name = %desired.name, "tunnel is ready");
                    }
                    self.tunnel = Some(tunnel);
                }
                Err(problem) => {
                    warn!(tunnel.id = %self.id, problem = problem.message, "tunnel could not be set up");
                    self.retry.failed();
                    self.failure = Some(problem);
                }
            }
            self.asked = Some(Arc::clone(&desired));
        }
        self.show(&desired).await;
    }

    /// Has the engine bring the tunnel to the desired state. Meanwhile it reports what the engine reports: that the IKE
    /// daemon hangs, which this waits for.
    async fn ensure(&mut self, desired: &Arc<TunnelDesired>) -> Result<Arc<TunnelHandle>, Problem> {
        let backend = Arc::clone(&self.parts.backend);
        let mut ensured = pin!(backend.ensure(desired));
        loop {
            let tunnel = self.tunnel.clone();
            let changed = OptionFuture::from(tunnel.as_ref().map(|tunnel| tunnel.changed()));
            let expired = OptionFuture::from(self.expiry().map(tokio::time::sleep_until));
            tokio::select! {
                ensured = &mut ensured => return ensured,
                Some(()) = changed => self.show(desired).await,
                Some(()) = expired => self.listeners.close_unwanted().await,
            }
        }
    }

    /// Reports the tunnel, and binds its listeners if it is ready.
    async fn show(&mut self, desired: &Arc<TunnelDesired>) {
        if let Some(problem) = self.failure.clone().or_else(|| self.tunnel.as_ref().and_then(|t| t.problem()))
        {
            self.refuse(desired, problem);
            return;
        }
        // The new one's problem is not known yet.
        if self.asked.as_ref() != Some(desired) {
            return;
        }
        // What the host drops is not a reason to bind nothing: it may let the packets pass at any time.
        let obstacle = self.tunnel.as_ref().and_then(|tunnel| tunnel.obstacle());
        if let Some(tunnel) = &self.tunnel {
            self.listeners.listen(tunnel, obstacle.as_ref(), &self.parts).await;
        }
        self.report(desired, obstacle);
    }

    /// Updates the tunnel's observation.
    fn report(&mut self, desired: &TunnelDesired, problem: Option<Problem>) {
        let (site, now) = (desired.peer_cidr.get(), Timestamp::now());
        let connection = self.tunnel.as_ref().map(|tunnel| {
            let mut connection = tunnel.connection().borrow().clone();
            let (counted, outside): (Vec<_>, Vec<_>) =
                tunnel.unserved().into_iter().partition(|one| site.contains(&one.client));
            self.outside.counted(&outside, desired.load_balancer_ip, now);
            // Nearly always there is nothing, and there may be very many shares.
            let unserved = (!counted.is_empty() || !self.unserved.is_empty()).then(|| {
                let ports = self.listeners.ports();
                self.unserved.take(counted, &ports, now);
                self.unserved.warning(&ports)
            });
            if connection.state == ConnectionState::Up {
                connection.warnings.extend(tunnel.path_warning());
                connection.warnings.extend(unserved.flatten());
                connection.warnings.extend(self.outside.warning(&connection.child_sas, now));
            }
            let dropped = tunnel.dropped();
            // What the daemon finds is a consequence.
            Connection { last_error: dropped.or(connection.last_error), ..connection }
        });
        self.parts.observations.update_tunnel(self.id, |seen| {
            if let Some(connection) = &connection {
                self.log.write(self.id, &desired.name, &seen.connection, connection);
            }
            seen.ready = problem.is_none().then_some(desired.generation);
            seen.problem = problem;
            match connection {
                Some(connection) => seen.connection = connection,
                None if seen.connection.state == ConnectionState::Down => {}
                None => seen.connection = Connection::down(Timestamp::now()),
            }
        });
    }

    /// Removes the tunnel; `true` when nothing is left.
    async fn remove(&mut self) -> bool {
        self.listeners.remove(&self.parts.observations).await;
        self.parts.backend.set_disabled(self.id, None);
        self.forget();
        match self.clear().await {
            Some(Ok(())) => {
                info!(tunnel.id = %self.id, "tunnel removed");
                self.parts.observations.remove_tunnel(self.id);
                true
            }
            Some(Err(error)) => {
                self.check_at = Instant::now() + CHECK_EVERY;
                let problem = Problem::new(Reason::TunnelFailed, error.to_string());
                self.parts.observations.update_tunnel(self.id, |seen| {
                    seen.ready = None;
                    seen.problem = Some(problem);
                });
                false
            }
            None => false,
        }
    }

    /// The engine's tunnel is not wanted any more. What failed was to set it up: its removal does not wait for that.
    fn forget(&mut self) {
        if self.tunnel.take().is_some() | self.asked.take().is_some() {
            self.retry.worked();
        }
    }

    /// Has the engine remove the tunnel; `None` before it is time for another attempt.
    async fn clear(&mut self) -> Option<io::Result<()>> {
        if self.retry.at.is_some_and(|at| at > Instant::now()) {
            return None;
        }
        let removed = self.parts.backend.remove(self.id).await;
        match &removed {
            Ok(()) => self.retry.worked(),
            Err(error) => {
                warn!(tunnel.id = %self.id, %error, "tunnel could not be removed");
                self.retry.failed();
            }
        }
        Some(removed)
    }
}
