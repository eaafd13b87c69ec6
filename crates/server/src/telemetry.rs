//! The server's metrics, for Prometheus. The registry is an argument: the caller may have registered its own metrics.
//!
//! Invariant: labels have few values. A route is a template and never a path. `share_traffic` and `tunnels` bound the series of
//! shares and tunnels.

mod share_traffic;
mod tunnels;

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
};

use axum::{
    Router,
    extract::State,
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use jiff::Timestamp;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, text::encode},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::Gauge,
        histogram::Histogram,
        info::Info,
    },
    registry::{Registry, Unit},
};
use tokio::time::Duration;
use tracing::warn;

use wicketgate_model::{Connection, EspMode, ShareId, Status, TrafficDelta, TunnelId};
use wicketgate_store::Store;
use wicketgate_system::{log, metrics_text::negotiated};

use crate::{
    gateways::{Gateways, ReportKind},
    metric::{Labels, registered},
};
use share_traffic::ShareTraffic;
pub(crate) use tunnels::TunnelFacts;
use tunnels::TunnelSeries;

/// Seconds, from an answer out of memory to the longest that a request may take.
const BUCKETS: [f64; 11] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0];

type Histograms = Family<Labels<2>, Histogram, fn() -> Histogram>;

/// What the log has lost.
#[derive(Debug)]
struct LostLog;

impl Collector for LostLog {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Lines of the log that could not be written: its disk is full, or its reader is gone";
        let lost = encoder.encode_descriptor("log_lines_lost", help, None, MetricType::Counter)?;
        ConstCounter::new(log::lost_lines()).encode(lost)
    }
}

/// Counters that the server's parts share.
#[derive(Debug)]
pub(crate) struct ServerMetrics {
    requests: Family<Labels<3>, Counter>,
    limited: Family<Labels<1>, Counter>,
    failures: Family<Labels<1>, Counter>,
    ended: Family<Labels<1>, Counter>,
    durations: Histograms,
    tunnels: Family<Labels<1>, Gauge>,
    shares: Family<Labels<1>, Gauge>,
    agents: Gauge,
    last_backup: Gauge,
    traffic: ShareTraffic,
    series: TunnelSeries,
    parked: Gauge,
    gateways: Family<Labels<3>, Gauge>,
    lag: Family<Labels<3>, Gauge<f64, AtomicU64>>,
}

impl ServerMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Arc<Self> {
        let shown = registry.sub_registry_with_prefix("wicketgate");
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        shown.register("build", "The version that is running", build);
        let requests = registered(shown, "http_requests", "Requests to the API that were answered");
        let durations = Histograms::new_with_constructor(|| Histogram::new(BUCKETS));
        shown.register_with_unit(
            "http_request_duration",
            "From a request's head to the head of its answer",
            Unit::Seconds,
            durations.clone(),
        );
        let series = TunnelSeries::default();
        shown.register_collector(Box::new(series.clone()));
        shown.register_collector(Box::new(LostLog));
        let limited =
            "Requests to the API that were refused since their caller sends them faster than a limit";
        let ended = "Connections that ended for a newer one, or were refused: of an address with too many, or with all taken";
        Arc::new(Self {
            ended: registered(shown, "http_connections_ended", ended),
            limited: registered(shown, "http_requests_limited", limited),
            failures: registered(
                shown,
                "api_authentication_failures",
                "Requests with credentials that the API has refused",
            ),
            series,
            requests,
            durations,
            tunnels: registered(shown, "tunnels", "Tunnels in the database that are not deleted"),
            shares: registered(shown, "shares", "Shares in the database that are not deleted"),
            agents: registered(shown, "agents_connected", "Agents that are connected"),
            last_backup: registered(
                shown,
                "last_backup_timestamp_seconds",
                "When the last complete backup was made; 0: none since the database was set up or restored",
            ),
            traffic: ShareTraffic::new(shown),
            parked: registered(
                shown,
                "carriers_parked",
                "Agents' connections that wait for a stream, at the gateways that are linked to this server",
            ),
            gateways: registered(shown, "gateway", "1 while the gateway is linked"),
            lag: registered(
                shown,
                "gateway_report_lag_seconds",
                "The age of the gateway's oldest report that is not in the database yet; 0: all are",
            ),
        })
    }

    /// A request was refused for this limit.
    pub(crate) fn limited(&self, limit: &'static str) {
        self.limited.get_or_create(&[("limit", limit.to_owned())]).inc();
    }

    pub(crate) fn authentication_failed(&self, cause: &'static str) {
        self.failures.get_or_create(&[("reason", cause.to_owned())]).inc();
    }

    /// A connection ended for a newer one, or was refused.
    pub(crate) fn connection_ended(&self, limit: &'static str) {
        self.ended.get_or_create(&[("limit", limit.to_owned())]).inc();
    }

    /// A request was answered. `route` is a template.
    pub(crate) fn answered(&self, method: &'static str, route: &str, status: u16, took: Duration) {
        let labels = [("method", method.to_owned()), ("route", route.to_owned())];
        self.durations.get_or_create(&labels).observe(took.as_secs_f64());
        let [method, route] = labels;
        self.requests.get_or_create(&[method, route, ("status", status.to_string())]).inc();
    }

    pub(crate) fn carried(&self, deltas: &[TrafficDelta]) {
        self.traffic.add(deltas);
    }

    /// A tunnel was created or changed; its connection was recorded before.
    pub(crate) fn tunnel(&self, id: TunnelId, facts: TunnelFacts, connection: Option<&Connection>) {
        self.series.set(id, facts, connection);
    }

    pub(crate) fn connected(&self, id: TunnelId, connection: &Connection) {
        self.series.connected(id, connection);
    }

    /// A tunnel that is deleted has no series any more.
    pub(crate) fn forget_tunnel(&self, id: TunnelId) {
        self.series.forget(id);
    }

    /// A share that is deleted has no series any more.
    pub(crate) fn forget(&self, share: ShareId) {
        self.traffic.forget(share);
    }
}

/// The sources of `/metrics`.
#[derive(Debug, Clone)]
pub(crate) struct Scrape {
    pub(crate) metrics: Arc<ServerMetrics>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) store: Store,
    pub(crate) gateways: Gateways,
}

/// The routes of the admin listener.
pub(crate) fn router(scrape: Scrape) -> Router {
    Router::new().route("/metrics", get(text)).with_state(scrape)
}

async fn text(State(scrape): State<Scrape>, headers: HeaderMap) -> Response {
    scrape.refresh().await;
    let mut text = String::new();
    match encode(&mut text, &scrape.registry) {
        Ok(()) => {
            let accept = headers.get(ACCEPT).map(|accept| accept.to_str().unwrap_or_default());
            let (kind, text) = negotiated(text, accept);
            ([(CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

impl Scrape {
    /// Sets the gauges that are read at each scrape: several servers may share a database, so none of them can count.
    async fn refresh(&self) {
        let metrics = &self.metrics;
        match self.store.counts().await {
            Ok(counts) => {
                let live = Status::ALL.into_iter().filter(|s| *s != Status::Deleted);
                for status in live {
                    let label = [("status", status.to_string())];
                    let of = |counts: &[(Status, i64)]| {
                        counts.iter().find(|(s, _)| *s == status).map_or(0, |(_, count)| *count)
                    };
                    metrics.tunnels.get_or_create(&label).set(of(&counts.tunnels));
                    metrics.shares.get_or_create(&label).set(of(&counts.shares));
                }
                metrics.agents.set(counts.agents_connected);
            }
            // The other metrics are valid all the same.
            Err(error) => warn!(%error, "cannot count tunnels and shares"),
        }
        match self.store.last_backup().await {
            Ok(last) => {
                metrics.last_backup.set(last.map_or(0, |last| last.created_at.as_second()));
            }
            Err(error) => warn!(%error, "cannot tell when the last backup was made"),
        }
        metrics.gateways.clear();
        let mut parked = 0_usize;
        for (id, gateway) in self.gateways.linked_now().iter() {
            let (esp, is_connected) = {
                let view = gateway.view.lock();
                parked = parked.saturating_add(view.parked);
                (view.esp(), view.is_connected)
            };
            if let Some(esp) = esp {
                metrics.series.set_esp(&gateway.location, esp);
            }
            let esp = esp.map_or("", EspMode::as_str);
            let [of, location] = [("gateway", id.to_string()), ("location", gateway.location.to_string())];
            let label = [of.clone(), location.clone(), ("esp", esp.to_owned())];
            metrics.gateways.get_or_create(&label).set(is_connected.into());
            for kind in ReportKind::ALL {
                let oldest = gateway.view.backlog.oldest(kind);
                let age = oldest.map_or(0.0, |since| Timestamp::now().duration_since(since).as_secs_f64());
                let label = [of.clone(), location.clone(), ("reports", kind.to_string())];
                metrics.lag.get_or_create(&label).set(age.max(0.0));
            }
        }
        metrics.parked.set(i64::try_from(parked).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        background::{BackgroundTasks, LastRun},
        gateways::{GatewayRpc, LinkedGateway, SharedView},
        state::ensure_first_frontdoor,
    };
    use axum::{
        body::{Body, to_bytes},
        http::Request,
    };
    use tempfile::TempDir;
    use tokio::sync::mpsc;
    use tower::ServiceExt as _;
    use uuid::Uuid;
    use wicketgate_lab::reference;
    use wicketgate_link::{GatewayHello, VERSIONS};
    use wicketgate_model::{ConnectionError, ConnectionFault, DialTimes, FailureReason, GatewayId};

    /// With two gateways of which one is linked, and the metrics of `registry`.
    async fn scrape(dir: &TempDir, mut registry: Registry) -> Scrape {
        let store = Store::open(
            dir.path().join("test.db").to_str().unwrap(),
            &wicketgate_store::SecretKeyFile::created_at(dir.path().join("secret-key")),
        )
        .await
        .unwrap();
        ensure_first_frontdoor(&store).await.unwrap();
        let metrics = ServerMetrics::new(&mut registry);
        let (send, _gateway) = mpsc::channel(1);
        let view = SharedView::new(Timestamp::now());
        view.linked(GatewayHello {
            versions: VERSIONS,
            version: "0.1.0".to_owned(),
            boot: Uuid::nil(),
            held: None,
            agent_url: None,
            esp: EspMode::Kernel,
            public_address: None,
            max_tunnels: None,
            namespaces: None,
        });
        let gateway = |view| LinkedGateway {
            location: "local".parse().unwrap(),
            view,
            rpc: GatewayRpc::new(send.clone()),
        };
        let both = [gateway(view), gateway(SharedView::new(Timestamp::now()))];
        let gateways = (1..).map(|n| GatewayId::new(Uuid::from_u128(n))).zip(both).collect();
        Scrape { metrics, registry: Arc::new(registry), store, gateways }
    }

    #[tokio::test]
    async fn counted_values_are_exposed() {
        let dir = TempDir::new().unwrap();
        let scrape = scrape(&dir, Registry::default()).await;
        let (metrics, gateways) = (Arc::clone(&scrape.metrics), scrape.gateways.clone());
        let (first, second) = (GatewayId::new(Uuid::from_u128(1)), GatewayId::new(Uuid::from_u128(2)));
        for (gateway, parked) in gateways.linked_now().values().zip([5, 3]) {
            gateway.view.lock().parked = parked;
        }
        let router = router(scrape);
        let scraped = async || {
            let request = Request::get("/metrics").body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.headers()[CONTENT_TYPE], wicketgate_system::metrics_text::OPEN_METRICS);
            String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap()
        };

        let (share, tunnel) = (ShareId::new(Uuid::now_v7()), TunnelId::new(Uuid::now_v7()));
        let mut dials = DialTimes { micros: 1_500_000, ..DialTimes::default() };
        (dials.counts[0], dials.counts[10]) = (1, 1);
        let failures = [(FailureReason::ShareFull, 1), (FailureReason::NoAgent, 3)].into();
        let delta = TrafficDelta {
            rx: 5,
            tx: 7,
            connections: 2,
            failures,
            active: 1,
            dials,
            ..TrafficDelta::new(share, tunnel)
        };
        metrics.carried(std::slice::from_ref(&delta));
        metrics.carried(&[delta]);
        metrics.answered("GET", "/livez", 200, Duration::from_millis(2));
        let text = scraped().await;
        for line in [
            format!("wicketgate_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
            "wicketgate_http_requests_total{method=\"GET\",route=\"/livez\",status=\"200\"} 1".to_owned(),
            "wicketgate_http_request_duration_seconds_bucket{le=\"0.0025\",method=\"GET\",route=\"/livez\"} 1"
                .to_owned(),
            "wicketgate_tunnels{status=\"DEPLOYED\"} 0".to_owned(),
            "wicketgate_shares{status=\"ERROR\"} 0".to_owned(),
            "wicketgate_agents_connected 0".to_owned(),
            "wicketgate_last_backup_timestamp_seconds 0".to_owned(),
            "wicketgate_carriers_parked 8".to_owned(),
            format!("wicketgate_share_received_bytes_total{{share=\"{share}\"}} 10"),
            format!("wicketgate_share_sent_bytes_total{{share=\"{share}\"}} 14"),
            format!("wicketgate_share_connections_total{{share=\"{share}\"}} 4"),
            format!("wicketgate_share_failures_total{{share=\"{share}\",reason=\"share-full\"}} 2"),
            format!("wicketgate_share_failures_total{{share=\"{share}\",reason=\"no-agent\"}} 6"),
            format!("wicketgate_share_dial_duration_seconds_sum{{share=\"{share}\"}} 3.0"),
            format!("wicketgate_share_dial_duration_seconds_count{{share=\"{share}\"}} 4"),
            format!("wicketgate_share_dial_duration_seconds_bucket{{le=\"0.0005\",share=\"{share}\"}} 2"),
            format!("wicketgate_share_dial_duration_seconds_bucket{{le=\"1.0\",share=\"{share}\"}} 2"),
            format!("wicketgate_share_dial_duration_seconds_bucket{{le=\"5.0\",share=\"{share}\"}} 4"),
            format!("wicketgate_share_dial_duration_seconds_bucket{{le=\"+Inf\",share=\"{share}\"}} 4"),
            format!("wicketgate_share_active_connections{{share=\"{share}\"}} 1"),
            format!("wicketgate_gateway{{gateway=\"{first}\",location=\"local\",esp=\"kernel\"}} 1"),
            format!("wicketgate_gateway{{gateway=\"{second}\",location=\"local\",esp=\"\"}} 0"),
            format!(
                "wicketgate_gateway_report_lag_seconds{{gateway=\"{first}\",location=\"local\",reports=\"traffic\"}} 0.0"
            ),
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        let context = wicketgate_store::WriteContext::new("local", Timestamp::now(), Uuid::now_v7);
        let made = wicketgate_store::LastBackup {
            created_at: Timestamp::from_second(1_800_000_000).unwrap(),
            bytes: 1,
            version: "1".to_owned(),
        };
        made.record(dir.path().join("test.db").to_str().unwrap(), "/x", &context).await.unwrap();
        let text = scraped().await;
        assert!(text.contains("wicketgate_last_backup_timestamp_seconds 1800000000\n"), "{text}");
        metrics.forget(share);
        assert!(!scraped().await.contains(&share.to_string()));
    }

    /// Every family has a sample here, so that it is on the page.
    #[tokio::test]
    async fn the_reference_of_metrics_is_a_scrape_with_all_of_them() {
        let (dir, mut registry) = (TempDir::new().unwrap(), Registry::default());
        let tasks = BackgroundTasks::new(&mut registry);
        tasks.record("reconciler", LastRun { at: Timestamp::now(), took: Duration::ZERO, error: None });
        let scrape = scrape(&dir, registry).await;
        let (share, tunnel) = (ShareId::new(Uuid::now_v7()), TunnelId::new(Uuid::now_v7()));
        let failures = [(FailureReason::NoAgent, 1)].into();
        scrape.metrics.carried(&[TrafficDelta { failures, active: 1, ..TrafficDelta::new(share, tunnel) }]);
        scrape.metrics.answered("GET", "/livez", 200, Duration::ZERO);
        scrape.metrics.limited("reads");
        scrape.metrics.connection_ended("full");
        scrape.metrics.authentication_failed("secret_wrong");
        let created_at = Timestamp::now();
        let (name, location) = ("a".to_owned(), "local".parse().unwrap());
        scrape.metrics.tunnel(tunnel, TunnelFacts { name, location, enabled: true, created_at }, None);
        let mut failed = Connection::down(created_at);
        let (cause, cure) = (String::new(), String::new());
        let reason = ConnectionFault::PeerDoesNotAnswer;
        failed.last_error = Some(ConnectionError { reason, cause, cure, since: created_at });
        scrape.metrics.connected(tunnel, &failed);
        scrape.refresh().await;
        let mut text = String::new();
        encode(&mut text, &scrape.registry).unwrap();
        let (_, text) = negotiated(text, Some("text/plain"));
        let page = format!(
            "# Metrics\n\nWhat `--admin-listen` serves at `/metrics`: the names with their labels, and what they mean. \
             [Serving](../SERVING.md#metrics) says how they are\nscraped, and [Troubleshooting](../TROUBLESHOOTING.md) what \
             the values of `reason` mean. `make reference` makes this page from a scrape.\n\n{}",
            reference::metrics(&text)
        );
        reference::hold("METRICS.md", &page).unwrap();
    }
}
