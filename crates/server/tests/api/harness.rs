//! An in-process server: its router, a store in a temporary directory, and one-line requests.

use crate::{openapi_checker, redact::Redact};
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request, StatusCode},
    response::Response,
};
use jiff::Timestamp;
use prometheus_client::registry::Registry;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use uuid::Uuid;
use wicketgate_lab::postgres;
use wicketgate_link::{GatewayHello, ToGateway, VERSIONS};
use wicketgate_model::{
    AgentId, Connection, EnrollmentId, EspMode, FrontdoorId, GatewayId, Generation, LoadBalancerPools,
    Quotas, SpooledTraffic, Standing, Status, TrafficDelta, TunnelId, ZId,
};
use wicketgate_server::{
    AppState, BackgroundTasks, GatewayRpc, Gateways, LastRun, LinkedGateway, RateSetting, Rates, SharedView,
    StateConfig,
    auth::{AdminToken, Auth, oidc::Provider, token_key::TokenKey},
    ensure_first_frontdoor, router,
};
use wicketgate_store::{
    AgentLink, EnrolAttempt, EnrolledAgent, GatewayEpoch, NewEnrollment, NewGateway, Resource, SecretKeyFile,
    StatusUpdate, Store, WriteContext,
};
use wicketgate_system::Latest;
use wicketgate_transport::trust::Fingerprint;

pub(crate) const TOKEN: &str = "wga_the-token-of-these-tests";

pub(crate) struct TestApp {
    pub(crate) store: Store,
    pub(crate) frontdoor: FrontdoorId,
    pub(crate) gateway: LinkedGateway,
    /// Of the gateway's link.
    pub(crate) epoch: GatewayEpoch,
    pub(crate) tasks: BackgroundTasks,
    router: Router,
    redact: Mutex<Redact>,
    enrolled: AtomicUsize,
    /// The messages to the gateway. A test takes the receiver to answer them.
    pub(crate) asked: Mutex<Option<mpsc::Receiver<ToGateway>>>,
    _dir: TempDir,
}

/// The limits of an installation.
#[derive(Default)]
struct Limits {
    quotas: Quotas,
    rates: Rates,
    /// Its location has another gateway.
    is_pair: bool,
}

/// A complete response.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) text: String,
}

pub(crate) fn gateway_id() -> GatewayId {
    GatewayId::new(Uuid::nil())
}

impl TestApp {
    pub(crate) async fn new() -> Self {
        Self::with_provider(None).await
    }

    pub(crate) async fn with_provider(provider: Option<Arc<Provider>>) -> Self {
        Self::unlinked(provider).await.linked()
    }

    /// Its gateway has not connected yet.
    pub(crate) async fn unlinked(provider: Option<Arc<Provider>>) -> Self {
        let dir = TempDir::new().unwrap();
        Self::start(&Self::place(&dir), dir, provider, Limits::default()).await
    }

    /// On a database of the test's own.
    pub(crate) async fn on(place: &str, dir: TempDir) -> Self {
        Self::start(place, dir, None, Limits::default()).await.linked()
    }

    /// With these limits of the installation.
    pub(crate) async fn with_quotas(quotas: Quotas) -> Self {
        Self::with_limits(Limits { quotas, ..Limits::default() }).await
    }

    /// With these limits of requests, written as settings.
    pub(crate) async fn with_rates(settings: &[&str]) -> Self {
        let rates = settings.iter().map(|text| text.parse::<RateSetting>().unwrap()).collect();
        Self::with_limits(Limits { rates, ..Limits::default() }).await
    }

    /// With another gateway of its location, at another server.
    pub(crate) async fn pair() -> Self {
        Self::with_limits(Limits { is_pair: true, ..Limits::default() }).await
    }

    async fn with_limits(limits: Limits) -> Self {
        let dir = TempDir::new().unwrap();
        Self::start(&Self::place(&dir), dir, None, limits).await.linked()
    }

    /// Its gateway has connected, and the reconciler, which it does not have, has run.
    fn linked(self) -> Self {
        self.gateway.view.linked(hello(EspMode::Userland));
        self.reconciled(None);
        self
    }

    /// A run of the reconciler has ended so.
    pub(crate) fn reconciled(&self, error: Option<String>) {
        let took = Duration::from_millis(2);
        self.tasks.record("reconciler", LastRun { at: Timestamp::now(), took, error });
    }

    /// The address of a new database.
    pub(crate) fn place(dir: &TempDir) -> String {
        let file = || dir.path().join("wicketgate.db").display().to_string();
        postgres::fresh().unwrap().unwrap_or_else(file)
    }

    async fn start(place: &str, dir: TempDir, provider: Option<Arc<Provider>>, limits: Limits) -> Self {
        let store =
            Store::open(place, &SecretKeyFile::created_at(dir.path().join("secret-key"))).await.unwrap();
        let frontdoor = ensure_first_frontdoor(&store).await.unwrap().unwrap().id;
        let own = NewGateway { id: gateway_id(), location: "local".parse().unwrap(), in_process: true };
        store.register_gateway(&own, Timestamp::now()).await.unwrap();
        let epoch = store.link_gateway(gateway_id(), Timestamp::now()).await.unwrap();
        let (to_gateway, asked) = mpsc::channel(64);
        let gateway = LinkedGateway {
            location: "local".parse().unwrap(),
            view: SharedView::new(Timestamp::now()),
            rpc: GatewayRpc::new(to_gateway),
        };
        let mut gateways = Gateways::from_iter([(gateway_id(), gateway.clone())]);
        if limits.is_pair {
            gateways = gateways.in_directory(crate::redundancy::beside(&store).await);
        }
        let config = StateConfig {
            store: store.clone(),
            auth: Auth {
                admin: Arc::new(Latest::new(AdminToken::new(TOKEN))),
                tokens: Arc::new(TokenKey::from_der(&TokenKey::generate().unwrap()).unwrap()),
                provider,
            },
            gateways,
            pools: LoadBalancerPools::ipsec(),
            external: Default::default(),
            ca: Fingerprint::of(b"a certificate"),
            agent_server: Some("https://198.51.100.7:8443".to_owned()),
            link_addresses: Arc::new(Latest::new(vec!["server-1.example:8444".to_owned()])),
            quotas: limits.quotas,
            rates: limits.rates,
            revocations: dir.path().join("revocations"),
        };
        let state = AppState::new(config, &mut Registry::default(), CancellationToken::new());
        let (feeding, tasks) = (state.clone(), state.tasks().clone());
        tokio::spawn(async move { feeding.run_event_feed().await });
        let router = router(state);
        let (redact, enrolled) = (Mutex::default(), AtomicUsize::new(0));
        let asked = Mutex::new(Some(asked));
        Self { store, frontdoor, gateway, epoch, tasks, router, redact, enrolled, asked, _dir: dir }
    }

    /// Records it as a gateway's report.
    pub(crate) async fn record_connection(&self, tunnel: TunnelId, connection: &Connection) {
        let connections = [(tunnel, connection.clone())];
        self.store.record_connections(&self.epoch, &connections, Timestamp::now()).await.unwrap();
    }

    /// Records it as a gateway's report.
    pub(crate) async fn connect(&self, agent: AgentId) {
        let (name, version) = ("dc-1".to_owned(), "0.1.0".to_owned());
        let link = AgentLink { agent, name, version, address: [192, 0, 2, 9].into() };
        self.store.agent_connected(&self.epoch, &link, Timestamp::now()).await.unwrap();
    }

    /// Creates a tunnel and an environment, which the bodies of shares refer to.
    pub(crate) async fn with_site() -> (Self, Value, EnrolledAgent) {
        let app = Self::new().await;
        let made = app.post("ipsec-tunnels", tunnel("customer-a", 1)).await;
        assert_eq!(made.status, StatusCode::ACCEPTED, "{}", made.text);
        let enrolled = app.enrol().await;
        (app, made.body, enrolled)
    }

    /// Sends a request and returns the response with its body unread, for a stream.
    pub(crate) async fn open(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// The server's data directory.
    pub(crate) fn dir(&self) -> &Path {
        self._dir.path()
    }

    /// Sends a request, and checks the response against the OpenAPI document.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 1 << 24).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        assert_ne!(parts.status, StatusCode::INTERNAL_SERVER_ERROR);
        if parts.status == StatusCode::SERVICE_UNAVAILABLE {
            assert!(parts.headers.contains_key("retry-after"), "{method} {path}");
        }
        openapi_checker::check(&method, &path, parts.status.as_u16(), &parts.headers, &body);
        Answer { status: parts.status, headers: parts.headers, body, text }
    }

    /// A path without a leading slash is relative to the Frontdoor.
    pub(crate) fn path(&self, path: &str) -> String {
        if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/frontdoor/v2/{}/{path}", self.frontdoor)
        }
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.call_as(TOKEN, method, path, body).await
    }

    /// Like [`TestApp::call`], with another token.
    pub(crate) async fn call_as(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(self.path(path))
            .header("authorization", format!("Bearer {token}"));
        self.send(match body {
            Some(body) => {
                request.header("content-type", "application/json").body(body.to_string().into()).unwrap()
            }
            None => request.body(Body::empty()).unwrap(),
        })
        .await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn get_hal(&self, path: &str) -> Answer {
        let request = Request::get(self.path(path))
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("accept", "application/hal+json");
        self.send(request.body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PATCH, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None).await
    }

    pub(crate) async fn get_as(&self, token: &str, path: &str) -> Answer {
        self.call_as(token, Method::GET, path, None).await
    }

    /// Creates an API account. The result contains its secret.
    pub(crate) async fn account(&self, body: Value) -> Value {
        let body = with(json!({"name": "a program", "scopes": ["frontdoor.read"]}), body);
        let made = self.post("/frontdoor/v2/api-accounts", body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        made.body
    }

    /// Creates a share, and asserts that it is accepted.
    pub(crate) async fn share(&self, tunnel: &Value, z_id: &ZId, name: &str, port: u16) -> Value {
        let made = self.post("ipsec-shares", share(tunnel, z_id, name, port)).await;
        assert_eq!(made.status, StatusCode::ACCEPTED, "{}", made.text);
        made.body
    }

    /// Enrols an agent, which creates the environment `env000000N`.
    pub(crate) async fn enrol(&self) -> EnrolledAgent {
        let n = self.enrolled.fetch_add(1, Ordering::Relaxed) + 1;
        let act = self.act();
        let enrollment = EnrollmentId::new(Uuid::now_v7());
        let secret_sha256 = [7; 32];
        let new = NewEnrollment {
            id: enrollment,
            environment: None,
            secret_sha256,
            expires_at: Timestamp::now() + jiff::SignedDuration::from_hours(1),
        };
        self.store.create_enrollment(self.frontdoor, &new, &act).await.unwrap();
        let asked = EnrolAttempt {
            enrollment,
            secret_sha256,
            public_key_sha256: [8; 32],
            name: format!("dc-{n}.example.org"),
            z_id: format!("env{n:07}").parse().unwrap(),
        };
        self.store.enrol(&asked, &act).await.unwrap().unwrap()
    }

    /// Writes a status as the reconciler would.
    pub(crate) async fn settle(&self, resource: &Value, status: Status) {
        self.settle_at(resource, status, Timestamp::now()).await;
    }

    pub(crate) async fn settle_at(&self, resource: &Value, status: Status, since: Timestamp) {
        let id = resource["id"].as_str().unwrap();
        let resource = match id.parse() {
            Ok(id) => Resource::Share(id),
            Err(_) => Resource::Tunnel(id.parse().unwrap()),
        };
        let generation = match resource {
            Resource::Share(id) => self.store.share(self.frontdoor, id).await.unwrap().unwrap().generation,
            Resource::Tunnel(id) => self.store.tunnel(self.frontdoor, id).await.unwrap().unwrap().generation,
        };
        let standing = Standing {
            status,
            since,
            observed_generation: Some(Generation::new(generation.get())),
            detail: None,
        };
        self.store
            .update_statuses(&self.epoch, &[StatusUpdate { resource, generation, standing }])
            .await
            .unwrap();
    }

    pub(crate) fn act(&self) -> WriteContext {
        WriteContext::new("test", Timestamp::now(), Uuid::now_v7)
    }

    /// The status, the relevant headers and the body, redacted for a snapshot.
    pub(crate) fn shown(&self, answer: &Answer) -> Value {
        let mut shown = Map::new();
        shown.insert("status".to_owned(), answer.status.as_u16().into());
        for name in ["location", "www-authenticate", "allow"] {
            if let Some(value) = answer.headers.get(name) {
                shown.insert(name.to_owned(), value.to_str().unwrap().into());
            }
        }
        if !answer.text.is_empty() {
            shown.insert("body".to_owned(), answer.body.clone());
        }
        let mut shown = Value::Object(shown);
        self.redact.lock().unwrap().value(&mut shown);
        shown
    }
}

/// What a gateway has just counted.
pub(crate) fn spooled(deltas: Vec<TrafficDelta>) -> SpooledTraffic {
    SpooledTraffic { spool: Uuid::now_v7(), number: 1, at: Timestamp::now(), deltas }
}

/// The hello of a gateway.
pub(crate) fn hello(esp: EspMode) -> GatewayHello {
    GatewayHello {
        versions: VERSIONS,
        version: "0.1.0".to_owned(),
        boot: Uuid::nil(),
        held: None,
        agent_url: None,
        esp,
        public_address: Some([198, 51, 100, 7].into()),
        max_tunnels: Some(200),
        namespaces: Some("wicketgate-8812".to_owned()),
    }
}

/// The request body of a tunnel.
pub(crate) fn tunnel(name: &str, n: u8) -> Value {
    json!({
        "name": name,
        "locationId": "local",
        "peerPublicIp": format!("203.0.113.{n}"),
        "peerCidr": "172.31.0.0/16",
    })
}

/// The request body of a share.
pub(crate) fn share(tunnel: &Value, z_id: &ZId, name: &str, port: u16) -> Value {
    json!({
        "name": name,
        "ipsecTunnelId": tunnel["id"],
        "envZId": z_id,
        "target": "10.20.100.1:8443",
        "ingressPort": port,
    })
}

/// The body of an error with one fault.
pub(crate) fn error(error: &str, message: &str) -> Value {
    let help = json!({"help": {"href": format!("/docs/reasons/{error}")}});
    json!({"error": error, "message": message, "_links": help})
}

/// `{collection}/{id}`
pub(crate) fn at(collection: &str, resource: &Value) -> String {
    format!("{collection}/{}", resource["id"].as_str().unwrap())
}

/// Replaces properties of a body; null removes a property.
pub(crate) fn with(mut body: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else { panic!("`changes` must be an object") };
    for (name, value) in changes {
        if value.is_null() {
            body.as_object_mut().unwrap().remove(&name);
        } else {
            body[name] = value;
        }
    }
    body
}
