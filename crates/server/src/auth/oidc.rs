//! The operator's identity provider (OpenID Connect Discovery 1.0), whose JWTs authenticate callers of the API.
//!
//! Invariants: a signature is verified with a key of the provider and with that key's only algorithm, so that a token
//! cannot choose one; `exp`, `iss`, `aud` and `sub` are present and valid. While the provider is down, its last keys are
//! used for [`keys::KEPT`]; other tokens do not depend on it. People sign in to the web console by [`code`].

pub(crate) mod code;
mod fetch;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod keys;

use super::{Principal, Refused, Scope, token_key::refused};
use crate::background::{BackgroundTask, Outcome};
use anyhow::{Context, anyhow, bail};
pub use code::CodeClient;
use fetch::{Endpoints, Fetch, FetchError};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};
use keys::Keys;
use serde_json::{Map, Value};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Mutex, time::Instant};
use tracing::{info, warn};
use wicketgate_store::Reach;
use wicketgate_system::{Latest, program::WrongUsage};

/// Seconds by which the provider's clock and this one may differ.
const LEEWAY: u64 = 60;
/// How often its keys are fetched without a cause, so that withdrawn keys are dropped.
const REFRESH: Duration = Duration::from_secs(15 * 60);
/// How often while it has not answered yet.
const RETRY: Duration = Duration::from_secs(10);
/// Fetches in [`WINDOW`] because of unknown key ids, which anyone can send. Further tokens with such ids are refused.
const MOST_IN_WINDOW: u32 = 6;
const WINDOW: Duration = Duration::from_secs(60);
/// Bytes, as for organizations in the API.
const LONGEST_ORGANIZATION: usize = 128;
/// OpenID Connect Core §2.
const LONGEST_SUBJECT: usize = 255;

/// The operator's configuration of the provider.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// The value of `iss`. The discovery document is below this URL.
    pub issuer: String,
    /// A token is accepted if its `aud` has one of these.
    pub audiences: Vec<String>,
    /// The claim with the caller's organization.
    pub organization_claim: String,
    /// The claim with the caller's scopes: a text with spaces between them, or an array.
    pub scope_claim: String,
    /// The client by which people sign in to the web console. `None`: the console does not offer the provider.
    pub client: Option<CodeClient>,
}

/// The provider and its last keys.
#[derive(Debug)]
pub struct Provider {
    config: ProviderConfig,
    fetch: Fetch,
    keys: Latest<Keys>,
    endpoints: Latest<Option<Endpoints>>,
    fetches: Mutex<Fetches>,
    /// Fetches so far: a request that waited for another's fetch need not repeat it.
    fetch_count: AtomicU64,
}

/// The last fetches of its keys.
#[derive(Debug)]
struct Fetches {
    window: Instant,
    count: u32,
    answered: bool,
}

/// Refreshes the provider's keys. While it does not answer, those it had stay in use.
#[derive(Debug)]
pub(crate) struct KeyRefresh {
    provider: Arc<Provider>,
    /// When the keys that are used were read.
    read_at: Option<Instant>,
}

impl KeyRefresh {
    /// For a provider that has just been connected.
    pub(crate) async fn new(provider: Arc<Provider>) -> Self {
        let answered = provider.fetches.lock().await.answered;
        Self { provider, read_at: answered.then(Instant::now) }
    }
}

impl BackgroundTask for KeyRefresh {
    const NAME: &'static str = "identity-provider-keys";
    const PERIOD: Duration = RETRY;
    /// Two requests, each with its own bound.
    const WITHIN: Duration = Duration::from_secs(60);

    async fn activate(&mut self, _now: Timestamp) -> anyhow::Result<Outcome> {
        if self.read_at.is_none_or(|at| at.elapsed() >= REFRESH) {
            self.provider.refresh().await.map_err(|error| {
                let issuer = self.provider.issuer();
                anyhow!("the identity provider {issuer} does not answer; its last keys stay in use: {error}")
            })?;
            self.read_at = Some(Instant::now());
        }
        Ok(Outcome::Done)
    }
}

impl ProviderConfig {
    /// Checks what can be known before the provider is asked.
    ///
    /// # Errors
    /// [`WrongUsage`]: the flag, and what is wrong with it.
    pub fn validate(&self) -> anyhow::Result<()> {
        self.check().map(|_| ())
    }

    fn check(&self) -> anyhow::Result<Fetch> {
        let fetch = Fetch::new(&self.issuer)
            .with_context(|| WrongUsage(format!("--oidc-issuer {} cannot be used", self.issuer)))?;
        if self.audiences.is_empty() || self.audiences.iter().any(String::is_empty) {
            bail!(WrongUsage(
                "--oidc-issuer needs an --oidc-audience that is not empty: without it, tokens for other services would \
                 be accepted"
                    .to_owned()
            ));
        }
        Ok(fetch)
    }

    /// The caller that the key's provider issued the token to, if the token is for this server.
    fn verify(&self, token: &str, algorithm: Algorithm, key: &DecodingKey) -> Result<Principal, Refused> {
        let mut rules = Validation::new(algorithm);
        rules.leeway = LEEWAY;
        rules.validate_nbf = true;
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        rules.set_issuer(&[&self.issuer]);
        rules.set_audience(&self.audiences);
        let claims: Map<String, Value> = decode(token, key, &rules).map_err(|e| refused(&e))?.claims;
        self.principal(&claims)
    }

    fn principal(&self, claims: &Map<String, Value>) -> Result<Principal, Refused> {
        let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
        let printable =
            |s: &&str, longest| (1..=longest).contains(&s.len()) && !s.chars().any(char::is_control);
        let subject = text("sub").filter(|s| printable(s, LONGEST_SUBJECT)).ok_or(Refused::Invalid)?;
        let organization = text(&self.organization_claim)
            .filter(|o| printable(o, LONGEST_ORGANIZATION))
            .ok_or(Refused::NoOrganization)?;
        let scopes = match claims.get(&self.scope_claim) {
            Some(Value::String(text)) => Scope::among(text.split(' ')),
            Some(Value::Array(names)) => Scope::among(names.iter().filter_map(Value::as_str)),
            _ => Vec::new(),
        };
        Ok(Principal {
            // The prefix keeps a provider's subjects apart from `admin` and API accounts.
            actor: format!("oidc:{subject}"),
            reach: Reach::Organization(organization.to_owned()),
            organization: Some(organization.to_owned()),
            scopes,
            claim: None,
        })
    }
}

/// The head of a token with a supported algorithm and nothing unknown.
fn header(token: &str) -> Result<Header, Refused> {
    // A header without a signature algorithm, such as `none`, does not parse.
    let header = decode_header(token).map_err(|_| Refused::Invalid)?;
    // No extension is supported (RFC 7515 §4.1.11).
    let is_understood = keys::ALGORITHMS.contains(&header.alg) && header.crit.is_none();
    if is_understood { Ok(header) } else { Err(Refused::Invalid) }
}

impl Provider {
    /// Fetches the provider's keys. If it does not answer, that is repeated later.
    ///
    /// # Errors
    /// The configuration is wrong: an invalid URL, or another provider than the one that it names.
    pub async fn connect(config: ProviderConfig) -> anyhow::Result<Self> {
        let fetch = config.check()?;
        let fetches = Fetches { window: Instant::now(), count: 0, answered: false };
        let provider = Self {
            config,
            fetch,
            keys: Latest::default(),
            endpoints: Latest::default(),
            fetches: Mutex::new(fetches),
            fetch_count: AtomicU64::new(0),
        };
        match provider.refresh().await {
            Ok(()) => info!(issuer = provider.issuer(), "the identity provider answered"),
            Err(FetchError::Wrong(what)) => bail!("--oidc-issuer {}: {what}", provider.issuer()),
            Err(FetchError::Down(why)) => {
                warn!(
                    issuer = provider.issuer(),
                    why,
                    "the identity provider does not answer: its tokens are answered with 503 until it does"
                );
            }
        }
        Ok(provider)
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.config.issuer
    }

    /// The caller that the provider issued the token to, if the token is for this server.
    pub(super) async fn verify(&self, token: &str) -> Result<Principal, Refused> {
        let header = header(token)?;
        let key = self.key(header.kid.as_deref(), header.alg).await?;
        self.config.verify(token, header.alg, &key)
    }

    async fn key(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<DecodingKey, Refused> {
        let seen = self.fetch_count.load(Ordering::Acquire);
        let known = |keys: &Keys| keys.find(kid, algorithm).cloned();
        if let Some(key) = known(&self.keys.get()) {
            return Ok(key);
        }
        let answered = self.fetch_for_unknown(seen).await;
        match known(&self.keys.get()) {
            Some(key) => Ok(key),
            None if answered => Err(Refused::Invalid),
            None => Err(Refused::ProviderDown),
        }
    }

    /// Fetches the keys if the window allows it. Returns whether the provider answered its last fetch.
    async fn fetch_for_unknown(&self, seen: u64) -> bool {
        let mut fetches = self.fetches.lock().await;
        if self.fetch_count.load(Ordering::Acquire) != seen {
            return fetches.answered;
        }
        if fetches.window.elapsed() > WINDOW {
            (fetches.window, fetches.count) = (Instant::now(), 0);
        }
        if fetches.count < MOST_IN_WINDOW {
            fetches.count += 1;
            self.fetch_keys(&mut fetches).await.ok();
        }
        fetches.answered
    }

    async fn refresh(&self) -> Result<(), FetchError> {
        self.fetch_keys(&mut *self.fetches.lock().await).await
    }

    async fn fetch_keys(&self, fetches: &mut Fetches) -> Result<(), FetchError> {
        let answer = self.fetch.discover().await;
        self.fetch_count.fetch_add(1, Ordering::AcqRel);
        fetches.answered = answer.is_ok();
        let discovered = answer?;
        if discovered.endpoints.is_none() && self.config.client.is_some() {
            warn!(issuer = self.issuer(), "the identity provider names no endpoint to sign in at");
        }
        self.endpoints.set(discovered.endpoints);
        let keys = Keys::new(&discovered.keys);
        if keys.is_empty() {
            warn!(issuer = self.issuer(), "the identity provider has no key for RS256, ES256 or EdDSA");
        }
        self.keys.set(keys);
        Ok(())
    }
}
