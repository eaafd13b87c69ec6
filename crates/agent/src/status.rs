//! What a running agent shows of itself on its own host: whether it serves, and counters for Prometheus.
//!
//! Invariants: no secret, target or client's address is shown; labels have few values.

pub(crate) mod http;
mod standing;

use jiff::Timestamp;
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Metric, Registry, Unit},
};
use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};
use wicketgate_model::GatewayId;
use wicketgate_system::{Mutex, service_manager};
use wicketgate_transport::frame::RefusalReason;

pub(crate) use standing::Phase;
use standing::{Standing, Standings};

/// The place of the connection to the gateway of `--server`.
pub(crate) const BOOTSTRAP: usize = 0;

/// See the module.
pub(crate) struct Status {
    standings: Mutex<Standings>,
    /// What the service manager was told last.
    told: Mutex<String>,
    registry: Registry,
    connected: Gauge,
    gateways: Family<[(&'static str, String); 1], Gauge>,
    connections: Counter,
    failures: Counter,
    streams: Counter,
    active: Gauge,
    refused: Family<[(&'static str, &'static str); 1], Counter>,
    broken: Counter,
    sent: Counter<u64, AtomicU64>,
    received: Counter<u64, AtomicU64>,
    shares: Gauge,
    unreachable: Gauge,
    certificate: Gauge,
}

impl Status {
    pub(crate) fn new(server: String) -> Self {
        let mut registry = Registry::with_prefix("wicketgate_agent");
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version that is running", build);
        let shown = &mut registry;
        Self {
            standings: Mutex::new(Standings::new(BOOTSTRAP, server)),
            told: Mutex::default(),
            connected: registered(shown, "connected", "1 while the agent is connected to a gateway"),
            gateways: registered(
                shown,
                "gateway_connected",
                "1 while the agent is connected to this gateway, which it has been connected to before",
            ),
            connections: registered(shown, "connections", "Connections to gateways that were established"),
            failures: registered(
                shown,
                "connection_failures",
                "Connections to gateways that failed or broke, and enrolments that failed",
            ),
            streams: registered(shown, "streams", "Clients' connections that were connected to a target"),
            active: registered(shown, "streams_active", "Clients' connections at present"),
            refused: registered(
                shown,
                "streams_refused",
                "Clients' connections that reached no target, by cause",
            ),
            broken: registered(shown, "streams_broken", "Clients' connections that ended with a reset"),
            sent: bytes(shown, "sent", "From targets to clients"),
            received: bytes(shown, "received", "From clients to targets"),
            shares: registered(shown, "shares", "Shares that the agent serves"),
            unreachable: registered(
                shown,
                "shares_unreachable",
                "Of these, those whose target the agent does not reach, as far as it has tried",
            ),
            certificate: {
                let expires = Gauge::default();
                let help = "When the agent's certificate expires, by the clock of its host, in Unix time; it is renewed long before";
                shown.register_with_unit(
                    "certificate_expiry_timestamp",
                    help,
                    Unit::Seconds,
                    expires.clone(),
                );
                expires
            },
            registry,
        }
    }
}

fn registered<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

fn bytes(registry: &mut Registry, name: &str, help: &str) -> Counter<u64, AtomicU64> {
    let metric = Counter::default();
    registry.register_with_unit(name, help, Unit::Bytes, metric.clone());
    metric
}

/// A stream that counts as active until it is dropped.
pub(crate) struct ActiveStream<'a>(&'a Status);

impl Drop for ActiveStream<'_> {
    fn drop(&mut self) {
        self.0.active.dec();
    }
}

impl Status {
    /// A gateway is dialled from now on.
    pub(crate) fn dial(&self, place: usize, url: String) {
        self.change(|standings| standings.dial(place, url));
    }

    /// The connection is in this phase from now on.
    pub(crate) fn enter(&self, place: usize, phase: Phase) {
        self.change(|standings| standings.enter(place, phase));
    }

    /// The connection is up, to this gateway.
    pub(crate) fn connected(&self, place: usize, gateway: GatewayId) {
        self.connections.inc();
        self.change(|standings| standings.connected(place, gateway));
    }

    /// An enrolment or a connection has failed, and is retried.
    pub(crate) fn failed(&self, place: usize, error: &str) {
        self.failures.inc();
        self.change(|standings| standings.failed(place, error));
    }

    /// Another connection has the gateway.
    pub(crate) fn hide(&self, place: usize) {
        self.change(|standings| standings.hide(place));
    }

    /// The gateway is not dialled any more.
    pub(crate) fn gone(&self, place: usize) {
        self.change(|standings| standings.gone(place));
    }

    fn change(&self, change: impl FnOnce(&mut Standings)) {
        let mut standings = self.standings.lock();
        change(&mut standings);
        self.connected.set((standings.standing().status == Phase::Connected).into());
        self.gateways.clear();
        for (gateway, is_connected) in standings.known() {
            self.gateways.get_or_create(&[("gateway", gateway.to_string())]).set(is_connected.into());
        }
        self.tell(&standings);
    }

    /// Tells the service manager. An agent that retries is ready, too: it would be taken for one that hangs.
    fn tell(&self, standings: &Standings) {
        let line = standings.line((self.shares.get(), self.unreachable.get()));
        let mut told = self.told.lock();
        if *told == line {
            return;
        }
        let Standing { status, error, .. } = standings.standing();
        if status == Phase::Connected || error.is_some() {
            service_manager::ready(&line)
        } else {
            service_manager::status(&line)
        }
        *told = line;
    }

    /// How many shares are served, and of how many the target is not reached.
    pub(crate) fn serves(&self, shares: usize, unreachable: usize) {
        self.shares.set(i64::try_from(shares).unwrap_or(i64::MAX));
        self.unreachable.set(i64::try_from(unreachable).unwrap_or(i64::MAX));
        self.tell(&self.standings.lock());
    }

    pub(crate) fn certified(&self, until: Timestamp) {
        self.certificate.set(until.as_second());
    }

    pub(crate) fn stream_began(&self) -> ActiveStream<'_> {
        self.streams.inc();
        self.active.inc();
        ActiveStream(self)
    }

    pub(crate) fn stream_broke(&self) {
        self.broken.inc();
    }

    pub(crate) fn refused(&self, reason: RefusalReason) {
        self.refused.get_or_create(&[("reason", reason.as_str())]).inc();
    }

    /// Bytes to clients, and from them.
    pub(crate) fn bytes(&self) -> (&AtomicU64, &AtomicU64) {
        (self.sent.inner(), self.received.inner())
    }

    /// Whether the agent serves, and the same in JSON.
    fn ready(&self) -> (bool, String) {
        let standing = self.standings.lock().standing();
        let text = serde_json::to_string(&standing).unwrap_or_default();
        (standing.status == Phase::Connected, text + "\n")
    }

    fn metrics(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry).map(|()| text)
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Status({:?}, {} streams)",
            self.standings.lock().standing().status,
            self.streams.inner().load(Relaxed)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wicketgate_lab::reference;
    use wicketgate_system::metrics_text::negotiated;

    fn gateway(n: u128) -> GatewayId {
        format!("gwy-{n:032x}").parse().unwrap()
    }

    #[test]
    fn each_gateway_is_shown_once_there_are_several() {
        let status = Status::new("https://gw:8443".to_owned());
        status.connected(BOOTSTRAP, gateway(1));
        status.dial(1, "https://gw-2:8443".to_owned());
        status.failed(1, "cannot connect");
        let shown = r#"{"status":"connected","gateways":[{"url":"https://gw:8443","status":"connected"},{"url":"https://gw-2:8443","status":"connecting","error":"cannot connect"}]}"#;
        assert_eq!(status.ready(), (true, format!("{shown}\n")));
        status.connected(1, gateway(2));
        status.failed(BOOTSTRAP, "silent");
        let has = |line: &str| status.metrics().unwrap().lines().any(|one| one == line);
        let of =
            |n, up| has(&format!("wicketgate_agent_gateway_connected{{gateway=\"{}\"}} {up}", gateway(n)));
        assert!(has("wicketgate_agent_connected 1") && of(1, 0) && of(2, 1));
        status.hide(BOOTSTRAP);
        assert_eq!(status.ready(), (true, "{\"status\":\"connected\"}\n".to_owned()));
        status.gone(1);
        assert!(!has("wicketgate_agent_connected 1") && !of(1, 0) && !of(2, 1));
    }

    #[test]
    fn the_last_failure_is_shown_until_the_agent_is_connected() {
        let status = Status::new("https://gw:8443".to_owned());
        assert_eq!(status.ready(), (false, "{\"status\":\"enrolling\"}\n".to_owned()));
        status.failed(BOOTSTRAP, "cannot connect");
        status.enter(BOOTSTRAP, Phase::Connecting);
        let shown = "{\"status\":\"connecting\",\"error\":\"cannot connect\"}\n";
        assert_eq!(status.ready(), (false, shown.to_owned()));
        status.connected(BOOTSTRAP, gateway(1));
        assert_eq!(status.ready(), (true, "{\"status\":\"connected\"}\n".to_owned()));
        status.enter(BOOTSTRAP, Phase::Draining);
        assert_eq!(status.ready(), (false, "{\"status\":\"draining\"}\n".to_owned()));
    }

    /// Every family has a sample here, so that it is on the page.
    #[test]
    fn the_reference_of_metrics_is_a_scrape_with_all_of_them() {
        let status = Status::new("https://gw:8443".to_owned());
        status.refused(RefusalReason::ConnectionRefused);
        status.connected(BOOTSTRAP, gateway(1));
        let (_, text) = negotiated(status.metrics().unwrap(), Some("text/plain"));
        let page = format!(
            "# Metrics of an agent\n\nWhat [`--status-listen`](../OPERATIONS.md#the-status-of-an-agent) serves at `/metrics`: the \
             names with their labels, and what they\nmean. `make reference` makes this page from a scrape.\n\n{}",
            reference::metrics(&text)
        );
        reference::hold("AGENT_METRICS.md", &page).unwrap();
    }

    #[test]
    fn streams_and_refusals_are_counted() {
        let status = Status::new("https://gw:8443".to_owned());
        let stream = status.stream_began();
        status.bytes().0.fetch_add(5, Relaxed);
        status.refused(RefusalReason::ConnectionRefused);
        let has = |line: &str| status.metrics().unwrap().lines().any(|one| one == line);
        assert!(has("wicketgate_agent_streams_active 1") && has("wicketgate_agent_streams_total 1"));
        assert!(has("wicketgate_agent_sent_bytes_total 5"));
        assert!(has("wicketgate_agent_streams_refused_total{reason=\"connection-refused\"} 1"));
        drop(stream);
        assert!(has("wicketgate_agent_streams_active 0"));
    }
}
