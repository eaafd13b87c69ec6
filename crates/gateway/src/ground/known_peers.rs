//! The addresses of peers that were connected to this gateway at some time, also before its last restart.
//!
//! Invariant: an address is here only after a peer has authenticated from it. Anyone can forge a packet's source.

use std::{collections::VecDeque, io, mem, net::Ipv4Addr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{task::spawn_blocking, time::sleep};
use tracing::warn;
use wicketgate_system::{Mutex, backoff::Backoff, if_exists, private_file::replace};

/// More than a gateway has tunnels. Beyond, the oldest are forgotten.
const MOST: usize = 16_384;

/// The pauses after a failed write, of a full disk for example.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_LONGEST: Duration = Duration::from_secs(60);

/// See the module. A file has one address in each line.
#[derive(Debug)]
pub(crate) struct KnownPeers {
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// In the order in which they became known.
    peers: VecDeque<Ipv4Addr>,
    /// The file does not have them yet.
    is_changed: bool,
    /// A task writes the file.
    has_writer: bool,
}

impl KnownPeers {
    pub(super) fn load(path: PathBuf) -> Self {
        let text = if_exists(std::fs::read_to_string(&path)).unwrap_or_else(|error| {
            warn!(%error, "cannot read the addresses of known peers: they are collected again");
            None
        });
        let peers = text.unwrap_or_default().lines().filter_map(|line| line.parse().ok()).collect();
        Self { path, known: Mutex::new(Known { peers, ..Known::default() }) }
    }

    pub(crate) fn is_known(&self, peer: Ipv4Addr) -> bool {
        self.known.lock().peers.contains(&peer)
    }

    /// A peer has authenticated from this address. The file is written in the background.
    pub(crate) fn add(self: &Arc<Self>, peer: Ipv4Addr) {
        let mut known = self.known.lock();
        if known.peers.contains(&peer) {
            return;
        }
        known.peers.push_back(peer);
        while known.peers.len() > MOST {
            known.peers.pop_front();
        }
        known.is_changed = true;
        if !mem::replace(&mut known.has_writer, true) {
            tokio::spawn(Arc::clone(self).write());
        }
    }

    /// Writes the file until it has all that is known. One task at a time, so that an older list does not replace a newer one.
    async fn write(self: Arc<Self>) {
        let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_LONGEST);
        while let Some(text) = self.unwritten() {
            let path = self.path.clone();
            let written = spawn_blocking(move || replace(&path, text.as_bytes())).await;
            if let Err(error) = written.map_err(io::Error::from).flatten() {
                warn!(%error, "cannot write the addresses of known peers: it is tried again");
                self.known.lock().is_changed = true;
                sleep(backoff.doubled()).await;
            }
        }
    }

    /// The content of the file, if it is to be written.
    fn unwritten(&self) -> Option<String> {
        let mut known = self.known.lock();
        known.has_writer = mem::take(&mut known.is_changed);
        known.has_writer.then(|| known.peers.iter().map(|peer| format!("{peer}\n")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn peers_are_known_after_a_restart_also_when_a_write_has_failed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/known-peers");
        let [first, other] = [2, 3].map(|host| Ipv4Addr::new(203, 0, 113, host));
        let peers = Arc::new(KnownPeers::load(path.clone()));
        assert!(!peers.is_known(first));
        peers.add(first);
        peers.add(first);
        assert!(peers.is_known(first) && !peers.is_known(other));
        // Its directory does not exist yet. The clock advances when the write has failed, and nothing else is under way.
        sleep(PAUSE_FIRST / 2).await;
        assert!(peers.known.lock().has_writer);
        std::fs::create_dir(dir.path().join("state")).unwrap();
        let written = async {
            while peers.known.lock().has_writer {
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), written).await.unwrap();
        let again = KnownPeers::load(path);
        assert!(again.is_known(first) && !again.is_known(other));
        assert_eq!(again.known.lock().peers.len(), 1);
    }
}
