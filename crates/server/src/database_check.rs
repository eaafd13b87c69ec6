//! Whether the database answers and its disk has room, for whoever asks: the check takes a connection and writes to the disk.
//!
//! Invariants: one check runs at a time, however many ask. An answer is of a check that began after its question.

use tokio::{sync::Mutex, time::Instant};
use wicketgate_store::Store;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct DatabaseCheck {
    /// When the last check began, and what it has found.
    last: Mutex<Option<(Instant, Option<String>)>>,
}

impl DatabaseCheck {
    /// What is wrong with the database, if anything is.
    pub(crate) async fn fault(&self, store: &Store) -> Option<String> {
        self.answer(async || store.ping().await.err().map(|error| error.fault().to_string())).await
    }

    async fn answer(&self, check: impl AsyncFnOnce() -> Option<String>) -> Option<String> {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        if let Some((_, fault)) = last.as_ref().filter(|(began, _)| *began >= asked) {
            return fault.clone();
        }
        let began = Instant::now();
        let fault = check().await;
        *last = Some((began, fault.clone()));
        fault
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };
    use tokio::time::sleep;

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_at_one_time_cost_two_checks_and_none_gets_an_old_answer() {
        let (checks, check) = (AtomicUsize::new(0), DatabaseCheck::default());
        let ask = async || {
            let found = check.answer(async || {
                sleep(Duration::from_secs(1)).await;
                Some(checks.fetch_add(1, Ordering::SeqCst).to_string())
            });
            found.await
        };
        let others = async {
            sleep(Duration::from_millis(10)).await;
            futures_util::future::join_all((0..1000).map(|_| ask())).await
        };
        let (first, others) = tokio::join!(ask(), others);
        assert_eq!(first.as_deref(), Some("0"));
        assert!(others.iter().all(|found| found.as_deref() == Some("1")));
        assert_eq!(ask().await.as_deref(), Some("2"), "an answer is not kept");
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_and_goes_away_holds_up_nobody() {
        let check = DatabaseCheck::default();
        let hangs = check.answer(async || std::future::pending().await);
        assert!(tokio::time::timeout(Duration::from_secs(1), hangs).await.is_err());
        assert_eq!(check.answer(async || None).await, None);
    }
}
