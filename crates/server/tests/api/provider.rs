//! A certified OpenID provider in a separate process for one test; see `tests/oidc`.

use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    time::Duration,
};
use wicketgate_lab::npm;
use wicketgate_server::auth::oidc::ProviderConfig;

/// The longest wait for an answer of the provider: generating RSA keys takes long on a busy machine.
const ANSWER: Duration = Duration::from_secs(60);
/// The audience of its tokens; see `provider.mjs`.
pub(crate) const AUDIENCE: &str = "https://wicketgate.example/";

pub(crate) struct TestProvider {
    child: Child,
    input: ChildStdin,
    answers: mpsc::Receiver<Value>,
    pub(crate) issuer: String,
}

fn directory() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/oidc")
}

impl TestProvider {
    pub(crate) fn start() -> Self {
        npm::install(&directory(), None)
            .unwrap_or_else(|why| panic!("the OpenID provider can't run: {why:#}"));
        let mut child = Command::new("node")
            .arg("provider.mjs")
            .current_dir(directory())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (send, answers) = mpsc::sync_channel(8);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if send.send(serde_json::from_str(&line).unwrap()).is_err() {
                    break;
                }
            }
        });
        let mut provider = Self { child, input, answers, issuer: String::new() };
        provider.issuer = provider.answer()["issuer"].as_str().unwrap().to_owned();
        provider
    }

    pub(crate) fn config(&self) -> ProviderConfig {
        ProviderConfig {
            issuer: self.issuer.clone(),
            audiences: ["RS256", "ES256", "EdDSA"].map(|alg| format!("{AUDIENCE}{alg}")).to_vec(),
            organization_claim: "organization".to_owned(),
            scope_claim: "scope".to_owned(),
            client: None,
        }
    }

    fn answer(&self) -> Value {
        self.answers.recv_timeout(ANSWER).unwrap()
    }

    /// Sends one of the orders in `provider.mjs`, and returns the answer.
    pub(crate) fn order(&mut self, order: &Value) -> Value {
        writeln!(self.input, "{order}").unwrap();
        self.answer()
    }

    /// Signs a token with the given claims, with the provider's key.
    pub(crate) fn sign(&mut self, alg: &str, claims: &Value, header: &Value) -> String {
        let order = json!({"do": "sign", "alg": alg, "claims": claims, "header": header});
        self.order(&order)["token"].as_str().unwrap().to_owned()
    }

    /// Requests a token with client credentials (RFC 6749 §4.4, RFC 8707).
    pub(crate) async fn token(&self, resource: &str) -> String {
        let form = format!(
            "grant_type=client_credentials&client_id=a-program&client_secret=the-secret-of-a-program-in-a-test\
             &scope=frontdoor.read&resource={resource}"
        );
        let answer = client()
            .post(format!("{}/token", self.issuer))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form)
            .send()
            .await
            .unwrap();
        let text = answer.text().await.unwrap();
        let body: Value = serde_json::from_str(&text).unwrap();
        body["access_token"].as_str().unwrap_or_else(|| panic!("{text}")).to_owned()
    }

    /// The provider's key set as it is on the wire.
    pub(crate) async fn key_set(&self) -> String {
        client().get(format!("{}/jwks", self.issuer)).send().await.unwrap().text().await.unwrap()
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(ANSWER).build().unwrap()
}

impl Drop for TestProvider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
