//! The previous keys of a tunnel that are still valid, each until its own time.

use crate::field::fields;
use jiff::Timestamp;
use wicketgate_model::PreSharedKey;

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

    fn text(&self) -> String {
        let lines: Vec<_> = self
            .0
            .iter()
            .map(|(key, until)| format!("{} {}", until.as_microsecond(), key.expose()))
            .collect();
        lines.join("\n")
    }

    fn read(text: &str) -> Option<Self> {
        let one = |line: &str| {
            let (until, key) = line.split_once(' ')?;
            Some((key.parse().ok()?, Timestamp::from_microsecond(until.parse().ok()?).ok()?))
        };
        text.lines().map(one).collect::<Option<_>>().map(Self)
    }
}

// A line for each key: the time until which it is valid, in microseconds, and the key.
fields! { PreviousKeys: String, |keys| Ok(keys.text()), |text| Self::read(&text); }

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
