//! Repeats the write of a row that was read before: it is refused as stale if the row has changed since.

use crate::error::ApiError;
use wicketgate_store::StoreError;

/// Attempts before the answer says that other requests keep changing the row.
const TRIES: usize = 5;

/// Runs `attempt`, and repeats it while it fails with [`StoreError::Stale`]. The outer error ends it at once.
pub(super) async fn retry_stale<T, Attempt>(
    mut attempt: impl FnMut() -> Attempt,
) -> Result<Result<T, StoreError>, ApiError>
where
    Attempt: Future<Output = Result<Result<T, StoreError>, ApiError>>,
{
    for _ in 1..TRIES {
        match attempt().await? {
            Err(StoreError::Stale) => {}
            done => return Ok(done),
        }
    }
    attempt().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    async fn attempts(stale: usize) -> (Option<usize>, usize) {
        let made = Cell::new(0);
        let done = retry_stale(|| async {
            made.set(made.get() + 1);
            Ok(if made.get() <= stale { Err(StoreError::Stale) } else { Ok(made.get()) })
        });
        (done.await.unwrap().ok(), made.get())
    }

    #[tokio::test]
    async fn a_stale_write_is_retried_a_few_times() {
        assert_eq!(attempts(0).await, (Some(1), 1));
        assert_eq!(attempts(TRIES - 1).await, (Some(TRIES), TRIES));
        assert_eq!(attempts(TRIES).await, (None, TRIES));
    }
}
