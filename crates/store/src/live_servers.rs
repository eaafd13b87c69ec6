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
/// Who has not looked for longer has to watch anew.
const LOOKED_WITHIN: Duration = Duration::from_secs(5);

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
    /// When its beat was seen to rise, or first seen.
    at: Instant,
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
        // The database was away, or this server was stopped: then nobody could be seen to beat.
        if looked.is_none_or(|before| now.duration_since(before) > LOOKED_WITHIN) {
            known.clear();
        }
        let mut dead = Vec::new();
        for row in rows.into_iter().filter(|row| row.id != self.own) {
            let before = known.remove(&row.id).filter(|before| before.row.beat == row.beat);
            let at = before.map_or(now, |before| before.at);
            if now.duration_since(at) >= SILENCE {
                dead.push(row);
            } else {
                others.insert(row.id, Watched { row, at });
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
        /// Against the times at which each beat was seen first.
        #[test]
        fn a_server_is_dead_when_its_beat_has_not_risen_for_ten_seconds(
            steps in prop::collection::vec((0_u64..8, prop::collection::vec(prop::option::of(any::<bool>()), 3)), 1..30),
        ) {
            let (servers, begin) = (LiveServers::alone(), Instant::now());
            let (mut at, mut beats) = (0, [1_i64; 3]);
            let mut first_seen: [Option<u64>; 3] = [None; 3];
            for (pause, states) in steps {
                at += pause;
                let mut rows = Vec::new();
                for (n, state) in states.iter().enumerate() {
                    match state {
                        None => first_seen[n] = None,
                        Some(rises) => {
                            if *rises {
                                beats[n] += 1;
                                first_seen[n] = None;
                            }
                            first_seen[n].get_or_insert(at);
                            rows.push(row(n as u128 + 1, beats[n]));
                        }
                    }
                }
                if pause > 5 {
                    first_seen.iter_mut().for_each(|seen| *seen = seen.map(|_| at));
                }
                let dead = servers.seen(rows.clone(), begin + Duration::from_secs(at));
                for (n, seen) in first_seen.iter_mut().enumerate() {
                    let id = ServerId::new(Uuid::from_u128(n as u128 + 1));
                    let is_dead = seen.is_some_and(|seen| at - seen >= 10);
                    prop_assert_eq!(dead.iter().any(|row| row.id == id), is_dead);
                    prop_assert_eq!(servers.lives(id), seen.is_some() && !is_dead);
                    // Its own id is of this time, and theirs are of none.
                    prop_assert!(!(servers.lives(id) && servers.is_eldest()));
                    if is_dead {
                        *seen = None;
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
