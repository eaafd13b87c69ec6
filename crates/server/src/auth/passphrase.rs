//! Passphrases of handover links, kept as PBKDF2-HMAC-SHA-256 (RFC 8018 §5.2) with a salt each.
//!
//! Invariant: the computation, a good part of a second, is done off the threads that answer requests, and a few at a time.

use crate::error::ApiError;
use aws_lc_rs::pbkdf2::{PBKDF2_HMAC_SHA256, derive, verify};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    task::spawn_blocking,
    time::timeout,
};
use wicketgate_model::Passphrase;
use wicketgate_system::Mutex;

/// As OWASP advises for this function (Password Storage Cheat Sheet, 2023).
const ROUNDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(599_999);
/// Few of the host's processors, since anyone with a link has it computed. As many again are for new links.
const AT_ONCE: usize = 2;
/// Several computations, for those who come at the same time.
const WAIT: Duration = Duration::from_secs(5);
/// The function, before the number of rounds, the salt and the result.
const FUNCTION: &str = "pbkdf2-sha256";

static PLACES: Semaphore = Semaphore::const_new(AT_ONCE);
/// Apart from [`PLACES`], so that creating links does not delay opening them.
static CREATING: Semaphore = Semaphore::const_new(AT_ONCE);
/// A place each for the organizations that create links now: however many one has to create, it waits for [`CREATING`] once.
static ORGANIZATIONS: Mutex<BTreeMap<String, Arc<Semaphore>>> = Mutex::new(BTreeMap::new());

/// The right to compute.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: SemaphorePermit<'static>,
    _of_organization: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// Waits until few others compute.
    pub(crate) async fn take() -> Result<Self, ApiError> {
        let place = timeout(WAIT, PLACES.acquire()).await.ok().and_then(Result::ok);
        place
            .map(|permit| Self { _permit: permit, _of_organization: None })
            .ok_or_else(|| ApiError::too_many_requests("Too many passphrases are checked; try again later"))
    }

    /// For a passphrase of a new link. Waits until no other of the organization, and few others, are computed.
    pub(crate) async fn to_create(organization: &str) -> Result<Self, ApiError> {
        let own = of_organization(organization);
        let place = async {
            let own = own.acquire_owned().await.ok()?;
            Some(Self { _permit: CREATING.acquire().await.ok()?, _of_organization: Some(own) })
        };
        timeout(WAIT, place).await.ok().flatten().ok_or_else(|| {
            ApiError::too_many_requests("Too many links with a passphrase are created; try again later")
        })
    }

    /// What is stored of a new passphrase.
    pub(crate) async fn kept(self, passphrase: Passphrase) -> Result<String, ApiError> {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt)?;
        let computed = spawn_blocking(move || {
            let mut hash = [0; 32];
            derive(PBKDF2_HMAC_SHA256, ROUNDS, &salt, passphrase.expose().as_bytes(), &mut hash);
            drop(self);
            format!("{FUNCTION}${ROUNDS}${}${}", STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash))
        });
        computed.await.map_err(ApiError::internal)
    }

    /// Whether it is the passphrase of which `kept` is stored. Nothing is, if that cannot be read.
    pub(crate) async fn compare(self, given: SecretString, kept: String) -> Result<bool, ApiError> {
        let computed = spawn_blocking(move || {
            let is_right = parts(&kept).is_some_and(|(rounds, salt, hash)| {
                verify(PBKDF2_HMAC_SHA256, rounds, &salt, given.expose_secret().as_bytes(), &hash).is_ok()
            });
            drop(self);
            is_right
        });
        computed.await.map_err(ApiError::internal)
    }
}

fn of_organization(organization: &str) -> Arc<Semaphore> {
    let mut all = ORGANIZATIONS.lock();
    // Each caller that computes or waits holds one.
    all.retain(|_, place| Arc::strong_count(place) > 1);
    Arc::clone(all.entry(organization.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(1))))
}

fn parts(kept: &str) -> Option<(NonZeroU32, Vec<u8>, Vec<u8>)> {
    let mut parts = kept.split('$');
    let (function, rounds) = (parts.next()?, parts.next()?.parse().ok()?);
    let mut bytes = || STANDARD_NO_PAD.decode(parts.next()?).ok();
    (function == FUNCTION).then_some((rounds, bytes()?, bytes()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_organization_that_creates_many_links_does_not_hold_up_another() {
        let create = Place::to_create;
        let one = create("a").await.unwrap();
        let (second, other) = tokio::join!(create("a"), create("b"));
        assert!(second.is_err() && other.is_ok());
        // In all, they are bounded.
        assert!(create("c").await.is_err());
        drop(one);
        assert!(create("c").await.is_ok());
        drop(other);
        assert!(create("a").await.is_ok());
        assert_eq!(ORGANIZATIONS.lock().len(), 1, "organizations that create nothing are kept");
    }

    #[tokio::test]
    async fn a_passphrase_is_recognized_by_what_is_kept_of_it() {
        let kept = async || {
            let passphrase = "correct horse".parse().unwrap();
            Place::take().await.unwrap().kept(passphrase).await.unwrap()
        };
        let is_right = async |given: &str, kept: &str| {
            Place::take().await.unwrap().compare(given.into(), kept.to_owned()).await.unwrap()
        };
        let (one, other) = (kept().await, kept().await);
        assert!(one.starts_with("pbkdf2-sha256$600000$") && !one.contains("horse") && one != other);
        assert!(is_right("correct horse", &one).await && is_right("correct horse", &other).await);
        assert!(!is_right("correct horsf", &one).await);
        assert!(!is_right("correct horse", "").await && !is_right("", "pbkdf2-sha256$0$$").await);
    }
}
