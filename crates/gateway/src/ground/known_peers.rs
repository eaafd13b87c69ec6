//! The addresses of peers that were connected to this gateway at some time, also before its last restart.
//!
//! Invariant: an address is here only after a peer has authenticated from it. Anyone can forge a packet's source.

use std::{collections::VecDeque, io, net::Ipv4Addr, path::PathBuf};

use tracing::warn;
use wicketgate_system::{Mutex, if_exists, private_file::replace};

/// More than a gateway has tunnels. Beyond, the oldest are forgotten.
const MOST: usize = 16_384;

/// See the module. A file has one address in each line.
#[derive(Debug)]
pub(crate) struct KnownPeers {
    path: PathBuf,
    known: Mutex<VecDeque<Ipv4Addr>>,
}

impl KnownPeers {
    pub(super) fn load(path: PathBuf) -> Self {
        let text = if_exists(std::fs::read_to_string(&path)).unwrap_or_else(|error| {
            warn!(%error, "cannot read the addresses of known peers: they are collected again");
            None
        });
        let known = text.unwrap_or_default().lines().filter_map(|line| line.parse().ok()).collect();
        Self { path, known: Mutex::new(known) }
    }

    pub(crate) fn is_known(&self, peer: Ipv4Addr) -> bool {
        self.known.lock().contains(&peer)
    }

    /// A peer has authenticated from this address.
    pub(crate) fn add(&self, peer: Ipv4Addr) {
        let mut known = self.known.lock();
        if known.contains(&peer) {
            return;
        }
        known.push_back(peer);
        while known.len() > MOST {
            known.pop_front();
        }
        // Written under the lock, so that an older list does not replace a newer one.
        if let Err(error) = self.write(&known) {
            warn!(%error, "cannot write the addresses of known peers");
        }
    }

    fn write(&self, known: &VecDeque<Ipv4Addr>) -> io::Result<()> {
        let text: String = known.iter().map(|peer| format!("{peer}\n")).collect();
        replace(&self.path, text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known-peers");
        let [first, other] = [2, 3].map(|host| Ipv4Addr::new(203, 0, 113, host));
        let peers = KnownPeers::load(path.clone());
        assert!(!peers.is_known(first));
        peers.add(first);
        peers.add(first);
        assert!(peers.is_known(first) && !peers.is_known(other));
        let again = KnownPeers::load(path);
        assert!(again.is_known(first) && !again.is_known(other));
        assert_eq!(again.known.lock().len(), 1);
    }
}
