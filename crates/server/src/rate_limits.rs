//! How many requests a caller may send: each principal has a bucket for reads and one for writes, all of a customer have larger
//! ones together, and each source of requests without a principal has one. What a customer has saved up for a burst is admitted
//! at a pace, so that others hardly feel it.
//!
//! Invariants: a valid token is never refused for what others send from its address. The admin token has no limit: it belongs
//! to the operator, who sets the limits and can do all that they prevent.

pub(crate) mod buckets;

use crate::{auth::Principal, error::ApiError, telemetry::ServerMetrics};
use axum::http::Method;
use buckets::Buckets;
use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU32, str::FromStr, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};
use wicketgate_model::{Invalid, one_client};
use wicketgate_system::{Mutex, bucket::Rate};

wicketgate_model::text_enum!(
    /// The requests that share a limit.
    RateKind {
        /// GET and HEAD of a principal.
        Reads = "reads",
        /// All other requests of a principal.
        Writes = "writes",
        /// Requests of a source address without a principal: public paths, and tokens that are refused.
        Strangers = "strangers",
    }
);

impl RateKind {
    /// Far above what programs and consoles send, and low enough that a caller takes neither the processors nor, with writes
    /// around the clock, the disk of an ordinary host.
    fn default_limit(self) -> RateLimit {
        let (per_second, burst) = match self {
            Self::Reads => (100, 2000),
            // `apply` of some hundreds of rows is one burst.
            Self::Writes => (10, 1000),
            // The console's files for some dozens of browsers behind one address.
            Self::Strangers => (50, 1000),
        };
        let number = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MAX);
        RateLimit { per_second: number(per_second), burst: number(burst) }
    }

    fn refusal(self, time: Duration) -> ApiError {
        let what = match self {
            Self::Reads => "This account reads",
            Self::Writes => "This account writes",
            Self::Strangers => "This address sends requests without a valid token",
        };
        let how = "faster than the server allows: repeat the request after the seconds in Retry-After, and send fewer";
        ApiError::wait(format!("{what} {how}"), time)
    }
}

/// What all accounts of a customer have together, of one's: a customer makes accounts as it likes.
const TOGETHER: u32 = 4;
/// The pace of a burst, of what is admitted for long, and the part of a second's that is admitted at once.
const PACE: u32 = 5;
const AT_ONCE: u32 = 5;
/// Requests of a customer that wait for their turn: each holds a connection to the API.
const MOST_WAITING: u32 = 64;
/// How long each of them waits at most, where the operator has set a low limit: as long as a list for its turn.
const WAITS: Duration = Duration::from_secs(4);
/// Refusals of a customer, or of a source, in a second, and how many of them at once after a pause: the answer to others is held
/// back, so that a program that repeats what is refused on a few connections waits instead of being refused a thousand times a second.
const REFUSALS: u32 = 64;
const REFUSED_AT_ONCE: u32 = 16;
/// How long one is held back at most. Those beyond are answered at once: no more than [`REFUSALS`] connections wait for it.
const HELD_BACK: Duration = Duration::from_secs(1);
/// Rows of a list that cost as much as a read.
const ROWS: usize = 100;

/// Requests a second for long, and at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RateLimit {
    per_second: NonZeroU32,
    burst: NonZeroU32,
}

/// One limit, written as `writes=10:1000` (a second, and at once) or `writes=off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateSetting {
    kind: RateKind,
    limit: Option<RateLimit>,
}

impl FromStr for RateSetting {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let form = || {
            let form = "must be a kind, the requests a second and those at once, like writes=10:1000, or a kind and off";
            Invalid(form.to_owned())
        };
        let (kind, limit) = text.split_once('=').ok_or_else(form)?;
        let kind = kind.parse().map_err(|rule: Invalid| Invalid(format!("{kind} {rule}")))?;
        if limit == "off" {
            return Ok(Self { kind, limit: None });
        }
        let (per_second, burst) = limit.split_once(':').ok_or_else(form)?;
        let number = |text: &str| {
            let number = text.parse::<NonZeroU32>().ok().filter(|number| number.get() <= LARGEST);
            number.ok_or_else(|| Invalid(format!("must have whole numbers from 1 to {LARGEST}")))
        };
        Ok(Self { kind, limit: Some(RateLimit { per_second: number(per_second)?, burst: number(burst)? }) })
    }
}

/// More than the server answers; a bucket of it fills within 12 days.
const LARGEST: u32 = 1_000_000;

/// The limits of an installation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rates(BTreeMap<RateKind, Option<RateLimit>>);

impl Rates {
    /// `None`: without limit.
    fn of(&self, kind: RateKind) -> Option<Rate> {
        let limit = self.limit(kind)?;
        Some(Rate::per_second(limit.per_second, limit.burst))
    }

    /// Of all accounts of a customer.
    fn together(&self, kind: RateKind) -> Option<Rate> {
        let RateLimit { per_second, burst } = self.limit(kind)?;
        let times = NonZeroU32::new(TOGETHER).unwrap_or(NonZeroU32::MIN);
        Some(Rate::per_second(per_second.saturating_mul(times), burst.saturating_mul(times)))
    }

    /// Of all accounts of a customer, during a burst, and how long requests wait at most.
    fn pace(&self, kind: RateKind) -> Option<(Rate, Duration)> {
        let pace = self.limit(kind)?.per_second.get().saturating_mul(PACE);
        let number = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let longest = Duration::from_secs(1) * MOST_WAITING / number(pace).get();
        Some((Rate::per_second(number(pace), number(pace / AT_ONCE)), longest.min(WAITS)))
    }

    fn limit(&self, kind: RateKind) -> Option<RateLimit> {
        self.0.get(&kind).copied().unwrap_or_else(|| Some(kind.default_limit()))
    }
}

impl FromIterator<RateSetting> for Rates {
    /// The last setting of a kind counts.
    fn from_iter<I: IntoIterator<Item = RateSetting>>(settings: I) -> Self {
        Self(settings.into_iter().map(|RateSetting { kind, limit }| (kind, limit)).collect())
    }
}

/// A request that is not admitted.
#[derive(Debug)]
pub(crate) struct NotAdmitted {
    error: ApiError,
    after: Duration,
}

impl NotAdmitted {
    /// When it is time for it.
    pub(crate) async fn answer(self) -> ApiError {
        if !self.after.is_zero() {
            sleep(self.after).await;
        }
        self.error
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct RateLimits {
    rates: Rates,
    metrics: Arc<ServerMetrics>,
    principals: Mutex<Buckets<(RateKind, String)>>,
    paces: Mutex<Buckets<(RateKind, String)>>,
    sources: Mutex<Buckets<IpAddr>>,
    /// By the customer, or the source.
    refusals: Mutex<Buckets<String>>,
}

impl RateLimits {
    pub(crate) fn new(rates: Rates, metrics: Arc<ServerMetrics>) -> Self {
        let (principals, paces) = (Mutex::default(), Mutex::default());
        Self { rates, metrics, principals, paces, sources: Mutex::default(), refusals: Mutex::default() }
    }

    /// Counts a request of an authenticated caller, which is its customer's turn after this time.
    pub(crate) fn admit(&self, principal: &Principal, method: &Method) -> Result<Duration, NotAdmitted> {
        // No account and no organization of an identity provider reaches all.
        let Some(tenant) = principal.tenant() else { return Ok(Duration::ZERO) };
        let is_read = matches!(*method, Method::GET | Method::HEAD);
        let kind = if is_read { RateKind::Reads } else { RateKind::Writes };
        let (Some(own), Some(together), Some((pace, longest))) =
            (self.rates.of(kind), self.rates.together(kind), self.rates.pace(kind))
        else {
            return Ok(Duration::ZERO);
        };
        let (actor, customer, now) = ((kind, principal.actor.clone()), tenant.clone(), Instant::now());
        let tenant = (kind, tenant);
        let turn = {
            let (mut principals, mut paces) = (self.principals.lock(), self.paces.lock());
            // A request that is refused takes nothing.
            let admitted =
                principals.has(&actor, own, now).and_then(|()| principals.has(&tenant, together, now));
            let turn = admitted.and_then(|()| paces.reserve(tenant.clone(), pace, (longest, now)));
            if turn.is_ok() {
                let _ = principals.take(actor, own, now);
                let _ = principals.take(tenant, together, now);
            }
            turn
        };
        turn.map_err(|time| self.refused(kind, customer, time))
    }

    /// Counts the rows of a list as further reads, which are owed if there are no more.
    pub(crate) fn read(&self, (actor, tenant): (&str, &str), rows: usize) {
        let kind = RateKind::Reads;
        let further = u32::try_from(rows / ROWS).unwrap_or(u32::MAX);
        let (now, mut principals) = (Instant::now(), self.principals.lock());
        for (who, rate) in [(actor, self.rates.of(kind)), (tenant, self.rates.together(kind))] {
            if let Some(rate) = rate.filter(|_| further > 0) {
                principals.owe(&(kind, who.to_owned()), rate, (further, now));
            }
        }
    }

    /// Counts a request without a principal. `None`: its source is not known, and not limited.
    pub(crate) fn admit_stranger(&self, source: Option<IpAddr>) -> Result<(), NotAdmitted> {
        let kind = RateKind::Strangers;
        let Some((source, rate)) = source.zip(self.rates.of(kind)) else { return Ok(()) };
        let source = one_client(source);
        let taken = self.sources.lock().take(source, rate, Instant::now());
        taken.map_err(|time| self.refused(kind, source.to_string(), time))
    }

    fn refused(&self, kind: RateKind, who: String, time: Duration) -> NotAdmitted {
        self.metrics.limited(kind.as_str());
        let number = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let rate = Rate::per_second(number(REFUSALS), number(REFUSED_AT_ONCE));
        let turn = self.refusals.lock().reserve(who, rate, (HELD_BACK, Instant::now()));
        NotAdmitted { error: kind.refusal(time), after: turn.unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::{encoding::text::encode, registry::Registry};
    use tokio::time::advance;
    use wicketgate_store::Reach;

    fn limits(settings: &[&str], registry: &mut Registry) -> RateLimits {
        let rates = settings.iter().map(|text| text.parse::<RateSetting>().unwrap()).collect();
        RateLimits::new(rates, ServerMetrics::new(registry))
    }

    #[tokio::test(start_paused = true)]
    async fn the_accounts_of_a_customer_have_limits_together_and_rows_of_lists_count() {
        let limits = limits(&["reads=1:2"], &mut Registry::default());
        let read = |who: &Principal| limits.admit(who, &Method::GET).is_ok();
        let customer = Reach::Organization("a".to_owned());
        let admitted = (0..10).filter(|n| read(&of(&format!("account-{n}"), customer.clone()))).count();
        assert_eq!(admitted, 8);
        let other = of("b", Reach::Organization("b".to_owned()));
        assert_eq!(limits.admit(&other, &Method::GET).ok(), Some(Duration::ZERO), "another customer");
        assert!(read(&other));
        advance(Duration::from_secs(1)).await;
        // A page of 250 rows is two reads more, of which one is owed.
        limits.read((&other.actor, &other.tenant().unwrap()), 250);
        assert!(!read(&other));
        advance(Duration::from_millis(1900)).await;
        assert!(!read(&other));
        advance(Duration::from_millis(200)).await;
        assert!(read(&other));
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_admitted_at_a_pace() {
        let limits = limits(&["writes=2:1000"], &mut Registry::default());
        let turn = |who: &Principal| limits.admit(who, &Method::POST).map(|turn| turn.as_millis());
        let turns: Vec<_> = (0..4).map(|n| turn(&tenant(&format!("account-{n}"))).unwrap()).collect();
        assert_eq!(turns, [0, 0, 100, 200]);
        assert_eq!(turn(&of("b", Reach::Organization("b".to_owned()))).unwrap(), 0);
        let admitted = (0..100).take_while(|_| turn(&tenant("a")).is_ok()).count();
        assert_eq!(admitted, 38, "those whose turn comes within four seconds");
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_of_one_customer_are_held_back_and_of_another_not() {
        let limits = limits(&["writes=1:1", "strangers=1:1"], &mut Registry::default());
        let write = |who: &Principal| limits.admit(who, &Method::POST);
        let other = of("b", Reach::Organization("b".to_owned()));
        assert!(write(&tenant("a")).is_ok() && write(&other).is_ok());
        let refusals = (0..200).map(|_| write(&tenant("a")).unwrap_err().after);
        let held_back: Vec<_> = refusals.filter(|after| !after.is_zero()).collect();
        assert_eq!(held_back.len(), 64, "the first 16 are answered at once, and those beyond a second");
        assert_eq!(held_back.last(), Some(&HELD_BACK));
        assert!(write(&other).unwrap_err().after.is_zero());
        let source = Some("192.0.2.1".parse().unwrap());
        assert!(limits.admit_stranger(source).is_ok());
        let begin = Instant::now();
        for _ in 0..18 {
            limits.admit_stranger(source).unwrap_err().answer().await;
        }
        assert!(begin.elapsed() > Duration::from_millis(30), "as one program that repeats it at once");
    }

    fn of(actor: &str, reach: Reach) -> Principal {
        let organization = match &reach {
            Reach::Organization(organization) => Some(organization.clone()),
            Reach::All | Reach::Named(_) => None,
        };
        Principal { actor: actor.to_owned(), reach, organization, scopes: Vec::new(), claim: None }
    }

    fn tenant(actor: &str) -> Principal {
        of(actor, Reach::Organization("a".to_owned()))
    }

    #[tokio::test(start_paused = true)]
    async fn each_principal_has_buckets_of_its_own_for_reads_and_writes_and_the_operator_has_none() {
        let mut registry = Registry::default();
        let limits = limits(&["writes=2:3", "reads=1:1"], &mut registry);
        let write = |who: &Principal| limits.admit(who, &Method::POST);
        let (a, b) = (tenant("a"), tenant("b"));
        assert!((0..3).all(|_| write(&a).is_ok()));
        assert!(write(&a).is_err() && limits.admit(&a, &Method::PATCH).is_err());
        assert!(write(&b).is_ok() && limits.admit(&a, &Method::GET).is_ok());
        assert!(limits.admit(&a, &Method::HEAD).is_err());
        advance(Duration::from_millis(500)).await;
        assert!(write(&a).is_ok() && write(&a).is_err());
        assert!((0..10_000).all(|_| write(&of("admin", Reach::All)).is_ok()));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [r#"{limit="writes"} 3"#, r#"{limit="reads"} 1"#] {
            let line = format!("wicketgate_http_requests_limited_total{line}");
            assert!(text.contains(&line), "{line} is missing in {text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_are_limited_by_their_source() {
        let limits = limits(&["strangers=1:2"], &mut Registry::default());
        let ask = |source: &str| limits.admit_stranger(Some(source.parse().unwrap())).is_ok();
        assert!(ask("2001:db8::1") && ask("2001:db8::2"));
        assert!(!ask("2001:db8::3"), "it is of the same /64");
        assert!(ask("2001:db8:0:1::1") && ask("192.0.2.1") && ask("::ffff:192.0.2.1") && !ask("192.0.2.1"));
        assert!((0..100).all(|_| limits.admit_stranger(None).is_ok()));
    }

    #[test]
    fn a_setting_is_a_kind_and_two_numbers_or_off() {
        let (mut registry, off) = (Registry::default(), ["writes=1:1", "writes=off"]);
        let limits = limits(&off, &mut registry);
        assert!((0..9).all(|_| limits.admit(&tenant("a"), &Method::PUT).is_ok()));
        for bad in [
            "",
            "writes",
            "writes=",
            "writes=1",
            "writes=0:1",
            "writes=1:0",
            "writes=1:1000001",
            "write=1:1",
            "reads=-1:1",
        ] {
            assert!(bad.parse::<RateSetting>().is_err(), "{bad}");
        }
        let refused = "write=1:1".parse::<RateSetting>().unwrap_err().to_string();
        assert!(refused.contains("strangers"), "{refused}");
    }
}
