//! People sign in to the web console at an identity provider: authorization code with PKCE.

use crate::{
    harness::{Answer, TestApp},
    provider::{AUDIENCE, TestProvider},
};
use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use jiff::{SignedDuration, Timestamp};
use reqwest::{Client, Response, Url, redirect::Policy};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};
use wicketgate_server::auth::oidc::{CodeClient, Provider, ProviderConfig};

const CONSOLE: &str = "http://console.example";

async fn app(provider: &mut TestProvider, change: impl FnOnce(&mut CodeClient)) -> TestApp {
    provider.order(&json!({"do": "client", "redirect": format!("{CONSOLE}/console/callback")}));
    let mut client = CodeClient {
        id: "the-console".to_owned(),
        secret: Some("the-secret-of-a-console-in-a-test".to_owned().into()),
        scope: "openid frontdoor.read frontdoor.write".to_owned(),
        parameters: vec![("resource".to_owned(), format!("{AUDIENCE}ES256"))],
    };
    change(&mut client);
    let config = ProviderConfig { client: Some(client), ..provider.config() };
    TestApp::with_provider(Some(Arc::new(Provider::connect(config).await.unwrap()))).await
}

async fn visit(app: &TestApp, path: &str, cookie: &str) -> Answer {
    let request = Request::get(path).header("host", "console.example").header("cookie", cookie);
    app.send(request.body(Body::empty()).unwrap()).await
}

fn location(answer: &Answer) -> &str {
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
    answer.headers["location"].to_str().unwrap()
}

/// The `Cookie` header after the answer.
fn cookies(answer: &Answer) -> String {
    let all = answer.headers.get_all("set-cookie").iter().map(|c| c.to_str().unwrap());
    all.map(|cookie| cookie.split(';').next().unwrap()).collect::<Vec<_>>().join("; ")
}

/// A person at the provider: goes on until the provider sends the browser back, and returns the path there.
async fn at_the_provider(url: &str) -> String {
    let browser = Client::builder().redirect(Policy::none()).no_proxy().build().unwrap();
    let mut jar = BTreeMap::new();
    let mut url: Url = url.parse().unwrap();
    for _ in 0..6 {
        if let Some(rest) = url.as_str().strip_prefix(CONSOLE) {
            return rest.to_owned();
        }
        let is_form = url.path().starts_with("/interaction/");
        let request = if is_form { browser.post(url.clone()) } else { browser.get(url.clone()) };
        let cookie: Vec<_> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let answer: Response = request.header("cookie", cookie.join("; ")).send().await.unwrap();
        for cookie in answer.headers().get_all("set-cookie") {
            let (name, value) = cookie.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap();
            jar.insert(name.to_owned(), value.to_owned());
        }
        let next = answer.headers().get("location").map(|next| next.to_str().unwrap().to_owned());
        let next = match next {
            Some(next) => next,
            None => panic!("{url} answers {}: {}", answer.status(), answer.text().await.unwrap()),
        };
        url = url.join(&next).unwrap();
    }
    panic!("the provider does not end: {url}");
}

#[tokio::test]
async fn a_person_signs_in_at_the_provider() {
    let mut provider = TestProvider::start();
    let app = app(&mut provider, |_| {}).await;
    let options = visit(&app, "/console/options", "").await;
    assert_eq!(options.body["identityProvider"]["issuer"], provider.issuer);

    let begun = visit(&app, "/console/sign-in?return=/tunnels%3Fpage%3D2", "").await;
    let cookie = cookies(&begun);
    let attributes = begun.headers["set-cookie"].to_str().unwrap();
    assert!(attributes.ends_with("; Path=/; Max-Age=600; HttpOnly; SameSite=Lax"), "{attributes}");
    let back = at_the_provider(location(&begun)).await;

    // A callback that this browser has not begun: another state, or no cookie.
    for cookie in ["", "wicketgate-sign-in=a.b.c"] {
        let forged = visit(&app, &back, cookie).await;
        assert_eq!(location(&forged), format!("{CONSOLE}/#/sign-in?error=sign_in_expired"));
        assert_eq!(cookies(&forged), "wicketgate-sign-in=");
    }

    let done = visit(&app, &back, &cookie).await;
    assert_eq!(location(&done), format!("{CONSOLE}/#/tunnels?page=2"));
    let session = cookies(&done);
    let session = session.split("; ").find(|cookie| cookie.starts_with("wicketgate-session=")).unwrap();
    let shown = visit(&app, "/console/session", session).await;
    assert_eq!(
        (&shown.body["actor"], &shown.body["kind"]),
        (&json!("oidc:alice"), &json!("IDENTITY_PROVIDER"))
    );
    assert_eq!(shown.body["scopes"], json!(["frontdoor.read", "frontdoor.write"]));
    assert_eq!(shown.body["organizationId"], "default");
    // It ends with the access token, which the provider issues for an hour.
    let ends: Timestamp = shown.body["expiresAt"].as_str().unwrap().parse().unwrap();
    assert!(ends <= Timestamp::now() + SignedDuration::from_hours(1), "{ends}");
    assert_eq!(visit(&app, &app.path("ipsec-tunnels"), session).await.status, StatusCode::OK);

    // A code is valid once.
    let again = visit(&app, &back, &cookie).await;
    assert_eq!(location(&again), format!("{CONSOLE}/#/sign-in?error=provider_refused"));
}

#[tokio::test]
async fn an_id_and_a_secret_of_any_characters_reach_the_provider() {
    let mut provider = TestProvider::start();
    let app = app(&mut provider, |client| {
        client.id = "https://console.example:1/".to_owned();
        client.secret = Some("a+secret%20of: a console in a test".to_owned().into());
    })
    .await;
    let begun = visit(&app, "/console/sign-in?return=/tunnels", "").await;
    let back = at_the_provider(location(&begun)).await;
    let done = visit(&app, &back, &cookies(&begun)).await;
    assert_eq!(location(&done), format!("{CONSOLE}/#/tunnels"));
}

#[tokio::test]
async fn a_token_for_another_service_signs_nobody_in() {
    let mut provider = TestProvider::start();
    let app = app(&mut provider, |client| client.parameters.clear()).await;
    let begun = visit(&app, "/console/sign-in", "").await;
    let back = at_the_provider(location(&begun)).await;
    let refused = visit(&app, &back, &cookies(&begun)).await;
    assert_eq!(location(&refused), format!("{CONSOLE}/#/sign-in?error=token_refused"));
}

#[tokio::test]
async fn a_failure_at_the_provider_is_told_to_the_console() {
    let mut provider = TestProvider::start();
    let app = app(&mut provider, |client| client.secret = Some("wrong".to_owned().into())).await;
    let begun = visit(&app, "/console/sign-in", "").await;
    let cookie = cookies(&begun);
    let back = at_the_provider(location(&begun)).await;
    let refused = visit(&app, &back, &cookie).await;
    assert_eq!(location(&refused), format!("{CONSOLE}/#/sign-in?error=provider_refused"));
    let denied = back.replace("code=", "error=access_denied&no-code=");
    let refused = visit(&app, &denied, &cookie).await;
    assert_eq!(location(&refused), format!("{CONSOLE}/#/sign-in?error=provider_refused"));
    provider.order(&json!({"do": "stop"}));
    let refused = visit(&app, &back, &cookie).await;
    assert_eq!(location(&refused), format!("{CONSOLE}/#/sign-in?error=provider_unavailable"));
}

#[tokio::test]
async fn without_a_provider_nobody_is_sent_away() {
    let app = TestApp::new().await;
    assert_eq!(visit(&app, "/console/options", "").await.body.get("identityProvider"), None);
    let answer = visit(&app, "/console/sign-in", "").await;
    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text);
    let carried = "wicketgate-sign-in=a.b.";
    let answer = visit(&app, "/console/callback?state=a&code=c", carried).await;
    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text);
}
