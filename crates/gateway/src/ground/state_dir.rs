//! What of a gateway's tunnels outlives it: the instance's name, what the host's forwarding was before the first start (`off`
//! or `on`), the addresses of known peers, a lock, and a directory for each tunnel, named after its slot.
//!
//! Invariant: a tunnel's directory is made before anything else of the tunnel, and removed after everything.

use std::{io, net::Ipv4Addr, path::PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;
use wicketgate_model::{PeerCidr, TunnelDesired, TunnelId};
use wicketgate_system::{
    directory_lock::DirectoryLock,
    if_exists,
    private_file::{private_dir, replace},
};

use super::{GroundError, steering::is_no_router};

const FORWARDING: &str = "forwarding";
const INSTANCE: &str = "instance";
const TUNNELS: &str = "tunnels";
const KNOWN_PEERS: &str = "known-peers";

/// In a tunnel's directory: what it belongs to.
const RECORD: &str = "tunnel.json";

/// The state directory, locked by this process while this value lives.
#[derive(Debug)]
pub(crate) struct StateDir {
    pub(crate) path: PathBuf,
    _lock: DirectoryLock,
}

/// The record in a tunnel's directory. It contains no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TunnelRecord {
    pub(crate) id: TunnelId,
    pub(crate) slot: u16,
    pub(crate) peer_address: Ipv4Addr,
    /// The network that the guard admits; `None` while that is uncertain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) guarded: Option<PeerCidr>,
}

impl TunnelRecord {
    pub(crate) fn of(desired: &TunnelDesired) -> Self {
        let guarded = Some(desired.peer_cidr);
        Self { id: desired.id, slot: desired.slot, peer_address: desired.peer_address.get(), guarded }
    }
}

impl StateDir {
    pub(crate) fn take(path: PathBuf) -> Result<Self, GroundError> {
        match private_dir(&path.join(TUNNELS)).and_then(|()| DirectoryLock::take(&path)) {
            Ok(lock) => Ok(Self { path, _lock: lock }),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(GroundError::InUse(path)),
            Err(error) => Err(GroundError::StateDir { path, error }),
        }
    }

    /// An error of the directory.
    pub(crate) fn error(&self, error: io::Error) -> GroundError {
        GroundError::StateDir { path: self.path.clone(), error }
    }

    /// The instance's number: random until it is [kept](Self::keep_instance).
    pub(crate) fn instance(&self) -> io::Result<u16> {
        let path = self.path.join(INSTANCE);
        if let Some(text) = if_exists(std::fs::read_to_string(&path))? {
            return u16::from_str_radix(text.trim(), 16).map_err(|_| {
                io::Error::other(format!("{} must be four hexadecimal digits", path.display()))
            });
        }
        let mut bytes = [0; 2];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(u16::from_be_bytes(bytes))
    }

    /// Before anything of this host is named after it. A start that is refused before that leaves no file.
    pub(crate) fn keep_instance(&self, instance: u16) -> io::Result<()> {
        let path = self.path.join(INSTANCE);
        if path.try_exists()? { Ok(()) } else { replace(&path, format!("{instance:04x}\n").as_bytes()) }
    }

    /// Whether the host forwarded no packets before the first start, which records it. An unreadable record counts as
    /// yes, the safe answer.
    pub(crate) async fn was_no_router(&self) -> Result<bool, GroundError> {
        let path = self.path.join(FORWARDING);
        match if_exists(std::fs::read_to_string(&path)) {
            Ok(Some(was)) => Ok(was.trim() != "on"),
            Ok(None) => {
                let off = is_no_router().await?;
                replace(&path, if off { b"off\n" } else { b"on\n" }).map_err(|source| self.error(source))?;
                Ok(off)
            }
            Err(error) => {
                warn!(%error, "cannot read whether the host forwarded packets before: assuming that it did not");
                Ok(true)
            }
        }
    }

    /// Forgets the record: the host forwards as before the first start.
    pub(crate) fn forget_forwarding(&self) -> io::Result<()> {
        if_exists(std::fs::remove_file(self.path.join(FORWARDING))).map(drop)
    }

    /// The file of [`super::KnownPeers`].
    pub(super) fn known_peers(&self) -> PathBuf {
        self.path.join(KNOWN_PEERS)
    }

    /// Where a slot's tunnel has its files.
    pub(crate) fn of_slot(&self, slot: u16) -> PathBuf {
        self.path.join(TUNNELS).join(slot.to_string())
    }

    /// The slots with a directory.
    pub(crate) fn slots(&self) -> io::Result<Vec<u16>> {
        let mut slots = Vec::new();
        for entry in std::fs::read_dir(self.path.join(TUNNELS))? {
            slots.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u16>().ok()));
        }
        Ok(slots)
    }

    pub(crate) fn records(&self) -> io::Result<Vec<TunnelRecord>> {
        let slots = self.slots()?.into_iter();
        Ok(slots.filter_map(|slot| self.record(slot).filter(|r| r.slot == slot)).collect())
    }

    pub(crate) fn record(&self, slot: u16) -> Option<TunnelRecord> {
        serde_json::from_slice(&std::fs::read(self.of_slot(slot).join(RECORD)).ok()?).ok()
    }

    /// Makes a slot's directory and writes its record.
    pub(crate) fn write(&self, record: &TunnelRecord) -> Result<(), String> {
        let dir = self.of_slot(record.slot);
        let write = || {
            private_dir(&dir)?;
            private_dir(&dir.join("run"))?;
            replace(&dir.join(RECORD), &serde_json::to_vec(record)?)
        };
        write().map_err(|e: io::Error| format!("cannot write to the state directory: {e}"))
    }

    /// Removes a slot's directory.
    pub(crate) fn clear(&self, slot: u16) -> io::Result<()> {
        if_exists(std::fs::remove_dir_all(self.of_slot(slot))).map(drop)
    }
}
