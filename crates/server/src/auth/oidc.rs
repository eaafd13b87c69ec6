//! An identity provider of the operator's own (OpenID Connect Discovery 1.0): its JWTs open the API.
//!
//! Invariants: a signature is checked with a key of the provider's, with the one algorithm of that key, so that a
//! token can't choose; `exp`, `iss`, `aud` and `sub` are there and right. The provider may be down: what we have of
//! its keys goes on working for [`keys::KEPT`], and all that needs no provider does in any case.

mod fetch;
mod keys;

use super::{Principal, Refused, Scope, token_key::refused};
use crate::background::{BackgroundTask, Outcome};
use anyhow::{Context, anyhow, bail};
use fetch::{Fetch, FetchError};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
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
use wicketgate_system::Latest;

/// Seconds by which its clock and ours may differ.
const LEEWAY: u64 = 60;
/// How often its keys are asked for without cause, so that those it withdrew are forgotten.
const REFRESH: Duration = Duration::from_secs(15 * 60);
/// And while it has not answered yet.
const RETRY: Duration = Duration::from_secs(10);
/// Anybody can show us unknown key ids: so many of them in [`WINDOW`] are worth a question, the rest are refused.
const MOST_IN_WINDOW: u32 = 6;
const WINDOW: Duration = Duration::from_secs(60);
/// As an organization has it in the API.
const LONGEST_ORGANIZATION: usize = 128;
/// OpenID Connect Core §2.
const LONGEST_SUBJECT: usize = 255;

/// What the operator says of the provider.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// As it stands in `iss`. Its discovery document is below it.
    pub issuer: String,
    /// A token is for us if its `aud` has one of these.
    pub audiences: Vec<String>,
    /// Which claim names the caller's organization.
    pub organization_claim: String,
    /// Which claim has its scopes: a text with spaces between them, or an array.
    pub scope_claim: String,
}

/// The provider, and what we know of its keys.
#[derive(Debug)]
pub struct Provider {
    config: ProviderConfig,
    fetch: Fetch,
    keys: Latest<Keys>,
    asked: Mutex<Asked>,
    /// How often it was asked: whoever waited for another's question need not ask again.
    questions: AtomicU64,
}

/// When it was asked for its keys.
#[derive(Debug)]
struct Asked {
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
    /// The provider was asked a moment ago.
    pub(crate) async fn new(provider: Arc<Provider>) -> Self {
        let answered = provider.asked.lock().await.answered;
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
            self.provider.ask().await.map_err(|error| {
                let issuer = self.provider.issuer();
                anyhow!("the identity provider {issuer} does not answer; its last keys stay in use: {error}")
            })?;
            self.read_at = Some(Instant::now());
        }
        Ok(Outcome::Done)
    }
}

impl Provider {
    /// Asks the provider for its keys. One that does not answer is asked again later.
    ///
    /// # Errors
    /// What only the operator can mend: a URL that is none, or another provider than the one that was named.
    pub async fn connect(config: ProviderConfig) -> anyhow::Result<Self> {
        let fetch = Fetch::new(&config.issuer)
            .with_context(|| format!("--oidc-issuer {} can't be used", config.issuer))?;
        if config.audiences.iter().all(String::is_empty) {
            bail!(
                "--oidc-issuer needs an --oidc-audience: without it, a token for anybody would open this server"
            );
        }
        let asked = Asked { window: Instant::now(), count: 0, answered: false };
        let provider = Self {
            config,
            fetch,
            keys: Latest::default(),
            asked: Mutex::new(asked),
            questions: AtomicU64::new(0),
        };
        match provider.ask().await {
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

    pub(super) fn issuer(&self) -> &str {
        &self.config.issuer
    }

    /// Whose the token is, if the provider made it for us.
    pub(super) async fn verify(&self, token: &str) -> Result<Principal, Refused> {
        // What is no algorithm of signatures, `none` among them, is no header.
        let header = decode_header(token).map_err(|_| Refused::Invalid)?;
        // We know no extension (RFC 7515 §4.1.11).
        if !keys::ALGORITHMS.contains(&header.alg) || header.crit.is_some() {
            return Err(Refused::Invalid);
        }
        let key = self.key(header.kid.as_deref(), header.alg).await?;
        let mut rules = Validation::new(header.alg);
        rules.leeway = LEEWAY;
        rules.validate_nbf = true;
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        rules.set_issuer(&[self.issuer()]);
        rules.set_audience(&self.config.audiences);
        let claims: Map<String, Value> = decode(token, &key, &rules).map_err(|e| refused(&e))?.claims;
        self.principal(&claims)
    }

    fn principal(&self, claims: &Map<String, Value>) -> Result<Principal, Refused> {
        let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
        let printable =
            |s: &&str, longest| (1..=longest).contains(&s.len()) && !s.chars().any(char::is_control);
        let subject = text("sub").filter(|s| printable(s, LONGEST_SUBJECT)).ok_or(Refused::Invalid)?;
        let organization = text(&self.config.organization_claim)
            .filter(|o| printable(o, LONGEST_ORGANIZATION))
            .ok_or(Refused::NoOrganization)?;
        let scopes = match claims.get(&self.config.scope_claim) {
            Some(Value::String(text)) => Scope::among(text.split(' ')),
            Some(Value::Array(names)) => Scope::among(names.iter().filter_map(Value::as_str)),
            _ => Vec::new(),
        };
        Ok(Principal {
            // Nobody is to be taken for `admin`, or for an API account, by what a provider calls its subjects.
            actor: format!("oidc:{subject}"),
            reach: Reach::Organization(organization.to_owned()),
            scopes,
            claim: None,
        })
    }

    async fn key(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<DecodingKey, Refused> {
        let seen = self.questions.load(Ordering::Acquire);
        let known = |keys: &Keys| keys.find(kid, algorithm).cloned();
        if let Some(key) = known(&self.keys.get()) {
            return Ok(key);
        }
        let answered = self.ask_for_unknown(seen).await;
        match known(&self.keys.get()) {
            Some(key) => Ok(key),
            None if answered => Err(Refused::Invalid),
            None => Err(Refused::ProviderDown),
        }
    }

    /// Whether the provider answered when it was last asked: now, if somebody may ask now.
    async fn ask_for_unknown(&self, seen: u64) -> bool {
        let mut asked = self.asked.lock().await;
        if self.questions.load(Ordering::Acquire) != seen {
            return asked.answered;
        }
        if asked.window.elapsed() > WINDOW {
            (asked.window, asked.count) = (Instant::now(), 0);
        }
        if asked.count < MOST_IN_WINDOW {
            asked.count += 1;
            self.question(&mut asked).await.ok();
        }
        asked.answered
    }

    async fn ask(&self) -> Result<(), FetchError> {
        self.question(&mut *self.asked.lock().await).await
    }

    async fn question(&self, asked: &mut Asked) -> Result<(), FetchError> {
        let answer = self.fetch.keys().await;
        self.questions.fetch_add(1, Ordering::AcqRel);
        asked.answered = answer.is_ok();
        let keys = Keys::new(&answer?);
        if keys.is_empty() {
            warn!(issuer = self.issuer(), "the identity provider has no key for RS256, ES256 or EdDSA");
        }
        self.keys.set(keys);
        Ok(())
    }
}
