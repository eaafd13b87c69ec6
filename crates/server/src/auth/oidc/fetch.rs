//! Fetches a provider's discovery document, keys and tokens: over TLS, with bounds on time and size, without redirects.

use anyhow::{Context, bail};
use reqwest::{
    Client, RequestBuilder, Url,
    header::{ACCEPT, CONTENT_TYPE},
    redirect::Policy,
};
use serde_json::Value;
use std::{net::IpAddr, time::Duration};

/// For one answer: a request may be waiting for it.
const ANSWER: Duration = Duration::from_secs(5);
/// A discovery document has a few kB, a set of keys a few dozen.
const LARGEST: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Fetch {
    client: Client,
    issuer: String,
    discovery: Url,
}

/// What a provider says of itself.
#[derive(Debug)]
pub(super) struct Discovered {
    /// Its JWK set.
    pub(super) keys: Value,
    /// `None`: the provider names none, or not over TLS.
    pub(super) endpoints: Option<Endpoints>,
}

/// Where people sign in, and where a code is exchanged for tokens.
#[derive(Debug, Clone)]
pub(super) struct Endpoints {
    pub(super) authorization: Url,
    pub(super) token: Url,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// It does not answer properly now; this may pass.
    #[error("{0}")]
    Down(String),
    /// Its answer contradicts the configuration.
    #[error("{0}")]
    Wrong(String),
}

impl Fetch {
    pub(super) fn new(issuer: &str) -> anyhow::Result<Self> {
        let url = secure(issuer)?;
        if url.query().is_some() || url.fragment().is_some() {
            bail!("an issuer has no query and no fragment");
        }
        // OpenID Connect Discovery §4.
        let discovery = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let client = Client::builder()
            .timeout(ANSWER)
            .connect_timeout(ANSWER)
            .redirect(Policy::none())
            .user_agent(concat!("wicketgate/", env!("CARGO_PKG_VERSION")));
        let client = if is_loopback(&url) { client.no_proxy() } else { client };
        let client = client.build().context("cannot create an HTTP client")?;
        Ok(Self { client, issuer: issuer.to_owned(), discovery: Url::parse(&discovery)? })
    }

    pub(super) async fn discover(&self) -> Result<Discovered, FetchError> {
        let document = self.json(self.discovery.clone()).await?;
        let named = document["issuer"].as_str().unwrap_or_default();
        if named != self.issuer {
            let named: String = named.chars().filter(|c| !c.is_control()).take(200).collect();
            return Err(FetchError::Wrong(format!("the provider there calls itself {named:?}")));
        }
        let url = document["jwks_uri"].as_str().unwrap_or_default();
        let url = secure(url).map_err(|e| FetchError::Wrong(format!("its jwks_uri cannot be used: {e}")))?;
        let endpoint = |name: &str| document[name].as_str().and_then(|url| secure(url).ok());
        let endpoints = endpoint("authorization_endpoint").zip(endpoint("token_endpoint"));
        let endpoints = endpoints.map(|(authorization, token)| Endpoints { authorization, token });
        Ok(Discovered { keys: self.json(url).await?, endpoints })
    }

    /// The answer to a form (RFC 6749 §4.1.3). `client`: its id and secret, each encoded, for `Authorization`.
    pub(super) async fn token(
        &self,
        url: Url,
        form: String,
        client: Option<(String, String)>,
    ) -> Result<Value, FetchError> {
        let request = self.client.post(url.clone()).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let request = match client {
            Some((id, secret)) => request.basic_auth(id, Some(secret)),
            None => request,
        };
        self.answer(&url, request.body(form)).await
    }

    async fn json(&self, url: Url) -> Result<Value, FetchError> {
        self.answer(&url, self.client.get(url.clone())).await
    }

    async fn answer(&self, shown: &Url, request: RequestBuilder) -> Result<Value, FetchError> {
        let down = |e: reqwest::Error| FetchError::Down(format!("{:#}", anyhow::Error::new(e)));
        let mut response = request.header(ACCEPT, "application/json").send().await.map_err(down)?;
        let status = response.status();
        if status.is_server_error() || status.as_u16() == 429 {
            return Err(FetchError::Down(format!("{shown} answers {status}")));
        }
        if !status.is_success() {
            return Err(FetchError::Wrong(format!("{shown} answers {status}")));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(down)? {
            if body.len() + chunk.len() > LARGEST {
                return Err(FetchError::Wrong(format!("{shown} answers with more than {LARGEST} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body)
            .map_err(|_| FetchError::Wrong(format!("{shown} does not answer with JSON")))
    }
}

/// Keys that arrive without TLS could be forged; a provider on this machine is for development.
fn secure(text: &str) -> anyhow::Result<Url> {
    let url = Url::parse(text).with_context(|| format!("{text:?} is no URL"))?;
    match url.scheme() {
        "https" if url.has_host() => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        _ => bail!("it must start with https:// (or http:// on this machine's loopback)"),
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_fetched_over_tls_or_from_this_machine() {
        for (url, good) in [
            ("https://id.example.org", true),
            ("https://id.example.org/realms/a/", true),
            ("http://127.0.0.1:4000", true),
            ("http://[::1]:4000", true),
            ("http://localhost", true),
            ("http://id.example.org", false),
            ("http://localhost.example.org", false),
            ("ftp://id.example.org", false),
            ("https://id.example.org?a=b", false),
            ("id.example.org", false),
            ("", false),
        ] {
            assert_eq!(Fetch::new(url).is_ok(), good, "{url}");
        }
    }
}
