//! A slow and lossy line between two namespaces, for kernels without the netem module: two TUN devices, and between
//! them a queue for each direction that delays and drops packets and limits the rate.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use std::sync::Arc;
use tokio::{runtime::Runtime, sync::mpsc};
use tokio_tun::Tun;
use wicketgate_lab::Namespace;

/// The interface in both namespaces.
const INTERFACE: &str = "line0";
/// The capacity of the line's queue as a time. The queue drops packets that do not fit, like a router.
const QUEUE: Duration = Duration::from_millis(50);
/// The largest number of packets in flight, at any rate.
const FLIGHT: usize = 20_000;
/// The MTU of the interfaces.
const MTU: usize = 1500;

/// The properties of a line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quality {
    /// The delay in each direction.
    pub(crate) delay: Duration,
    /// The packets lost of a thousand.
    pub(crate) lost: f64,
    pub(crate) mbit: f64,
}

/// A running line. Dropping it ends it.
pub(crate) struct Line {
    _runtime: Runtime,
    quality: Shared,
}

type Shared = Arc<std::sync::Mutex<Quality>>;

impl Line {
    /// Connects two namespaces with the given addresses.
    pub(crate) fn between(
        near: (&Namespace, Ipv4Addr),
        far: (&Namespace, Ipv4Addr),
        quality: Quality,
    ) -> Result<Self> {
        // Separate threads, so that other load does not delay packets further.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let [a, b] = [(near, far), (far, near)].map(|((namespace, address), (_, other))| -> Result<_> {
            let tun = namespace.enter(|| {
                let _inside = runtime.enter();
                Tun::builder().name(INTERFACE).build()
            })?;
            let tun = tun.context("cannot create a TUN device")?.pop().context("cannot create a TUN device")?;
            namespace.ip(&format!(
                "addr add {address} peer {other} dev {INTERFACE}\nlink set {INTERFACE} mtu {MTU} up txqueuelen 1000"
            ))?;
            Ok(Arc::new(tun))
        });
        let (a, b) = (a?, b?);
        let quality = Shared::new(quality.into());
        runtime.spawn(carry(Arc::clone(&a), Arc::clone(&b), Arc::clone(&quality), 1));
        runtime.spawn(carry(b, a, Arc::clone(&quality), 2));
        Ok(Self { _runtime: runtime, quality })
    }

    /// Changes the properties for all packets that follow.
    pub(crate) fn set(&self, quality: Quality) {
        *lock(&self.quality) = quality;
    }
}

fn lock(quality: &Shared) -> std::sync::MutexGuard<'_, Quality> {
    quality.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Carries the packets of one direction.
async fn carry(from: Arc<Tun>, to: Arc<Tun>, quality: Shared, seed: u64) {
    let (send, mut receive) = mpsc::channel::<(Instant, Box<[u8]>)>(FLIGHT);
    tokio::spawn(async move {
        while let Some((due, packet)) = receive.recv().await {
            tokio::time::sleep_until(due.into()).await;
            // The other end may be down.
            let _ = to.send(&packet).await;
        }
    });
    let mut dice = Dice(seed);
    let mut free = Instant::now();
    let mut packet = [0; MTU + 64];
    while let Ok(n) = from.recv(&mut packet).await {
        let (now, quality) = (Instant::now(), *lock(&quality));
        free = free.max(now);
        if dice.roll() < quality.lost / 1000.0 || free - now > QUEUE {
            continue;
        }
        free += Duration::from_secs_f64(n as f64 * 8.0 / (quality.mbit * 1e6));
        if send.try_send((free + quality.delay, packet[..n].into())).is_err() {
            continue;
        }
    }
}

/// A generator with the same losses in every run (SplitMix64).
struct Dice(u64);

impl Dice {
    /// A number from 0 to 1.
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}
