//! Which servers of a database live, as one of them has seen it.
//!
//! A server that lives raises its beat every [`BEAT_EVERY`]. One whose beat has not risen for [`SILENCE`], by the clock of the server
//! that watches it, counts as dead. Nobody compares the clocks of two hosts.

use crate::row::rows;
use jiff::Timestamp;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use uuid::Uuid;
use wicketgate_model::ServerId;
use wicketgate_system::Mutex;

/// Between two beats of a server.
pub const BEAT_EVERY: Duration = Duration::from_secs(2);
/// A server whose beat does not rise for this long is dead: five beats.
const SILENCE: Duration = Duration::from_secs(10);
/// A look counts for so much of another's silence at most: the database may have been away, or this server stopped, and then nobody
/// could be seen to beat.
const LOOK: Duration = Duration::from_secs(5);

rows! {
    /// A server that uses the database.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ServerRow {
        pub id: ServerId,
        /// Where gateways link to it, as HOST:PORT; `None`: they do not.
        pub link_address: Option<String>,
        pub version: String,
        pub beat: i64,
        pub started_at: Timestamp,
    }
}

/// The servers that live, as one of them has seen them. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct LiveServers {
    pub(crate) own: ServerId,
    others: Arc<Mutex<BTreeMap<ServerId, Watched>>>,
    /// When this server has looked last.
    looked: Arc<Mutex<Option<Instant>>>,
}

#[derive(Debug, Clone)]
struct Watched {
    row: ServerRow,
    /// For how long its beat has not risen, as far as that could be seen.
    silent: Duration,
}

impl LiveServers {
    /// Only itself.
    pub(crate) fn alone() -> Self {
        Self { own: ServerId::new(Uuid::now_v7()), others: Arc::default(), looked: Arc::default() }
    }

    /// Whether a server lives. One that nobody has told of does not.
    pub(crate) fn lives(&self, server: ServerId) -> bool {
        server == self.own || self.others.lock().contains_key(&server)
    }

    /// Whether no other server that lives has started before this one, as far as this one has seen: ids rise with the time.
    pub(crate) fn is_eldest(&self) -> bool {
        self.others.lock().keys().next().is_none_or(|first| self.own < *first)
    }

    /// How many servers live, this one included.
    pub(crate) fn count(&self) -> usize {
        self.others.lock().len() + 1
    }

    /// Takes in what the database has. Returns those that are dead, as they were last.
    pub(crate) fn seen(&self, rows: Vec<ServerRow>, now: Instant) -> Vec<ServerRow> {
        let mut others = self.others.lock();
        let mut known = std::mem::take(&mut *others);
        let looked = self.looked.lock().replace(now);
        let passed = looked.map_or(Duration::ZERO, |before| now.duration_since(before).min(LOOK));
        let mut dead = Vec::new();
        for row in rows.into_iter().filter(|row| row.id != self.own) {
            let before = known.remove(&row.id).filter(|before| before.row.beat == row.beat);
            let silent = before.map_or(Duration::ZERO, |before| before.silent + passed);
            if silent >= SILENCE {
                dead.push(row);
            } else {
                others.insert(row.id, Watched { row, silent });
            }
        }
        dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(n: u128, beat: i64) -> ServerRow {
        ServerRow {
            id: ServerId::new(Uuid::from_u128(n)),
            link_address: None,
            version: "0.1.0".to_owned(),
            beat,
            started_at: Timestamp::UNIX_EPOCH,
        }
    }

    proptest! {
        /// Against how long each beat was seen, five seconds of a pause at most.
        #[test]
        fn a_server_is_dead_when_its_beat_has_not_risen_for_ten_seconds(
            steps in prop::collection::vec((0_u64..8, prop::collection::vec(prop::option::of(any::<bool>()), 3)), 1..30),
        ) {
            let (servers, begin) = (LiveServers::alone(), Instant::now());
            let (mut at, mut beats) = (0, [1_i64; 3]);
            let mut silent: [Option<u64>; 3] = [None; 3];
            for (n, (pause, states)) in steps.into_iter().enumerate() {
                at += pause;
                let passed = if n == 0 { 0 } else { pause.min(5) };
                let mut rows = Vec::new();
                for (n, state) in states.iter().enumerate() {
                    match state {
                        None => silent[n] = None,
                        Some(rises) => {
                            if *rises {
                                beats[n] += 1;
                                silent[n] = None;
                            }
                            silent[n] = Some(silent[n].map_or(0, |silent| silent + passed));
                            rows.push(row(n as u128 + 1, beats[n]));
                        }
                    }
                }
                let dead = servers.seen(rows.clone(), begin + Duration::from_secs(at));
                for (n, silent) in silent.iter_mut().enumerate() {
                    let id = ServerId::new(Uuid::from_u128(n as u128 + 1));
                    let is_dead = silent.is_some_and(|silent| silent >= 10);
                    prop_assert_eq!(dead.iter().any(|row| row.id == id), is_dead);
                    prop_assert_eq!(servers.lives(id), silent.is_some() && !is_dead);
                    // Its own id is of this time, and theirs are of none.
                    prop_assert!(!(servers.lives(id) && servers.is_eldest()));
                    if is_dead {
                        *silent = None;
                    }
                }
            }
        }
    }

    #[test]
    fn a_server_lives_for_itself_and_knows_no_others_at_first() {
        let servers = LiveServers::alone();
        assert!(servers.lives(servers.own) && servers.is_eldest());
        assert!(!servers.lives(ServerId::new(Uuid::nil())));
    }
}
