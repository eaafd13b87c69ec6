//! The previous keys of a tunnel that are still valid, each until its own time.

use jiff::Timestamp;
use wicketgate_model::PreSharedKey;
use zeroize::Zeroizing;

/// Bytes: a 64-bit number, a space, the longest key and the end of the line.
const LONGEST_LINE: usize = 20 + 1 + 128 + 1;

/// The newest first; none of them is the current one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PreviousKeys(Vec<(PreSharedKey, Timestamp)>);

impl PreviousKeys {
    /// The IKE daemon tries each of them. With more, the oldest becomes invalid.
    pub const MOST: usize = 3;

    /// Those that are valid at `now`, and until when.
    pub fn valid(&self, now: Timestamp) -> impl Iterator<Item = &(PreSharedKey, Timestamp)> {
        self.0.iter().filter(move |(_, until)| *until > now)
    }

    /// After `new` replaced `old`. No older key is valid for longer than `old`: a caller that gives `old` no time wants
    /// only the new one.
    pub(crate) fn rotated(
        &self,
        old: &PreSharedKey,
        new: &PreSharedKey,
        until: Timestamp,
        now: Timestamp,
    ) -> Self {
        let older = self.0.iter().map(|(key, till)| (key.clone(), (*till).min(until)));
        let all = std::iter::once((old.clone(), until)).chain(older);
        Self(all.filter(|(key, until)| *until > now && key != new).take(Self::MOST).collect())
    }

    /// Those that are valid at `now`.
    pub(crate) fn left(&self, now: Timestamp) -> Self {
        Self(self.valid(now).cloned().collect())
    }

    /// When the first of them becomes invalid.
    pub(crate) fn until(&self) -> Option<Timestamp> {
        self.0.iter().map(|(_, until)| *until).min()
    }

    /// A line for each key: the time until which it is valid, in microseconds, and the key.
    pub(crate) fn text(&self) -> Zeroizing<String> {
        // It never grows, so that nothing of it is left elsewhere.
        let mut text = Zeroizing::new(String::with_capacity(LONGEST_LINE * self.0.len()));
        for (key, until) in &self.0 {
            let separator = if text.is_empty() { "" } else { "\n" };
            for part in [separator, &until.as_microsecond().to_string(), " ", key.expose()] {
                text.push_str(part);
            }
        }
        text
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        let one = |line: &str| {
            let (until, key) = line.split_once(' ')?;
            Some((key.parse().ok()?, Timestamp::from_microsecond(until.parse().ok()?).ok()?))
        };
        text.lines().map(one).collect::<Option<_>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn key(n: u8) -> PreSharedKey {
        PreSharedKey::from_random([n; 32])
    }

    #[test]
    fn each_key_is_valid_until_its_time_and_survives_a_round_trip() {
        let hostile: PreSharedKey = r#" 12 "quoted" \ and # more "#.parse().unwrap();
        let keys = PreviousKeys::default().rotated(&hostile, &key(1), at(100), at(0));
        let keys = keys.rotated(&key(1), &key(2), at(200), at(50));
        assert_eq!(keys.0, [(key(1), at(200)), (hostile.clone(), at(100))]);
        assert_eq!(PreviousKeys::read(&keys.text()).unwrap(), keys);
        assert_eq!(keys.valid(at(100)).map(|(k, _)| k).collect::<Vec<_>>(), [&key(1)]);
        // A rotation never extends the validity of older keys, and a key that becomes current again is no previous key.
        assert_eq!(
            keys.rotated(&key(2), &key(3), at(120), at(60)).0,
            [(key(2), at(120)), (key(1), at(120)), (hostile.clone(), at(100))]
        );
        assert_eq!(
            keys.rotated(&key(2), &hostile, at(300), at(60)).0,
            [(key(2), at(300)), (key(1), at(200))]
        );
        assert_eq!(keys.rotated(&key(2), &key(3), at(60), at(60)), PreviousKeys::default());
        let all = keys.rotated(&key(2), &key(3), at(120), at(60));
        assert_eq!((all.until(), PreviousKeys::default().until()), (Some(at(100)), None));
        assert_eq!(all.left(at(110)).0, [(key(2), at(120)), (key(1), at(120))]);
        let longest: PreSharedKey = "k".repeat(128).parse().unwrap();
        let full = PreviousKeys(vec![(longest, Timestamp::MAX); PreviousKeys::MOST]).text();
        assert!(full.len() <= LONGEST_LINE * PreviousKeys::MOST);
        assert_eq!(PreviousKeys::read("").unwrap(), PreviousKeys::default());
        assert_eq!(PreviousKeys::read("12"), None);
    }

    #[test]
    fn the_number_of_previous_keys_is_limited() {
        let all =
            (0..9).fold(PreviousKeys::default(), |k, n| k.rotated(&key(n), &key(n + 1), at(100), at(0)));
        assert_eq!(all.0.iter().map(|(k, _)| k).collect::<Vec<_>>(), [&key(8), &key(7), &key(6)]);
    }
}
