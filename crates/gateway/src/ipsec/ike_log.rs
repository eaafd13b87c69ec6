//! The last lines of a tunnel's IKE log, for its operator.
//!
//! Invariant: no line holds a key, a nonce or a secret. The daemon's level shows none; whatever looks like one is taken out all the
//! same, and so are the tunnel's own keys in any notation. Lines are bounded in number and length.

use std::collections::VecDeque;

use jiff::Timestamp;
use wicketgate_link::{IKE_LOG_LINES, IkeLogLine};
use wicketgate_model::{PreSharedKey, base64_text};
use wicketgate_system::Mutex;

/// Lines of a tunnel: some days of a healthy one, and some hours of one that is refused every few seconds.
const LINES: usize = 2000;
/// Characters of a line. Lists of proposals are the longest.
const LONGEST: usize = 1000;
/// As many hexadecimal digits in a row are no number, address or SPI: half of the shortest key.
const DIGITS: usize = 32;
const TAKEN_OUT: &str = "[…]";
/// Bytes of an IKE message without content, encrypted. Signs of life would fill the log of a healthy tunnel within minutes.
const EMPTY_MESSAGE: u32 = 96;

/// See the module.
#[derive(Debug)]
pub(crate) struct IkeLog(Mutex<Ring>);

#[derive(Debug)]
struct Ring {
    lines: VecDeque<IkeLogLine>,
    next: u64,
}

impl Default for IkeLog {
    /// Numbers begin with the time, so that they are above those of an earlier run.
    fn default() -> Self {
        let next = u64::try_from(Timestamp::now().as_microsecond()).unwrap_or_default();
        Self(Mutex::new(Ring { lines: VecDeque::new(), next }))
    }
}

impl IkeLog {
    /// Adds a line, without the tunnel's keys. Signs of life are left out.
    pub(crate) fn add(
        &self,
        (group, ike_sa): (&str, Option<u64>),
        text: &str,
        keys: &[PreSharedKey],
        at: Timestamp,
    ) {
        if is_sign_of_life(text) {
            return;
        }
        let (group, text) = (group.to_owned(), clean(text, keys));
        let mut ring = self.0.lock();
        if ring.lines.len() == LINES {
            ring.lines.pop_front();
        }
        let number = ring.next;
        ring.next += 1;
        ring.lines.push_back(IkeLogLine { number, at, group, ike_sa, text });
    }

    /// The first lines with a number above `after`; all, if that number is of an earlier run whose clock was ahead.
    pub(crate) fn after(&self, after: u64) -> Vec<IkeLogLine> {
        let ring = self.0.lock();
        let after = if after < ring.next { after } else { 0 };
        let first = ring.lines.partition_point(|line| line.number <= after);
        ring.lines.range(first..).take(IKE_LOG_LINES).cloned().collect()
    }
}

/// Whether the line is about a question whether the other end lives, or its answer.
fn is_sign_of_life(text: &str) -> bool {
    let is_empty = text.contains(" INFORMATIONAL re") && text.ends_with(" [ ]");
    let length = text.strip_suffix(" bytes)").and_then(|text| text.rsplit_once('(')?.1.parse().ok());
    let is_packet = text.starts_with("sending packet: ") || text.starts_with("received packet: ");
    is_empty
        || text == "sending DPD request"
        || (is_packet && length.is_some_and(|n: u32| n <= EMPTY_MESSAGE))
}

/// One printable line without secrets.
fn clean(text: &str, keys: &[PreSharedKey]) -> String {
    let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    for key in keys {
        let raw = key.expose();
        let hex: String = raw.bytes().map(|b| format!("{b:02x}")).collect();
        for secret in [raw.to_owned(), hex.to_uppercase(), hex, base64_text::encode(raw.as_bytes())] {
            text = text.replace(&secret, TAKEN_OUT);
        }
    }
    // Cut at last: half a key is not recognized.
    without_dumps(&text).chars().take(LONGEST).collect()
}

/// Without long rows of hexadecimal digits, also with spaces or colons in between.
fn without_dumps(text: &str) -> String {
    let (mut clean, mut row) = (String::new(), String::new());
    for c in text.chars().map(Some).chain([None]) {
        if let Some(c) = c.filter(|c| c.is_ascii_hexdigit() || matches!(c, ' ' | ':')) {
            row.push(c);
            continue;
        }
        let digits = row.chars().filter(char::is_ascii_hexdigit).count();
        clean.push_str(if digits >= DIGITS { TAKEN_OUT } else { &row });
        row.clear();
        clean.extend(c);
    }
    clean
}

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz {
    use super::*;

    /// A line that is kept has no control character, no long row of hexadecimal digits, and not the tunnel's key.
    pub fn ike_log_line(text: &[u8]) {
        const KEY: &str = "a-key-that-no-other-tunnel-has";
        let text = String::from_utf8_lossy(text);
        let (log, keys) = (IkeLog::default(), KEY.parse().ok());
        log.add(("IKE", None), &text, keys.as_slice(), Timestamp::UNIX_EPOCH);
        for IkeLogLine { text: kept, .. } in log.after(0) {
            assert!(!is_sign_of_life(&text) && kept.chars().count() <= LONGEST);
            assert!(!kept.contains(char::is_control) && !kept.contains(KEY), "{kept:?}");
            assert_eq!(without_dumps(&kept), kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "a-key-that-nobody-else-has";

    fn added(text: &str) -> Vec<String> {
        let log = IkeLog::default();
        log.add(("IKE", Some(1)), text, &[KEY.parse().unwrap()], Timestamp::UNIX_EPOCH);
        log.after(0).into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn the_last_lines_are_kept_and_read_after_a_number() {
        let log = IkeLog::default();
        for n in 0..LINES + 3 {
            log.add(("IKE", None), &format!("line {n}"), &[], Timestamp::UNIX_EPOCH);
        }
        let mut all = Vec::new();
        loop {
            let part = log.after(all.last().map_or(0, |line: &IkeLogLine| line.number));
            assert!(part.len() <= IKE_LOG_LINES);
            if part.is_empty() {
                break;
            }
            all.extend(part);
        }
        assert_eq!((all.len(), all[0].text.as_str()), (LINES, "line 3"));
        assert!(all.windows(2).all(|two| two[0].number + 1 == two[1].number));
        assert_eq!(log.after(all[LINES - 2].number), all[LINES - 1..]);
        assert_eq!(log.after(all[LINES - 1].number), []);
        // The host's clock was set back between two runs.
        assert_eq!(log.after(all[LINES - 1].number + 1_000)[0].text, "line 3");
    }

    #[test]
    fn keys_and_dumps_are_taken_out_and_the_rest_is_kept() {
        let hex: String = KEY.bytes().map(|b| format!("{b:02x}")).collect();
        for secret in [KEY.to_owned(), hex.clone(), hex.to_uppercase(), base64_text::encode(KEY.as_bytes())] {
            assert_eq!(added(&format!("it has {secret}!")), ["it has […]!"], "{secret}");
        }
        let dump = "0: 12 34 56 78 9A BC DE F0 12 34 56 78 9a bc de f0";
        assert!(!added(&format!("secret => {dump}"))[0].contains("34"));
        assert_eq!(
            added("unknown vendor: 4f:45:4f:45:4f:45:4f:45:4f:45:4f:45:4f:45:4f:45"),
            ["unknown vendor[…]"]
        );
        let good = "CHILD_SA site{1} established with SPIs c0ffee01_i deadbeef_o and TS 100.64.0.1/32 === 10.0.0.0/16";
        assert_eq!(added(good), [good]);
        assert_eq!(added("two\nlines"), ["two lines"]);
        assert_eq!(added(&"x".repeat(5000))[0].len(), LONGEST);
    }

    #[test]
    fn signs_of_life_are_left_out() {
        for sign in [
            "sending DPD request",
            "generating INFORMATIONAL request 3 [ ]",
            "parsed INFORMATIONAL response 3 [ ]",
            "sending packet: from 10.0.0.1[4500] to 10.0.0.2[4500] (57 bytes)",
            "received packet: from 10.0.0.2[4500] to 10.0.0.1[4500] (80 bytes)",
        ] {
            assert!(added(sign).is_empty(), "{sign}");
        }
        for kept in [
            "parsed INFORMATIONAL request 3 [ D ]",
            "sending packet: from 10.0.0.1[500] to 10.0.0.2[500] (336 bytes)",
            "giving up after 5 retransmits",
        ] {
            assert_eq!(added(kept), [kept]);
        }
    }
}
