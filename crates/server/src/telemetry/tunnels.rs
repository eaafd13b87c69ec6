//! The series of tunnels, from a tunnel's creation to its deletion, also while it is down.
//!
//! Invariant: at most [`TUNNELS`] tunnels have series of their own; the counters of the others are added up under the label
//! `other`. Counters never fall: a gateway that restarts counts bytes from 0 again, which is taken for 0 and not for less.

use std::{collections::BTreeMap, fmt, sync::Arc};

use jiff::Timestamp;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use wicketgate_model::{Connection, ConnectionFault, EspMode, LocationId, TunnelId};
use wicketgate_system::Mutex;

/// Each has some ten lines in every scrape.
const TUNNELS: usize = 5000;
/// The label of all further tunnels.
const OTHER: &str = "other";

/// What a tunnel's row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TunnelFacts {
    pub(crate) name: String,
    pub(crate) location: LocationId,
    pub(crate) enabled: bool,
    pub(crate) created_at: Timestamp,
}

/// See the module.
#[derive(Debug, Default, Clone)]
pub(super) struct TunnelSeries(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    tunnels: BTreeMap<TunnelId, Series>,
    others: Counts,
    /// Where ESP is done, by location.
    esp: BTreeMap<LocationId, EspMode>,
}

#[derive(Debug)]
struct Series {
    facts: TunnelFacts,
    connection: Connection,
    /// `None`: it has no series of its own.
    counts: Option<Counts>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    received: u64,
    sent: u64,
    ike_rekeys: u64,
    child_rekeys: u64,
    errors: BTreeMap<ConnectionFault, u64>,
}

impl TunnelSeries {
    /// The tunnel is there; `connection` was recorded before this process has seen one.
    pub(super) fn set(&self, id: TunnelId, facts: TunnelFacts, connection: Option<&Connection>) {
        let mut table = self.0.lock();
        if let Some(series) = table.tunnels.get_mut(&id) {
            series.facts = facts;
            return;
        }
        let own = table.tunnels.values().filter(|series| series.counts.is_some()).count();
        let counts = (own < TUNNELS).then(Counts::default);
        let connection = connection.cloned().unwrap_or_else(|| Connection::down(facts.created_at));
        table.tunnels.insert(id, Series { facts, connection, counts });
    }

    /// The tunnel's connection has changed, or its counters have.
    pub(super) fn connected(&self, id: TunnelId, now: &Connection) {
        let mut table = self.0.lock();
        let Table { tunnels, others, .. } = &mut *table;
        let Some(series) = tunnels.get_mut(&id) else { return };
        series.counts.as_mut().unwrap_or(others).step(&series.connection, now);
        series.connection.clone_from(now);
    }

    pub(super) fn forget(&self, id: TunnelId) {
        self.0.lock().tunnels.remove(&id);
    }

    pub(super) fn set_esp(&self, location: &LocationId, esp: EspMode) {
        self.0.lock().esp.insert(location.clone(), esp);
    }
}

impl Counts {
    /// Adds what happened between two reports of a connection.
    fn step(&mut self, before: &Connection, now: &Connection) {
        let more = |before: u64, now: u64| now.checked_sub(before).unwrap_or(now);
        self.received += more(before.bytes_in, now.bytes_in);
        self.sent += more(before.bytes_out, now.bytes_out);
        self.ike_rekeys += more(before.rekeys.ike, now.rekeys.ike);
        self.child_rekeys += more(before.rekeys.child, now.rekeys.child);
        if let Some(error) = &now.last_error
            && before
                .last_error
                .as_ref()
                .is_none_or(|old| (old.reason, old.since) != (error.reason, error.since))
        {
            *self.errors.entry(error.reason).or_default() += 1;
        }
    }
}

impl Table {
    /// Those that have series of their own.
    fn own(&self) -> impl Iterator<Item = (&TunnelId, &Series)> {
        self.tunnels.iter().filter(|(_, series)| series.counts.is_some())
    }

    fn encode_states(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let label = |id: &TunnelId| [("tunnel", id.to_string())];
        let mut info = encoder.encode_descriptor(
            "tunnel",
            "1; name and location of a tunnel, and where its gateway does ESP, to show beside its other series",
            None,
            MetricType::Info,
        )?;
        for (id, Series { facts, .. }) in self.own() {
            let esp = self.esp.get(&facts.location).map_or("", |esp| esp.as_str());
            let location = facts.location.to_string();
            let more = [("name", facts.name.as_str()), ("location", location.as_str()), ("esp", esp)];
            info.encode_family(&label(id))?.encode_info(&more)?;
        }
        type Value = fn(&Series) -> f64;
        let gauges: [(&str, &str, Value); 3] = [
            ("tunnel_up", "1 while the site's device is connected and answers", |it| {
                f64::from(u8::from(it.connection.passes()))
            }),
            ("tunnel_enabled", "0 while the tunnel is disabled on request", |it| {
                f64::from(u8::from(it.facts.enabled))
            }),
            (
                "tunnel_state_since_timestamp_seconds",
                "When the connection came up or went down, Unix time",
                |it| it.connection.passes_since().as_duration().as_secs_f64(),
            ),
        ];
        for (name, help, value) in gauges {
            let mut gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (id, series) in self.own() {
                ConstGauge::new(value(series)).encode(gauge.encode_family(&label(id))?)?;
            }
        }
        Ok(())
    }

    fn encode_counters(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let all = || {
            let own = self.own().filter_map(|(id, series)| Some((id.to_string(), series.counts.as_ref()?)));
            own.chain((self.others != Counts::default()).then(|| (OTHER.to_owned(), &self.others)))
        };
        let mut counter =
            |name, help, encode: &dyn Fn(&mut MetricEncoder<'_>, &str, &Counts) -> fmt::Result| {
                let mut encoder = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
                all().try_for_each(|(tunnel, counts)| encode(&mut encoder, &tunnel, counts))
            };
        counter(
            "tunnel_received_bytes",
            "Payload from the site, inside the tunnel, as the IKE daemon counts it: up to 30 s old",
            &|to, tunnel, counts| count(to, &[("tunnel", tunnel)], counts.received),
        )?;
        counter("tunnel_sent_bytes", "Payload to the site, likewise", &|to, tunnel, counts| {
            count(to, &[("tunnel", tunnel)], counts.sent)
        })?;
        counter("tunnel_rekeys", "Rekeys that were seen, of ike and child SAs", &|to, tunnel, counts| {
            count(to, &[("tunnel", tunnel), ("sa", "ike")], counts.ike_rekeys)?;
            count(to, &[("tunnel", tunnel), ("sa", "child")], counts.child_rekeys)
        })?;
        counter(
            "tunnel_errors",
            "How often the connection began to fail in a way; a reason appears with its first failure",
            &|to, tunnel, counts| {
                let mut errors = counts.errors.iter();
                errors.try_for_each(|(reason, n)| {
                    count(to, &[("tunnel", tunnel), ("reason", reason.as_str())], *n)
                })
            },
        )
    }
}

impl Collector for TunnelSeries {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let table = self.0.lock();
        table.encode_states(&mut encoder)?;
        table.encode_counters(&mut encoder)
    }
}

fn count<const N: usize>(to: &mut MetricEncoder<'_>, labels: &[(&str, &str); N], value: u64) -> fmt::Result {
    ConstCounter::new(value).encode(to.encode_family(labels)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::{encoding::text::encode, registry::Registry};
    use uuid::Uuid;
    use wicketgate_model::{ConnectionError, ConnectionState, Rekeys};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn id(n: u128) -> TunnelId {
        TunnelId::new(Uuid::from_u128(n))
    }

    fn facts(name: &str) -> TunnelFacts {
        let location = "local".parse().unwrap();
        TunnelFacts { name: name.to_owned(), location, enabled: true, created_at: at(1) }
    }

    /// Up since a second, with so many rekeys of each kind and bytes.
    fn up(since: i64, rekeys: (u64, u64), bytes: u64) -> Connection {
        Connection {
            state: ConnectionState::Up,
            rekeys: Rekeys { ike: rekeys.0, child: rekeys.1 },
            bytes_in: bytes,
            bytes_out: 2 * bytes,
            ..Connection::down(at(since))
        }
    }

    fn shown(series: &TunnelSeries) -> Vec<String> {
        let (mut registry, mut text) = (Registry::default(), String::new());
        registry.register_collector(Box::new(series.clone()));
        encode(&mut text, &registry).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn a_tunnel_has_series_from_its_creation_to_its_deletion() {
        let series = TunnelSeries::default();
        series.set(id(1), facts("customer-a"), None);
        let tunnel = id(1);
        let line = |rest: &str| rest.replace("ID", &tunnel.to_string());
        let has =
            |wanted: &str| assert!(shown(&series).contains(&line(wanted)), "{wanted}: {:#?}", shown(&series));
        has("tunnel_info{name=\"customer-a\",location=\"local\",esp=\"\",tunnel=\"ID\"} 1");
        has("tunnel_up{tunnel=\"ID\"} 0.0");
        has("tunnel_state_since_timestamp_seconds{tunnel=\"ID\"} 1.0");
        has("tunnel_received_bytes_total{tunnel=\"ID\"} 0");
        has("tunnel_rekeys_total{tunnel=\"ID\",sa=\"ike\"} 0");
        series.set_esp(&"local".parse().unwrap(), EspMode::Kernel);
        series.set(id(1), TunnelFacts { enabled: false, ..facts("renamed") }, None);
        has("tunnel_info{name=\"renamed\",location=\"local\",esp=\"kernel\",tunnel=\"ID\"} 1");
        has("tunnel_enabled{tunnel=\"ID\"} 0.0");
        series.connected(id(1), &up(5, (0, 0), 10));
        has("tunnel_up{tunnel=\"ID\"} 1.0");
        has("tunnel_state_since_timestamp_seconds{tunnel=\"ID\"} 5.0");
        has("tunnel_received_bytes_total{tunnel=\"ID\"} 10");
        has("tunnel_sent_bytes_total{tunnel=\"ID\"} 20");
        series.forget(id(1));
        assert!(shown(&series).is_empty());
    }

    #[test]
    fn rekeys_bytes_and_errors_are_counted_once() {
        let mut counts = Counts::default();
        let mut before = up(5, (0, 0), 10);
        for now in [
            up(5, (0, 0), 15),
            up(5, (0, 2), 15),
            up(5, (1, 2), 15),
            // The gateway restarts, and counts from 0.
            up(100, (0, 1), 3),
        ] {
            counts.step(&before, &now);
            before = now;
        }
        assert_eq!((counts.received, counts.sent), (8, 16));
        assert_eq!((counts.ike_rekeys, counts.child_rekeys), (1, 3));
        let failed = |since| {
            let (reason, text) = (ConnectionFault::PreSharedKeysDiffer, String::new());
            let error = ConnectionError { reason, cause: text.clone(), cure: text, since: at(since) };
            Connection { last_error: Some(error), ..Connection::down(at(since)) }
        };
        for (before, now) in [(up(1, (0, 0), 0), failed(2)), (failed(2), failed(2)), (failed(2), failed(9))] {
            counts.step(&before, &now);
        }
        assert_eq!(counts.errors, [(ConnectionFault::PreSharedKeysDiffer, 2)].into());
    }

    #[test]
    fn tunnels_above_the_limit_are_summed_up() {
        let series = TunnelSeries::default();
        let most = TUNNELS as u128;
        for n in 0..most + 3 {
            series.set(id(n), facts("one"), None);
            series.connected(id(n), &up(5, (0, 0), 1));
        }
        let received = || {
            let lines = shown(&series).into_iter();
            lines.filter(|line| line.starts_with("tunnel_received_bytes_total")).collect::<Vec<_>>()
        };
        assert_eq!(received().len(), TUNNELS + 1);
        assert!(received().iter().any(|line| line.ends_with("{tunnel=\"other\"} 3")));
        assert_eq!(shown(&series).iter().filter(|line| line.starts_with("tunnel_up")).count(), TUNNELS);
        // A place that is free is given to the next tunnel.
        series.forget(id(0));
        series.set(id(most + 9), facts("next"), None);
        assert!(received().iter().any(|line| line.contains(&id(most + 9).to_string())));
    }
}
