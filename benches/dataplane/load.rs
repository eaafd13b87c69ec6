//! The load: bulk streams, short connections and ping-pongs. Each measure ends by itself, and has a time limit.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::Handle,
};
use wicketgate_system::Mutex;

use crate::{
    peer::Peer,
    target::{CHUNK, Targets},
    usage::cpu,
};

/// The longest wait for a connection, and for each answer on it.
pub(crate) const BOUND: Duration = Duration::from_secs(20);
/// The beginning of a bulk transfer that is not counted, in which the TCP windows open.
const WARM_UP: Duration = Duration::from_millis(400);
/// The size of a ping-pong's message in bytes.
const MESSAGE: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the client to the target.
    Up,
    Down,
}

/// The result of a bulk transfer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bulk {
    pub(crate) gbit: f64,
    /// The CPU seconds of the peer's processes per GiB.
    pub(crate) cpu: f64,
}

/// Moves bytes over `streams` connections for about `time`.
pub(crate) fn bulk(peer: &Peer, targets: &Targets, streams: usize, way: Way, time: Duration) -> Result<Bulk> {
    let (stop, read) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let counter = if way == Way::Up { &targets.sunk } else { &read };
    let to = if way == Way::Up { peer.sink } else { peer.source };
    let clients: Vec<TcpStream> = (0..streams).map(|_| connect(to)).collect::<Result<_>>()?;
    let (moved, took, used) = thread::scope(|scope| -> Result<_> {
        for mut tcp in &clients {
            let (stop, read) = (&stop, &read);
            scope.spawn(move || {
                let mut buffer = vec![3; CHUNK];
                while !stop.load(Relaxed) {
                    match way {
                        Way::Up => match tcp.write(&buffer) {
                            Ok(_) => {}
                            Err(_) => return,
                        },
                        Way::Down => match tcp.read(&mut buffer) {
                            Ok(n @ 1..) => drop(read.fetch_add(n as u64, Relaxed)),
                            _ => return,
                        },
                    }
                }
            });
        }
        thread::sleep(WARM_UP);
        let (bytes, used, begin) = (counter.load(Relaxed), cpu(&peer.pids), Instant::now());
        thread::sleep(time);
        let (moved, took, end) = (counter.load(Relaxed) - bytes, begin.elapsed(), cpu(&peer.pids));
        stop.store(true, Relaxed);
        for tcp in &clients {
            let _ = tcp.shutdown(Shutdown::Both);
        }
        Ok((moved as f64, took, end? - used?))
    })?;
    ensure!(moved > 0.0, "{} moved nothing", peer.name);
    if way == Way::Up {
        settle(counter);
    }
    let gbit = moved * 8.0 / took.as_secs_f64() / 1e9;
    Ok(Bulk { gbit, cpu: used / (moved / f64::from(1 << 30)) })
}

/// Waits until all bytes in flight have arrived.
fn settle(counter: &AtomicU64) {
    let end = Instant::now() + BOUND;
    let mut last = u64::MAX;
    while Instant::now() < end {
        let now = counter.load(Relaxed);
        if now == std::mem::replace(&mut last, now) {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// The result of many small exchanges.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exchanges {
    pub(crate) count: usize,
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

impl Exchanges {
    pub(crate) fn of(mut times: Vec<Duration>, took: Duration) -> Result<Self> {
        ensure!(!times.is_empty(), "no exchange was answered");
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        let count = times.len();
        let per_second = count as f64 / took.as_secs_f64();
        Ok(Self { count, per_second, p50: at(50), p99: at(99) })
    }
}

/// Makes short connections with `at_once` concurrent clients: connect, send a byte, receive a byte, close. To an echo, the client
/// closes first; to a target that answers once, the target does, and at the same time the client.
pub(crate) fn short(runtime: &Handle, to: SocketAddr, at_once: usize, time: Duration) -> Result<Exchanges> {
    let begin = Instant::now();
    let clients = (0..at_once).map(|_| async move {
        let mut times = Vec::new();
        while begin.elapsed() < time {
            let start = Instant::now();
            tokio::time::timeout(BOUND, one_short(to))
                .await
                .context("a short connection took too long")??;
            times.push(start.elapsed());
        }
        Ok(times)
    });
    gather(runtime, clients, begin)
}

async fn one_short(to: SocketAddr) -> Result<()> {
    let mut tcp = tokio::net::TcpStream::connect(to).await?;
    tcp.set_nodelay(true)?;
    tcp.write_all(b"?").await?;
    let mut byte = [0];
    tcp.read_exact(&mut byte).await?;
    Ok(())
}

/// Sends messages on `at_once` connections, each with one message in flight.
pub(crate) fn ping_pong(
    runtime: &Handle,
    to: SocketAddr,
    at_once: usize,
    time: Duration,
) -> Result<Exchanges> {
    if at_once == 1 {
        return alone(to, time);
    }
    let clients = runtime.block_on(async {
        let mut clients = Vec::new();
        for _ in 0..at_once {
            clients.push(opened(to).await?);
        }
        anyhow::Ok(clients)
    })?;
    let begin = Instant::now();
    let clients = clients.into_iter().map(|mut tcp| async move {
        let mut times = Vec::new();
        while begin.elapsed() < time {
            let start = Instant::now();
            tokio::time::timeout(BOUND, exchange(&mut tcp)).await.context("no answer")??;
            times.push(start.elapsed());
        }
        Ok(times)
    });
    gather(runtime, clients, begin)
}

/// A single connection without a runtime, whose wake-ups would add latency.
fn alone(to: SocketAddr, time: Duration) -> Result<Exchanges> {
    let mut tcp = connect(to)?;
    let mut buffer = [5; MESSAGE];
    let mut once = |tcp: &mut TcpStream| -> Result<Duration> {
        let start = Instant::now();
        tcp.write_all(&buffer)?;
        tcp.read_exact(&mut buffer)?;
        Ok(start.elapsed())
    };
    for _ in 0..100 {
        once(&mut tcp)?;
    }
    let begin = Instant::now();
    let mut times = Vec::new();
    while begin.elapsed() < time {
        times.push(once(&mut tcp)?);
    }
    Exchanges::of(times, begin.elapsed())
}

/// A connection on which one message was echoed.
pub(crate) async fn opened(to: SocketAddr) -> Result<tokio::net::TcpStream> {
    let open = async {
        let mut tcp = tokio::net::TcpStream::connect(to).await?;
        tcp.set_nodelay(true)?;
        exchange(&mut tcp).await?;
        anyhow::Ok(tcp)
    };
    tokio::time::timeout(BOUND, open).await.context("the connection timed out")?
}

pub(crate) async fn exchange(tcp: &mut tokio::net::TcpStream) -> Result<()> {
    let mut buffer = [5; MESSAGE];
    tcp.write_all(&buffer).await?;
    tcp.read_exact(&mut buffer).await?;
    Ok(())
}

fn gather<F>(runtime: &Handle, clients: impl Iterator<Item = F>, begin: Instant) -> Result<Exchanges>
where
    F: Future<Output = Result<Vec<Duration>>> + Send + 'static,
{
    let clients: Vec<_> = clients.map(|client| runtime.spawn(client)).collect();
    let mut times = Vec::new();
    for client in clients {
        times.extend(runtime.block_on(client)??);
    }
    Exchanges::of(times, begin.elapsed())
}

/// Sends a byte and receives it back over a new connection.
pub(crate) fn round_trip(to: SocketAddr) -> Result<()> {
    let mut tcp = connect(to)?;
    tcp.write_all(b"?")?;
    Ok(tcp.read_exact(&mut [0])?)
}

pub(crate) fn connect(to: SocketAddr) -> Result<TcpStream> {
    let tcp = TcpStream::connect_timeout(&to, BOUND).with_context(|| format!("can't connect to {to}"))?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(BOUND))?;
    tcp.set_write_timeout(Some(BOUND))?;
    Ok(tcp)
}

/// Work that runs during a measurement, until it is dropped.
pub(crate) struct Beside {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
    failed: Arc<Mutex<Option<anyhow::Error>>>,
}

impl Beside {
    /// Starts `count` threads that call `step` repeatedly until the end.
    pub(crate) fn start(count: usize, step: impl Fn() -> Result<()> + Clone + Send + 'static) -> Self {
        let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
        let threads = (0..count)
            .map(|_| {
                let (step, stop, failed) = (step.clone(), Arc::clone(&stop), Arc::clone(&failed));
                thread::spawn(move || {
                    while !stop.load(Relaxed) {
                        if let Err(error) = step() {
                            failed.lock().get_or_insert(error);
                            return;
                        }
                    }
                })
            })
            .collect();
        Self { stop, threads, failed }
    }

    /// Ends the work, and returns its first error.
    pub(crate) fn end(self) -> Result<()> {
        self.stop.store(true, Relaxed);
        for thread in self.threads {
            if thread.join().is_err() {
                bail!("a load thread panicked");
            }
        }
        match self.failed.lock().take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}
