//! A client of the public API, as any user could write one: HTTP/1.0, blocking.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use crate::namespace::Namespace;

/// For a whole request. A slow answer is a fault worth seeing.
const BOUND: Duration = Duration::from_secs(10);

/// Speaks from inside a namespace.
#[derive(Debug, Clone)]
pub struct Api {
    from: Namespace,
    to: SocketAddr,
    token: SecretString,
}

/// What the server answered.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub body: String,
}

impl Api {
    /// # Errors
    /// When the token can't be read.
    pub fn new(from: &Namespace, to: SocketAddr, token_file: &Path) -> Result<Self> {
        let token = fs::read_to_string(token_file)
            .with_context(|| format!("can't read the token in {}", token_file.display()))?;
        Ok(Self { from: from.clone(), to, token: token.trim().into() })
    }

    /// # Errors
    /// There is no answer. A status of 4xx or 5xx is not an error.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Reply> {
        self.call_with("", method, path, body)
    }

    /// With more lines in the head, each with its end.
    fn call_with(&self, lines: &str, method: &str, path: &str, body: Option<&Value>) -> Result<Reply> {
        let mut stream = self.from.connect(self.to, BOUND)?;
        stream.set_read_timeout(Some(BOUND))?;
        stream.set_write_timeout(Some(BOUND))?;
        stream.set_nodelay(true)?;
        let body = body.map(Value::to_string);
        let mut request = self.open_head(method, path) + lines;
        if let Some(body) = &body {
            request += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        }
        request += "\r\n";
        request += body.as_deref().unwrap_or_default();
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).with_context(|| format!("no answer to {method} {path}"))?;
        Reply::parse(&answer).with_context(|| format!("no answer to {method} {path}"))
    }

    /// The head of a request without a body, for a caller that reads the answer itself.
    pub fn head(&self, method: &str, path: &str) -> String {
        self.open_head(method, path) + "\r\n"
    }

    fn open_head(&self, method: &str, path: &str) -> String {
        let (host, token) = (self.to, self.token.expose_secret());
        format!("{method} {path} HTTP/1.0\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n")
    }

    /// # Errors
    /// As [`Api::call`], and for any answer but 2xx.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.text(path).and_then(|body| serde_json::from_str(&body).context("an answer that is not JSON"))
    }

    /// The answer's body as it is.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub fn text(&self, path: &str) -> Result<String> {
        self.ok("GET", path, None)
    }

    /// # Errors
    /// As [`Api::get`].
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        Ok(serde_json::from_str(&self.ok("POST", path, Some(body))?)?)
    }

    /// With an idempotency key.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub fn post_once(&self, path: &str, body: &Value, key: &str) -> Result<Value> {
        let line = format!("idempotency-key: {key}\r\n");
        let reply = self.call_with(&line, "POST", path, Some(body))?;
        if reply.is_success() { reply.json() } else { bail!("POST {path}: {reply}") }
    }

    /// # Errors
    /// As [`Api::get`].
    pub fn patch(&self, path: &str, body: &Value) -> Result<Value> {
        Ok(serde_json::from_str(&self.ok("PATCH", path, Some(body))?)?)
    }

    /// # Errors
    /// As [`Api::get`].
    pub fn delete(&self, path: &str) -> Result<()> {
        self.ok("DELETE", path, None).map(drop)
    }

    fn ok(&self, method: &str, path: &str, body: Option<&Value>) -> Result<String> {
        let reply = self.call(method, path, body)?;
        if reply.is_success() { Ok(reply.body) } else { bail!("{method} {path}: {reply}") }
    }
}

impl Reply {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// # Errors
    /// When the body is not JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("not JSON: {}", self.body))
    }

    /// The body ends with the connection, as an answer to HTTP/1.0 does (RFC 9112 §6.3).
    fn parse(answer: &str) -> Result<Self> {
        let (head, body) = answer.split_once("\r\n\r\n").context("it was cut short")?;
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).context("it has no status")?;
        Ok(Self { status, body: body.to_owned() })
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status, self.body.trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let answer = "HTTP/1.0 404 Not Found\r\ncontent-length: 2\r\n\r\n{}";
        let reply = Reply::parse(answer).unwrap();
        assert!(!reply.is_success() && reply.to_string() == "404 {}");
        for cut in 0..answer.len() - 2 {
            assert!(Reply::parse(&answer[..cut]).is_err(), "{cut}");
        }
    }
}
