//! When the gateway initiates an IKE SA: to a peer with `initiate`, and for some minutes to any peer that was lost. Pure:
//! time is an argument.
//!
//! A failed attempt is repeated after growing pauses, and so is one whose connection does not last; attempts of the
//! peer are answered meanwhile. While an IKE SA is being negotiated by either side, the gateway does not initiate: when
//! both do so at once, each gets an SA and both stay, because neither initiates while it has one. But anyone can begin
//! an IKE SA from a forged address and leave it, so an attempt of the peer delays the gateway for a moment only.

use std::time::Duration;

use tokio::time::Instant;

use super::connection_view::Negotiation;

/// Before the first attempt: the path to the peer opens right after the daemon is configured.
const FIRST: Duration = Duration::from_millis(200);
/// The pause after a failed attempt, and its limit. An attempt lasts 20 s without an answer, and its last packet is sent 4 s
/// before its end. A connection that lasts as long as the limit counts as working.
const AGAIN: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15);
/// For how long a lost peer is called back, and the limit of the pauses meanwhile. Most outages of a line are shorter; later,
/// the peer's own packets have it called back.
const CALL_BACK: Duration = Duration::from_secs(5 * 60);
const LONGEST_TO_LOST: Duration = Duration::from_secs(4);
/// For how long a peer is called that sends ESP to an SA that does not exist, and the pause before further ESP has it called
/// again, which doubles up to a limit while the calls fail: its address may be forged.
const STRAY_CALL: Duration = Duration::from_secs(30);
const STRAY_PAUSE: Duration = Duration::from_secs(60);
const STRAY_PAUSE_LONGEST: Duration = Duration::from_secs(15 * 60);
/// Every so many calls to a lost peer behind a NAT go to the usual ports.
const USUAL_PORTS: u32 = 4;
/// The peer's own negotiation is done by then, with two round trips of a slow line and one lost packet.
const BEGUN: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Initiation {
    /// When to initiate; `None`: not before another event, such as the result of an attempt that has started.
    pub(super) at: Option<Instant>,
    /// The pause before the next attempt; `None` for the first one.
    pause: Option<Duration>,
    up_since: Option<Instant>,
    /// Since when the peer has been negotiating.
    called_since: Option<Instant>,
    /// Until when a lost peer is called back, whatever its configuration.
    lost_until: Option<Instant>,
    calls: u32,
    /// Until when ESP to no SA causes no call, and the pause that led to it.
    strays_ignored: Option<(Instant, Duration)>,
}

impl Initiation {
    /// The connection was lost without an end by the peer, which may not have noticed. Returns whether this is news.
    pub(super) fn call_back(&mut self, now: Instant) -> bool {
        self.lost_until.replace(now + CALL_BACK).is_none_or(|until| until < now)
    }

    /// The peer sends ESP to an SA that does not exist. Returns whether it is called because of that.
    pub(super) fn answer_stray(&mut self, now: Instant) -> bool {
        let before = self.strays_ignored;
        if self.is_lost(now) || before.is_some_and(|(until, _)| now < until) {
            return false;
        }
        let pause = before.map_or(STRAY_PAUSE, |(_, pause)| (pause * 2).min(STRAY_PAUSE_LONGEST));
        self.strays_ignored = Some((now + STRAY_CALL + pause, pause));
        self.lost_until = Some(now + STRAY_CALL);
        true
    }

    /// A call begins. Returns whether it may go to the port that a NAT gave a lost peer: the NAT may still let it pass, but one
    /// that forwards IKE to the peer lets only the usual ports pass after a while.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        (self.at, self.calls) = (None, self.calls.wrapping_add(1));
        self.is_lost(now) && !self.calls.is_multiple_of(USUAL_PORTS)
    }

    fn is_lost(&self, now: Instant) -> bool {
        self.lost_until.is_some_and(|until| now < until)
    }

    /// Processes the current state of negotiation.
    pub(super) fn look(&mut self, is_wanted: bool, line: Negotiation, now: Instant) {
        let is_lost = self.is_lost(now);
        if !is_wanted && !is_lost {
            *self = Self { strays_ignored: self.strays_ignored, ..Self::default() };
            if line == Negotiation::Up {
                self.strays_ignored = None;
            }
            return;
        }
        if line == Negotiation::Up {
            (self.at, self.lost_until, self.strays_ignored) = (None, None, None);
            self.up_since.get_or_insert(now);
        } else if self.up_since.take().is_some_and(|since| now.duration_since(since) >= LONGEST) {
            self.pause = None;
        }
        let called_since = (line == Negotiation::Responding).then(|| *self.called_since.get_or_insert(now));
        self.called_since = called_since;
        match line {
            Negotiation::Up => {}
            Negotiation::Initiating => self.at = None,
            Negotiation::Responding
                if called_since.is_some_and(|since| now.duration_since(since) < BEGUN) =>
            {
                self.at = None;
            }
            Negotiation::Responding | Negotiation::Idle if self.at.is_none() => {
                let (first, longest) = if is_lost { (AGAIN, LONGEST_TO_LOST) } else { (FIRST, LONGEST) };
                let pause = self.pause.unwrap_or(first).min(longest);
                self.at = Some(now + pause);
                self.pause = Some((pause * 2).clamp(AGAIN, longest));
            }
            Negotiation::Responding | Negotiation::Idle => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pauses before attempts that `call` simulates.
    fn pauses(
        initiation: &mut Initiation,
        now: &mut Instant,
        call: impl Fn(&mut Initiation, &mut Instant),
    ) -> Vec<u128> {
        let pause = |_| {
            initiation.look(true, Negotiation::Idle, *now);
            let at = initiation.at.unwrap();
            // Another check does not postpone the attempt.
            initiation.look(true, Negotiation::Idle, *now + Duration::from_millis(1));
            assert_eq!(initiation.at, Some(at));
            let pause = at - *now;
            *now = at;
            initiation.at = None;
            initiation.look(true, Negotiation::Initiating, *now);
            assert_eq!(initiation.at, None);
            call(initiation, now);
            pause.as_millis()
        };
        (0..7).map(pause).collect()
    }

    #[test]
    fn pauses_grow_until_the_connection_stays_up() {
        let (mut initiation, mut now) = (Initiation::default(), Instant::now());
        let grown = [200, 1000, 2000, 4000, 8000, 15_000, 15_000];
        assert_eq!(pauses(&mut initiation, &mut now, |_, _| {}), grown);
        initiation.look(true, Negotiation::Up, now);
        now += LONGEST;
        // The connection repeatedly drops as soon as it is up.
        let dropped = |initiation: &mut Initiation, now: &mut Instant| {
            initiation.look(true, Negotiation::Up, *now);
            *now += Duration::from_millis(300);
        };
        assert_eq!(pauses(&mut initiation, &mut now, dropped), grown);
    }

    #[test]
    fn the_gateway_initiates_only_if_configured_and_not_while_the_peer_does() {
        let mut initiation = Initiation::default();
        let now = Instant::now();
        initiation.look(false, Negotiation::Idle, now);
        assert_eq!(initiation.at, None);
        initiation.look(true, Negotiation::Idle, now);
        initiation.look(true, Negotiation::Responding, now);
        assert_eq!(initiation.at, None);
        initiation.look(true, Negotiation::Idle, now);
        initiation.look(false, Negotiation::Idle, now);
        assert_eq!(initiation.at, None);
    }

    #[test]
    fn a_lost_peer_is_called_back_for_some_minutes_until_it_is_up() {
        let (mut initiation, start) = (Initiation::default(), Instant::now());
        let mut now = start;
        assert!(initiation.call_back(now) && !initiation.call_back(now));
        let mut pauses = Vec::new();
        loop {
            initiation.look(false, Negotiation::Idle, now);
            let Some(at) = initiation.at.take() else { break };
            pauses.push((at - now).as_secs());
            now = at;
            initiation.look(false, Negotiation::Initiating, now);
            now += Duration::from_secs(13);
        }
        assert_eq!(pauses[..5], [1, 2, 4, 4, 4]);
        assert!(now >= start + CALL_BACK && now < start + CALL_BACK + Duration::from_secs(30));
        assert!(initiation.call_back(now));
        initiation.look(false, Negotiation::Up, now);
        initiation.look(false, Negotiation::Idle, now);
        assert_eq!(initiation.at, None, "a peer that ends its connection is called back");
    }

    #[test]
    fn forged_esp_causes_few_calls() {
        let (mut initiation, start) = (Initiation::default(), Instant::now());
        let hour = Duration::from_secs(3600);
        let (mut calls, mut now) = (0, start);
        while now < start + hour {
            initiation.answer_stray(now);
            initiation.look(false, Negotiation::Idle, now);
            if initiation.at.is_some_and(|at| at <= now) {
                initiation.at = None;
                calls += 1;
            }
            now += Duration::from_secs(1);
        }
        // Without a bound there would be hundreds.
        assert!((5..60).contains(&calls), "{calls}");
        // After the peer was connected, its ESP counts again.
        assert!(!initiation.answer_stray(now));
        initiation.look(false, Negotiation::Up, now);
        assert!(initiation.answer_stray(now));
    }

    #[test]
    fn an_unfinished_attempt_of_the_peer_delays_the_gateway_for_a_bounded_time() {
        let mut initiation = Initiation::default();
        let mut now = Instant::now();
        let begun = now;
        while now < begun + BEGUN {
            initiation.look(true, Negotiation::Responding, now);
            assert_eq!(initiation.at, None);
            now += Duration::from_secs(1);
        }
        initiation.look(true, Negotiation::Responding, now);
        let at = initiation.at.unwrap();
        initiation.at = None;
        initiation.look(true, Negotiation::Initiating, at);
        // The attempt failed, and the peer's negotiation, or another one, is still unfinished.
        initiation.look(true, Negotiation::Responding, at);
        assert_eq!(initiation.at, None);
        initiation.look(true, Negotiation::Responding, at + BEGUN);
        assert_eq!(initiation.at, Some(at + BEGUN + AGAIN));
    }
}
