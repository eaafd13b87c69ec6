//! Failed authentications: lines of the log with their number and source, and executions of those of a known account,
//! handover link or enrolment code.
//!
//! Invariant: what is written is bounded, whatever a flood sends. The first failure of a source is written at once, and
//! further ones with their number after a pause, which doubles from [`FIRST_PAUSE`] to [`LONGEST_PAUSE`].

use crate::{
    auth::failure::AuthenticationFailure,
    background::{BackgroundTask, Outcome},
};
use jiff::Timestamp;
use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};
use tokio::{sync::Notify, time::Instant};
use tracing::warn;
use uuid::Uuid;
use wicketgate_model::one_client;
use wicketgate_store::{AuthenticationSubject, RequestOrigin, Store, WriteContext};
use wicketgate_system::Mutex;

/// A person who mistypes is in one or two lines.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// So that a year of guessing is some thousand rows for each source.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// Sources and kinds of failures that are told apart at a time. Further ones are written together, without a source.
const MOST: usize = 256;
/// Sources of one account or link that are told apart, so that one which is attacked does not take the places of others.
const MOST_OF_SUBJECT: usize = 8;
/// The actor of the executions: the client has not proved who it is.
const ACTOR: &str = "anonymous";

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct AuthenticationFailures {
    rows: Mutex<HashMap<Key, Row>>,
    first: Notify,
}

/// What is written together. Without a source: all others, and those of a proxy that names none.
type Key = (AuthenticationFailure, Option<IpAddr>);

#[derive(Debug, Clone)]
struct Row {
    /// Of the first failure that is not written yet.
    origin: RequestOrigin,
    count: u64,
    pause: Duration,
    quiet_until: Instant,
}

/// Failures that are to be written now.
#[derive(Debug, PartialEq, Eq)]
struct Due {
    failure: AuthenticationFailure,
    origin: RequestOrigin,
    count: u64,
}

impl AuthenticationFailures {
    pub(crate) fn add(&self, failure: AuthenticationFailure, origin: &RequestOrigin) {
        if self.count(failure, origin, Instant::now()) {
            self.first.notify_one();
        }
    }

    /// Returns whether it is the first of its source.
    fn count(&self, failure: AuthenticationFailure, origin: &RequestOrigin, now: Instant) -> bool {
        let mut rows = self.rows.lock();
        let mut key = (failure, origin.address.map(one_client));
        let mut origin = origin.clone();
        if !rows.contains_key(&key) {
            let of_subject = rows.keys().filter(|(other, _)| other.subject == failure.subject).count();
            // Strangers, who can have any number of addresses, take no place of known accounts and links.
            let is_full = rows.len() >= if failure.subject.is_some() { 2 * MOST } else { MOST };
            if is_full {
                (key, origin) = ((failure.cause.into(), None), RequestOrigin::default());
            } else if failure.subject.is_some() && (rows.len() >= MOST || of_subject >= MOST_OF_SUBJECT) {
                (key, origin) = ((failure, None), RequestOrigin::default());
            }
        }
        let row = rows.entry(key).or_insert_with(|| Row {
            origin: origin.clone(),
            count: 0,
            pause: FIRST_PAUSE,
            quiet_until: now,
        });
        if row.count == 0 {
            row.origin = origin;
        }
        row.count += 1;
        row.count == 1 && row.quiet_until <= now
    }

    /// Writes what is counted of a subject, or of all, without waiting for the end of a pause: it would come late, or be lost.
    pub(crate) async fn record_now(&self, subject: Option<AuthenticationSubject>, store: &Store) {
        for due in self.take(subject) {
            due.log();
            if let Err(error) = due.record(store, Timestamp::now()).await {
                warn!(error = format!("{error:#}"), "failed authentications are not recorded");
            }
        }
    }

    fn take(&self, subject: Option<AuthenticationSubject>) -> Vec<Due> {
        let mut rows = self.rows.lock();
        let counted = rows
            .iter_mut()
            .filter(|((failure, _), row)| row.count > 0 && (subject.is_none() || failure.subject == subject));
        let due = |((failure, _), row): (&Key, &mut Row)| Due {
            failure: *failure,
            origin: row.origin.clone(),
            count: std::mem::take(&mut row.count),
        };
        counted.map(due).collect()
    }

    /// Takes what is to be written now. A source that had failed no more in its pause begins again.
    fn due(&self, now: Instant) -> Vec<Due> {
        let mut rows = self.rows.lock();
        rows.retain(|_, row| row.count > 0 || row.quiet_until > now);
        let mut due = Vec::new();
        for ((failure, _), row) in rows.iter_mut().filter(|(_, row)| row.count > 0 && row.quiet_until <= now)
        {
            due.push(Due { failure: *failure, origin: row.origin.clone(), count: row.count });
            row.quiet_until = now + row.pause;
            row.pause = (row.pause * 2).min(LONGEST_PAUSE);
            row.count = 0;
        }
        due
    }
}

/// Writes the failures.
#[derive(Debug)]
pub(crate) struct AuthenticationFailureRecord {
    pub(crate) failures: Arc<AuthenticationFailures>,
    pub(crate) store: Store,
}

impl BackgroundTask for AuthenticationFailureRecord {
    const NAME: &'static str = "authentication-failures";
    /// The first pause: what was counted in it is written after it.
    const PERIOD: Duration = FIRST_PAUSE;
    /// A small write for each of the most rows, on a slow disk.
    const WITHIN: Duration = Duration::from_secs(60);

    async fn signal(&self) {
        self.failures.first.notified().await;
    }

    /// While the database fails, only the log has them.
    async fn activate(&mut self, now: Timestamp) -> anyhow::Result<Outcome> {
        let due = self.failures.due(Instant::now());
        due.iter().for_each(Due::log);
        for due in due {
            due.record(&self.store, now).await?;
        }
        Ok(Outcome::Done)
    }
}

impl Due {
    fn log(&self) {
        let Self { failure, origin, count } = self;
        // The refusals of an agent's code are logged where they are made.
        if matches!(failure.subject, Some(AuthenticationSubject::Code(..))) {
            return;
        }
        let subject = failure.subject.map(|subject| match subject {
            AuthenticationSubject::Account(id) => id.to_string(),
            AuthenticationSubject::Link(_, id) => id.to_string(),
            AuthenticationSubject::Code(_, id) => id.to_string(),
        });
        warn!(
            target: "auth",
            source = origin.address.map(tracing::field::display),
            cause = failure.cause.as_str(),
            subject,
            count,
            id = origin.request_id,
            "authentication failed"
        );
    }

    async fn record(self, store: &Store, now: Timestamp) -> anyhow::Result<()> {
        let Some(subject) = self.failure.subject else { return Ok(()) };
        let why = self.failure.cause.sentence();
        let why = if self.count == 1 { why.to_owned() } else { format!("{why} ({} times)", self.count) };
        let context = WriteContext::new(ACTOR, now, Uuid::now_v7).of_request(self.origin);
        Ok(store.record_failed_authentication(subject, why, &context).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::failure::FailureCause;
    use wicketgate_model::ApiAccountId;

    fn origin(address: [u8; 4]) -> RequestOrigin {
        RequestOrigin { address: Some(address.into()), request_id: Some(format!("r-{address:?}")) }
    }

    fn of_account(n: u128) -> AuthenticationFailure {
        let subject = AuthenticationSubject::Account(ApiAccountId::new(Uuid::from_u128(n)));
        AuthenticationFailure { cause: FailureCause::SecretWrong, subject: Some(subject) }
    }

    #[test]
    fn the_first_failure_is_written_at_once_and_others_with_their_number_after_pauses_that_double() {
        let (failures, begin) = (AuthenticationFailures::default(), Instant::now());
        let (failure, from) = (of_account(1), origin([192, 0, 2, 1]));
        assert!(failures.count(failure, &from, begin));
        assert_eq!(failures.due(begin), [Due { failure, origin: from.clone(), count: 1 }]);
        let mut now = begin;
        for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert!((0..100).all(|_| !failures.count(failure, &from, now)));
            let later = now + Duration::from_secs(60 * minutes);
            assert!(
                failures.due(later.checked_sub(Duration::from_nanos(1)).unwrap()).is_empty(),
                "{minutes}"
            );
            assert_eq!(failures.due(later), [Due { failure, origin: from.clone(), count: 100 }], "{minutes}");
            now = later;
        }
        // After a pause without a failure, it begins again.
        now += LONGEST_PAUSE;
        assert!(failures.due(now).is_empty() && failures.rows.lock().is_empty());
        assert!(failures.count(failure, &from, now));
        assert_eq!(failures.due(now).len(), 1);
    }

    #[test]
    fn a_flood_takes_a_bounded_number_of_rows_and_none_of_another_account() {
        let (failures, now) = (AuthenticationFailures::default(), Instant::now());
        let from = |n: u32| origin(n.to_be_bytes());
        for n in 0..1000 {
            failures.count(of_account(1), &from(n), now);
        }
        assert!(failures.count(of_account(2), &from(1), now));
        let due = failures.due(now);
        assert_eq!(due.len(), MOST_OF_SUBJECT + 2);
        let others = due.iter().find(|due| due.origin.address.is_none()).unwrap();
        assert_eq!(
            (others.failure, others.count),
            (of_account(1), 1000 - u64::try_from(MOST_OF_SUBJECT).unwrap())
        );
        for n in 0..10_000 {
            failures.count(FailureCause::TokenInvalid.into(), &from(n), now);
        }
        let rows = failures.rows.lock();
        assert_eq!(rows.len(), MOST + 1);
        assert_eq!(rows.values().map(|row| row.count).sum::<u64>(), 10_000);
    }

    #[test]
    fn what_is_counted_of_an_account_is_taken_before_its_pause_ends() {
        let (failures, now) = (AuthenticationFailures::default(), Instant::now());
        let from = origin([192, 0, 2, 1]);
        for n in [1, 2] {
            failures.count(of_account(n), &from, now);
            failures.due(now);
            (0..5).for_each(|_| assert!(!failures.count(of_account(n), &from, now)));
        }
        let all = Due { failure: of_account(1), origin: from.clone(), count: 5 };
        assert_eq!(failures.take(of_account(1).subject), [all]);
        assert_eq!(failures.take(of_account(1).subject), []);
        // At the end of the server, all others.
        assert_eq!(failures.take(None), [Due { failure: of_account(2), origin: from, count: 5 }]);
    }

    #[test]
    fn strangers_take_no_place_of_a_known_account() {
        let (failures, now) = (AuthenticationFailures::default(), Instant::now());
        for n in 0..10_000_u32 {
            failures.count(FailureCause::ClientUnknown.into(), &origin(n.to_be_bytes()), now);
        }
        failures.due(now);
        assert!(failures.count(of_account(1), &origin([192, 0, 2, 1]), now));
        // The execution is the account's, though its source is not told apart any more.
        let due = failures.due(now);
        assert_eq!(due.iter().map(|due| (due.failure, due.count)).collect::<Vec<_>>(), [(of_account(1), 1)]);
    }
}
