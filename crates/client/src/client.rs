//! A client of one server, and its credentials.

use std::{path::PathBuf, time::Duration};

pub use reqwest::Method;
use reqwest::{RequestBuilder, Response, StatusCode, Url, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tokio::{sync::Mutex, time::sleep};

use crate::{
    failure::{ApiProblem, Failure},
    local_server,
};

/// How long a request is sent again that the server refuses for its rate.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest wait for a connection to the server.
const CONNECT: Duration = Duration::from_secs(10);
/// The longest wait for an answer: a check of a share takes up to 20 s.
const ANSWER: Duration = Duration::from_secs(60);
/// The largest answer, in bytes: a page of 1,000 resources is about a megabyte.
const LARGEST: usize = 64 << 20;

/// A secret, and the user of this host whom it belongs to. On this host, only a listener of this user, or of root, gets it
/// without TLS.
#[derive(Debug, Clone)]
pub struct OwnedSecret {
    pub secret: SecretString,
    pub owner: u32,
}

/// What a client signs in with.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// A token of any kind: the admin token, or one of an identity provider.
    Token(OwnedSecret),
    /// An API account, whose secret is exchanged for a token of an hour (RFC 6749 §4.4).
    Account { id: String, secret: OwnedSecret },
}

/// Asks one server. Clones share connections and the token.
#[derive(Debug)]
pub struct ApiClient {
    http: reqwest::Client,
    base: Url,
    credentials: Option<Credentials>,
    /// Of an API account.
    token: Mutex<Option<SecretString>>,
}

impl ApiClient {
    /// `base` is the server's address, with a path if it is behind a reverse proxy: `https://gw.example:8480/wicketgate`.
    /// `authority` is a file of certificates (PEM) that are trusted besides those of the system.
    ///
    /// # Errors
    /// The file cannot be read or is no certificate.
    pub fn new(
        mut base: Url,
        credentials: Option<Credentials>,
        authority: Option<PathBuf>,
    ) -> Result<Self, Failure> {
        if !base.path().ends_with('/') {
            let path = format!("{}/", base.path());
            base.set_path(&path);
        }
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            // The token belongs to this server only.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("wicketgate/", env!("CARGO_PKG_VERSION")));
        if !local_server::addresses(&base).is_empty() {
            // No proxy is between a host and itself; one that the environment names would see the token. A kept connection may
            // have ended, and hyper would repeat a request on another one, whose listener was not checked.
            http = http.no_proxy().pool_max_idle_per_host(0);
        }
        if let Some(file) = authority {
            let unusable = |why: String| Failure::Authority { file: file.clone(), why };
            let pem = std::fs::read(&file).map_err(|e| unusable(e.to_string()))?;
            for certificate in
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| unusable(e.to_string()))?
            {
                http = http.add_root_certificate(certificate);
            }
        }
        let http = http.build().map_err(|e| Failure::unreachable(&base, &e))?;
        Ok(Self { http, base, credentials, token: Mutex::default() })
    }

    /// The server's address.
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// Asks for `path`, which has no leading slash: `frontdoor/v2`.
    ///
    /// # Errors
    /// The server is not reached, refuses, or answers what is no JSON.
    pub async fn get(&self, path: &str, query: &[(String, String)]) -> Result<Value, Failure> {
        let request = self.request(Method::GET, path).await?.query(query).timeout(ANSWER);
        json(self.answered(request).await?).await
    }

    /// What the server says of its readiness, whether it is ready or not. `None`: it does not say so, as behind a reverse proxy that
    /// passes on other paths only.
    ///
    /// # Errors
    /// The server is not reached.
    pub async fn readiness(&self) -> Result<Option<Value>, Failure> {
        let request = self.http.get(self.at("readyz")?).timeout(ANSWER);
        let answer = body(self.sent(request).await?).await?;
        let said: Option<Value> = serde_json::from_slice(&answer).ok();
        Ok(said.filter(|said| said["ready"].is_boolean()))
    }

    /// Asks for a text, such as a device's configuration.
    ///
    /// # Errors
    /// As [`ApiClient::get`].
    pub async fn text(&self, path: &str, query: &[(String, String)]) -> Result<String, Failure> {
        let request = self.request(Method::GET, path).await?.query(query).timeout(ANSWER);
        let body = body(self.answered(request).await?).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Asks for a text of JSON lines.
    ///
    /// # Errors
    /// As [`ApiClient::get`].
    pub async fn lines(&self, path: &str, query: &[(String, String)]) -> Result<Vec<Value>, Failure> {
        let request = self.request(Method::GET, path).await?.query(query).timeout(ANSWER);
        let answer = self.answered(request.header(header::ACCEPT, "application/x-ndjson")).await?;
        let (url, status) = (answer.url().clone(), answer.status().as_u16());
        let body = body(answer).await?;
        let lines = body.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let lines: Result<Vec<_>, _> = lines.map(serde_json::from_slice).collect();
        lines.map_err(|_| Failure::NoApi { url, status })
    }

    /// Writes. `etag` makes the write conditional: it fails if the resource has changed since. An answer without a body is
    /// `null`.
    ///
    /// # Errors
    /// As [`ApiClient::get`].
    pub async fn write(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        etag: Option<&str>,
    ) -> Result<Value, Failure> {
        let mut request = self.request(method, path).await?.timeout(ANSWER);
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(etag) = etag {
            request = request.header(header::IF_MATCH, etag);
        }
        json(self.answered(request).await?).await
    }

    /// As [`ApiClient::write`], with parameters of the query: a path has none.
    ///
    /// # Errors
    /// As [`ApiClient::get`].
    pub async fn write_with(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let mut request = self.request(method, path).await?.query(query).timeout(ANSWER);
        if let Some(body) = body {
            request = request.json(body);
        }
        json(self.answered(request).await?).await
    }

    /// A resource and its `ETag`.
    ///
    /// # Errors
    /// As [`ApiClient::get`].
    pub async fn get_tagged(&self, path: &str) -> Result<(Value, Option<String>), Failure> {
        let request = self.request(Method::GET, path).await?.timeout(ANSWER);
        let answer = self.answered(request).await?;
        let etag = answer.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        Ok((json(answer).await?, etag))
    }

    /// The address of `path`, which has to be exactly below the server's: a segment `..` leads elsewhere, to another resource.
    fn at(&self, path: &str) -> Result<Url, Failure> {
        let wrong = || Failure::Path(path.to_owned());
        let url = self.base.join(path).map_err(|_| wrong())?;
        let is_whole =
            !path.split('/').any(str::is_empty) && url.path() == self.base.path().to_owned() + path;
        if is_whole && url.query().is_none() && url.fragment().is_none() { Ok(url) } else { Err(wrong()) }
    }

    pub(crate) async fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, Failure> {
        let url = self.at(path)?;
        let request = self.http.request(method, url).header(header::ACCEPT, "application/json");
        let token = match &self.credentials {
            None => return Ok(request),
            Some(Credentials::Token(token)) => token.secret.clone(),
            Some(Credentials::Account { id, secret }) => {
                let mut token = self.token.lock().await;
                let token = match token.take() {
                    Some(known) => token.insert(known),
                    None => token.insert(self.exchange(id, secret).await?),
                };
                token.clone()
            }
        };
        self.check_listener()?;
        Ok(request.bearer_auth(token.expose_secret()))
    }

    /// Whether the server may get the credentials now.
    fn check_listener(&self) -> Result<(), Failure> {
        match &self.credentials {
            None => Ok(()),
            Some(Credentials::Token(secret) | Credentials::Account { secret, .. }) => {
                local_server::check(&self.base, secret.owner)
            }
        }
    }

    /// Whether a refused sign-in is worth another try: an account's token ends after an hour, and a new one replaces it.
    pub(crate) async fn can_renew(&self) -> bool {
        self.token.lock().await.take().is_some()
    }

    /// Sends a request, and sends it again when the server asks for it with a 429: the server has done nothing then. An answer
    /// that is no success is a failure.
    pub(crate) async fn answered(&self, request: RequestBuilder) -> Result<Response, Failure> {
        self.accepted(self.sent(request).await?).await
    }

    /// The same without patience.
    pub(crate) async fn answered_at_once(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let answer = request.send().await.map_err(|e| Failure::unreachable(&self.base, &e))?;
        self.accepted(answer).await
    }

    async fn sent(&self, mut request: RequestBuilder) -> Result<Response, Failure> {
        let mut left = PATIENCE;
        loop {
            // A body that is a stream cannot be sent again.
            let again = request.try_clone();
            let answer = request.send().await.map_err(|e| Failure::unreachable(&self.base, &e))?;
            match (pause(&answer).filter(|pause| *pause <= left), again) {
                (Some(pause), Some(again)) => {
                    sleep(pause).await;
                    self.check_listener()?;
                    (left, request) = (left.saturating_sub(pause), again);
                }
                _ => return Ok(answer),
            }
        }
    }

    async fn accepted(&self, answer: Response) -> Result<Response, Failure> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let retry_after = retry_after(&answer);
        let (url, refusal) = (answer.url().clone(), challenged(answer.headers()));
        let body = body(answer).await.unwrap_or_default();
        let problem: Option<ApiProblem> = serde_json::from_slice(&body).ok();
        Err(match (status, problem) {
            (StatusCode::UNAUTHORIZED, problem) => {
                let message = problem.map(|problem| problem.message);
                self.not_signed_in(refusal.or(message).unwrap_or_default())
            }
            (_, Some(problem)) => Failure::Refused { status: status.as_u16(), problem, retry_after },
            (_, None) => Failure::NoApi { url, status: status.as_u16() },
        })
    }

    /// Exchanges an account's secret for a token.
    async fn exchange(&self, id: &str, secret: &OwnedSecret) -> Result<SecretString, Failure> {
        local_server::check(&self.base, secret.owner)?;
        let request = self
            .http
            .post(self.at("oauth/token")?)
            .basic_auth(id, Some(secret.secret.expose_secret()))
            .timeout(ANSWER);
        let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let answer = self.sent(request.body("grant_type=client_credentials")).await?;
        let (status, url) = (answer.status(), answer.url().clone());
        let body: Value = serde_json::from_slice(&body(answer).await.unwrap_or_default()).unwrap_or_default();
        match (status.is_success(), body["access_token"].as_str(), body["error"].as_str()) {
            (true, Some(token), _) => Ok(token.into()),
            (_, _, Some("invalid_client")) => {
                let why = body["error_description"].as_str().unwrap_or("its id or its secret is wrong");
                Err(self.not_signed_in(format!("API account {id}: {why}")))
            }
            _ => Err(Failure::NoApi { url, status: status.as_u16() }),
        }
    }

    fn not_signed_in(&self, why: String) -> Failure {
        let account = match &self.credentials {
            Some(Credentials::Account { id, .. }) => Some(id.clone()),
            Some(Credentials::Token(_)) | None => None,
        };
        Failure::NotSignedIn { why, account }
    }
}

/// Seconds. The API never names a date.
fn retry_after(answer: &Response) -> Option<u64> {
    answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()
}

/// How long the server asks to wait before the same request is sent again.
fn pause(answer: &Response) -> Option<Duration> {
    let is_refused = answer.status() == StatusCode::TOO_MANY_REQUESTS;
    // With 0 there would be no bound.
    is_refused.then(|| retry_after(answer))?.map(|seconds| Duration::from_secs(seconds.max(1)))
}

/// What the challenge of a 401 says of the token, more closely than the body (RFC 6750 §3).
fn challenged(headers: &header::HeaderMap) -> Option<String> {
    let challenge = headers.get(header::WWW_AUTHENTICATE)?.to_str().ok()?;
    let (_, description) = challenge.split_once("error_description=\"")?;
    description.split_once('"').map(|(description, _)| description.to_owned())
}

async fn json(answer: Response) -> Result<Value, Failure> {
    let (url, status) = (answer.url().clone(), answer.status().as_u16());
    let body = body(answer).await?;
    if body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&body).map_err(|_| Failure::NoApi { url, status })
}

/// The body of an answer, whose length it need not have said.
async fn body(mut answer: Response) -> Result<Vec<u8>, Failure> {
    let mut all = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(|e| Failure::unreachable(answer.url(), &e))? {
        if all.len() + part.len() > LARGEST {
            return Err(Failure::TooLarge(answer.url().clone()));
        }
        all.extend_from_slice(&part);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn each_request_on_this_host_has_a_connection_of_its_own() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let client = ApiClient::new(base, None, None).unwrap();
        let serve = async {
            let mut kept = Vec::new();
            for _ in 0..2 {
                let (mut tcp, mut head) = (listener.accept().await.unwrap().0, Vec::new());
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(tcp.read_u8().await.unwrap());
                }
                tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
                kept.push(tcp);
            }
            kept
        };
        let ask = async {
            client.get("a", &[]).await.unwrap();
            // On a kept connection, nobody would answer it.
            tokio::time::timeout(CONNECT, client.get("b", &[])).await.unwrap().unwrap();
        };
        let (_kept, ()) = tokio::join!(serve, ask);
    }

    #[tokio::test]
    async fn a_write_has_parameters_behind_its_path() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let client = ApiClient::new(base, None, None).unwrap();
        let serve = async {
            let (mut tcp, mut head) = (listener.accept().await.unwrap().0, Vec::new());
            while !head.ends_with(b"\r\n\r\n") {
                head.push(tcp.read_u8().await.unwrap());
            }
            tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
            String::from_utf8(head).unwrap()
        };
        let query = [("takePeerAddress", "true"), ("b", "a&b")];
        let (head, written) = tokio::join!(serve, client.write_with(Method::POST, "a/b", &query, None));
        written.unwrap();
        assert!(head.starts_with("POST /a/b?takePeerAddress=true&b=a%26b HTTP/1.1\r\n"), "{head}");
        let refused = client.write_with(Method::POST, "a?b", &query, None).await.unwrap_err();
        assert!(matches!(refused, Failure::Path(_)), "{refused}");
    }

    #[test]
    fn a_challenge_says_more_than_the_body() {
        let said = |challenge: &str| {
            challenged(&[(header::WWW_AUTHENTICATE, challenge.parse().unwrap())].into_iter().collect())
        };
        let expired = "Bearer realm=\"a\", error=\"invalid_token\", error_description=\"It expired: ask\"";
        assert_eq!(said(expired).as_deref(), Some("It expired: ask"));
        assert_eq!(said("Bearer realm=\"a\", error=\"invalid_token\""), None);
    }

    #[test]
    fn a_path_leads_nowhere_else() {
        for base in ["http://gw.example", "https://gw.example/wicketgate"] {
            let client = ApiClient::new(base.parse().unwrap(), None, None).unwrap();
            for path in ["frontdoor/v2", "oauth/token", "frontdoor/v2/a/ipsec-tunnels/%2F..", "a/...", "a/.b"]
            {
                assert_eq!(client.at(path).unwrap().as_str(), format!("{base}/{path}"));
            }
            for path in [
                "",
                ".",
                "..",
                "a/..",
                "a/./b",
                "a/%2e%2E",
                "a/.%2e/b",
                "a//b",
                "a/",
                "/a",
                "//other.example/a",
                "https://other.example/a",
                "a?b",
                "a#b",
                "a\\..\\b",
                "a\tb",
                "a b",
            ] {
                assert!(matches!(client.at(path), Err(Failure::Path(_))), "{path}");
            }
        }
    }
}
