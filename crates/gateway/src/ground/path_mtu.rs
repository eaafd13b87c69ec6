//! The path MTU to a peer. Pure: time is an argument.
//!
//! The kernel forgets a path MTU after ten minutes and learns it again from a packet that was too large. Following it
//! would give the connections of these moments segments that are fragmented for as long as they last. So a learned
//! value is kept until a probe of full size was sent, from which the kernel learns it again if it holds. What came from a
//! forged ICMP error lasts no longer than that.
//!
//! On a path that drops large packets silently, the kernel learns nothing: a probe finds that, see [`super::path_probe`].

use std::{net::Ipv4Addr, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;
use wicketgate_model::{ConnectionDoubt, ConnectionWarning};

use super::{link::MTU, path_probe::Outcome};

/// For the probe of full size after the kernel has forgotten a value. Without one, since no client has connected, the value is
/// forgotten all the same.
const TRIED_WITHIN: Duration = Duration::from_secs(60);

/// What nearly every path carries: it is the least of IPv6 (RFC 8200 §5), also for networks that use tunnels themselves.
pub(super) const SAFE: u32 = 1280;

/// The pauses between two probes: while large packets are lost, so that a repair is noticed; while connections wait for
/// acknowledgements, which a path that has changed may cause; and otherwise.
const PROBE_LOST: Duration = Duration::from_secs(10);
const PROBE_STALLED: Duration = Duration::from_secs(3);
const PROBE_RARELY: Duration = Duration::from_secs(10 * 60);
/// After the first probe that told nothing, if there is a reason for another one. It doubles up to the longest one.
const PROBE_UNCLEAR: Duration = Duration::from_secs(10);

/// Probes in a row that have to pass until large packets are used again. It doubles with each relapse, so that a line that is
/// good at times does not change the segments, and the warning, for ever.
const PASSES: u32 = 2;
const MOST_DOUBLED: u32 = 6;

const LARGE_LOST: &str = "packets of more than 1,280 bytes are lost between the gateway and the site, without an ICMP error, and \
     smaller ones pass: new connections get smaller segments, and open ones that hang have to be opened again. Let ICMP type 3 \
     code 4 and fragments of UDP 4500 pass on the way, or lower the MTU of the line at the site's device";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct PathMtu {
    learned: Option<Learned>,
    /// Since when packets of more than [`SAFE`] are lost.
    lost: Option<Timestamp>,
    /// How often they were lost since the connection is up, and how many probes in a row have passed since the last one.
    losses: u32,
    passes: u32,
    probed: Option<Probed>,
}

#[derive(Debug)]
struct Learned {
    mtu: u32,
    /// Since when the kernel does not have it any longer.
    forgotten: Option<Instant>,
}

/// The last probe.
#[derive(Debug)]
struct Probed {
    at: Instant,
    host: Ipv4Addr,
    outcome: Outcome,
    /// Probes in a row that told nothing.
    unclear: u32,
}

impl PathMtu {
    /// The largest packet that reaches the peer whole, as far as known.
    pub(super) fn bears(&self) -> u32 {
        self.lost.map_or(self.learned(), |_| self.learned().min(SAFE))
    }

    /// As the kernel knows it.
    pub(super) fn learned(&self) -> u32 {
        self.learned.as_ref().map_or(MTU, |learned| learned.mtu)
    }

    /// Processes the kernel's current path MTU.
    pub(super) fn look(&mut self, mtu: u32, is_up: bool, now: Instant) {
        let before = self.learned();
        let (is_tried, is_late) = match &mut self.learned {
            Some(learned) if is_up && mtu > learned.mtu => {
                let since = *learned.forgotten.get_or_insert(now);
                (self.has_probed_since(since), now.duration_since(since) >= TRIED_WITHIN)
            }
            _ => (true, true),
        };
        if is_tried || is_late {
            self.learned = (mtu < MTU).then_some(Learned { mtu, forgotten: None });
        }
        if !is_up || self.learned() < before {
            // The previous packets were larger, or went another way.
            self.probed = None;
        }
        if !is_up || self.learned() <= SAFE {
            (self.lost, self.losses) = (None, 0);
        }
    }

    fn has_probed_since(&self, since: Instant) -> bool {
        self.probed.as_ref().is_some_and(|last| last.at >= since)
    }

    /// Since when the kernel does not have what was learned.
    fn forgotten(&self) -> Option<Instant> {
        self.learned.as_ref().and_then(|learned| learned.forgotten)
    }

    /// The largest packet that a probe is to try.
    pub(super) fn tries(&self) -> u32 {
        self.forgotten().map_or(self.learned(), |_| MTU)
    }

    /// Whether to probe the path to `host` now. `has_stalled`: connections have waited for acknowledgements in vain.
    pub(super) fn is_due(&self, host: Ipv4Addr, has_stalled: bool, now: Instant) -> bool {
        if let Some(since) = self.forgotten() {
            return !self.has_probed_since(since);
        }
        if self.learned() <= SAFE {
            return false;
        }
        let Some(last) = &self.probed else { return true };
        let pause = match last.outcome {
            _ if self.lost.is_some() => PROBE_LOST,
            Outcome::Passes if has_stalled => PROBE_STALLED,
            Outcome::Unclear if has_stalled || last.host != host => {
                PROBE_UNCLEAR * 2_u32.saturating_pow(last.unclear.min(8))
            }
            Outcome::Passes | Outcome::LargeLost | Outcome::Unclear => PROBE_RARELY,
        };
        now.duration_since(last.at) >= pause.min(PROBE_RARELY)
    }

    /// Takes a probe's outcome.
    pub(super) fn probed(&mut self, host: Ipv4Addr, outcome: Outcome, (at, now): (Instant, Timestamp)) {
        match outcome {
            Outcome::Passes => {
                self.passes += 1;
                if self.passes >= PASSES << self.losses.saturating_sub(1).min(MOST_DOUBLED) {
                    self.lost = None;
                }
            }
            Outcome::LargeLost => {
                if self.lost.is_none() {
                    self.losses = self.losses.saturating_add(1);
                }
                (self.passes, self.lost) = (0, self.lost.or(Some(now)));
            }
            Outcome::Unclear => {}
        }
        let before = self.probed.take().filter(|last| last.outcome == Outcome::Unclear);
        let unclear = before.map_or(0, |last| last.unclear.saturating_add(1));
        self.probed = Some(Probed { at, host, outcome, unclear });
    }

    /// That large packets are lost.
    pub(super) fn warning(&self) -> Option<ConnectionWarning> {
        Some(ConnectionWarning::new(ConnectionDoubt::LargePacketsLost, LARGE_LOST, self.lost?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_learned_mtu_is_kept_for_a_minute_after_the_kernel_forgets_it() {
        let mut path = PathMtu::default();
        let start = Instant::now();
        let mut look = |mtu, is_up, after| {
            path.look(mtu, is_up, start + after);
            path.bears()
        };
        let minutes = |n: u64| Duration::from_secs(n * 60);
        assert_eq!(look(MTU, true, minutes(0)), MTU);
        assert_eq!(look(1400, true, minutes(1)), 1400);
        assert_eq!(look(MTU, true, minutes(11)), 1400);
        // A packet was too large again.
        assert_eq!(look(1400, true, minutes(12)), 1400);
        assert_eq!(look(1300, true, minutes(13)), 1300);
        assert_eq!(look(1400, true, minutes(23)), 1300);
        // No client whose host could be probed.
        assert_eq!(look(MTU, true, minutes(24)), MTU);
        // A device that reconnects may use another path.
        assert_eq!(look(1400, true, minutes(30)), 1400);
        assert_eq!(look(MTU, false, minutes(31)), MTU);
    }

    #[test]
    fn full_size_is_tried_once_the_kernel_has_forgotten_and_decides() {
        let (mut path, start) = (PathMtu::default(), Instant::now());
        let second = Duration::from_secs(1);
        path.look(1200, true, start);
        assert!(!path.is_due(HOST, false, start) && path.tries() == 1200);
        path.look(MTU, true, start + second);
        assert!(path.is_due(HOST, false, start + second) && path.tries() == MTU);
        assert_eq!(path.bears(), 1200, "until it was tried");
        let probed = (start + second, Timestamp::UNIX_EPOCH);
        path.probed(HOST, Outcome::Unclear, probed);
        assert!(!path.is_due(HOST, false, start + 2 * second));
        // It was true: the kernel has learned it again, from the probe.
        path.look(1200, true, start + 2 * second);
        assert_eq!((path.bears(), path.tries()), (1200, 1200));
        // It was forged: the kernel has learned nothing.
        path.look(MTU, true, start + 3 * second);
        path.probed(HOST, Outcome::Passes, (start + 3 * second, Timestamp::UNIX_EPOCH));
        path.look(MTU, true, start + 4 * second);
        assert_eq!(path.bears(), MTU);
    }

    const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);

    #[test]
    fn lost_packets_are_told_until_a_probe_passes_or_the_peer_is_gone() {
        let (mut path, now) = (PathMtu::default(), Instant::now());
        let at = |second| (now, Timestamp::from_second(second).unwrap());
        path.probed(HOST, Outcome::Unclear, at(1));
        assert_eq!((path.bears(), path.warning()), (MTU, None));
        path.probed(HOST, Outcome::LargeLost, at(2));
        path.probed(HOST, Outcome::LargeLost, at(3));
        path.probed(HOST, Outcome::Unclear, at(4));
        assert_eq!((path.bears(), path.warning().unwrap().since), (SAFE, at(2).1));
        path.probed(HOST, Outcome::Passes, at(5));
        assert_eq!(path.bears(), SAFE);
        path.probed(HOST, Outcome::Passes, at(5));
        assert_eq!((path.bears(), path.warning()), (MTU, None));
        path.probed(HOST, Outcome::LargeLost, at(6));
        // An ICMP error arrives after all.
        path.look(1200, true, now);
        assert_eq!((path.bears(), path.warning()), (1200, None));
        path.look(MTU, false, now);
        path.probed(HOST, Outcome::LargeLost, at(7));
        path.look(MTU, false, now);
        assert_eq!((path.bears(), path.warning()), (MTU, None));
    }

    #[test]
    fn a_line_that_is_good_at_times_changes_less_and_less_often() {
        let (mut path, at) = (PathMtu::default(), (Instant::now(), Timestamp::UNIX_EPOCH));
        for needed in [2, 4, 8, 16, 32, 64, 128, 128] {
            path.probed(HOST, Outcome::LargeLost, at);
            for passed in 1..=needed {
                path.probed(HOST, Outcome::Passes, at);
                assert_eq!(path.warning().is_none(), passed == needed, "{passed} of {needed}");
            }
        }
    }

    #[test]
    fn a_path_is_probed_once_and_again_with_a_reason() {
        let (mut path, start) = (PathMtu::default(), Instant::now());
        let seconds = Duration::from_secs;
        assert!(path.is_due(HOST, false, start));
        path.probed(HOST, Outcome::Passes, (start, Timestamp::UNIX_EPOCH));
        let is_due = |path: &PathMtu, host, has_stalled, after| path.is_due(host, has_stalled, start + after);
        assert!(!is_due(&path, OTHER, false, seconds(599)) && is_due(&path, HOST, false, seconds(600)));
        assert!(!is_due(&path, HOST, true, seconds(2)) && is_due(&path, HOST, true, seconds(3)));
        path.probed(HOST, Outcome::LargeLost, (start, Timestamp::UNIX_EPOCH));
        assert!(!is_due(&path, HOST, true, seconds(9)) && is_due(&path, HOST, false, seconds(10)));
        (path.lost, path.losses) = (None, 0);
        // A host that answers no echo request.
        path.probed(HOST, Outcome::Unclear, (start, Timestamp::UNIX_EPOCH));
        assert!(!is_due(&path, HOST, false, seconds(599)) && !is_due(&path, OTHER, false, seconds(9)));
        assert!(is_due(&path, OTHER, false, seconds(10)) && is_due(&path, HOST, true, seconds(10)));
        path.probed(OTHER, Outcome::Unclear, (start, Timestamp::UNIX_EPOCH));
        assert!(!is_due(&path, HOST, false, seconds(19)) && is_due(&path, HOST, false, seconds(20)));
        for _ in 0..40 {
            path.probed(OTHER, Outcome::Unclear, (start, Timestamp::UNIX_EPOCH));
        }
        assert!(!is_due(&path, HOST, true, seconds(599)) && is_due(&path, HOST, true, seconds(600)));
        // A new path, and one that needs no probe.
        path.look(1400, true, start);
        assert!(is_due(&path, HOST, false, seconds(0)));
        path.look(SAFE, true, start);
        assert!(!is_due(&path, HOST, true, seconds(600)));
    }
}
