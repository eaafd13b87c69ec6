//! Tokens of an external identity provider.

use crate::{
    harness::TestApp,
    provider::{AUDIENCE, TestProvider},
};
use axum::http::{Method, StatusCode};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use insta::assert_json_snapshot;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use std::sync::Arc;
use wicketgate_server::auth::oidc::{Provider, ProviderConfig};

const INVALID: &str = "Bearer realm=\"wicketgate\", error=\"invalid_token\"";

async fn app(provider: &TestProvider) -> TestApp {
    let connected = Provider::connect(provider.config()).await.unwrap();
    TestApp::with_provider(Some(Arc::new(connected))).await
}

fn audience(alg: &str) -> String {
    format!("{AUDIENCE}{alg}")
}

/// The claims of a valid token. `changes` replaces claims; null removes one.
fn claims(changes: Value) -> Value {
    let now = Timestamp::now().as_second();
    crate::harness::with(
        json!({"sub": "somebody", "aud": audience("ES256"), "exp": now + 300, "organization": "default",
               "scope": "openid frontdoor.read frontdoor.write"}),
        changes,
    )
}

async fn status(app: &TestApp, token: &str) -> StatusCode {
    app.get_as(token, "ipsec-shares").await.status
}

#[tokio::test]
async fn a_clients_token_is_accepted() {
    let provider = TestProvider::start();
    let app = app(&provider).await;
    for alg in ["RS256", "ES256", "EdDSA"] {
        let token = provider.token(&audience(alg)).await;
        assert_eq!(status(&app, &token).await, StatusCode::OK, "{alg}");
        let write = app.call_as(&token, Method::POST, "ipsec-tunnels", Some(json!({}))).await;
        assert_eq!(write.body["message"], "The token lacks the scope frontdoor.write");
    }
    let for_another = provider.token("https://another.example/ES256").await;
    assert_json_snapshot!("wrong_audience", app.shown(&app.get_as(&for_another, "ipsec-shares").await));
    // The admin token remains valid beside the provider's tokens.
    assert_eq!(app.get("ipsec-shares").await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_claims_determine_the_caller_and_the_scopes() {
    let mut provider = TestProvider::start();
    let app = app(&provider).await;
    let mut sign = |changes: Value| provider.sign("ES256", &claims(changes), &json!({}));
    let token = sign(json!({}));
    let made = app.call_as(&token, Method::POST, "ipsec-tunnels", Some(crate::harness::tunnel("a", 1))).await;
    assert_eq!(made.body["createdBy"], "oidc:somebody", "{}", made.text);
    let executions = app.get("executions").await.body;
    assert_eq!(executions["content"].as_array().unwrap().last().unwrap()["actor"], "oidc:somebody");

    let elsewhere = sign(json!({"organization": "other"}));
    assert_json_snapshot!("another_organization", app.shown(&app.get_as(&elsewhere, "ipsec-shares").await));
    assert_json_snapshot!(
        "no_organization",
        app.shown(&app.get_as(&sign(json!({"organization": null})), "ipsec-shares").await)
    );
    for (changes, expected) in [
        (json!({"scope": ["frontdoor.read", 7]}), StatusCode::OK),
        (json!({"scope": ["frontdoor.write"]}), StatusCode::FORBIDDEN),
        (json!({"scope": {"frontdoor.read": true}}), StatusCode::FORBIDDEN),
        (json!({"scope": null}), StatusCode::FORBIDDEN),
        (json!({"aud": ["https://another.example/", audience("RS256")]}), StatusCode::OK),
        (json!({"organization": ["default"]}), StatusCode::FORBIDDEN),
        (json!({"organization": ""}), StatusCode::FORBIDDEN),
    ] {
        let shown = changes.to_string();
        assert_eq!(status(&app, &sign(changes)).await, expected, "{shown}");
    }
    let config = ProviderConfig {
        organization_claim: "https://wicketgate.example/org".to_owned(),
        scope_claim: "roles".to_owned(),
        ..provider.config()
    };
    let connected = Provider::connect(config).await.unwrap();
    let renamed = TestApp::with_provider(Some(Arc::new(connected))).await;
    let token = provider.sign(
        "ES256",
        &claims(
            json!({"https://wicketgate.example/org": "default", "roles": ["frontdoor.read"], "scope": null}),
        ),
        &json!({}),
    );
    assert_eq!(status(&renamed, &token).await, StatusCode::OK);
}

#[tokio::test]
async fn times_are_checked_with_a_minute_of_leeway() {
    let mut provider = TestProvider::start();
    let app = app(&provider).await;
    let now = Timestamp::now().as_second();
    let mut sign = |changes: Value| provider.sign("ES256", &claims(changes), &json!({}));
    for good in [json!({"exp": now - 30}), json!({"nbf": now + 30}), json!({"nbf": now - 5})] {
        assert_eq!(status(&app, &sign(good.clone())).await, StatusCode::OK, "{good}");
    }
    let expired = app.get_as(&sign(json!({"exp": now - 90})), "ipsec-shares").await;
    assert_json_snapshot!("expired", app.shown(&expired));
    for bad in [
        json!({"nbf": now + 120}),
        json!({"nbf": "soon"}),
        json!({"exp": null}),
        json!({"exp": "never"}),
        json!({"aud": null}),
        json!({"aud": "https://another.example/"}),
        json!({"aud": []}),
        json!({"iss": "https://another.example"}),
        json!({"iss": null}),
        json!({"sub": null}),
        json!({"sub": "a\nb"}),
    ] {
        // `provider.mjs` adds `iss` if it is absent.
        let bad = if bad.get("iss").is_some_and(Value::is_null) { json!({"iss": 7}) } else { bad };
        let answer = app.get_as(&sign(bad.clone()), "ipsec-shares").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{bad}");
        assert_eq!(answer.headers["www-authenticate"], INVALID, "{bad}");
    }
}

#[tokio::test]
async fn a_forged_token_is_refused() {
    let mut provider = TestProvider::start();
    let app = app(&provider).await;
    let good = provider.sign("RS256", &claims(json!({})), &json!({}));
    assert_eq!(status(&app, &good).await, StatusCode::OK);
    let header = jsonwebtoken::decode_header(&good).unwrap();
    let parts: Vec<_> = good.split('.').collect();
    let raw = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let more = claims(json!({"scope": "frontdoor.admin", "iss": provider.issuer}));
    let none = |name: &str| raw(&json!({"alg": name, "kid": header.kid}));
    let mut forged = vec![
        ("tampered".to_owned(), format!("{}.{}.{}", parts[0], raw(&more), parts[2])),
        ("none".to_owned(), format!("{}.{}.", none("none"), raw(&more))),
        ("None".to_owned(), format!("{}.{}.", none("None"), raw(&more))),
        ("none, with a signature".to_owned(), format!("{}.{}.{}", none("none"), parts[1], parts[2])),
        ("without signature".to_owned(), format!("{}.{}.", parts[0], parts[1])),
    ];
    // The public key as the secret of an HMAC: the whole set, and each part of the RSA key.
    let set = provider.key_set().await;
    let keys: Value = serde_json::from_str(&set).unwrap();
    let rsa = keys["keys"].as_array().unwrap().iter().find(|k| k["kty"] == "RSA").unwrap();
    let n = rsa["n"].as_str().unwrap();
    for secret in [
        set.as_bytes().to_vec(),
        rsa.to_string().into_bytes(),
        n.as_bytes().to_vec(),
        URL_SAFE_NO_PAD.decode(n).unwrap(),
    ] {
        for alg in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let header = Header { kid: header.kid.clone(), ..Header::new(alg) };
            forged.push((
                format!("{alg:?}"),
                encode(&header, &more, &EncodingKey::from_secret(&secret)).unwrap(),
            ));
        }
    }
    // A valid signature whose algorithm differs from the key's.
    let other_key = provider.sign("ES256", &claims(json!({})), &json!({"kid": header.kid}));
    forged.push(("another key's id".to_owned(), other_key));
    for (what, token) in forged {
        let answer = app.get_as(&token, "ipsec-shares").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{what}");
        assert_eq!(answer.headers["www-authenticate"], INVALID, "{what}");
    }
    let critical = provider.sign("ES256", &claims(json!({})), &json!({"b64": true, "crit": ["b64"]}));
    assert_eq!(status(&app, &critical).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn new_keys_are_fetched_and_withdrawn_ones_dropped() {
    let mut provider = TestProvider::start();
    let app = app(&provider).await;
    let old = provider.token(&audience("ES256")).await;
    assert_eq!(status(&app, &old).await, StatusCode::OK);
    provider.order(&json!({"do": "rotate"}));
    let new = provider.token(&audience("ES256")).await;
    assert_eq!(status(&app, &new).await, StatusCode::OK);
    assert_eq!(status(&app, &old).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_number_of_fetches_for_unknown_keys_is_limited() {
    let mut provider = TestProvider::start();
    let app = app(&provider).await;
    for n in 0..8 {
        let unknown = provider.sign("ES256", &claims(json!({})), &json!({"kid": format!("unknown-{n}")}));
        assert_eq!(status(&app, &unknown).await, StatusCode::UNAUTHORIZED);
    }
    // The limit is reached: even a new key stays unknown for the rest of the minute.
    let known = provider.sign("ES256", &claims(json!({})), &json!({}));
    provider.order(&json!({"do": "rotate"}));
    let new = provider.token(&audience("ES256")).await;
    assert_eq!(status(&app, &new).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&app, &known).await, StatusCode::OK);
}

#[tokio::test]
async fn an_unreachable_provider_affects_its_own_tokens_only() {
    let mut provider = TestProvider::start();
    let token = provider.token(&audience("ES256")).await;
    provider.order(&json!({"do": "stop"}));
    // The server starts nevertheless, and the answer names the problem.
    let app = app(&provider).await;
    assert_json_snapshot!("down", app.shown(&app.get_as(&token, "ipsec-shares").await));
    assert_eq!(app.get("ipsec-shares").await.status, StatusCode::OK);
    let account = app.account(json!({})).await;
    assert_eq!(status(&app, account["clientSecret"].as_str().unwrap()).await, StatusCode::OK);
    provider.order(&json!({"do": "start"}));
    assert_eq!(status(&app, &token).await, StatusCode::OK);
    // With the keys cached, the provider is not needed.
    provider.order(&json!({"do": "stop"}));
    assert_eq!(status(&app, &token).await, StatusCode::OK);
}

#[tokio::test]
async fn a_wrong_provider_configuration_fails_the_start() {
    let connect =
        async |config: ProviderConfig| format!("{:#}", Provider::connect(config).await.unwrap_err());
    let config = |issuer: &str| ProviderConfig {
        issuer: issuer.to_owned(),
        audiences: vec!["a".to_owned()],
        organization_claim: "organization".to_owned(),
        scope_claim: "scope".to_owned(),
        client: None,
    };
    assert_eq!(
        connect(config("http://id.example.org")).await,
        "--oidc-issuer http://id.example.org cannot be used: \
         it must start with https:// (or http:// on this machine's loopback)"
    );
    let provider = TestProvider::start();
    let slash = format!("{}/", provider.issuer);
    let message = connect(config(&slash)).await;
    assert_eq!(
        message,
        format!("--oidc-issuer {slash}: the provider there calls itself {:?}", provider.issuer)
    );
    let nothing = format!("{}/nothing", provider.issuer);
    let message = connect(config(&nothing)).await;
    assert_eq!(
        message,
        format!("--oidc-issuer {nothing}: {nothing}/.well-known/openid-configuration answers 404 Not Found")
    );
    let nobody = ProviderConfig { audiences: vec![String::new()], ..provider.config() };
    assert!(connect(nobody).await.contains("--oidc-audience"));
}
