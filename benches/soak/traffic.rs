//! Connections of the sites' clients to a target that echoes, with checked content.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Result, ensure};
use wicketgate_lab::Namespace;

/// Bytes of a connection.
const SIZE: usize = 200_000;
/// Between two connections of a client.
const PAUSE: Duration = Duration::from_millis(100);
/// For a connection, and for each step of it.
const BOUND: Duration = Duration::from_secs(20);

/// What was carried.
#[derive(Debug, Default, Clone)]
pub(crate) struct Carried {
    pub(crate) connections: u64,
    pub(crate) bytes: u64,
    pub(crate) failed: u64,
    pub(crate) first_failure: String,
}

/// A client for each door.
pub(crate) struct Traffic {
    clients: Vec<JoinHandle<()>>,
    carried: Arc<Mutex<Carried>>,
}

impl Traffic {
    pub(crate) fn start(sites: &Namespace, doors: &[SocketAddr], ends: &Arc<AtomicBool>) -> Self {
        let carried: Arc<Mutex<Carried>> = Arc::default();
        let client = |door: &SocketAddr| {
            let (sites, door) = (sites.clone(), *door);
            let (ends, carried) = (Arc::clone(ends), Arc::clone(&carried));
            thread::spawn(move || {
                for n in 0_u64.. {
                    if ends.load(Ordering::Relaxed) {
                        return;
                    }
                    let done = exchange(&sites, door, n);
                    let mut carried = carried.lock().unwrap_or_else(PoisonError::into_inner);
                    match done {
                        Ok(()) => {
                            carried.connections += 1;
                            carried.bytes += 2 * SIZE as u64;
                        }
                        Err(error) => {
                            carried.failed += 1;
                            if carried.first_failure.is_empty() {
                                carried.first_failure = format!("{door}: {error:#}");
                            }
                        }
                    }
                    drop(carried);
                    thread::sleep(PAUSE);
                }
            })
        };
        Self { clients: doors.iter().map(client).collect(), carried }
    }

    /// Waits for the clients, which were told to end.
    pub(crate) fn end(self) -> Carried {
        for client in self.clients {
            let _ = client.join();
        }
        self.carried.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn exchange(sites: &Namespace, door: SocketAddr, n: u64) -> Result<()> {
    let mut stream = sites.connect(door, BOUND)?;
    stream.set_read_timeout(Some(BOUND))?;
    stream.set_write_timeout(Some(BOUND))?;
    let sent: Vec<u8> =
        (0..SIZE as u64).map(|at| (at.wrapping_mul(2_654_435_761).wrapping_add(n) >> 7) as u8).collect();
    let mut writer = stream.try_clone()?;
    let bytes = sent.clone();
    let writes =
        thread::spawn(move || writer.write_all(&bytes).and_then(|()| writer.shutdown(Shutdown::Write)));
    let mut received = Vec::with_capacity(SIZE);
    stream.read_to_end(&mut received)?;
    writes.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
    ensure!(received == sent, "{} of {SIZE} bytes came back, or others", received.len());
    Ok(())
}

/// The target.
pub(crate) fn echo(listener: &TcpListener, ends: &AtomicBool) {
    for stream in listener.incoming().flatten() {
        if ends.load(Ordering::Relaxed) {
            return;
        }
        thread::spawn(move || copy(stream));
    }
}

fn copy(mut stream: TcpStream) {
    let Ok(mut reader) = stream.try_clone() else { return };
    let _ = std::io::copy(&mut reader, &mut stream);
    let _ = stream.shutdown(Shutdown::Write);
}
