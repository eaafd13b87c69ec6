//! Many writers at once, some of which fail or go away.

use super::{BOUND, context, insert, spawn_write, store, written};
use crate::{Result, Store, StoreError};
use futures_util::FutureExt as _;
use proptest::prelude::*;
use tokio::{task::yield_now, time::timeout};

#[derive(Debug, Clone, Copy)]
enum Writer {
    Succeeds,
    /// Fails after its first row.
    Fails,
    /// Fails with a database error: it writes a row twice.
    Repeats,
    /// Its caller is cancelled after this number of scheduler turns.
    GoesAway(u8),
}

fn writer() -> impl Strategy<Value = Writer> {
    prop_oneof![
        4 => Just(Writer::Succeeds),
        1 => Just(Writer::Fails),
        1 => Just(Writer::Repeats),
        2 => any::<u8>().prop_map(Writer::GoesAway),
    ]
}

/// Writes two rows. The database must have both or none.
async fn two_rows(store: Store, n: i64, writer: Writer) -> Result<()> {
    let context = context();
    let made = store.write(&context, move |write| {
        async move {
            insert(write, 2 * n).await?;
            match writer {
                Writer::Fails => return Err(StoreError::Stale),
                Writer::Repeats => insert(write, 2 * n).await?,
                Writer::Succeeds | Writer::GoesAway(_) => {}
            }
            insert(write, 2 * n + 1).await
        }
        .boxed()
    });
    made.await
}

async fn all_at_once(writers: Vec<Writer>) {
    let (_dir, store) = store().await;
    let mut tasks = Vec::new();
    for (n, writer) in (0..).zip(&writers) {
        let task = tokio::spawn(two_rows(store.clone(), n, *writer));
        if let Writer::GoesAway(turns) = writer {
            let abort = task.abort_handle();
            let turns = *turns;
            tokio::spawn(async move {
                for _ in 0..turns {
                    yield_now().await;
                }
                abort.abort();
            });
        }
        tasks.push(task);
    }
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(timeout(BOUND, task).await.unwrap().ok());
    }
    // The units of cancelled callers are before this one in the queue.
    timeout(BOUND, spawn_write(&store, -1, false)).await.unwrap().unwrap().unwrap();
    let rows = written(&store).await;
    for ((n, writer), answer) in (0..).zip(&writers).zip(answers) {
        let found = [2 * n, 2 * n + 1].map(|bucket| rows.contains(&bucket));
        match (writer, answer) {
            (Writer::Succeeds | Writer::GoesAway(_), Some(Ok(()))) => assert_eq!(found, [true; 2], "{n}"),
            (Writer::GoesAway(_), None) => assert_eq!(found[0], found[1], "{n}"),
            (Writer::Fails | Writer::Repeats, Some(Err(_))) => assert_eq!(found, [false; 2], "{n}"),
            other => panic!("{n}: {other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn each_of_many_writers_gets_the_outcome_of_its_own_rows(writers in prop::collection::vec(writer(), 1..150)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(all_at_once(writers));
    }
}
