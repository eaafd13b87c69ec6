//! Who has which descriptors of the gateway's traffic: listeners, connections, each with a carrier, and parked carriers.
//!
//! Invariants: together they have no more than the gateway's descriptors for traffic, but for a moment in which carriers that
//! one agent has parked give way to the connections of another. Listeners never take more than half. While several Frontdoors
//! have tunnels here that are enabled, none has more than half of the connections or of the listeners, the last quarter of the connections
//! is for those with less than an equal share, and new connections of each are accepted no faster than a rate: who opens
//! more waits, and not the others.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};
use wicketgate_model::{FailureReason, FrontdoorId};
use wicketgate_system::{
    Mutex,
    bucket::{Bucket, Rate},
};

use crate::quota::{ConnectionPermit, ConnectionQuota};

/// Descriptors that are not planned: for what is counted a moment later than it is opened.
const MOST_SPARE: usize = 256;
/// New connections a second of a Frontdoor beside others, where nothing else is set: with them, gateway and agent take less than
/// a sixth of a processor (docs/PERFORMANCE.md).
pub const CONNECTION_RATE: NonZeroU32 = NonZeroU32::new(1000).unwrap();
/// Of a second's new connections, so many are accepted at once after a pause: in the time that they take, others hardly wait.
const BURSTS: u32 = 50;
/// So many times as many connections are refused in a second: a refusal opens no stream, and copies nothing; and clients that are
/// refused must not fill the queue of those that are not.
const REFUSALS: u32 = 10;
/// A connection has its own descriptor and a carrier's.
const OF_CONNECTION: usize = 2;

/// See the module.
#[derive(Debug)]
pub(crate) struct TrafficRoom {
    descriptors: usize,
    new_connections: Rate,
    refusals: Rate,
    /// Listeners have so many places in any case, and so have parked carriers.
    spare: usize,
    listeners: Arc<ConnectionQuota>,
    connections: Arc<ConnectionQuota>,
    parked: Arc<ConnectionQuota>,
    /// `None`: the tunnel is only removed, or an older server does not name its Frontdoor. Then it does not count as another one.
    frontdoors: Mutex<HashMap<Option<FrontdoorId>, Weak<FrontdoorPlaces>>>,
    /// Frontdoors that have enabled tunnels here, or connections left of removed ones.
    present: Arc<AtomicUsize>,
}

/// What one Frontdoor has.
#[derive(Debug)]
struct FrontdoorPlaces {
    listeners: Arc<ConnectionQuota>,
    connections: Arc<ConnectionQuota>,
    new_connections: Mutex<Bucket>,
    refusals: Mutex<Bucket>,
    /// Its tunnels that make it [present](TrafficRoom::present).
    served: Mutex<usize>,
    present: Option<Arc<AtomicUsize>>,
}

/// What one tunnel has. Connections outlive the tunnel's task.
#[derive(Debug)]
pub(crate) struct TunnelPlaces {
    pub(crate) connections: Arc<ConnectionQuota>,
    /// Held by the listener that waits for the Frontdoor's turn: the tunnels of one take turns.
    turn: tokio::sync::Mutex<()>,
    is_served: AtomicBool,
    frontdoor: Arc<FrontdoorPlaces>,
}

/// The maxima of simultaneous connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) gateway: usize,
    /// `None`: it is the only one.
    pub(crate) frontdoor: Option<usize>,
    pub(crate) tunnel: usize,
    /// Of a share without `maxConnections`.
    pub(crate) share: usize,
}

impl TrafficRoom {
    /// `connection_rate`: new connections a second of each Frontdoor, while there are several.
    pub(crate) fn new(descriptors: usize, connection_rate: NonZeroU32) -> Arc<Self> {
        let spare = (descriptors / 16).min(MOST_SPARE);
        let times = |n: NonZeroU32| n.saturating_mul(NonZeroU32::new(REFUSALS).unwrap_or(NonZeroU32::MIN));
        let burst = NonZeroU32::new(connection_rate.get() / BURSTS).unwrap_or(NonZeroU32::MIN);
        Arc::new(Self {
            descriptors: descriptors - spare,
            new_connections: Rate::per_second(connection_rate, burst),
            refusals: Rate::per_second(times(connection_rate), times(burst)),
            spare,
            listeners: Arc::default(),
            connections: Arc::default(),
            parked: Arc::default(),
            frontdoors: Mutex::default(),
            present: Arc::default(),
        })
    }

    /// The places of a new tunnel of the Frontdoor, which counts as enabled.
    pub(crate) fn tunnel(&self, frontdoor: Option<FrontdoorId>) -> Arc<TunnelPlaces> {
        let mut all = self.frontdoors.lock();
        all.retain(|_, places| places.strong_count() > 0);
        let frontdoor = all.get(&frontdoor).and_then(Weak::upgrade).unwrap_or_else(|| {
            let present = frontdoor.map(|_| Arc::clone(&self.present));
            let (listeners, connections) = (Arc::default(), Arc::default());
            let (new_connections, refusals, served) = (Mutex::default(), Mutex::default(), Mutex::default());
            let new = FrontdoorPlaces { listeners, connections, new_connections, refusals, served, present };
            let new = Arc::new(new);
            all.insert(frontdoor, Arc::downgrade(&new));
            new
        });
        let (turn, is_served) = (tokio::sync::Mutex::default(), AtomicBool::default());
        let places = TunnelPlaces { connections: Arc::default(), turn, is_served, frontdoor };
        places.serve(true);
        Arc::new(places)
    }

    /// As of now: each listener takes a place of a connection's.
    pub(crate) fn limits(&self) -> Limits {
        let listeners = self.listeners.used().max(self.spare);
        let gateway = (self.descriptors.saturating_sub(listeners) / OF_CONNECTION).max(1);
        let half = (gateway / 2).max(1);
        Limits { gateway, frontdoor: self.is_shared().then_some(half), tunnel: half, share: half - half / 4 }
    }

    /// Listeners that there may be, if connections leave them their descriptors.
    pub(crate) fn most_listeners(&self) -> usize {
        self.descriptors / 2
    }

    fn is_shared(&self) -> bool {
        self.present.load(Relaxed) > 1
    }

    /// Waits until it is the turn of a new connection of the tunnel's Frontdoor.
    pub(crate) async fn turn(&self, tunnel: &TunnelPlaces) {
        if self.is_shared() {
            let _next = tunnel.turn.lock().await;
            let time = tunnel.frontdoor.new_connections.lock().reserve(self.new_connections, Instant::now());
            wait(time).await;
        }
    }

    /// Waits until the tunnel's Frontdoor may have another connection refused.
    pub(crate) async fn refused(&self, tunnel: &TunnelPlaces) {
        if self.is_shared() {
            let time = tunnel.frontdoor.refusals.lock().reserve(self.refusals, Instant::now());
            wait(time).await;
        }
    }

    /// Places for another connection of the tunnel, beside that of its share.
    pub(crate) fn connect(
        &self,
        tunnel: &TunnelPlaces,
        limits: &Limits,
    ) -> Result<[ConnectionPermit; 3], FailureReason> {
        let own = tunnel.connections.enter(limits.tunnel).ok_or(FailureReason::TunnelFull)?;
        let most = match limits.frontdoor {
            Some(most) if self.connections.used() < limits.gateway - limits.gateway / 4 => most,
            // The last places are for those that have few.
            Some(_) => limits.gateway / self.present.load(Relaxed).max(1),
            None => limits.gateway,
        };
        let frontdoor = tunnel.frontdoor.connections.enter(most);
        let gateway = self.connections.enter(limits.gateway).ok_or(FailureReason::GatewayFull)?;
        Ok([own, frontdoor.ok_or(FailureReason::FrontdoorFull)?, gateway])
    }

    /// Places for another listener of the tunnel; an error: the maximum that is reached, and whose it is.
    pub(crate) fn listen(
        &self,
        tunnel: &TunnelPlaces,
    ) -> Result<[ConnectionPermit; 2], (usize, &'static str)> {
        let most = self.most_listeners();
        let own = if self.is_shared() { most.div_ceil(2) } else { most };
        let frontdoor = tunnel.frontdoor.listeners.enter(own).ok_or((own, "of one Frontdoor"))?;
        let left = self.descriptors.saturating_sub(OF_CONNECTION * self.connections.used()).max(self.spare);
        let most = most.min(left);
        let gateway = self.listeners.enter(most).ok_or((most, "of all Frontdoors"))?;
        Ok([frontdoor, gateway])
    }

    /// A place for another parked carrier.
    pub(crate) fn park(&self) -> Option<ConnectionPermit> {
        self.parked.enter(self.most_parked())
    }

    /// Whether parked carriers have descriptors that connections and listeners need.
    pub(crate) fn is_short(&self) -> bool {
        self.parked.used() > self.most_parked()
    }

    fn most_parked(&self) -> usize {
        let taken = self.listeners.used() + OF_CONNECTION * self.connections.used();
        self.descriptors.saturating_sub(taken).max(self.spare)
    }
}

async fn wait(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

impl TunnelPlaces {
    /// Whether the tunnel is enabled: what serves nothing is no reason for others to wait.
    pub(crate) fn serve(&self, is_served: bool) {
        if self.is_served.swap(is_served, Relaxed) != is_served {
            self.frontdoor.count(is_served);
        }
    }
}

impl Drop for TunnelPlaces {
    fn drop(&mut self) {
        self.serve(false);
    }
}

impl FrontdoorPlaces {
    /// One more of its tunnels is served, or one less.
    fn count(&self, is_more: bool) {
        let mut served = self.served.lock();
        *served = if is_more { *served + 1 } else { served.saturating_sub(1) };
        let Some(present) = &self.present else { return };
        match (is_more, *served) {
            (true, 1) => drop(present.fetch_add(1, Relaxed)),
            (false, 0) => drop(present.fetch_sub(1, Relaxed)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn frontdoor(n: u128) -> Option<FrontdoorId> {
        Some(FrontdoorId::new(Uuid::from_u128(n)))
    }

    fn room(descriptors: usize) -> Arc<TrafficRoom> {
        TrafficRoom::new(descriptors, NonZeroU32::new(200).unwrap())
    }

    /// Connections of the tunnel until one is refused, and why.
    fn fill(room: &TrafficRoom, tunnel: &TunnelPlaces) -> (Vec<[ConnectionPermit; 3]>, FailureReason) {
        let mut inside = Vec::new();
        loop {
            match room.connect(tunnel, &room.limits()) {
                Ok(permits) => inside.push(permits),
                Err(reason) => return (inside, reason),
            }
        }
    }

    #[test]
    fn a_frontdoor_alone_has_all_and_beside_others_half() {
        let room = room(1000);
        let gateway = room.limits().gateway;
        assert_eq!(gateway, (1000 - 62 - 62) / 2);
        let (a, b) = (room.tunnel(frontdoor(1)), room.tunnel(frontdoor(1)));
        let (first, reason) = fill(&room, &a);
        assert_eq!((first.len(), reason), (gateway / 2, FailureReason::TunnelFull));
        let (second, _) = fill(&room, &b);
        assert_eq!(first.len() + second.len(), gateway);
        drop((first, second));

        let (other, third) = (room.tunnel(frontdoor(2)), room.tunnel(frontdoor(3)));
        let (_first, _) = fill(&room, &a);
        let (second, reason) = fill(&room, &b);
        assert_eq!((second.len(), reason), (0, FailureReason::FrontdoorFull), "two tunnels, one Frontdoor");
        // The last places are for those with less than a third.
        let (its, _) = fill(&room, &other);
        assert_eq!(its.len(), gateway / 3);
        let (last, reason) = fill(&room, &third);
        assert_eq!((last.len(), reason), (gateway - gateway / 2 - gateway / 3, FailureReason::GatewayFull));
        drop((other, third, its, last));
        let _removed = room.tunnel(None);
        assert!(room.limits().frontdoor.is_none(), "it is alone again");
    }

    #[tokio::test(start_paused = true)]
    async fn who_opens_connections_faster_than_the_rate_waits_while_there_are_others() {
        let room = room(1000);
        let (busy, own) = (room.tunnel(frontdoor(1)), room.tunnel(frontdoor(1)));
        let begin = Instant::now();
        let passed = || begin.elapsed().as_millis();
        for _ in 0..100 {
            room.turn(&busy).await;
        }
        assert_eq!(passed(), 0, "it is alone");
        let other = room.tunnel(frontdoor(2));
        for _ in 0..4 {
            room.turn(&busy).await;
        }
        assert_eq!(passed(), 0, "a fiftieth of a second's at once");
        for _ in 0..3 {
            room.turn(&busy).await;
        }
        assert_eq!(passed(), 15);
        // Another customer does not wait, and another tunnel of this one has every second turn, however many ports wait.
        room.turn(&other).await;
        assert_eq!(passed(), 15);
        let many = futures_util::future::join_all((0..100).map(|_| room.turn(&busy)));
        tokio::select! {
            biased;
            _ = many => panic!("a hundred turns take half a second"),
            () = async {
                room.turn(&own).await;
                room.turn(&own).await;
            } => assert!(passed() <= 40, "{}", passed()),
        }
        // Refusals have a rate of their own, ten times as high.
        let before = passed();
        for _ in 0..42 {
            room.refused(&busy).await;
        }
        assert_eq!(passed() - before, 1);
        // A disabled tunnel is no other one, as long as its Frontdoor has no further one.
        let second = room.tunnel(frontdoor(2));
        other.serve(false);
        let before = passed();
        room.turn(&busy).await;
        assert!(passed() > before);
        second.serve(false);
        let before = passed();
        for _ in 0..10 {
            room.turn(&busy).await;
        }
        assert_eq!((passed(), room.limits().frontdoor), (before, None));
        second.serve(true);
        second.serve(true);
        assert!(room.limits().frontdoor.is_some());
        drop((other, second));
        let before = passed();
        room.turn(&busy).await;
        assert_eq!(passed(), before);
    }

    #[test]
    fn listeners_take_places_of_connections_and_at_most_half() {
        let room = room(1000);
        let tunnel = room.tunnel(frontdoor(1));
        let listeners: Vec<_> = std::iter::from_fn(|| room.listen(&tunnel).ok()).collect();
        assert_eq!(listeners.len(), 938 / 2);
        assert_eq!(room.limits().gateway, (938 - 469) / 2);
        drop(listeners);
        let second = room.tunnel(frontdoor(1));
        let connections = [fill(&room, &tunnel).0, fill(&room, &second).0];
        // Connections that are established leave listeners the places that are kept for them.
        let listeners: Vec<_> = std::iter::from_fn(|| room.listen(&tunnel).ok()).collect();
        assert_eq!(listeners.len(), 62);
        assert!(room.park().is_some(), "a carrier for a connection that waits for one");
        drop(connections);
        let parked: Vec<_> = std::iter::from_fn(|| room.park()).collect();
        assert_eq!(parked.len(), 938 - 62);
        assert!(!room.is_short());
        let _connection = room.connect(&tunnel, &room.limits()).unwrap();
        assert!(room.is_short());
    }
}
