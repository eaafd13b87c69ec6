//! The API behind a real nginx that compresses answers and adds a path prefix.

use crate::{
    harness::{TOKEN, tunnel, with},
    serving::{BOUND, Serving},
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
/// Ends with this value.
struct Nginx {
    process: Child,
    url: String,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Nginx {
    /// `None` if it is not installed.
    async fn start(dir: &Path, api: SocketAddr) -> Option<Self> {
        // Free until nginx binds it.
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {}/{name};", dir.display()))
            .join(" ");
        let config = format!(
            "daemon off; master_process off; pid {dir}/nginx.pid; error_log stderr;\n\
             events {{ worker_connections 64; }}\n\
             http {{ access_log off; {temporary}\n\
               gzip on; gzip_types application/json application/hal+json; gzip_proxied any; gzip_min_length 20;\n\
               server {{ listen {address};\n\
                 location /wicketgate/ {{ proxy_pass http://{api}/;\n\
                   proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $http_host;\n\
                   proxy_set_header X-Forwarded-Prefix /wicketgate;\n\
                   proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }} }} }}\n",
            dir = dir.display()
        );
        let file = dir.join("nginx.conf");
        fs::write(&file, config).unwrap();
        let mut command = Command::new("/usr/sbin/nginx");
        let process = command.arg("-c").arg(&file).stdin(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let nginx = Self { process, url: format!("http://{address}/wicketgate") };
        let listens = async {
            while TcpStream::connect(address).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(BOUND, listens).await.unwrap();
        Some(nginx)
    }
}

/// The headers, and the body.
fn curl(url: &str, args: &[&str]) -> (u16, HashMap<String, String>, Value) {
    let token = format!("authorization: Bearer {TOKEN}");
    let output = Command::new("curl")
        .args(["-sSi", "--compressed", "-H", &token, "-H", "content-type: application/json", url])
        .args(args)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    (status, headers, serde_json::from_str(body).unwrap_or(Value::Null))
}

#[tokio::test(flavor = "multi_thread")]
async fn links_lead_through_the_proxy_and_compressed_answers_can_be_written_back() {
    let proxy = "127.0.0.1".parse().unwrap();
    let serving = Serving::start(|config| config.external.trusted_proxies = vec![proxy]).await;
    let api = serving.address;
    let Some(nginx) = Nginx::start(serving.dir.path(), api).await else {
        eprintln!("skipped: nginx is missing (apt-get install nginx-light)");
        return;
    };

    let hal = ["-H", "accept: application/hal+json"];
    let follow = |link: &Value| {
        let href = link["href"].as_str().unwrap();
        assert!(href.starts_with(&nginx.url), "{href}");
        curl(href, &hal)
    };
    let (_, headers, list) = curl(&format!("{}/frontdoor/v2", nginx.url), &hal);
    assert_eq!(headers["content-encoding"], "gzip");
    let (status, _, frontdoor) = follow(&list["_embedded"]["frontdoorList"][0]["_links"]["self"]);
    assert_eq!(status, 200, "{frontdoor}");
    assert_eq!(follow(&list["_links"]["self"]).0, 200);

    let tunnels = format!("{}/frontdoor/v2/{}/ipsec-tunnels", nginx.url, frontdoor["id"].as_str().unwrap());
    let body = with(tunnel("customer-a", 1), json!({"tags": {"href": "/kept"}})).to_string();
    let (status, headers, made) = curl(&tunnels, &["-d", &body]);
    assert_eq!(status, 202, "{made}");
    let location = headers["location"].clone();
    let (status, headers, read) = curl(&location, &hal);
    assert_eq!(
        (status, &read["id"], &read["tags"]["href"]),
        (200, &made["id"], &json!("/kept")),
        "{location}"
    );
    assert!(headers["etag"].starts_with("W/"), "nginx compresses, so that {} is weak", headers["etag"]);
    let change = |tag: &str| curl(&location, &["-X", "PATCH", "-d", r#"{"description": "x"}"#, "-H", tag]).0;
    // The reconciler may change the status between the read and the write, once.
    let changed = (0..3).find_map(|_| {
        let tag = format!("if-match: {}", curl(&location, &hal).1["etag"]);
        (change(&tag) == 202).then_some(tag)
    });
    assert_eq!(change(&changed.unwrap()), 412, "it has changed");

    // A handover link leads through the proxy. Its other clients do not suffer from one who tries wrong links, whatever this
    // one says that its address is.
    let (_, _, link) = curl(&format!("{location}/handover-links"), &["-d", "{}"]);
    assert!(link["url"].as_str().unwrap().starts_with(&format!("{}/site#wgh_", nginx.url)), "{link}");
    let open = |client: &str, token: &Value, said: &str| {
        let (body, said) = (json!({"token": token}).to_string(), format!("x-forwarded-for: {said}"));
        curl(&format!("{}/site/open", nginx.url), &["--interface", client, "-H", &said, "-d", &body]).0
    };
    let wrong = |_| open("127.0.0.2", &json!("wgh_unknown"), "127.0.0.3");
    let statuses: Vec<_> = (0..30).map(wrong).take_while(|status| *status == 403).collect();
    // Another try arrives in six seconds.
    assert!((10..15).contains(&statuses.len()), "{} tries", statuses.len());
    for said in ["127.0.0.4", "\u{e9}"] {
        assert_eq!(open("127.0.0.2", &link["token"], said), 429, "{said}");
    }
    assert_eq!(open("127.0.0.3", &link["token"], "127.0.0.2"), 200);

    // Errors link to their page, and so do statuses in plain JSON.
    let missing = curl(&format!("{tunnels}/none"), &[]).2;
    for (has_links, name) in [(&missing, "not_found"), (&made["statusDetail"], "Pending")] {
        let href = has_links["_links"]["help"]["href"].as_str().unwrap();
        assert_eq!(href, format!("{}/docs/reasons/{name}", nginx.url));
        assert_eq!(curl(href, &[]).0, 200);
    }
    let (_, _, document) = curl(&format!("{}/openapi.json", nginx.url), &[]);
    assert_eq!(document["servers"][0]["url"], format!("{}/", nginx.url));
    let (_, _, root) = curl(&format!("{}/", nginx.url), &[]);
    assert_eq!(root["_links"]["service-desc"]["href"], format!("{}/openapi.json", nginx.url));
    let token_url = "/components/securitySchemes/oauth/flows/clientCredentials/tokenUrl";
    assert_eq!(document.pointer(token_url).unwrap(), &json!(format!("{}/oauth/token", nginx.url)));
    // Straight to the server, from an address that is trusted: a cache must not keep what it says for others.
    let forged = ["x-forwarded-proto: https", "x-forwarded-host: evil.example, api.example"];
    let forged: Vec<_> = forged.iter().flat_map(|header| ["-H", header]).collect();
    for path in ["", "openapi.json", "frontdoor/v2", ".well-known/jwks.json"] {
        let (_, headers, _) = curl(&format!("http://{api}/{path}"), &[]);
        assert!(headers["vary"].contains("X-Forwarded-Host"), "{path}: {headers:?}");
        assert!(!headers.get("cache-control").is_some_and(|v| v.contains("public")), "{path}: {headers:?}");
        let (_, _, answer) = curl(&format!("http://{api}/{path}"), &forged);
        assert!(!answer.to_string().contains("evil.example"), "{path}: {answer}");
    }
    let quoted = ["-H", "x-forwarded-proto: https", "-H", "x-forwarded-host: api.example/\",\"x\":\""];
    let (_, _, answer) = curl(&format!("http://{api}/openapi.json"), &quoted);
    assert_eq!(answer["servers"][0]["url"], "/");
    // Without the proxy, links are paths as before, whatever a header says: the client is trusted, and names no prefix.
    let (_, _, list) = curl(&format!("http://{api}/frontdoor/v2"), &hal);
    assert!(list["_links"]["self"]["href"].as_str().unwrap().starts_with("/frontdoor/v2"));
    serving.stop().await;
}
