//! Which failures of something that is retried for ever are logged.

use std::time::Duration;
use tokio::time::Instant;

/// How soon a different cause of failure is logged, so that two alternating ones do not fill the log.
const ANOTHER: Duration = Duration::from_secs(10);
/// How soon the same cause is logged again, so that an agent which cannot work says so at the end of its log, too.
const AGAIN: Duration = Duration::from_secs(600);

/// What was logged last.
#[derive(Debug, Default)]
pub(crate) struct RetryLog(Option<(String, Instant)>);

impl RetryLog {
    /// Whether the failure is to be logged. Notes it if so.
    pub(crate) fn is_news(&mut self, error: &str, now: Instant) -> bool {
        let is_news = self
            .0
            .as_ref()
            .is_none_or(|(last, at)| now.duration_since(*at) >= if last == error { AGAIN } else { ANOTHER });
        if is_news {
            self.0 = Some((error.to_owned(), now));
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_cause_is_logged_soon_and_the_same_one_rarely() {
        let (mut log, begin, second) = (RetryLog::default(), Instant::now(), Duration::from_secs(1));
        let mut is_news = |error, after: u32| log.is_news(error, begin + after * second);
        assert!(is_news("a", 0) && !is_news("a", 1) && !is_news("b", 9));
        assert!(is_news("b", 10) && !is_news("b", 609) && is_news("b", 610));
    }
}
