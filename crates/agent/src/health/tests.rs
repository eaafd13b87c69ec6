//! Scenes of shares, gateways and dials.

use super::*;
use wicketgate_transport::{control::rest_of, relay::Acknowledgements as _};

const INTERVAL: Duration = Duration::from_secs(30);

struct Scene {
    healths: TargetHealths,
    now: Instant,
}

fn share(n: u128) -> ShareId {
    format!("shr-{n:032x}").parse().unwrap()
}

fn gateway() -> GatewayId {
    format!("gwy-{:032x}", 1).parse().unwrap()
}

fn target() -> Target {
    "10.0.0.1:3306".parse().unwrap()
}

fn watched(interval: Option<Duration>) -> Watched {
    Watched::new(target(), interval, Some("app-db".to_owned()))
}

fn refusal() -> StreamRefusal {
    StreamRefusal { reason: RefusalReason::ConnectionRefused, text: "no".to_owned() }
}

impl Scene {
    /// A gateway that assigns duties, and `shares` shares of one target.
    fn new(shares: u128, interval: Option<Duration>) -> Self {
        let scene = Self { healths: TargetHealths::default(), now: Instant::now() };
        scene.healths.connected(gateway(), true);
        for n in 0..shares {
            scene.healths.add((gateway(), share(n)), watched(interval), scene.now);
        }
        scene
    }

    fn on_duty(self, shares: u128) -> Self {
        self.healths.duty(gateway(), (&(0..shares).map(share).collect::<Vec<_>>(), &[]), self.now);
        self
    }

    fn record(&self, dialled: Result<(), &StreamRefusal>, by: DialledBy) {
        self.healths.record(&target(), dialled, by, self.now);
    }

    /// The number of probes in a time in which the target answers each.
    fn probes_in(&mut self, time: Duration) -> usize {
        let end = self.now + time;
        let mut probes = 0;
        while let Some(next) = self.healths.next_due().filter(|next| *next <= end) {
            self.now = next;
            probes += self.healths.take_due(self.now).len();
            self.record(Ok(()), DialledBy::Probe);
        }
        self.now = end;
        probes
    }
}

#[test]
fn an_idle_target_is_probed_a_few_times_and_not_hundreds() {
    let mut scene = Scene::new(3, Some(INTERVAL)).on_duty(3);
    let probes = scene.probes_in(100 * INTERVAL);
    assert!((2..12).contains(&probes), "{probes} probes of one target of three shares");
    // A day at most between two.
    let more = scene.probes_in(Duration::from_secs(30 * 24 * 3600));
    assert!((15..60).contains(&more), "{more} probes in a month");
    // A client's connection begins the pauses again.
    scene.record(Ok(()), DialledBy::Stream);
    assert!((1..=2).contains(&scene.probes_in(2 * INTERVAL)));
}

#[test]
fn an_agent_without_the_duty_does_not_probe_and_one_whose_dial_failed_does() {
    let mut scene = Scene::new(1, Some(INTERVAL));
    assert_eq!(scene.probes_in(100 * INTERVAL), 0);
    scene.record(Err(&refusal()), DialledBy::Stream);
    assert_eq!(scene.healths.take_unreported(gateway()).len(), 1, "at once");
    assert_eq!(scene.probes_in(INTERVAL), 1, "until it is back");
    assert_eq!(scene.healths.take_unreported(gateway()).len(), 1);
    let mut scene = Scene::new(1, None).on_duty(1);
    scene.record(Err(&refusal()), DialledBy::Stream);
    assert_eq!(scene.probes_in(100 * INTERVAL), 0, "the share wants none");
    scene.record(Ok(()), DialledBy::Stream);
    let healed = scene.healths.take_unreported(gateway());
    assert!(matches!(&healed[..], [FromAgent::Health { health: TargetHealth::Ok, .. }]));
}

#[test]
fn a_target_in_use_is_not_probed() {
    let mut scene = Scene::new(2, Some(INTERVAL)).on_duty(2);
    assert_eq!(scene.healths.take_due(scene.now), [target()], "shares of a target have one probe");
    assert_eq!(scene.healths.take_due(scene.now), []);
    scene.record(Ok(()), DialledBy::Probe);
    let (stream, now) = (scene.healths.in_use(target()), scene.now);
    assert_eq!(scene.healths.next_due(), None);
    assert_eq!(scene.healths.take_due(now + 1000 * INTERVAL), []);
    drop(stream);
    assert!(scene.healths.next_due().unwrap() > now + INTERVAL / 4, "it was alive a moment ago");
    scene.healths.duty(gateway(), (&[], &[share(0), share(1)]), now);
    let mut stream = scene.healths.in_use(target());
    stream.lost();
    drop(stream);
    assert_eq!(scene.healths.take_due(Instant::now()), [target()], "it did not answer");
    scene.record(Ok(()), DialledBy::Probe);
    assert_eq!(scene.healths.next_due(), None);
    let silent = scene.healths.in_use(target());
    silent.stopped_or_resumed();
    assert_eq!(scene.healths.take_due(Instant::now()), [target()], "although it is in use");
    assert!(scene.healths.is_doubted(&target()));
    scene.record(Ok(()), DialledBy::Probe);
    assert!(!scene.healths.is_doubted(&target()));
    assert_eq!(scene.healths.next_due(), None);
    silent.stopped_or_resumed();
    assert_eq!(scene.healths.take_due(Instant::now()), [target()]);
    scene.record(Err(&refusal()), DialledBy::Probe);
    scene.healths.take_due(scene.now + 2 * INTERVAL);
    scene.record(Err(&refusal()), DialledBy::Probe);
    silent.stopped_or_resumed();
    assert_eq!(scene.healths.take_due(Instant::now()), [target()], "it may be back");
    scene.record(Ok(()), DialledBy::Probe);
    drop(silent);
    scene.healths.duty(gateway(), (&[share(0), share(1)], &[]), now);
    scene.now += INTERVAL;
    assert!(scene.probes_in(INTERVAL) > 0);
}

#[test]
fn a_target_that_clients_have_left_is_probed_within_its_interval() {
    for interval in [1, 3, 30, 3600].map(Duration::from_secs) {
        let mut scene = Scene::new(1, Some(interval));
        scene.healths.duty(gateway(), (&[], &[share(0)]), scene.now);
        // The stream goes through any agent. The gateway gives the duty when no client has used the share for this time.
        scene.record(Ok(()), DialledBy::Stream);
        drop(scene.healths.in_use(target()));
        let left = scene.now;
        scene.now += rest_of(interval);
        scene.healths.duty(gateway(), (&[share(0)], &[]), scene.now);
        let due = scene.healths.next_due().unwrap() - left;
        let most = interval.max(rest_of(interval));
        assert!((interval / 2..=most).contains(&due), "{due:?} of {interval:?}");
        scene.now = left + due;
        assert_eq!(scene.healths.take_due(scene.now).len(), 1);
        scene.record(Ok(()), DialledBy::Probe);
        assert!(scene.healths.next_due().unwrap() - scene.now > interval);
    }
}

#[test]
fn each_stream_of_a_target_counts_once_while_its_share_comes_and_goes() {
    let scene = Scene::new(0, None);
    let first = scene.healths.in_use(target());
    scene.healths.add((gateway(), share(0)), watched(Some(INTERVAL)), scene.now);
    scene.healths.duty(gateway(), (&[share(0)], &[]), scene.now);
    let second = scene.healths.in_use(target());
    drop(first);
    assert_eq!(scene.healths.next_due(), None, "the second one uses it");
    scene.healths.withdraw(gateway(), share(0));
    drop(second);
    assert!(scene.healths.known.lock().targets.is_empty());
}

#[test]
fn a_new_connection_to_the_gateway_probes_nothing_again_and_reports_what_fails() {
    let mut scene = Scene::new(1, Some(INTERVAL)).on_duty(1);
    scene.probes_in(100 * INTERVAL);
    let again = |scene: &Scene| {
        scene.healths.connected(gateway(), true);
        scene.healths.add((gateway(), share(0)), watched(Some(INTERVAL)), scene.now);
        scene.healths.duty(gateway(), (&[share(0)], &[]), scene.now);
    };
    again(&scene);
    assert_eq!(scene.healths.take_due(scene.now), []);
    scene.record(Err(&refusal()), DialledBy::Stream);
    assert_eq!(scene.healths.take_unreported(gateway()).len(), 1);
    again(&scene);
    assert_eq!(scene.healths.take_unreported(gateway()).len(), 1);
    assert_eq!(scene.healths.take_due(scene.now), [target()]);
    // Without duties from the gateway, the agent probes by itself.
    let alone = TargetHealths::default();
    alone.connected(gateway(), false);
    alone.add((gateway(), share(0)), watched(Some(INTERVAL)), scene.now);
    assert_eq!(alone.take_due(scene.now), [target()]);
}

#[test]
fn a_target_is_probed_for_any_connected_gateway_and_each_that_assigns_it_is_told() {
    let other: GatewayId = format!("gwy-{:032x}", 2).parse().unwrap();
    let mut scene = Scene::new(1, Some(INTERVAL));
    scene.healths.connected(other, true);
    scene.healths.add((other, share(0)), watched(Some(INTERVAL)), scene.now);
    assert_eq!(scene.probes_in(100 * INTERVAL), 0);
    scene.healths.duty(other, (&[share(0)], &[]), scene.now);
    assert!(scene.probes_in(100 * INTERVAL) > 0);
    scene.record(Err(&refusal()), DialledBy::Stream);
    for gateway in [gateway(), other] {
        assert_eq!(scene.healths.take_unreported(gateway).len(), 1);
        assert!(scene.healths.take_unreported(gateway).is_empty());
    }
    scene.record(Ok(()), DialledBy::Stream);
    // Without a connection, nobody wants to know.
    scene.healths.disconnected(other);
    assert_eq!(scene.probes_in(100 * INTERVAL), 0);
    scene.healths.withdraw(other, share(0));
    assert_eq!(scene.healths.counts(), (1, 0));
    scene.healths.forget(gateway());
    assert_eq!(scene.healths.counts(), (0, 0));
    assert!(scene.healths.known.lock().targets.is_empty());
}
