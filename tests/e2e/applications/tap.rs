//! A relay at the site, between an application's client and a share: it counts what passes.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use anyhow::Result;
use wicketgate_lab::Namespace;

use crate::harness::{PATIENCE, SITE_CLIENT, targets::connect_as};

/// Accepts connections until the test's process ends.
pub(super) struct Tap {
    /// Where clients in the site's namespace connect to.
    pub(super) at: SocketAddr,
    pub(super) counts: Arc<Counts>,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) connections: AtomicU64,
    /// Of these, those that have not ended.
    pub(super) open: AtomicU64,
    /// Those that the share refused or reset.
    pub(super) broken: AtomicU64,
    /// Bytes that the share took.
    pub(super) up: AtomicU64,
    /// Bytes that the share delivered.
    pub(super) down: AtomicU64,
}

impl Tap {
    pub(super) fn start(site: &Namespace, door: SocketAddr) -> Result<Self> {
        let listener = site.listen((Ipv4Addr::LOCALHOST, 0).into())?;
        let tap = Self { at: listener.local_addr()?, counts: Arc::default() };
        let (counts, site) = (Arc::clone(&tap.counts), site.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                counts.connections.fetch_add(1, Relaxed);
                counts.open.fetch_add(1, Relaxed);
                let (counts, site) = (Arc::clone(&counts), site.clone());
                thread::spawn(move || {
                    match connect_as(&site, SITE_CLIENT, door, PATIENCE) {
                        Ok(share) => relay(&client, &share, &counts),
                        Err(_) => drop(counts.broken.fetch_add(1, Relaxed)),
                    }
                    counts.open.fetch_sub(1, Relaxed);
                });
            }
        });
        Ok(tap)
    }
}

/// Ends when the share has ended the connection.
fn relay(client: &TcpStream, share: &TcpStream, counts: &Counts) {
    // The client's own timeout bounds the wait.
    let _ = share.set_read_timeout(None);
    for stream in [client, share] {
        let _ = stream.set_nodelay(true);
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut from, mut to, mut piece) = (client, share, vec![0; 1 << 16]);
            while let Ok(n @ 1..) = from.read(&mut piece) {
                if to.write_all(&piece[..n]).is_err() {
                    break;
                }
                counts.up.fetch_add(n as u64, Relaxed);
            }
            let _ = share.shutdown(Shutdown::Write);
        });
        let (mut from, mut to, mut piece) = (share, client, vec![0; 1 << 16]);
        loop {
            match from.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => {
                    counts.down.fetch_add(n as u64, Relaxed);
                    // A client that has left does not stop the share's bytes from being counted.
                    let _ = to.write_all(&piece[..n]);
                }
                Err(_) => {
                    counts.broken.fetch_add(1, Relaxed);
                    break;
                }
            }
        }
        // Also ends the other direction, if the target was the first to end.
        let _ =
            client.shutdown(if counts.broken.load(Relaxed) == 0 { Shutdown::Write } else { Shutdown::Both });
    });
}
