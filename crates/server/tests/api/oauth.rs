use crate::harness::{Answer, TestApp};
use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use insta::assert_json_snapshot;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode, jwk::JwkSet};
use serde_json::{Value, json};

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

async fn ask(
    app: &TestApp,
    authorization: Option<&str>,
    content_type: &str,
    body: impl Into<Body>,
) -> Answer {
    let mut request = Request::post("/oauth/token").header("content-type", content_type);
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    app.send(request.body(body.into()).unwrap()).await
}

fn texts(account: &Value) -> (&str, &str) {
    (account["clientId"].as_str().unwrap(), account["clientSecret"].as_str().unwrap())
}

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

async fn token(app: &TestApp, account: &Value) -> String {
    let (id, secret) = texts(account);
    let form = "grant_type=client_credentials";
    let answer = ask(app, Some(&basic(id, secret)), FORM, form).await;
    answer.body["access_token"].as_str().unwrap().to_owned()
}

fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn a_secret_is_accepted_in_every_form() {
    let app = TestApp::new().await;
    let account = app.account(json!({"scopes": ["frontdoor.read", "frontdoor.write"]})).await;
    let (id, secret) = texts(&account);
    let form = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
    let made = ask(&app, None, FORM, form.clone()).await;
    assert_json_snapshot!("token", app.shown(&made));
    assert_eq!(
        (&made.headers["cache-control"], &made.headers["pragma"]),
        (&"no-store".parse().unwrap(), &"no-cache".parse().unwrap())
    );
    let object = json!({"grant_type": "client_credentials", "client_id": id, "client_secret": secret, "audience": ["x"]});
    let grant = "grant_type=client_credentials";
    for (authorization, content_type, body) in [
        (None, JSON, object.to_string()),
        (Some(basic(id, secret)), FORM, grant.to_owned()),
        (
            Some(basic(id, secret)),
            "application/x-www-form-urlencoded; charset=utf-8",
            format!("{grant}&client_id={id}&resource=x&resource=y"),
        ),
        (Some(basic(id, secret)), JSON, json!({"grant_type": "client_credentials"}).to_string()),
        (Some(format!("Basic {id}:{secret}")), FORM, grant.to_owned()),
    ] {
        let answer = ask(&app, authorization.as_deref(), content_type, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        let token = answer.body["access_token"].as_str().unwrap();
        assert_eq!(app.get_as(token, "ipsec-shares").await.status, StatusCode::OK);
        let as_password = basic("any", token);
        let request = Request::get(app.path("ipsec-shares")).header("authorization", as_password);
        assert_eq!(app.send(request.body(Body::empty()).unwrap()).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn errors_conform_to_the_rfc() {
    let app = TestApp::new().await;
    let account = app.account(json!({})).await;
    let (id, secret) = texts(&account);
    let (right, wrong) = (basic(id, secret), basic(id, "wgs_wrong"));
    let unknown = basic("acc-0190f3a4000070008000000000000001", secret);
    let grant = "grant_type=client_credentials";
    let mut shown = Vec::new();
    for (authorization, content_type, body) in [
        (Some(&right), FORM, String::new()),
        (Some(&right), FORM, "grant_type=password&username=a&password=b".to_owned()),
        (Some(&right), FORM, format!("{grant}&{grant}")),
        (Some(&right), FORM, format!("{grant}&scope=frontdoor.admin")),
        (Some(&right), FORM, format!("{grant}&scope=+")),
        (Some(&right), FORM, format!("{grant}&client_secret={secret}")),
        (Some(&right), FORM, format!("{grant}&client_id=another")),
        (Some(&wrong), FORM, grant.to_owned()),
        (Some(&unknown), FORM, grant.to_owned()),
        (Some(&"Bearer x".to_owned()), FORM, grant.to_owned()),
        (Some(&"Basic %%%".to_owned()), FORM, grant.to_owned()),
        (None, FORM, grant.to_owned()),
        (None, FORM, format!("{grant}&client_secret={secret}")),
        (None, JSON, "{".to_owned()),
        (None, JSON, json!({"grant_type": 7}).to_string()),
        (None, "text/plain", grant.to_owned()),
        (None, FORM, "x".repeat((1 << 20) + 1)),
    ] {
        shown.push(app.shown(&ask(&app, authorization.map(String::as_str), content_type, body).await));
    }
    assert_json_snapshot!("errors", shown);
    assert_eq!(app.get("/oauth/token").await.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_token_is_valid_for_at_most_an_hour_and_has_the_requested_scopes() {
    let app = TestApp::new().await;
    let account = app.account(json!({"scopes": ["frontdoor.read", "frontdoor.write"]})).await;
    let (id, secret) = texts(&account);
    let form = "grant_type=client_credentials&scope=frontdoor.read";
    let made = ask(&app, Some(&basic(id, secret)), FORM, form).await;
    assert_eq!(made.body["scope"], "frontdoor.read");
    let token = made.body["access_token"].as_str().unwrap();
    let claims = claims(token);
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
    assert_eq!((&claims["sub"], &claims["client_id"]), (&account["clientId"], &account["clientId"]));
    assert_eq!(app.get_as(token, "ipsec-shares").await.status, StatusCode::OK);
    let write = app.call_as(token, Method::POST, "ipsec-tunnels", Some(json!({}))).await;
    assert_eq!(write.body["message"], "The token lacks the scope frontdoor.write");

    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(60);
    let short = app.account(json!({"expiresAt": end})).await;
    let (id, secret) = texts(&short);
    let made = ask(&app, Some(&basic(id, secret)), FORM, "grant_type=client_credentials").await;
    assert!((55..=60).contains(&made.body["expires_in"].as_i64().unwrap()), "{}", made.text);
}

#[tokio::test]
async fn a_token_is_invalid_after_its_account_is_revoked() {
    let app = TestApp::new().await;
    let account = app.account(json!({})).await;
    let token = token(&app, &account).await;
    assert_eq!(app.get_as(&token, "ipsec-shares").await.status, StatusCode::OK);
    app.delete(&format!("/frontdoor/v2/api-accounts/{}", texts(&account).0)).await;
    assert_json_snapshot!("of_a_revoked_account", app.shown(&app.get_as(&token, "ipsec-shares").await));
}

#[tokio::test]
async fn the_published_key_verifies_the_servers_tokens() {
    let app = TestApp::new().await;
    let account = app.account(json!({})).await;
    let token = token(&app, &account).await;
    let request = Request::get("/.well-known/jwks.json").body(Body::empty()).unwrap();
    let published = app.send(request).await;
    assert_eq!(published.status, StatusCode::OK);
    assert!(published.body["keys"][0].get("d").is_none(), "{}", published.text);
    let set: JwkSet = serde_json::from_value(published.body).unwrap();
    let kid = jsonwebtoken::decode_header(&token).unwrap().kid.unwrap();
    let key = DecodingKey::from_jwk(set.find(&kid).unwrap()).unwrap();
    let mut rules = Validation::new(Algorithm::ES256);
    rules.set_audience(&["wicketgate"]);
    assert!(decode::<Value>(&token, &key, &rules).is_ok());
}

#[tokio::test]
async fn a_forged_token_is_refused() {
    let app = TestApp::new().await;
    let account = app.account(json!({"scopes": ["frontdoor.read"]})).await;
    let good = token(&app, &account).await;
    let parts: Vec<_> = good.split('.').collect();
    let raw = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let mut more = claims(&good);
    more["scope"] = json!("frontdoor.read frontdoor.admin");
    let public = app.send(Request::get("/.well-known/jwks.json").body(Body::empty()).unwrap()).await.text;
    let hmac = EncodingKey::from_secret(public.as_bytes());
    let none = raw(&json!({"alg": "none"}));
    for forged in [
        format!("{}.{}.{}", parts[0], raw(&more), parts[2]),
        format!("{none}.{}.", raw(&more)),
        format!("{none}.{}.{}", parts[1], parts[2]),
        encode(&Header::new(Algorithm::HS256), &more, &hmac).unwrap(),
        format!("{}.{}", parts[0], parts[1]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{good}A"),
        "a.b.c".to_owned(),
    ] {
        let answer = app.get_as(&forged, "ipsec-shares").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{forged}");
        assert_eq!(
            answer.headers["www-authenticate"],
            "Bearer realm=\"wicketgate\", error=\"invalid_token\""
        );
    }
}
