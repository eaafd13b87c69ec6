//! What the server remembers for the site page: how often sources and links were wrong, how much the sessions of each link ask
//! for, and how far the IKE logs of their tunnels were read.
//!
//! Invariant: it is small whatever strangers send, and it is lost with the process: nothing is decided by it for long.

use crate::{
    error::ApiError,
    rate_limits::buckets::{Buckets, MOST},
};
use jiff::Timestamp;
use std::{collections::HashMap, hash::Hash, net::IpAddr, time::Duration};
use tokio::time::Instant;
use wicketgate_model::{HandoverLinkId, TunnelId, one_client};
use wicketgate_system::{Mutex, bucket::Rate};

/// In which all tries and calls of an empty bucket are there again.
const WINDOW: Duration = Duration::from_secs(60);
/// For a page that was refused. Those of a link would otherwise ask for each call that arrives.
const REST: Duration = Duration::from_secs(10);
/// Links and sessions that one source may have wrong at once, and within a window. A person pastes a link that has ended a few
/// times.
const WRONG_BY_SOURCE: u32 = 10;
const WRONG: Rate = Rate::within(WINDOW, WRONG_BY_SOURCE);
/// Wrong passphrases of a link before the first pause: enough for mistyping.
const WRONG_PASSPHRASES: u32 = 5;
/// The first pause, which doubles up to the longest: some 30 tries a day, from all sources together.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// The calls of the site page that a session makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum SiteCall {
    Tunnel,
    Configuration,
    Check,
}

impl SiteCall {
    /// Calls of a link's sessions at once, and within a window.
    const fn most(self) -> u32 {
        match self {
            // Ten open pages, each of which asks every two seconds.
            Self::Tunnel => 300,
            // Each is an execution, and an engineer compares a few formats.
            Self::Configuration => 30,
            // Each opens a connection to a target.
            Self::Check => 30,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct SiteDesk {
    sources: Mutex<Buckets<IpAddr>>,
    passphrases: Mutex<Table<HandoverLinkId, Tried>>,
    calls: Mutex<Buckets<(HandoverLinkId, SiteCall)>>,
    logs: Mutex<Table<TunnelId, LogRead>>,
}

/// How far a tunnel's IKE log was read, and what was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LogRead {
    /// The number of the last line.
    pub(crate) line: u64,
    /// When the last packet of the device arrived.
    pub(crate) packet_at: Option<Timestamp>,
}

impl SiteDesk {
    /// Whether the source may try a link or a session, as far as its earlier tries allow it. `None`: it has none of its own.
    pub(crate) fn admits(&self, source: Option<IpAddr>) -> Result<(), ApiError> {
        let Some(source) = source.map(one_client) else { return Ok(()) };
        let has = self.sources.lock().has(&source, WRONG, Instant::now());
        has.map_err(|time| ApiError::wait("Too many links were wrong: wait before you try another one", time))
    }

    /// The source has tried a link, a session or a passphrase that is wrong.
    pub(crate) fn was_wrong(&self, source: Option<IpAddr>) {
        if let Some(source) = source.map(one_client) {
            // One that came while others were looked up may be one too many: it is answered as wrong all the same.
            let _ = self.sources.lock().take(source, WRONG, Instant::now());
        }
    }

    /// Counts a try of the link's passphrase before it is compared: of many at once no more are compared than in a row.
    pub(crate) fn tries_passphrase(&self, link: HandoverLinkId) -> Result<(), ApiError> {
        let tried = self.passphrases.lock().row(link, Instant::now()).again(Instant::now());
        tried.map_err(|time| {
            ApiError::wait("Too many passphrases were wrong: wait before you try another one", time)
        })
    }

    /// The last one that was tried is right.
    pub(crate) fn has_passphrase(&self, link: HandoverLinkId) {
        self.passphrases.lock().rows.remove(&link);
    }

    /// Counts a call of a session of the link.
    pub(crate) fn calls(&self, link: HandoverLinkId, call: SiteCall) -> Result<(), ApiError> {
        let taken = self.calls.lock().take((link, call), Rate::within(WINDOW, call.most()), Instant::now());
        taken.map_err(|time| {
            let time = time.max(REST);
            ApiError::wait("The pages of this link ask too often: wait, and close some", time)
        })
    }

    pub(crate) fn log_read(&self, tunnel: TunnelId) -> LogRead {
        *self.logs.lock().row(tunnel, Instant::now())
    }

    pub(crate) fn read_log(&self, tunnel: TunnelId, read: LogRead) {
        *self.logs.lock().row(tunnel, Instant::now()) = read;
    }
}

/// Rows by a key. A new row replaces the one that was not used for the longest time, if there are too many.
#[derive(Debug)]
struct Table<K, V> {
    rows: HashMap<K, (Instant, V)>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { rows: HashMap::new() }
    }
}

impl<K: Hash + Eq + Copy, V: Default> Table<K, V> {
    fn row(&mut self, key: K, now: Instant) -> &mut V {
        if self.rows.len() >= MOST
            && !self.rows.contains_key(&key)
            && let Some(oldest) = self.rows.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key)
        {
            self.rows.remove(&oldest);
        }
        let row = self.rows.entry(key).or_insert_with(|| (now, V::default()));
        row.0 = now;
        &mut row.1
    }
}

/// Passphrases that were tried since the last right one.
#[derive(Debug, Default)]
struct Tried {
    count: u32,
    paused_until: Option<Instant>,
}

impl Tried {
    fn again(&mut self, now: Instant) -> Result<(), Duration> {
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return Err(until.duration_since(now));
        }
        self.count = self.count.saturating_add(1);
        if let Some(pauses) = self.count.checked_sub(WRONG_PASSPHRASES) {
            let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(pauses)).min(LONGEST_PAUSE);
            self.paused_until = Some(now + pause);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;
    use uuid::Uuid;

    fn link(n: u128) -> HandoverLinkId {
        HandoverLinkId::new(Uuid::from_u128(n))
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_waits_after_ten_wrong_links() {
        let desk = SiteDesk::default();
        let source = |text: &str| Some(text.parse().unwrap());
        for _ in 0..WRONG_BY_SOURCE {
            assert!(desk.admits(source("2001:db8::1")).is_ok());
            desk.was_wrong(source("2001:db8::1"));
        }
        // Its other addresses are the same client, and others are not, nor is a proxy.
        assert!(desk.admits(source("2001:db8::2")).is_err());
        assert!(desk.admits(source("2001:db8:0:1::1")).is_ok() && desk.admits(None).is_ok());
        advance(WINDOW / WRONG_BY_SOURCE - Duration::from_millis(1)).await;
        assert!(desk.admits(source("2001:db8::1")).is_err());
        advance(Duration::from_millis(1)).await;
        assert!(desk.admits(source("2001:db8::1")).is_ok());
        desk.was_wrong(source("2001:db8::1"));
        assert!(desk.admits(source("2001:db8::1")).is_err(), "one try more arrives in this time");
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_between_wrong_passphrases_double() {
        let desk = SiteDesk::default();
        for _ in 0..WRONG_PASSPHRASES {
            assert!(desk.tries_passphrase(link(1)).is_ok());
        }
        for seconds in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
            advance(Duration::from_secs(seconds) - Duration::from_millis(1)).await;
            assert!(desk.tries_passphrase(link(1)).is_err(), "{seconds}");
            advance(Duration::from_millis(1)).await;
            assert!(desk.tries_passphrase(link(1)).is_ok(), "{seconds}");
        }
        assert!(desk.tries_passphrase(link(2)).is_ok());
        // The right one ends all that.
        desk.has_passphrase(link(1));
        assert!(desk.tries_passphrase(link(1)).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_sessions_of_a_link_ask_for_so_much_a_minute() {
        let desk = SiteDesk::default();
        for _ in 0..SiteCall::Check.most() {
            assert!(desk.calls(link(1), SiteCall::Check).is_ok());
        }
        assert!(desk.calls(link(1), SiteCall::Check).is_err());
        assert!(
            desk.calls(link(1), SiteCall::Tunnel).is_ok() && desk.calls(link(2), SiteCall::Check).is_ok()
        );
        advance(WINDOW).await;
        assert!(desk.calls(link(1), SiteCall::Check).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_links_replaces_the_oldest() {
        let desk = SiteDesk::default();
        let count = u128::try_from(MOST).unwrap() + 10;
        for n in 0..count {
            advance(Duration::from_nanos(1)).await;
            desk.tries_passphrase(link(n)).unwrap();
        }
        let rows = &desk.passphrases.lock().rows;
        assert_eq!(rows.len(), MOST);
        assert!(!rows.contains_key(&link(9)) && rows.contains_key(&link(10)));
    }
}
