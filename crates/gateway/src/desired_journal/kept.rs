//! A desired state as a journal has it: deltas, of which the first ones are the parts of the whole state.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use wicketgate_model::{AgentDesired, AgentId, Desired, DesiredDelta, DesiredDigest, Era, TunnelId};

/// Rows of a record of the whole state: no more are encoded at one time.
const ROWS: usize = 256;

/// A delta as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct JournalRecord {
    pub(super) era: Era,
    /// With this record, the state is one that a server has sent. Not so with the first parts of a state.
    pub(super) is_whole: bool,
    pub(super) delta: DesiredDelta,
    /// Tunnels of the state with it whose removal is held back.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) doubted: BTreeSet<TunnelId>,
}

/// A desired state, and which one it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeptDesired {
    pub(crate) era: Era,
    pub(crate) state: Desired,
    pub(crate) revision: u64,
    pub(crate) read_at: Timestamp,
    /// As the server has told it.
    pub(super) digest: Option<DesiredDigest>,
    pub(crate) doubted: BTreeSet<TunnelId>,
}

impl KeptDesired {
    pub(super) fn apply(&mut self, era: Era, delta: &DesiredDelta, doubted: BTreeSet<TunnelId>) {
        self.state.apply(delta);
        self.doubted = doubted;
        (self.era, self.revision, self.read_at, self.digest) =
            (era, delta.revision, delta.read_at, delta.digest);
    }

    /// The whole state in parts, the last of which is marked.
    pub(super) fn records(&self) -> impl Iterator<Item = JournalRecord> {
        let Desired { tunnels, shares, agents } = &self.state;
        let agents: Vec<_> = agents.iter().map(|(id, agent)| (*id, *agent)).collect();
        let tunnels: Vec<_> = tunnels.values().cloned().collect();
        let shares: Vec<_> = shares.values().cloned().collect();
        let mut parts = vec![DesiredDelta { reset: true, ..DesiredDelta::default() }];
        parts.extend(agents.chunks(ROWS).map(|rows: &[(AgentId, AgentDesired)]| DesiredDelta {
            agents: rows.to_vec(),
            ..DesiredDelta::default()
        }));
        parts.extend(
            tunnels
                .chunks(ROWS)
                .map(|rows| DesiredDelta { tunnels: rows.to_vec(), ..DesiredDelta::default() }),
        );
        parts.extend(
            shares.chunks(ROWS).map(|rows| DesiredDelta { shares: rows.to_vec(), ..DesiredDelta::default() }),
        );
        let (era, revision, read_at, digest) = (self.era, self.revision, self.read_at, self.digest);
        let last = parts.len() - 1;
        parts.into_iter().enumerate().map(move |(n, delta)| JournalRecord {
            era,
            is_whole: n == last,
            doubted: if n == last { self.doubted.clone() } else { BTreeSet::new() },
            delta: DesiredDelta { revision, read_at, digest, ..delta },
        })
    }
}
