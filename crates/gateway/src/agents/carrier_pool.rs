//! The parked carriers of one agent, for as long as its control connection lasts.
//!
//! Invariant: a pool has its own lock, so looking at an agent's sockets delays no stream of another agent. The roster
//! refers to pools and never touches a socket.

use super::{
    dial_failure::DialFailure,
    pool_size::{self, PoolSize},
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};
use tokio::sync::Notify;
use wicketgate_system::Mutex;
use wicketgate_transport::{abort::Abort, carrier::Carrier};

use crate::{quota::ConnectionPermit, traffic_room::TrafficRoom};

/// The part of the surplus that is closed each second: the next burst may be near.
const TEND: usize = 4;
/// What an agent keeps parked while the gateway is short of descriptors.
const FEW: u16 = 1;

/// See the module.
pub(super) struct CarrierPool {
    pub(super) streams: Arc<AgentStreams>,
    /// The one parked longest first; `None` once the control connection has ended.
    parked: Mutex<Option<Vec<Parked>>>,
    size: Mutex<PoolSize>,
    /// A carrier was parked, or the pool was closed.
    pub(super) changed: Notify,
}

impl CarrierPool {
    pub(super) fn new(streams: Arc<AgentStreams>) -> Self {
        Self { streams, parked: Mutex::new(Some(Vec::new())), size: Mutex::default(), changed: Notify::new() }
    }

    /// Parks a carrier. Returns it if the pool is full or closed, or connections need its descriptor.
    ///
    /// Streams take the carrier that was parked last, so dead ones collect below it. They are removed here, before a
    /// live carrier is turned away.
    pub(super) fn park(&self, carrier: Carrier, room: &TrafficRoom) -> Result<(), Carrier> {
        // A peak that is just ending counts, although it is not in the pool's size yet.
        let ending = (2 * self.streams.most.load(Ordering::Relaxed)).min(2 * usize::from(pool_size::MOST));
        let most = self.size.lock().keep().max(ending);
        let mut parked = self.parked.lock();
        let Some(carriers) = &mut *parked else { return Err(carrier) };
        if carriers.len() >= most {
            carriers.retain_mut(|(carrier, _)| carrier.is_quiet());
        }
        if carriers.len() >= most {
            return Err(carrier);
        }
        let Some(place) = room.park() else { return Err(carrier) };
        carriers.push((carrier, place));
        drop(parked);
        self.changed.notify_one();
        Ok(())
    }

    /// Takes the live carrier that was parked last; `None`: none is parked. An error: the pool was closed.
    pub(super) fn take(&self) -> Result<Option<Carrier>, DialFailure> {
        loop {
            let last = self.parked.lock().as_mut().ok_or(DialFailure::Disconnected)?.pop();
            let Some((mut carrier, _)) = last else { return Ok(None) };
            if carrier.is_quiet() {
                return Ok(Some(carrier));
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.parked.lock().as_ref().map_or(0, Vec::len)
    }

    /// Adapts the pool's size to the last second's streams and closes a part of the surplus, the carriers parked
    /// longest. Where connections need the descriptors, few stay. Returns how many carriers the agent should have parked.
    pub(super) fn tend(&self, room: &TrafficRoom) -> u16 {
        let (fewest, most) = self.streams.take_extremes();
        let mut size = self.size.lock();
        size.second(fewest, most);
        let (want, keep) = if room.is_short() { (FEW, FEW.into()) } else { (size.want(), size.keep()) };
        drop(size);
        let surplus: Vec<_> = match &mut *self.parked.lock() {
            Some(carriers) => {
                let surplus = carriers.len().saturating_sub(keep);
                carriers.drain(..surplus.div_ceil(TEND)).collect()
            }
            None => Vec::new(),
        };
        drop(surplus);
        want
    }

    /// Closes the parked carriers and takes no more.
    pub(super) fn close(&self) {
        let parked = self.parked.lock().take();
        drop(parked);
        self.changed.notify_waiters();
    }
}

/// A carrier, and its place in the room of the gateway.
type Parked = (Carrier, ConnectionPermit);

/// An agent's streams. They outlive its connections.
#[derive(Debug, Default)]
pub(super) struct AgentStreams {
    pub(super) abort: Abort,
    /// The number of the agent's newest control connection.
    session: AtomicU64,
    /// Reads of the agent's carriers that had bytes: a sign of life.
    pub(super) heard: AtomicU64,
    active: AtomicUsize,
    /// The most and the fewest at a time since the pool was tended.
    most: AtomicUsize,
    fewest: AtomicUsize,
}

impl AgentStreams {
    pub(super) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    pub(super) fn begin_session(&self, number: u64) {
        self.session.store(number, Ordering::Relaxed);
    }

    pub(super) fn is_last(&self, session: u64) -> bool {
        self.session.load(Ordering::Relaxed) == session
    }

    /// Counts a stream until the returned value is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> ActiveStream {
        let active = self.active.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(active, Ordering::Relaxed);
        ActiveStream(Arc::clone(self))
    }

    fn take_extremes(&self) -> (usize, usize) {
        let active = self.active();
        let fewest = self.fewest.swap(active, Ordering::Relaxed).min(active);
        (fewest, self.most.swap(active, Ordering::Relaxed).max(active))
    }
}

/// See [`AgentStreams::begin`].
#[derive(Debug)]
pub(super) struct ActiveStream(pub(super) Arc<AgentStreams>);

impl Drop for ActiveStream {
    fn drop(&mut self) {
        let active = self.0.active.fetch_sub(1, Ordering::Relaxed) - 1;
        self.0.fewest.fetch_min(active, Ordering::Relaxed);
    }
}
