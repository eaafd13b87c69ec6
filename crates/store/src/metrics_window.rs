//! Windows of time for metrics, and the buckets of traffic that they cover.

use jiff::Timestamp;

/// A resolution of stored traffic, and how long it is kept, in seconds.
pub(crate) struct Resolution {
    pub(crate) seconds: u32,
    pub(crate) kept: u32,
}

impl Resolution {
    /// The start of the bucket of this time, Unix milliseconds.
    pub(crate) fn bucket(&self, at: Timestamp) -> i64 {
        let wide = i64::from(self.seconds);
        at.as_second().div_euclid(wide) * wide * 1000
    }
}

const HOUR: u32 = 3600;
const DAY: u32 = 24 * HOUR;

/// Each finer one is kept long enough for the windows that need it; see [`STEPS`].
pub(crate) const RESOLUTIONS: [Resolution; 3] = [
    Resolution { seconds: 10, kept: 6 * HOUR },
    Resolution { seconds: 300, kept: 3 * DAY },
    Resolution { seconds: HOUR, kept: 31 * DAY },
];

/// Sample widths to choose from, in seconds. With the first one that gives at most [`MOST`] samples, every window of
/// five minutes and more has at least 30.
const STEPS: [u32; 12] = [10, 30, 60, 120, 300, 900, 1800, HOUR, 2 * HOUR, 6 * HOUR, 12 * HOUR, DAY];
const MOST: u32 = 120;
/// With a step that the caller chooses: a day in minutes.
const MOST_ASKED: u32 = 1440;

/// A window of time that ends now, in samples of one width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricsWindow {
    /// Seconds.
    pub period: u32,
    /// Seconds of one sample.
    pub step: u32,
    /// The start of the first sample, Unix seconds; a multiple of `step`.
    pub(crate) first: i64,
    pub(crate) samples: u32,
    pub(crate) resolution: u32,
}

/// The rule that a window breaks. The text follows the parameter's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWindow {
    #[error("must be between 10 s and 30 days")]
    Duration,
    #[error("must be a multiple of 10 s, not longer than the duration")]
    Step,
    #[error("must give at most 1440 samples")]
    TooMany,
    #[error("must be a multiple of 5 minutes for more than 6 hours, and of 1 hour for more than 3 days")]
    TooFine,
}

impl MetricsWindow {
    /// Seconds: the default.
    pub const DEFAULT: u32 = DAY;
    /// Seconds: the retention.
    pub const LONGEST: u32 = 30 * DAY;

    pub fn new(period: u32, step: Option<u32>, now: Timestamp) -> Result<Self, InvalidWindow> {
        if !(RESOLUTIONS[0].seconds..=Self::LONGEST).contains(&period) {
            return Err(InvalidWindow::Duration);
        }
        let chosen = STEPS.into_iter().find(|s| period.div_ceil(*s) <= MOST).unwrap_or(DAY);
        let step = step.unwrap_or(chosen);
        if step == 0 || !step.is_multiple_of(RESOLUTIONS[0].seconds) || step > period {
            return Err(InvalidWindow::Step);
        }
        let samples = period.div_ceil(step);
        if samples > MOST_ASKED {
            return Err(InvalidWindow::TooMany);
        }
        let resolution = RESOLUTIONS
            .iter()
            .rev()
            .find(|r| step.is_multiple_of(r.seconds))
            .filter(|r| period <= r.kept)
            .ok_or(InvalidWindow::TooFine)?
            .seconds;
        let wide = i64::from(step);
        // The last sample contains `now`.
        let last = now.as_second().div_euclid(wide) * wide;
        Ok(Self { period, step, first: last - (i64::from(samples) - 1) * wide, samples, resolution })
    }

    /// The start of the first sample, Unix milliseconds.
    pub(crate) fn start(&self) -> i64 {
        self.first * 1000
    }

    /// The start of each sample, Unix milliseconds.
    pub(crate) fn starts(&self) -> impl Iterator<Item = i64> {
        let (start, step) = (self.start(), i64::from(self.step) * 1000);
        (0..i64::from(self.samples)).map(move |n| start + n * step)
    }

    /// The sample that a bucket, by its start, belongs to: `None` if it began after the window's end.
    pub(crate) fn sample_of<'a, T>(&self, bucket: i64, samples: &'a mut [T]) -> Option<&'a mut T> {
        let index = (bucket - self.start()) / (i64::from(self.step) * 1000);
        samples.get_mut(usize::try_from(index).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_number_of_samples_is_limited(period in 10u32..=MetricsWindow::LONGEST, now in 0i64..4_000_000_000) {
            let window = MetricsWindow::new(period, None, Timestamp::from_second(now).unwrap()).unwrap();
            prop_assert!(window.samples <= MOST);
            prop_assert!(period < 300 || window.samples >= 30, "{:?}", window);
            let end = window.first + i64::from(window.samples * window.step);
            prop_assert!(window.first <= now && now < end && end <= now + i64::from(window.step));
            prop_assert_eq!(window.step % window.resolution, 0);
        }
    }

    #[test]
    fn the_step_is_limited() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        assert_eq!(MetricsWindow::new(3600, None, now).map(|w| (w.step, w.samples)), Ok((30, 120)));
        assert_eq!(MetricsWindow::new(86_400, Some(60), now), Err(InvalidWindow::TooFine));
        assert_eq!(MetricsWindow::new(86_400, Some(300), now).map(|w| w.samples), Ok(288));
        assert_eq!(MetricsWindow::new(3600, Some(15), now), Err(InvalidWindow::Step));
        assert_eq!(MetricsWindow::new(3600, Some(0), now), Err(InvalidWindow::Step));
        assert_eq!(MetricsWindow::new(6 * 3600, Some(10), now), Err(InvalidWindow::TooMany));
        assert_eq!(MetricsWindow::new(31 * 86_400, None, now), Err(InvalidWindow::Duration));
    }
}
