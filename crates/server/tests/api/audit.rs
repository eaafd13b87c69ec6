//! Who did what from where: in executions, also of failed authentications.

use crate::{
    harness::{TOKEN, tunnel},
    serving::{BOUND, Serving},
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{sleep, timeout};

const PROXY: &str = "127.0.0.9";

/// Requests of one client, with the admin token unless said otherwise.
struct Client<'a> {
    serving: &'a Serving,
    from: &'static str,
}

impl Client<'_> {
    async fn send(&self, request: &str, headers: &[&str], body: &Value) -> (u16, Value) {
        let first = format!("{request} HTTP/1.1");
        let lines = [&[first.as_str(), "content-type: application/json"], headers].concat();
        self.serving.exchange(self.from, &lines, &body.to_string()).await
    }

    async fn ask(&self, request: &str, body: Value) -> Value {
        let (status, answer) = self.send(request, &[&format!("authorization: Bearer {TOKEN}")], &body).await;
        assert!((200..300).contains(&status), "{request}: {status} {answer}");
        answer
    }

    /// The values of properties of the executions of a list, oldest first, once there are so many.
    async fn executions(&self, list: &str, count: usize, properties: &[&str]) -> Vec<Value> {
        let found = async {
            loop {
                let page = self.ask(&format!("GET {list}"), Value::Null).await;
                let rows = page["content"].as_array().unwrap().clone();
                if rows.len() >= count {
                    return rows;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        let rows = timeout(BOUND, found).await.unwrap();
        let shown = |row: &Value| properties.iter().map(|name| row[*name].clone()).collect();
        rows.iter().map(shown).collect()
    }
}

async fn start() -> Serving {
    Serving::start(|config| config.external.trusted_proxies = vec![PROXY.parse().unwrap()]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_has_the_clients_address_and_the_id_of_its_request() {
    let serving = start().await;
    let client = |from| Client { serving: &serving, from };
    let list = client("127.0.0.1").ask("GET /frontdoor/v2", Value::Null).await;
    let frontdoor = format!("/frontdoor/v2/{}", list["content"][0]["id"].as_str().unwrap());
    let tunnels = format!("POST {frontdoor}/ipsec-tunnels");
    let token = format!("authorization: Bearer {TOKEN}");
    for (n, from, headers) in [
        (1, "127.0.0.2", vec!["x-request-id: order-7"]),
        // A client that is no proxy says nothing about its address.
        (2, "127.0.0.3", vec!["x-forwarded-for: 192.0.2.7"]),
        (3, PROXY, vec!["x-forwarded-for: 192.0.2.1, 2001:db8::7"]),
        // The proxy names none.
        (4, PROXY, vec![]),
        // A request that is carried out by a task of its own.
        (5, "127.0.0.5", vec!["idempotency-key: k", "x-request-id: order-8"]),
    ] {
        let headers = [&[token.as_str()], &headers[..]].concat();
        let (status, made) = client(from).send(&tunnels, &headers, &tunnel(&format!("t{n}"), n)).await;
        assert_eq!(status, 202, "{made}");
    }
    let executions = format!("{frontdoor}/executions?action=CREATE&resourceType=ipsec-tunnel");
    let found = client("127.0.0.1").executions(&executions, 5, &["sourceAddress"]).await;
    let addresses =
        [json!("127.0.0.2"), json!("127.0.0.3"), json!("2001:db8::7"), Value::Null, json!("127.0.0.5")];
    assert_eq!(found, addresses.map(|address| json!([address])));
    for (filter, count) in [
        ("sourceAddress=127.0.0.2", 1),
        ("sourceAddress=2001:db8::7", 1),
        ("sourceAddress=127.0.0.2&sourceAddress=127.0.0.3", 2),
        ("requestId=order-7", 1),
        ("requestId=order-7&requestId=order-8", 2),
        ("requestId=order-9", 0),
    ] {
        let page = client("127.0.0.1").ask(&format!("GET {executions}&{filter}"), Value::Null).await;
        assert_eq!(page["totalElements"], count, "{filter}");
    }
    // The server's own writes have no request.
    let first =
        client("127.0.0.1").executions("/frontdoor/v2/executions?actor=server", 1, &["requestId"]).await;
    assert_eq!(first, [json!([null])]);
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_authentications_as_a_known_account_or_link_are_recorded() {
    let serving = start().await;
    let admin = Client { serving: &serving, from: "127.0.0.1" };
    let guesser = Client { serving: &serving, from: "127.0.0.6" };
    let list = admin.ask("GET /frontdoor/v2", Value::Null).await;
    let frontdoor = format!("/frontdoor/v2/{}", list["content"][0]["id"].as_str().unwrap());
    let account = json!({"name": "a", "scopes": ["frontdoor.read"], "organizationId": "default"});
    let account = admin.ask("POST /frontdoor/v2/api-accounts", account).await;
    let made = admin.ask(&format!("POST {frontdoor}/ipsec-tunnels"), tunnel("a", 1)).await;
    let links = format!("{frontdoor}/ipsec-tunnels/{}/handover-links", made["id"].as_str().unwrap());
    let link = admin.ask(&format!("POST {links}"), json!({"passphrase": "correct horse"})).await;
    let revoked = admin.ask(&format!("POST {links}"), json!({})).await;
    admin.ask(&format!("DELETE {links}/{}", revoked["id"].as_str().unwrap()), Value::Null).await;

    let client_id = account["clientId"].as_str().unwrap();
    let shown = "wgs_shown-by-a-guesser";
    let request =
        |id: &str| json!({"grant_type": "client_credentials", "client_id": id, "client_secret": shown});
    let open = |token: &Value, passphrase: &str| json!({"token": token, "passphrase": passphrase});
    let unknown = "acc-0190f3a4c0de7000800000000000abcd";
    for (request, body, status) in [
        ("POST /oauth/token", request(client_id), 401),
        ("POST /oauth/token", request(unknown), 401),
        ("POST /site/open", open(&link["token"], "wrong horse"), 403),
        ("POST /site/open", open(&revoked["token"], "any horse"), 403),
        ("POST /site/open", open(&json!("wgh_unknown"), "any horse"), 403),
    ] {
        let (found, answer) = guesser.send(request, &["x-request-id: guess"], &body).await;
        assert_eq!(found, status, "{request}: {answer}");
    }
    let properties =
        ["actor", "resourceType", "resourceId", "status", "message", "sourceAddress", "requestId"];
    let by = |kind: &str, id: &Value, why: &str| {
        json!(["anonymous", kind, id, "FAILED", why, "127.0.0.6", "guess"])
    };
    let of_organization = "/frontdoor/v2/executions?action=AUTHENTICATE";
    let found = admin.executions(of_organization, 1, &properties).await;
    assert_eq!(found, [by("api-account", &account["clientId"], "the secret is wrong")]);
    let of_frontdoor = format!("{frontdoor}/executions?action=AUTHENTICATE&sort=message");
    let found = admin.executions(&of_frontdoor, 2, &properties).await;
    let expected = [
        by("handover-link", &revoked["id"], "the link cannot be opened any more"),
        by("handover-link", &link["id"], "the passphrase is wrong"),
    ];
    assert_eq!(found, expected);
    for list in [of_organization, &of_frontdoor] {
        let page = admin.ask(&format!("GET {list}"), Value::Null).await;
        assert!(!page.to_string().contains("guesser") && !page.to_string().contains("wrong horse"), "{page}");
    }
    serving.stop().await;
}
