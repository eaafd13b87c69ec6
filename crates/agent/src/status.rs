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
use wicketgate_system::{Mutex, service_manager};
use wicketgate_transport::frame::RefusalReason;

pub(crate) use standing::Phase;
use standing::Standing;

/// See the module.
pub(crate) struct Status {
    server: String,
    standing: Mutex<Standing>,
    /// What the service manager was told last.
    told: Mutex<String>,
    registry: Registry,
    connected: Gauge,
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
            server,
            standing: Mutex::new(Standing { status: Phase::Enrolling, error: None }),
            told: Mutex::default(),
            connected: registered(shown, "connected", "1 while the agent is connected to the gateway"),
            connections: registered(shown, "connections", "Connections to the gateway that were established"),
            failures: registered(
                shown,
                "connection_failures",
                "Connections to the gateway that failed or broke, and enrolments that failed",
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
    /// The agent is in this phase from now on.
    pub(crate) fn enter(&self, status: Phase) {
        self.connected.set((status == Phase::Connected).into());
        if status == Phase::Connected {
            self.connections.inc();
        }
        let mut standing = self.standing.lock();
        let error = if status == Phase::Connected { None } else { standing.error.take() };
        *standing = Standing { status, error };
        self.tell(&standing);
    }

    /// An enrolment or a connection has failed, and is retried.
    pub(crate) fn failed(&self, error: &str) {
        self.failures.inc();
        let mut standing = self.standing.lock();
        if standing.status == Phase::Connected {
            standing.status = Phase::Connecting;
            self.connected.set(0);
        }
        standing.error = Some(error.to_owned());
        self.tell(&standing);
    }

    /// Tells the service manager. An agent that retries is ready, too: it would be taken for one that hangs.
    fn tell(&self, standing: &Standing) {
        let line = standing.line(&self.server, (self.shares.get(), self.unreachable.get()));
        let mut told = self.told.lock();
        if *told == line {
            return;
        }
        let is_ready = standing.status == Phase::Connected || standing.error.is_some();
        if is_ready {
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
        self.tell(&self.standing.lock());
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
        let standing = self.standing.lock().clone();
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
        write!(f, "Status({:?}, {} streams)", self.standing.lock().status, self.streams.inner().load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wicketgate_lab::reference;
    use wicketgate_system::metrics_text::negotiated;

    #[test]
    fn the_last_failure_is_shown_until_the_agent_is_connected() {
        let status = Status::new("https://gw:8443".to_owned());
        assert_eq!(status.ready(), (false, "{\"status\":\"enrolling\"}\n".to_owned()));
        status.failed("cannot connect");
        status.enter(Phase::Connecting);
        let shown = "{\"status\":\"connecting\",\"error\":\"cannot connect\"}\n";
        assert_eq!(status.ready(), (false, shown.to_owned()));
        status.enter(Phase::Connected);
        assert_eq!(status.ready(), (true, "{\"status\":\"connected\"}\n".to_owned()));
        status.enter(Phase::Draining);
        assert_eq!(status.ready(), (false, "{\"status\":\"draining\"}\n".to_owned()));
    }

    /// Every family has a sample here, so that it is on the page.
    #[test]
    fn the_reference_of_metrics_is_a_scrape_with_all_of_them() {
        let status = Status::new("https://gw:8443".to_owned());
        status.refused(RefusalReason::ConnectionRefused);
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
