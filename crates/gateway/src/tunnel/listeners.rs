//! The listeners of one tunnel's shares: one for each share, bound inside the tunnel at its ingress port.

use std::{
    collections::{BTreeMap, BTreeSet},
    io, mem,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tracing::{info, warn};
use wicketgate_model::{IngressPort, Problem, Reason, ShareDesired, ShareId, TunnelId};

use super::{
    inbox::{Change, ShareEntry},
    retry::Retry,
};
use crate::{
    ipsec::TunnelHandle,
    listener::{ConnectionContext, Listener},
    observations::{ListenerState, Observations},
    parts::GatewayParts,
    traffic_room::TunnelPlaces,
};

/// See the module.
pub(super) struct TunnelListeners {
    tunnel: TunnelId,
    places: Arc<TunnelPlaces>,
    /// Shares for whose ports the gateway has no room.
    without_room: usize,
    shares: BTreeMap<ShareId, ShareEntry>,
    bound: BTreeMap<ShareId, Listener>,
    /// When to call [`TunnelListeners::listen`] again after a failure.
    pub(super) retry: Retry,
}

impl TunnelListeners {
    pub(super) fn new(tunnel: TunnelId, places: Arc<TunnelPlaces>) -> Self {
        let (shares, bound) = (BTreeMap::new(), BTreeMap::new());
        Self { tunnel, places, without_room: 0, shares, bound, retry: Retry::default() }
    }

    /// Applies changes of the desired shares. The listener of a removed share is closed. Returns the ports that shares had
    /// before.
    pub(super) async fn apply(
        &mut self,
        changes: BTreeMap<ShareId, Change>,
        observations: &Observations,
    ) -> Vec<u16> {
        let mut released = Vec::new();
        for (id, change) in changes {
            let is_removed = change.is_none();
            let before = match change {
                Some(entry) => self.shares.insert(id, entry),
                None => self.shares.remove(&id),
            };
            released.extend(before.map(|(share, _)| share.ingress_port.get()));
            if !is_removed {
                continue;
            }
            if let Some(listener) = self.bound.remove(&id) {
                listener.close().await;
            }
            observations.remove_share(id, self.tunnel);
        }
        self.close_unwanted().await;
        released
    }

    /// Closes the ports of shares that are closed on purpose, and resets their connections.
    pub(super) async fn close_unwanted(&mut self) {
        for (id, (share, state)) in &self.shares {
            let Some(problem) = closure(share) else { continue };
            if let Some(listener) = self.bound.remove(id) {
                listener.close().await;
                info!(share.id = %id, reason = problem.reason.as_str(), "share is closed");
            }
            state.open.close(None);
        }
    }

    /// How long until the next share expires, by the clock of this host; `None`: none does.
    pub(super) fn next_expiry(&self) -> Option<Duration> {
        let now = Timestamp::now();
        let ends = self.shares.values().filter_map(|(share, _)| share.expires_at);
        Duration::try_from(ends.filter(|end| *end > now).min()?.duration_since(now)).ok()
    }

    /// Closes all ports, and resets all connections.
    pub(super) async fn reset(&mut self) {
        self.close().await;
        for (_, state) in self.shares.values() {
            state.open.close(None);
        }
    }

    /// The ports of all shares, also of those that are closed on purpose or cannot be bound: their shares say so.
    pub(super) fn ports(&self) -> BTreeSet<u16> {
        self.shares.values().map(|(share, _)| share.ingress_port.get()).collect()
    }

    /// Reports the tunnel's problem as the problem of every share.
    pub(super) fn refuse(&mut self, problem: &Problem, observations: &Observations) {
        self.retry.worked();
        for (id, (share, _)) in &self.shares {
            let state = match closure(share) {
                Some(closed) => self.closed(share, closed),
                None if problem.reason == Reason::Disabled => self.closed(share, tunnel_disabled()),
                None => self.not_ready(problem),
            };
            observations.set_share(*id, state);
        }
    }

    /// A share that is closed on purpose.
    fn closed(&self, share: &ShareDesired, problem: Problem) -> ListenerState {
        // A disabled share is as it is to be; an expired one is not served.
        let bound = (problem.reason == Reason::Disabled).then_some(share.generation);
        ListenerState { tunnel: self.tunnel, bound, problem: Some(problem) }
    }

    /// A share while its tunnel has a problem.
    fn not_ready(&self, problem: &Problem) -> ListenerState {
        let message = format!("the share's tunnel is not ready: {}", problem.message);
        let problem = Some(Problem::new(Reason::TunnelNotReady, message));
        ListenerState { tunnel: self.tunnel, bound: None, problem }
    }

    /// Closes all listeners: they are bound in a namespace, or to an address, that is no longer used.
    pub(super) async fn close(&mut self) {
        for listener in mem::take(&mut self.bound).into_values() {
            listener.close().await;
        }
    }

    /// Closes all listeners and forgets the shares.
    pub(super) async fn remove(&mut self, observations: &Observations) {
        self.close().await;
        for id in mem::take(&mut self.shares).into_keys() {
            observations.remove_share(id, self.tunnel);
        }
        self.retry.worked();
    }

    /// Binds what is not bound yet. The new port of a share is bound before the old one is released. If shares exchange
    /// ports, one of them has to release first. `obstacle`: why no client reaches the listeners.
    pub(super) async fn listen(
        &mut self,
        tunnel: &TunnelHandle,
        obstacle: Option<&Problem>,
        parts: &GatewayParts,
    ) {
        let mut waiting = BTreeMap::new();
        for (id, (share, _)) in self.shares.iter().filter(|(_, (share, _))| closure(share).is_none()) {
            match self.bound.get_mut(id) {
                Some(listener) if listener.port == share.ingress_port => {
                    listener.generation = share.generation;
                }
                _ => {
                    waiting.insert(*id, None);
                }
            }
        }
        loop {
            let before = waiting.len();
            for id in mem::take(&mut waiting).into_keys() {
                match self.bind(tunnel, id, parts) {
                    Some(Ok(listener)) => {
                        if let Some(old) = self.bound.insert(id, listener) {
                            old.close().await;
                        }
                    }
                    Some(Err(problem)) => {
                        waiting.insert(id, Some(problem));
                    }
                    None => {}
                }
            }
            if waiting.is_empty() || (waiting.len() == before && !self.release_one(&waiting).await) {
                break;
            }
        }
        if waiting.is_empty() {
            self.retry.worked();
        } else {
            self.retry.failed();
        }
        self.log(&waiting);
        for (id, (share, _)) in &self.shares {
            let bound = self.bound.get(id).map(|listener| listener.generation);
            let problem = waiting.remove(id).flatten();
            let state = match (closure(share), obstacle) {
                (Some(closed), _) => self.closed(share, closed),
                (None, Some(obstacle)) => self.not_ready(obstacle),
                (None, None) => ListenerState { tunnel: self.tunnel, bound, problem },
            };
            parts.observations.set_share(*id, state);
        }
    }

    /// Says which shares are not bound; of those without room, of which there may be thousands, how many, once.
    fn log(&mut self, waiting: &BTreeMap<ShareId, Option<Problem>>) {
        let mut without_room = 0;
        for (id, problem) in waiting {
            match problem {
                Some(problem) if problem.reason == Reason::GatewayFull => without_room += 1,
                Some(problem) => warn!(share.id = %id, problem = problem.message, "share could not be bound"),
                None => {}
            }
        }
        if without_room > 0 && self.without_room == 0 {
            warn!(tunnel.id = %self.tunnel, shares = without_room, "the gateway has no room for ports of shares");
        }
        self.without_room = without_room;
    }

    fn bind(
        &self,
        tunnel: &TunnelHandle,
        id: ShareId,
        parts: &GatewayParts,
    ) -> Option<Result<Listener, Problem>> {
        let (share, state) = self.shares.get(&id)?;
        let context = ConnectionContext {
            state: Arc::clone(state),
            counters: parts.counters.of(id, self.tunnel),
            tunnel: Arc::clone(&self.places),
            latest_client: Arc::clone(tunnel.latest_client()),
            parts: parts.clone(),
        };
        let port = share.ingress_port;
        let places = match parts.room.listen(&self.places) {
            Ok(places) => places,
            Err((most, whose)) => return Some(Err(no_room(most, whose))),
        };
        let socket = tunnel.bind(port.get());
        let listener =
            socket.and_then(|socket| Listener::start(socket, port, share.generation, places, context));
        Some(listener.map_err(|error| bind_problem(port, &error)))
    }

    /// Among shares that wait for each other's ports, makes one release its old port.
    async fn release_one(&mut self, waiting: &BTreeMap<ShareId, Option<Problem>>) -> bool {
        let is_wanted = |listener: &Listener| {
            waiting.keys().any(|id| self.shares.get(id).is_some_and(|(s, _)| s.ingress_port == listener.port))
        };
        let holder = waiting.keys().find(|id| self.bound.get(id).is_some_and(is_wanted)).copied();
        let Some(listener) = holder.and_then(|id| self.bound.remove(&id)) else { return false };
        listener.close().await;
        true
    }
}

/// Why the share's port is closed on purpose; `None` if it is not.
fn closure(share: &ShareDesired) -> Option<Problem> {
    if !share.enabled {
        return Some(Problem::disabled());
    }
    let end = share.expires_at.filter(|end| *end <= Timestamp::now())?;
    let message =
        format!("it expired at {end}: set expiresAt to a later time, or to null, to open its port again");
    Some(Problem::new(Reason::Expired, message))
}

fn no_room(most: usize, whose: &str) -> Problem {
    let message = format!(
        "the gateway has no room for another port: its limit of open files permits {most} {whose} now; raise that limit, or \
         delete shares"
    );
    Problem::new(Reason::GatewayFull, message)
}

/// Of an enabled share.
fn tunnel_disabled() -> Problem {
    Problem::new(
        Reason::Disabled,
        "the share's tunnel is disabled: set enabled of the tunnel to true to serve it again",
    )
}

fn bind_problem(port: IngressPort, error: &io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            Problem::new(Reason::PortInUse, format!("another program holds port {port} of the load balancer"))
        }
        _ => Problem::new(Reason::ListenerFailed, format!("port {port} could not be bound: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_that_cannot_be_opened_says_why() {
        let port = IngressPort::try_from(9000).unwrap();
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = TcpListener::bind(held.local_addr().unwrap()).unwrap_err();
        assert_eq!(bind_problem(port, &taken).reason, Reason::PortInUse);
        // An address of documentation, which no host has (RFC 5737).
        let nowhere = TcpListener::bind("192.0.2.1:9000").unwrap_err();
        let problem = bind_problem(port, &nowhere);
        assert_eq!(problem.reason, Reason::ListenerFailed);
        assert!(problem.message.starts_with("port 9000 could not be bound: "), "{}", problem.message);
    }
}
