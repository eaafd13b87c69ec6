//! What the other customer feels: new connections with an echo, and requests of the API, at a steady pace.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::json;
use wicketgate_lab::Namespace;

use crate::{TARGET, Tenant};

/// Between two of a kind: 50 a second, which no limit refuses.
const EVERY: Duration = Duration::from_millis(20);
/// Writes are limited to ten a second.
const WRITES_EVERY: Duration = Duration::from_millis(150);
const BOUND: Duration = Duration::from_secs(10);
const MESSAGE: &[u8; 1024] = &[7; 1024];

/// One kind of operation.
#[derive(Debug, Default)]
pub(crate) struct Figure {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) count: usize,
    pub(crate) failed: usize,
    pub(crate) first_failure: String,
}

#[derive(Debug)]
pub(crate) struct Measured {
    connections: Figure,
    reads: Figure,
    writes: Figure,
    /// Connections to the target without the product.
    pub(crate) direct: Figure,
}

impl Measured {
    pub(crate) fn figures(&self) -> [(&'static str, &Figure); 3] {
        [
            ("connection and echo", &self.connections),
            ("GET of a share", &self.reads),
            ("PATCH of a share", &self.writes),
        ]
    }
}

/// Measures for this time.
pub(crate) fn measure(place: &Namespace, tenant: &Tenant, lasts: Duration) -> Result<Measured> {
    let path =
        format!("{}/ipsec-shares/{}", tenant.frontdoor, tenant.share["id"].as_str().unwrap_or_default());
    thread::scope(|scope| {
        let inside = |of: &(dyn Fn() -> Figure + Sync)| place.enter(of);
        let connections =
            scope.spawn(move || inside(&|| paced(lasts, EVERY, |_| exchange(place, tenant.door))));
        let direct = scope.spawn(move || inside(&|| paced(lasts, EVERY, |_| exchange(place, TARGET))));
        let path = &path;
        let reads = scope.spawn(move || inside(&|| paced(lasts, EVERY, |_| tenant.api.get(path).map(drop))));
        let change =
            |n: usize| tenant.api.patch(path, &json!({"description": format!("change {n}")})).map(drop);
        let writes = scope.spawn(move || inside(&|| paced(lasts, WRITES_EVERY, change)));
        let ended = |of: thread::ScopedJoinHandle<'_, Result<Figure>>| {
            of.join().map_err(|_| anyhow::anyhow!("a measurement panicked"))?
        };
        Ok(Measured {
            connections: ended(connections)?,
            reads: ended(reads)?,
            writes: ended(writes)?,
            direct: ended(direct)?,
        })
    })
}

/// One after the other, at this pace: what is late is not made up for.
fn paced(lasts: Duration, every: Duration, one: impl Fn(usize) -> Result<()>) -> Figure {
    let (begin, mut figure) = (Instant::now(), Figure::default());
    let mut took = Vec::new();
    while begin.elapsed() < lasts {
        let start = Instant::now();
        if let Err(error) = one(took.len()) {
            figure.failed += 1;
            if figure.first_failure.is_empty() {
                figure.first_failure = format!("after {:.1?}: {error:#}", begin.elapsed());
            }
        }
        took.push(start.elapsed());
        thread::sleep(every.saturating_sub(start.elapsed()));
    }
    took.sort_unstable();
    let at = |part: usize| took.get(took.len() * part / 100).copied().unwrap_or_default();
    Figure { p50: at(50), p99: at(99), count: took.len(), ..figure }
}

fn exchange(place: &Namespace, door: SocketAddr) -> Result<()> {
    let mut stream = place.connect(door, BOUND)?;
    stream.set_read_timeout(Some(BOUND))?;
    stream.set_nodelay(true)?;
    stream.write_all(MESSAGE)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    ensure!(answer == MESSAGE, "{} bytes came back", answer.len());
    Ok(())
}

/// A target of a customer.
pub(crate) fn echo(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        thread::spawn(move || copy(stream));
    }
}

fn copy(mut stream: TcpStream) {
    let Ok(mut reader) = stream.try_clone() else { return };
    let _ = std::io::copy(&mut reader, &mut stream);
    let _ = stream.shutdown(Shutdown::Write);
}
