//! Reading events.

use crate::{EventKind, Result, Store, row::rows};
use jiff::Timestamp;
use wicketgate_model::FrontdoorId;

rows! {
    /// One change.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct EventRow {
        /// Increases with every event of the database.
        pub id: u64,
        pub frontdoor: FrontdoorId,
        pub at: Timestamp,
        pub kind: EventKind,
        /// The id of the share, tunnel or environment.
        pub resource: String,
        /// Its present name; `None` once it is no longer kept.
        pub name: Option<String>,
        pub status: String,
        /// Of [`wicketgate_model::Reason`], or of a connection's [`wicketgate_model::ConnectionFault`].
        pub reason: Option<String>,
        pub message: Option<String>,
    }

    /// The state of the sequence of events, as the readers of one Frontdoor see it, or of all.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct EventSpan {
        /// The newest event; 0 before the first.
        pub newest: u64,
        /// The newest event that was deleted, of those that the readers would see.
        pub forgotten: u64,
    }
}

/// Events with the names of their resources.
macro_rules! named_events {
    () => {
        "SELECT v.*, CASE v.kind WHEN 'ipsec-share' THEN (SELECT s.name FROM ipsec_share s WHERE s.id = v.resource) \
         WHEN 'environment' THEN (SELECT e.name FROM environment e WHERE e.id = v.resource) \
         ELSE (SELECT t.name FROM ipsec_tunnel t WHERE t.id = v.resource) END AS name FROM event v WHERE v.id > $1 "
    };
}

impl Store {
    /// Events after `after`, oldest first; of one Frontdoor or of all.
    pub async fn events(
        &self,
        frontdoor: Option<FrontdoorId>,
        after: u64,
        most: u32,
    ) -> Result<Vec<EventRow>> {
        let all = concat!(named_events!(), "ORDER BY v.id LIMIT $2");
        let own = concat!(named_events!(), "AND v.frontdoor = $3 ORDER BY v.id LIMIT $2");
        match frontdoor {
            None => self.all(all, &[&after, &most]).await,
            Some(frontdoor) => self.all(own, &[&after, &most, &frontdoor]).await,
        }
    }

    pub async fn event_span(&self) -> Result<EventSpan> {
        let span = self.find("SELECT newest, forgotten FROM event_sequence", &[]).await?;
        Ok(span.unwrap_or_default())
    }

    /// As [`Store::event_span`], for a reader of one Frontdoor.
    pub async fn event_span_of(&self, frontdoor: FrontdoorId) -> Result<EventSpan> {
        let select = "SELECT s.newest, CASE WHEN f.newest > s.forgotten THEN f.newest ELSE s.forgotten END AS forgotten \
                      FROM event_sequence s LEFT JOIN event_forgotten f ON f.frontdoor = $1";
        Ok(self.find(select, &[&frontdoor]).await?.unwrap_or_default())
    }

    /// Waits until events were written since the last call, as far as this process was told.
    pub async fn events_written(&self) {
        self.database.commits.events.notified().await;
    }

    /// Waits until another server has changed what gateways should serve, as far as this process was told. Without other servers, it
    /// never returns.
    pub async fn changed_elsewhere(&self) {
        self.database.commits.rows_elsewhere.notified().await;
    }
}
